//! What a frame costs each detector: announcements of known addresses, slowly enough that
//! nobody loses any.
//!
//! Of every detector the CPU time of its process. Of the agent also what its program takes
//! in the kernel, as the kernel's own statistics say. What delivering a frame to a packet
//! socket costs the others is the kernel's work for whoever sends, and isn't counted.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use aya::sys::{Stats, enable_stats};

use super::{
    Wire,
    detectors::{Detector, Running},
    start,
};
use crate::{
    bench::Figure,
    frames::{Arp, mac},
    lab,
    process::cpu_seconds,
};

const ADDRESSES: u16 = 4096;
const FRAMES: usize = 200_000;
/// Frames of one millisecond: 20,000 a second.
const TRAIN: usize = 20;
/// After the last frame, for whoever looks at them in batches.
const SETTLE: Duration = Duration::from_secs(3);

/// Microseconds of CPU for a frame, by detector.
pub(super) fn of(wire: &Wire, dir: &Path, all: &[Detector]) -> Result<BTreeMap<&'static str, f64>> {
    eprintln!("what a frame costs: {FRAMES} frames, 20,000 a second …");
    let _statistics = enable_stats(Stats::RunTime).context("the kernel keeps no statistics")?;
    let frames: Vec<Vec<u8>> = (0..ADDRESSES)
        .map(|number| Arp::announcement(mac(number), address(number)).frame())
        .collect();
    let running = start(all, dir)?;
    let mut sender = wire.sender("vA")?;
    let mut send = |count: usize| -> Result<()> {
        let begin = Instant::now();
        for (number, frame) in frames.iter().cycle().take(count).enumerate() {
            if number % TRAIN == 0 {
                let due = begin + Duration::from_millis((number / TRAIN) as u64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            sender.send(frame)?;
        }
        thread::sleep(SETTLE);
        Ok(())
    };
    // Everybody gets to know everybody.
    send(usize::from(ADDRESSES))?;
    let before = spent(&running)?;
    send(FRAMES)?;
    let after = spent(&running)?;
    for detector in running {
        detector.end()?;
    }
    let costs = after.iter().map(|(&name, after)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name, (after - before) / FRAMES as f64 * 1e6)
    });
    Ok(costs.collect())
}

/// `arpwatch_cpu_ratio`.
pub fn figures() -> Result<Vec<Figure>> {
    lab::available().map_err(|why| anyhow!(why))?;
    Detector::Arpwatch.available().map_err(|why| anyhow!(why))?;
    let costs = lab::try_in_lab(|lab| {
        let wire = Wire::new(lab)?;
        of(&wire, lab.disk(), &[Detector::Agent, Detector::Arpwatch])
    })?;
    let [ours, theirs] = [Detector::Agent, Detector::Arpwatch]
        .map(|detector| costs.get(detector.name()).copied().unwrap_or(f64::NAN));
    eprintln!("  a frame costs the agent {ours:.3} µs, arpwatch {theirs:.3} µs");
    Ok(vec![Figure {
        name: "arpwatch_cpu_ratio",
        value: ours / theirs,
        unit: "of arpwatch's",
        target: Some(1.0),
        least: None,
        baseline: Some(1.0),
    }])
}

fn address(number: u16) -> std::net::Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    [10, 0, 16 + high, low].into()
}

/// Seconds of CPU so far, by detector.
fn spent(running: &[Running]) -> Result<BTreeMap<&'static str, f64>> {
    let each = running.iter().map(|running| {
        let kernel = match running.detector() {
            Detector::Agent => in_kernel(running.pid())?,
            _ => 0.0,
        };
        let process = cpu_seconds(running.pid())?;
        Ok((running.detector().name(), process + kernel))
    });
    each.collect()
}

/// Seconds that the programs have run that a process holds.
fn in_kernel(pid: u32) -> Result<f64> {
    let mut programs = BTreeMap::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        // One may be closed while it is looked at.
        let number = fd.file_name().into_string().unwrap_or_default();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        if let (Some(id), Some(ns)) = (field("prog_id:"), field("run_time_ns:")) {
            programs.insert(id.trim().to_owned(), ns.trim().parse::<f64>()? / 1e9);
        }
    }
    ensure!(
        !programs.is_empty(),
        "the kernel doesn't tell how long a program ran"
    );
    Ok(programs.into_values().sum())
}
