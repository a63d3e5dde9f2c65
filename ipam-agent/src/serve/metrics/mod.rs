//! Metrics: a snapshot of numbers, taken by the daemon's loop, and its text, written by
//! whoever serves it.

pub mod catalogue;
mod histogram;
mod process;
mod text;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipam_common::sighting::Counter;

pub use self::{
    histogram::Histogram,
    text::{CLASSIC, Form, OPENMETRICS, text},
};
use crate::engine::{
    self,
    conflict::{EventKind, Kind},
    gauges::Gauges,
    lease::StoreName,
    segment::PortKind,
};

/// The stages of a pass.
pub mod stage {
    /// The stores are read.
    pub const STORES: &str = "stores";
    /// Holders and the kernel's stamps are asked for.
    pub const HOLDERS: &str = "holders";
    /// The leases are judged.
    pub const JUDGE: &str = "judge";
    /// The wire is asked.
    pub const PROBE: &str = "probe";
    /// Leases are released.
    pub const EXECUTE: &str = "execute";
    /// All of them.
    pub const ALL: [&str; 5] = [STORES, HOLDERS, JUDGE, PROBE, EXECUTE];
}

/// What became of a planned release.
pub mod result {
    /// Gone by our hand.
    pub const RELEASED: &str = "released";
    /// Kept at the last moment.
    pub const KEPT: &str = "kept";
    /// The store or the journal failed.
    pub const FAILED: &str = "failed";
    /// Given back, and put back.
    pub const PUT_BACK: &str = "put-back";
    /// All of them.
    pub const ALL: [&str; 4] = [RELEASED, KEPT, FAILED, PUT_BACK];
}

/// How many stores are counted apart: a name comes from a file system.
const MAX_STORES: usize = 256;

/// What the daemon counts as it goes.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    detected: BTreeMap<Kind, u64>,
    events: BTreeMap<EventKind, u64>,
    reclaims: BTreeMap<(StoreName, &'static str), u64>,
    store_errors: BTreeMap<StoreName, u64>,
    stages: BTreeMap<&'static str, Histogram>,
    /// From a frame to its verdict.
    pub detection: Histogram,
    /// Recorded frames by the kind of their port, and whether they are ARP.
    pub frames: BTreeMap<(Option<PortKind>, bool), u64>,
    /// Reloads that were applied.
    pub reloads_applied: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
}

impl Meters {
    /// A conflict opened.
    pub fn detected(&mut self, kind: Kind) {
        *self.detected.entry(kind).or_default() += 1;
    }

    /// Something else happened.
    pub fn happened(&mut self, kind: EventKind) {
        *self.events.entry(kind).or_default() += 1;
    }

    /// A planned release ended so ([`result`]).
    pub fn reclaimed(&mut self, store: &StoreName, result: &'static str) {
        let known = self.reclaims.len() < MAX_STORES * result::ALL.len();
        let key = (store.clone(), result);
        if known || self.reclaims.contains_key(&key) {
            *self.reclaims.entry(key).or_default() += 1;
        }
    }

    /// A store could not be read.
    pub fn store_failed(&mut self, store: &StoreName) {
        if self.store_errors.len() < MAX_STORES || self.store_errors.contains_key(store) {
            *self.store_errors.entry(store.clone()).or_default() += 1;
        }
    }

    /// A stage of a pass took so long ([`stage`]).
    pub fn took(&mut self, stage: &'static str, time: Duration) {
        self.stages.entry(stage).or_default().observe(time);
    }
}

/// All that is told in one scrape, but for the process's own numbers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the engine knows.
    pub gauges: Gauges,
    /// What the engine counted.
    pub engine: engine::Counts,
    /// What the daemon counted.
    pub meters: Meters,
    /// What the kernel counted, in the order of the program's counters: those of
    /// [`Counter`], then the refusals. Empty if it can't be read.
    pub kernel: Kernel,
    /// Records of the program that made no sense.
    pub malformed: u64,
    /// The stores, and whether each could be read.
    pub stores: BTreeMap<StoreName, bool>,
    /// Ports that are watched, and that should be and aren't.
    pub ports: (usize, usize),
    /// Releases are paused.
    pub paused: bool,
    /// In a laboratory.
    pub lab: bool,
    /// The state survives a reboot.
    pub persistent: bool,
    /// Since the last pass, or the start.
    pub pass_age: Duration,
    /// From one pass to the next.
    pub pass_interval: Duration,
    /// Who watches.
    pub watchers: usize,
    /// The configuration is that of the file, as far as was asked.
    pub config_current: bool,
}

/// What the program in the kernel counted, by what and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Frames that said something of an address: ARP, Neighbor Discovery.
    pub parsed: [u64; 2],
    /// Those that were refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// What was lost, by reason.
    pub lost: Vec<(&'static str, u64)>,
}

impl Kernel {
    /// The counters that are losses, by the reason that they are told under.
    pub const LOSSES: [(Counter, &'static str); 4] = [
        (Counter::EventsLimited, "rate-limited"),
        (Counter::EventsLost, "ring-full"),
        (Counter::SightingsOverShare, "port-share"),
        (Counter::SightingsFailed, "map-refused"),
    ];
}

/// A snapshot on its way: it is large, and there may be several.
pub type Told = Arc<Snapshot>;
