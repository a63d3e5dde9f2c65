//! Conflicts, events and what was watched.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ClaimRecord, ConflictKind, ConflictState, EventKind, HardwareAddress, LeaseName, LeaseState,
    SegmentName, Severity, schema,
};

schema!(ReportSchema, "ipam-agent/report/v1");
schema!(SegmentsSchema, "ipam-agent/segments/v1");

/// What is wrong on the wires that were watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Which document this is.
    pub schema: ReportSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// The kernel's boot id; null in a replay.
    pub boot_id: Option<String>,
    /// Why the agent could not look, or not everywhere; empty if it could.
    pub blind: Vec<String>,
    /// What was watched, by name and VLAN.
    pub segments: Vec<SegmentRecord>,
    /// The conflicts: active before resolved, then the worst and the newest first.
    pub conflicts: Vec<ConflictRecord>,
    /// What else happened, in order of time; of more than 4096 the last.
    pub events: Vec<EventRecord>,
    /// How many leases are in each state.
    pub leases: LeaseCounts,
    /// The conflicts, counted.
    pub summary: Summary,
    /// Of a replay: what was read, in the order given; else empty.
    #[serde(default)]
    pub captures: Vec<CaptureRecord>,
}

/// A capture, and what became of its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureRecord {
    /// The file as given; `standard input` of a pipe.
    pub file: String,
    /// When its first frame was captured; null without a frame that can be dated.
    pub first_frame: Option<Timestamp>,
    /// When its last was.
    pub last_frame: Option<Timestamp>,
    /// Why it could not be read to its end; null if it could.
    pub damage: Option<String>,
    /// How many frames it has.
    pub frames: u64,
    /// Of them, ARP that says something of an address.
    pub arp: u64,
    /// Neighbor Discovery that does.
    pub nd: u64,
    /// ARP and Neighbor Discovery that can't be believed, by reason; reasons without one
    /// are left out.
    pub refused: BTreeMap<String, u64>,
    /// Frames that were not looked at, by reason: `not-ethernet`, `undescribed-interface`,
    /// `no-time`, `too-many-segments`, `cut-short` (ARP or ND
    /// of which the capture has the front alone), and of a capture of all interfaces `outgoing`,
    /// which the host that captured passed on or answered.
    pub skipped: BTreeMap<String, u64>,
    /// Frames that are more than a second older than one before them.
    pub late: u64,
}

/// The segments that are watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Segments {
    /// Which document this is.
    pub schema: SegmentsSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// By name and VLAN.
    pub segments: Vec<SegmentRecord>,
}

/// One segment, and how well it is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentRecord {
    /// Which.
    #[serde(flatten)]
    pub segment: SegmentName,
    /// Since when all of it has been watched without a gap; null if it isn't now.
    pub watched_since: Option<Timestamp>,
    /// Whether every port that frames can come in by is watched now.
    pub complete: bool,
    /// How many sightings were lost on this host (events dropped or held back, entries
    /// refused): they lower detection, not coverage.
    pub lost: u64,
    /// How many addresses this host forgot because its table was full: those that are
    /// neither leased nor contested, the longest unheard first.
    pub evicted: u64,
    /// Its watched ports, by name.
    pub interfaces: Vec<String>,
}

/// A conflict over one address, or one MAC, in one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictRecord {
    /// Stays the same for as long as the conflict lasts, whatever it turns into.
    pub id: String,
    /// What it is.
    pub kind: ConflictKind,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it lasts.
    pub state: ConflictState,
    /// Over which address; of a duplicate-mac, the one that the MAC asserted last.
    pub address: IpAddr,
    /// Where.
    pub segment: SegmentName,
    /// When the first frame that is part of it came.
    pub first_seen: Timestamp,
    /// When the last did.
    pub last_seen: Timestamp,
    /// When it was over; null while it lasts.
    pub resolved_at: Option<Timestamp>,
    /// One sentence.
    pub reason: String,
    /// How often the address went from one claimant to another.
    pub changes: u64,
    /// Whether it goes back and forth.
    pub flapping: bool,
    /// Who claims it, in the order they were first heard.
    pub claims: Vec<ClaimRecord>,
    /// Who leased it, by store.
    pub leases: Vec<LeaseName>,
    /// What it has been, in order of time; the last is what it is.
    pub history: Vec<ConflictStep>,
}

/// That a conflict opened, turned into another kind, changed in severity, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictStep {
    /// When the evidence for it was complete.
    pub at: Timestamp,
    /// What it was from then on.
    pub kind: ConflictKind,
    /// How bad.
    pub severity: Severity,
    /// Whether it lasted.
    pub state: ConflictState,
}

/// Something that happened and is no conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRecord {
    /// What.
    pub kind: EventKind,
    /// How bad it is.
    pub severity: Severity,
    /// To which address.
    pub address: IpAddr,
    /// Where.
    pub segment: SegmentName,
    /// When.
    pub at: Timestamp,
    /// Who took part: of a move, from and to; of a collision, who asks and who owns.
    pub macs: Vec<HardwareAddress>,
    /// One sentence.
    pub reason: String,
}

/// How many leases are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each is documented as a LeaseState")]
pub struct LeaseCounts {
    pub active: u64,
    pub quiet: u64,
    pub stale: u64,
    pub quarantined: u64,
    pub released: u64,
    pub fenced: u64,
    pub unknown: u64,
}

impl LeaseCounts {
    /// Counts one more lease.
    pub fn add(&mut self, state: LeaseState) {
        *self.of_mut(state) += 1;
    }

    /// The states and their counts, in the order of the states.
    pub fn iter(mut self) -> impl Iterator<Item = (LeaseState, u64)> {
        let states = LeaseState::ALL.iter();
        states.map(move |&state| (state, *self.of_mut(state)))
    }

    /// How many there are.
    pub fn total(self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    fn of_mut(&mut self, state: LeaseState) -> &mut u64 {
        match state {
            LeaseState::Active => &mut self.active,
            LeaseState::Quiet => &mut self.quiet,
            LeaseState::Stale => &mut self.stale,
            LeaseState::Quarantined => &mut self.quarantined,
            LeaseState::Released => &mut self.released,
            LeaseState::Fenced => &mut self.fenced,
            LeaseState::Unknown => &mut self.unknown,
        }
    }
}

impl FromIterator<LeaseState> for LeaseCounts {
    fn from_iter<I: IntoIterator<Item = LeaseState>>(states: I) -> Self {
        let mut counts = Self::default();
        states.into_iter().for_each(|state| counts.add(state));
        counts
    }
}

/// The conflicts of a report, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How many the report lists.
    pub conflicts: u64,
    /// How many of them last.
    pub active: u64,
    /// How many there are of each kind; kinds without one are left out.
    pub by_kind: BTreeMap<ConflictKind, u64>,
}

impl Summary {
    /// Counts them.
    pub fn of(conflicts: &[ConflictRecord]) -> Self {
        let mut summary = Self::default();
        for conflict in conflicts {
            summary.conflicts += 1;
            summary.active += u64::from(conflict.state == ConflictState::Active);
            *summary.by_kind.entry(conflict.kind).or_default() += 1;
        }
        summary
    }
}
