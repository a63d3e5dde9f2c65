//! A storm: two million announcements from 65,536 addresses as fast as one sender can, and
//! duplicates on other ports in the midst of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    Wire,
    detectors::{Detector, Running, Weight},
    start,
};
use crate::{
    frames::{Arp, mac},
    process::cpu_seconds,
};

const FRAMES: usize = 2_000_000;
/// Two announce each of these, in the middle of the storm.
const DUPLICATES: u16 = 20;
/// How long a detector may go on working at what it has queued.
const AFTERMATH: Duration = Duration::from_secs(60);

/// What there was.
#[derive(Clone, Debug, Serialize)]
pub struct Storm {
    /// How many frames.
    pub frames: usize,
    /// How many a second.
    pub frames_per_s: f64,
    /// How many addresses sent them.
    pub addresses: usize,
    /// How many of others were contested meanwhile.
    pub duplicates: u16,
    #[serde(skip)]
    records: BTreeMap<&'static str, Record>,
}

/// What a detector made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// How many of the duplicates it told of.
    pub found: usize,
    /// Of how many other addresses it told as contested.
    pub invented: usize,
    /// How many addresses are not in its list; null if it keeps none.
    pub addresses_lost: Option<usize>,
}

impl Storm {
    /// What a detector made of it.
    pub(super) fn of(&self, name: &str) -> Option<Record> {
        self.records.get(name).cloned()
    }
}

pub(super) fn run(wire: &Wire, dir: &Path, all: &[Detector]) -> Result<Storm> {
    eprintln!("a storm of {FRAMES} frames …");
    let running = start(all, dir)?;
    let storm: Vec<(IpAddr, Vec<u8>)> = (0..=u16::MAX)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let address = [10, 7, high, low].into();
            let frame = Arp::announcement(mac(number), address).frame();
            (IpAddr::V4(address), frame)
        })
        .collect();
    let contested = |number: u16| [10, 0, 9, number.to_be_bytes()[1] + 1].into();
    let mut sender = wire.sender("vC")?;
    let begin = Instant::now();
    let rate = thread::scope(|scope| -> Result<f64> {
        let stormy = scope.spawn(|| -> Result<f64> {
            for (_, frame) in storm.iter().cycle().take(FRAMES) {
                sender.send(frame)?;
            }
            Ok(FRAMES as f64 / begin.elapsed().as_secs_f64())
        });
        let (mut one, mut other) = (wire.sender("vA")?, wire.sender("vB")?);
        thread::sleep(Duration::from_secs(2));
        for _ in 0..2 {
            for number in 0..DUPLICATES {
                one.send(&Arp::announcement([2, 1, 0, 0, 0, 1], contested(number)).frame())?;
                other.send(&Arp::announcement([2, 1, 0, 0, 0, 2], contested(number)).frame())?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        stormy
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    await_rest(&running)?;
    let expected: BTreeSet<IpAddr> = storm.iter().map(|(address, _)| *address).collect();
    let planted: BTreeSet<IpAddr> = (0..DUPLICATES)
        .map(|number| IpAddr::V4(contested(number)))
        .collect();
    let mut records = BTreeMap::new();
    for running in running {
        let detector = running.detector();
        let ours = match &running {
            Running::Agent(daemon) => Some(in_table(&daemon.query("addresses", &[])?)?),
            Running::Peer(..) => None,
        };
        let told = running.end()?;
        let known = match ours {
            Some(known) => Some(known),
            None => Running::known(detector, dir)?,
        };
        let conflicts: BTreeSet<IpAddr> = told
            .into_iter()
            .filter(|(_, words)| words.iter().any(|(weight, _)| *weight == Weight::Conflict))
            .map(|(address, _)| address)
            .collect();
        let record = Record {
            found: conflicts.intersection(&planted).count(),
            invented: conflicts.difference(&planted).count(),
            addresses_lost: known.map(|known| expected.difference(&known).count()),
        };
        records.insert(detector.name(), record);
    }
    Ok(Storm {
        frames: FRAMES,
        frames_per_s: rate.round(),
        addresses: storm.len(),
        duplicates: DUPLICATES,
        records,
    })
}

fn in_table(table: &serde_json::Value) -> Result<BTreeSet<IpAddr>> {
    let records = table["addresses"].as_array().context("no table")?;
    let addresses = records
        .iter()
        .filter_map(|record| record["address"].as_str()?.parse().ok());
    Ok(addresses.collect())
}

/// Waits until nobody works any more, at least as long as the agent may take until it reads
/// the kernel's table.
fn await_rest(running: &[Running]) -> Result<()> {
    let begin = Instant::now();
    let spent = || -> Result<f64> { running.iter().map(|one| cpu_seconds(one.pid())).sum() };
    let mut before = spent()?;
    while begin.elapsed() < AFTERMATH {
        thread::sleep(Duration::from_secs(12));
        let now = spent()?;
        if now - before < 1.0 {
            break;
        }
        before = now;
    }
    Ok(())
}
