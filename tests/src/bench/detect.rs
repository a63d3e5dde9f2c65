//! How long a duplicate address is unknown: from the frame that completes the evidence to
//! the daemon's word.
//!
//! Two pods on one bridge, a thousand addresses. One announces an address, so does the
//! other, and a little later the first does again: it is alive still, which is the proof.
//! The clock starts before that third frame is handed to the kernel and stops when the
//! line that reports the conflict has come out of the daemon's log; a client that asks
//! then is told of it. Frames go out by timetable, whether or not the last duplicate was
//! reported, so that a daemon that hangs is not spared what it would have missed.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    Figure, in_lab,
    wire::{Watched, address, pods},
};
use crate::{
    frames::{Arp, mac},
    lab::{Netns, Sender},
};

const DUPLICATES: u16 = 1000;
/// From one duplicate to the next: all of them take as long as two sweeps of the table.
const INTERVAL: Duration = Duration::from_millis(20);
/// From the second claimant's frame to the first one's return: the daemon sleeps again.
const RETURN: Duration = Duration::from_millis(10);

/// `detect_p99_ms`, `detect_p50_ms`.
pub fn figures() -> Result<Vec<Figure>> {
    let latencies = in_lab(|lab| {
        let pods = pods(lab, 2)?;
        let watched = Watched::start(&lab.disk().join("agent"))?;
        let latencies = latencies(&watched, &pods[0], &pods[1], DUPLICATES)?;
        watched.stop()?;
        Ok(latencies)
    })?;
    eprintln!("  {latencies}");
    let figure = |name, percent, target| Figure {
        name,
        value: latencies.percentile(percent),
        unit: "ms",
        target,
        least: None,
        baseline: None,
    };
    Ok(vec![
        figure("detect_p99_ms", 99, Some(100.0)),
        figure("detect_p50_ms", 50, None),
    ])
}

/// How long each duplicate was unknown, shortest first.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// The time within which so many of a hundred were reported, in ms.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0[rank.saturating_sub(1)].as_secs_f64() * 1e3
    }
}

impl Display for Latencies {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "of {} duplicates: p50 {:.2} ms, p99 {:.2} ms, the slowest {:.2} ms",
            self.0.len(),
            self.percentile(50),
            self.percentile(99),
            self.percentile(100),
        )
    }
}

/// Has two pods contest this many addresses, and waits until the daemon has reported every
/// one of them and no other.
pub fn latencies(watched: &Watched, one: &Netns, other: &Netns, count: u16) -> Result<Latencies> {
    let mut one = one.inside(|| Sender::open("eth0"))?;
    let mut other = other.inside(|| Sender::open("eth0"))?;
    let mut sent = BTreeMap::new();
    let begin = Instant::now();
    for number in 0..count {
        let contested = address(number + 1);
        sleep_until(begin + INTERVAL * u32::from(number));
        one.send(&Arp::announcement(mac(1), contested).frame())?;
        other.send(&Arp::announcement(mac(2), contested).frame())?;
        let back = Arp::announcement(mac(1), contested).frame();
        thread::sleep(RETURN);
        sent.insert(contested, Instant::now());
        one.send(&back)?;
    }
    let mut latencies = BTreeMap::new();
    while latencies.len() < sent.len() {
        let (at, contested) = watched.wait_for("every duplicate", duplicate)?;
        let sent = sent.get(&contested).copied();
        ensure!(sent.is_some(), "{contested} is no duplicate");
        latencies
            .entry(contested)
            .or_insert(at.saturating_duration_since(sent.unwrap_or(at)));
    }
    let report = watched.daemon.query("report", &[])?;
    ensure!(
        report["summary"]["by_kind"]["duplicate-address"] == count
            && report["summary"]["conflicts"] == count,
        "the report tells of others: {}",
        report["summary"]
    );
    let mut latencies: Vec<Duration> = latencies.into_values().collect();
    latencies.sort();
    Ok(Latencies(latencies))
}

/// The address of the duplicate that a line reports.
fn duplicate(line: &str) -> Option<Ipv4Addr> {
    line.contains("duplicate-address")
        .then(|| line.split_whitespace().find_map(|word| word.parse().ok()))
        .flatten()
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}
