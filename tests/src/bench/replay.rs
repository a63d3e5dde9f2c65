//! How fast captures are replayed, and how little memory a long one takes: a gigabyte of ARP
//! requests, and a tenth of it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use super::{Figure, median};
use crate::{
    capture::{Classic, ETHERNET, Endian},
    daemon,
    frames::{self, Arp},
};

/// Each with an address of its own.
const STATIONS: u16 = u16::MAX;
const FRAMES: u64 = 13_200_000;
const FEWER: u64 = FRAMES / 10;
const ROUNDS: usize = 3;
/// The frames are so far apart, in nanoseconds.
const APART: u64 = 10_000;

/// `replay_frames_per_s`, by CPU time; `replay_rss_mib`, whose baseline is a tenth of the
/// capture.
pub fn figures() -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let [long, short] = [("long.pcap", FRAMES), ("short.pcap", FEWER)].map(|(name, frames)| {
        let path = dir.path().join(name);
        write(&path, frames).map(|()| path)
    });
    let (long, short) = (long?, short?);
    let (_, baseline) = replay(&short, FEWER)?;
    let mut rates = Vec::new();
    let mut peak: f64 = 0.0;
    for _ in 0..ROUNDS {
        let (seconds, mib) = replay(&long, FRAMES)?;
        let rate = FRAMES as f64 / seconds;
        eprintln!("  {rate:.0} frames a second of CPU, {mib:.1} MiB");
        rates.push(rate);
        peak = peak.max(mib);
    }
    Ok(vec![
        Figure {
            name: "replay_frames_per_s",
            value: median(rates),
            unit: "1/s",
            target: None,
            least: Some(1e6),
            baseline: None,
        },
        Figure {
            name: "replay_rss_mib",
            value: peak,
            unit: "MiB",
            target: None,
            least: None,
            baseline: Some(baseline),
        },
    ])
}

/// A capture of requests by every station, in an order that no cache likes.
fn write(path: &Path, count: u64) -> Result<()> {
    let requests: Vec<Vec<u8>> = (0..STATIONS)
        .map(|n| {
            let address = Ipv4Addr::from(0x0a00_0000 + u32::from(n) + 2);
            let request = Arp::request(frames::mac(n), address, Ipv4Addr::new(10, 0, 0, 1));
            frames::padded(request.frame())
        })
        .collect();
    let mut file = BufWriter::new(File::create(path)?);
    let mut part = Classic::new(Endian::Little, true, ETHERNET);
    for n in 0..count {
        let station = (n * 40_507 % u64::from(STATIONS)) as usize;
        part.add(1_700_000_000_000_000_000 + n * APART, &requests[station]);
        file.write_all(&part.bytes)?;
        part.bytes.clear();
    }
    Ok(file.flush()?)
}

/// The seconds of CPU time that a replay takes, and the most memory it has, in MiB.
fn replay(capture: &Path, frames: u64) -> Result<(f64, f64)> {
    let before = children_seconds()?;
    let mut child = Command::new(daemon::binary()?)
        .args(["replay", "--output", "json"])
        .arg(capture)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut peak = 0.0;
    while child.try_wait()?.is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.split_whitespace().next()) {
            peak = kib.parse::<f64>()? / 1024.0;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let seconds = children_seconds()? - before;
    let report: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
    ensure!(report["captures"][0]["arp"] == frames, "{report:#}");
    ensure!(report["summary"]["conflicts"] == 0, "{report:#}");
    Ok((seconds, peak))
}

/// The CPU time of all children that ended, their kernel's included.
fn children_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    Ok(seconds.iter().sum())
}
