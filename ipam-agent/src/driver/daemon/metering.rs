//! What the daemon counts for its metrics, and the snapshot of all numbers.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use hashbrown::HashMap;
use ipam_common::{
    Address, Refusal,
    sighting::{Counter, SightingKey, Tally},
};
use tokio::time::Instant;

use super::Daemon;
use crate::{
    config::Config,
    driver::{clock, down::Down, stores::Readings},
    engine::{
        conflict::{Alive, Conflict, Verdict},
        input::{Input, Notice},
        lease::StoreName,
        time::Timestamp,
    },
    serve::metrics::{Kernel, Meters, Snapshot},
    source::live::Counts,
};

/// Frames heard since the last look, by port, and whether they are ARP.
pub(super) type FramesHeard = BTreeMap<(u32, bool), u64>;

/// What is counted as the daemon goes.
pub(super) struct Metering {
    pub meters: Meters,
    pub frames: Arc<Mutex<FrameTally>>,
    pub malformed: u64,
    pub started: Timestamp,
    pub pass_interval: Duration,
    pub lab: bool,
    /// The configured sources, by their place.
    sources: Vec<StoreName>,
    /// Those that can't be read.
    failing: Vec<StoreName>,
    /// Those, and single stores, as the log tells of them.
    down: Down,
    began: BTreeMap<&'static str, Instant>,
}

impl Metering {
    pub(super) fn new(config: &Config, now: Timestamp) -> Self {
        let sources = config.stores.iter();
        Self {
            meters: Meters::default(),
            frames: Arc::default(),
            malformed: 0,
            started: now,
            pass_interval: config.reclaim.pass_interval,
            lab: config.reclaim.lab,
            sources: sources
                .map(|store| StoreName(store.source.to_string().into()))
                .collect(),
            failing: Vec::new(),
            down: Down::default(),
            began: BTreeMap::new(),
        }
    }

    /// A stage begins.
    pub(super) fn begin(&mut self, stage: &'static str) {
        self.began.insert(stage, Instant::now());
    }

    /// It ends.
    pub(super) fn end(&mut self, stage: &'static str) {
        if let Some(began) = self.began.remove(stage) {
            self.meters.took(stage, began.elapsed());
        }
    }

    /// Which of the stores could not be read: counted each time, told when it changes.
    pub(super) fn stores_read(&mut self, readings: &Readings) {
        self.failing.clear();
        let mut down = BTreeMap::new();
        for input in &readings.inputs {
            match input {
                Input::Stores { failed, .. } => {
                    for (store, why) in failed {
                        self.meters.store_failed(store);
                        down.insert(store.to_string(), why.clone());
                    }
                }
                Input::SourceFailed { source, why } => {
                    if let Some(name) = self.sources.get(*source) {
                        self.meters.store_failed(name);
                        down.insert(name.to_string(), why.clone());
                        self.failing.push(name.clone());
                    }
                }
                _ => {}
            }
        }
        self.down.tell(down);
    }

    /// Something is told of.
    pub(super) fn noticed(&mut self, notice: &Notice, now: Timestamp) {
        match notice {
            Notice::Opened(_, _, conflict) => {
                self.meters.detected(conflict.verdict.kind());
                // What an earlier run heard is no measure of this one.
                if is_shown_by_frames(conflict) && conflict.last_seen >= self.started {
                    let took = now.since(conflict.last_seen);
                    self.meters.detection.observe(took);
                }
            }
            Notice::Resolved(..) => {}
            Notice::Happened(event) => self.meters.happened(event.kind),
        }
    }
}

/// Whether it is a duplicate that the last frame proved; other verdicts wait on purpose.
fn is_shown_by_frames(conflict: &Conflict) -> bool {
    let Verdict::Duplicate(contested) = &conflict.verdict else {
        return false;
    };
    let by_frames = |alive: &Alive| {
        matches!(
            alive,
            Alive::Return
                | Alive::HolderReturn
                | Alive::SecondReturn
                | Alive::TwoAnswers
                | Alive::Alternation
        )
    };
    contested.proofs().iter().all(by_frames)
}

/// How many frames SIGHTINGS had of each claim at the last look, so that the next one tells
/// how many came.
#[derive(Debug, Default)]
pub(super) struct FrameTally {
    known: HashMap<SightingKey, u32>,
}

impl FrameTally {
    pub(super) fn count(&mut self, table: &[(SightingKey, Tally)]) -> FramesHeard {
        let before = mem::take(&mut self.known);
        self.known.reserve(table.len());
        let mut heard = FramesHeard::new();
        for (key, tally) in table {
            let known = before.get(key).copied().unwrap_or(0);
            // An entry that was made anew counts from the beginning.
            let more = match tally.frames.checked_sub(known) {
                Some(more) => more,
                None => tally.frames,
            };
            let is_arp = Address::from_mapped(key.address).is_none_or(|at| at.is_ipv4());
            *heard.entry((key.ifindex, is_arp)).or_default() += u64::from(more);
            self.known.insert(*key, tally.frames);
        }
        heard
    }
}

impl Daemon {
    pub(super) fn count_frames(&mut self, heard: &FramesHeard) {
        let ports = &self.observer.engine.topology().ports;
        for (&(ifindex, is_arp), count) in heard {
            let kind = ports.get(&ifindex).map(|port| port.kind);
            let frames = &mut self.metering.meters.frames;
            *frames.entry((kind, is_arp)).or_default() += count;
        }
    }

    /// The numbers now.
    pub(super) fn snapshot(&self, most: usize) -> Snapshot {
        let now = clock::now();
        let engine = &self.observer.engine;
        let known = engine.leases().stores().iter();
        let mut stores: BTreeMap<StoreName, bool> = known
            .take(crate::engine::gauges::MAX_POOLS)
            .map(|(name, store)| (name.clone(), store.failed.is_none()))
            .collect();
        for name in &self.metering.failing {
            stores.insert(name.clone(), false);
        }
        let missing = self.observer.missing().count();
        let wanted = self.observer.wanted().len();
        let pass = engine.last_pass();
        let counters = self.observer.tables.counters();
        Snapshot {
            gauges: engine.gauges(most, now),
            engine: engine.counts(),
            meters: self.metering.meters.clone(),
            kernel: counters.map(|counts| kernel(&counts)).unwrap_or_default(),
            malformed: self.metering.malformed,
            stores,
            ports: (wanted.saturating_sub(missing), missing),
            paused: self.paused.is_some(),
            lab: self.metering.lab,
            persistent: pass.state.is_none(),
            pass_age: now.since(pass.at.unwrap_or(self.metering.started)),
            pass_interval: self.metering.pass_interval,
            watchers: self.watchers.count(),
            config_current: self.reloading.problem().is_none(),
        }
    }
}

fn kernel(counts: &Counts) -> Kernel {
    let refused = Refusal::ALL.into_iter();
    let lost = Kernel::LOSSES.into_iter();
    Kernel {
        parsed: [counts.get(Counter::Arp), counts.get(Counter::Nd)],
        refused: refused
            .map(|refusal| (refusal.name(), counts.refused(refusal)))
            .collect(),
        lost: lost
            .map(|(counter, reason)| (reason, counts.get(counter)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_once_by_port_and_protocol() {
        let entry = |ifindex, last, frames| {
            let key = SightingKey {
                ifindex,
                outer_vlan: 0,
                vlan: 0,
                address: Address::v4([10, 0, 0, last]).expect("claimable").mapped(),
                mac: [2; 6],
                probe: 0,
                reserved: 0,
            };
            let tally = Tally {
                frames,
                ..Tally::default()
            };
            (key, tally)
        };
        let mut tally = FrameTally::default();
        let heard = tally.count(&[entry(1, 1, 5), entry(1, 2, 3), entry(2, 1, 1)]);
        assert_eq!(heard, FramesHeard::from([((1, true), 8), ((2, true), 1)]));
        // One grew, one was made anew, one is gone.
        let heard = tally.count(&[entry(1, 1, 7), entry(1, 2, 1)]);
        assert_eq!(heard, FramesHeard::from([((1, true), 3)]));
    }
}
