//! The engine: judges what is seen against what is leased.
//!
//! Pure: it does no I/O, reads no clock and knows no runtime. Time is an argument, effects
//! are data. The same inputs in the same order give the same outputs, on a live wire, in
//! a replay and in a simulation.

mod answers;
mod attempt;
pub mod caches;
mod census;
pub mod confirm;
pub mod conflict;
pub mod coverage;
mod echo;
pub mod evidence;
pub mod fence;
pub mod gauges;
mod hear;
pub mod holders;
pub mod input;
mod judge;
mod kinship;
pub mod lease;
pub mod leasebook;
pub mod owner;
mod pass;
pub mod plan;
pub mod probing;
pub mod quarantine;
pub mod reclaim;
mod runs;
pub mod scope;
pub mod segment;
mod shelf;
mod station;
pub mod table;
mod tell;
pub mod time;
mod twice;
pub mod view;
pub mod vigil;

pub use self::judge::Windows;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use ipam_common::{Address, Mac, sighting::Tags};

use self::{
    attempt::Attempts,
    caches::Caches,
    census::Census,
    conflict::{Conflict, Event},
    coverage::CoverageBook,
    echo::Nonces,
    fence::Fences,
    input::{Command, Input, Notice},
    judge::Judge,
    kinship::Kinships,
    lease::StoreName,
    leasebook::LeaseBook,
    owner::Owners,
    probing::Probing,
    quarantine::Quarantine,
    reclaim::{PassFacts, ReclaimSettings},
    runs::Move,
    scope::Scopes,
    segment::Topology,
    station::{StationId, Stations},
    table::{CLAIM_MEMORY, Entry, Place, SegmentId, Table},
    time::Timestamp,
    twice::LeasedTwice,
};

/// What may yet turn out to be part of a conflict is told of after so long: DEFEND_INTERVAL
/// (RFC 5227 §1.1), within which a return makes a contest of a move.
const EVENT_SETTLES: Duration = Duration::from_secs(10);
/// For how long a pair of MACs that a frame named as its sender is not told of again.
const MISMATCH_MEMORY: Duration = Duration::from_secs(3600);
/// For how many pairs of a port and its tags the segment is kept at hand.
const MAX_WIRES: usize = 65_536;
/// How many events are kept for reports.
const MAX_EVENTS: usize = 4096;
/// How often what nobody repeats is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// What the engine is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kernel's boot id.
    pub boot: Arc<str>,
    /// Which MACs are one machine, and which contest nobody.
    pub owners: Owners,
    /// The segments whose contested addresses' claimants may be asked, by name or
    /// `NAME.VLAN`.
    pub confirm: Vec<Arc<str>>,
    /// For how long things last before they are told, or are over.
    pub windows: Windows,
    /// What a release needs.
    pub reclaim: ReclaimSettings,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that were lost or held back before they came here.
    pub lost: u64,
    /// Sightings on a port that is not known, or no longer.
    pub unknown_port: u64,
    /// Sightings that the bridge drops, because the port is no member of the VLAN.
    pub not_a_member: u64,
    /// Sightings in a segment more than are told apart.
    pub unsegmented: u64,
    /// Frames of this host that came back.
    pub echoes: u64,
    /// Addresses dropped because the table was full.
    pub evicted: u64,
    /// What happened and was forgotten, because too much did.
    pub forgotten: u64,
    /// Stations not followed, and probes forgotten, because there were too many.
    pub unfollowed: u64,
}

/// What is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Address(Place),
    Station(StationId),
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// The configuration's, and what sources of leases add to them.
    owners: Owners,
    told_owners: BTreeMap<usize, Owners>,
    kinships: Kinships,
    topology: Arc<Topology>,
    table: Table,
    /// Which segment a port's frames of these tags, and of a link-local address or not,
    /// belong to, as far as asked since the links changed.
    wires: HashMap<(u32, Tags, bool), SegmentId>,
    leases: LeaseBook,
    census: Census,
    scopes: Scopes,
    coverage: CoverageBook,
    pass: PassFacts,
    probing: Probing,
    fences: Fences,
    caches: Caches,
    stations: Stations,
    twice: LeasedTwice,
    attempts: Attempts,
    nonces: Nonces,
    quarantine: Quarantine,
    /// Frames whose Ethernet source wasn't the sender, and when they were told of.
    mismatches: BTreeMap<(Place, Mac, Mac), Timestamp>,
    timers: BTreeSet<(Timestamp, Timer)>,
    events: VecDeque<Event>,
    unsettled: VecDeque<(Timestamp, Event)>,
    commands: VecDeque<Command>,
    counts: Counts,
    next_pass: Option<Timestamp>,
    /// Until when no pass comes before its time.
    calm_until: Timestamp,
    /// When it first learnt something.
    began: Option<Timestamp>,
    next_forget: Option<Timestamp>,
    /// What the daemon's own plan under way releases.
    executing: Option<Vec<(StoreName, Address)>>,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            leases: LeaseBook::new(Arc::clone(&settings.boot)),
            owners: settings.owners.clone(),
            settings,
            told_owners: BTreeMap::new(),
            kinships: Kinships::default(),
            topology: Arc::default(),
            table: Table::default(),
            wires: HashMap::new(),
            census: Census::default(),
            scopes: Scopes::default(),
            coverage: CoverageBook::default(),
            pass: PassFacts {
                state: Some(String::from("the agent's state was not checked yet")),
                ..PassFacts::default()
            },
            probing: Probing::default(),
            fences: Fences::default(),
            caches: Caches::default(),
            stations: Stations::default(),
            twice: LeasedTwice::default(),
            attempts: Attempts::default(),
            nonces: Nonces::default(),
            quarantine: Quarantine::default(),
            mismatches: BTreeMap::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            unsettled: VecDeque::new(),
            commands: VecDeque::new(),
            counts: Counts::default(),
            next_pass: None,
            calm_until: Timestamp(0),
            began: None,
            next_forget: None,
            executing: None,
        }
    }

    /// Learn something.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        self.began.get_or_insert(now);
        self.next_forget.get_or_insert(now + FORGET_INTERVAL);
        match input {
            Input::Seen(seen) => self.seen(&seen, now),
            Input::Snapshot(table) => self.snapshot(table, now),
            Input::Lost(count) => self.counts.lost = self.counts.lost.saturating_add(count),
            Input::Links { topology, since } => self.links(topology, since, now),
            Input::WatchedSince(since) => self.coverage.started(since),
            Input::Attached { ifindex, since } => {
                self.coverage.attached(ifindex, since, now, &self.topology);
            }
            Input::Unattached { ifindex, why } => self.coverage.blind(ifindex, &why, now),
            Input::Stores {
                source,
                views,
                failed,
                owners,
            } => {
                self.told_owners.insert(source, owners);
                self.gather_owners();
                let changes = self.leases.update(source, views, failed, now);
                self.leases_changed(changes, now);
            }
            Input::SourceFailed { source, why } => {
                self.leases.source_failed(source, &why);
                self.scopes = Scopes::new(self.leases.stores(), &self.topology);
            }
            Input::Watching(addresses) => self.leases.watching(&addresses, now),
            Input::Evidence(evidence) => self.evidence(evidence, now),
            Input::Held(report) => self.held(report, now),
            Input::Answers {
                segment,
                address,
                answered,
            } => self.answers(&segment, address, &answered, now),
            Input::Releasing(releases) => self.releasing(releases, now),
            Input::Probed { round, found } => self.probed(round, found, now),
            Input::Fenced(fenced) => self.fenced(&fenced),
            Input::DeadEntries(found) => self.dead_entries(found, now),
            Input::Cleaned(cleaned) => self.cleaned(&cleaned, now),
            Input::Outcomes(outcomes) => self.outcomes(outcomes, now),
            Input::Released {
                quarantined,
                returned,
                budgeted,
            } => {
                self.pass.spent.earlier(budgeted);
                self.released_before(quarantined, returned, now);
            }
            Input::PutBack { id, result } => self.put_back(&id, result, now),
            Input::Configured(settings) => self.configured(*settings, now),
            Input::Paused(paused) => self.pass.paused = paused,
            Input::State(state) => self.pass.state = state.err(),
            Input::Remembered(remembered) => {
                let changes = self.leases.remember(remembered);
                self.record(changes.remember, changes.forget);
            }
            Input::HeardBefore(heard) => self.pass.sandboxes.remember(heard),
        }
    }

    /// Do what time alone asks for.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            // At its own time, so that a late wake-up changes no verdict.
            match timer {
                Timer::Address(place) => self.judge(place, None, None, at),
                Timer::Station(id) => self.look_at(id, at),
            }
        }
        while let Some((at, _)) = self.unsettled.front()
            && *at <= now
        {
            if let Some((_, event)) = self.unsettled.pop_front() {
                self.publish(Notice::Happened(event));
            }
        }
        if self.fences.next().is_some_and(|at| at <= now) {
            self.fence(now);
        }
        if self.next_pass.is_some_and(|at| at <= now) {
            // The pass itself may know better.
            self.next_pass = Some(now + self.settings.reclaim.pass_interval);
            self.commands.push_back(Command::Gather);
        }
        if self.next_forget.is_some_and(|at| at <= now) {
            self.next_forget = Some(now + FORGET_INTERVAL);
            self.table.forget(now);
            self.stations.forget(now, CLAIM_MEMORY);
            self.attempts.forget(now);
            self.twice.forget(now, self.settings.windows.memory);
            self.forget_quarantined(now);
            self.mismatches
                .retain(|_, at| now.since(*at) < MISMATCH_MEMORY);
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [
            self.timers.first().map(|&(at, _)| at),
            self.unsettled.front().map(|&(at, _)| at),
            self.fences.next(),
            self.next_pass,
            self.next_forget,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the driver has to do, in order.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Begin passes of judgement over leases: everything that is needed is attached.
    pub fn begin_passes(&mut self, now: Timestamp) {
        self.next_pass = Some(now);
    }

    /// Notes who was found to have an address, and judges it.
    fn found(&mut self, place: Place, now: Timestamp, note: impl FnOnce(&Judge<'_>, &mut Entry)) {
        if self.with_judge(&place, note).is_some() {
            self.judge(place, None, None, now);
        }
    }

    /// Applies the rules to an entry, if there is one at that place.
    fn with_judge<T>(
        &mut self,
        place: &Place,
        act: impl FnOnce(&Judge<'_>, &mut Entry) -> T,
    ) -> Option<T> {
        let judge = Judge {
            topology: &self.topology,
            owners: &self.owners,
            leases: &self.leases,
            scopes: &self.scopes,
            windows: self.settings.windows,
        };
        Some(act(&judge, self.table.get_mut(place)?))
    }

    fn judge(
        &mut self,
        place: Place,
        heard: Option<Timestamp>,
        moved: Option<Move>,
        now: Timestamp,
    ) {
        let segment = self.table.segment(place.0).clone();
        let judged = self.with_judge(&place, |judge, entry| {
            let before = entry.contest.as_ref().and_then(|contest| contest.deadline);
            let judged = judge.judge(&segment, place.1, entry, heard, now);
            (before, judged, conflict_of(entry).cloned())
        });
        let Some((before, judged, conflict)) = judged else {
            return;
        };
        if let Some(at) = before {
            self.timers.remove(&(at, Timer::Address(place)));
        }
        if let Some(at) = judged.deadline {
            self.timers.insert((at, Timer::Address(place)));
        }
        self.note_squat(place, conflict.as_ref(), now);
        self.tell(&segment, place.1, conflict, moved, judged, now);
        if heard.is_some() {
            self.ask_claimants(place, now);
        }
    }

    fn judge_all(&mut self, now: Timestamp) {
        let all: Vec<Place> = self.table.sorted().map(|(place, _)| place).collect();
        for place in all {
            self.judge(place, None, None, now);
        }
    }

    /// Two passes have to agree under what counts from now on.
    fn configured(&mut self, settings: Settings, now: Timestamp) {
        self.settings = settings;
        self.gather_owners();
        for record in self.leases.iter_mut() {
            record.passes = [0; 2];
        }
        self.judge_all(now);
        if self.next_pass.is_some() {
            self.next_pass = Some(now);
        }
    }

    fn gather_owners(&mut self) {
        self.owners = self.settings.owners.clone();
        for told in self.told_owners.values() {
            self.owners.merge(told);
        }
        self.owners.join(self.kinships.kin());
    }

    fn links(&mut self, topology: Arc<Topology>, since: Timestamp, now: Timestamp) {
        let addresses_changed = self.topology.own_addresses != topology.own_addresses;
        self.coverage.links(&topology, since, now);
        self.topology = topology;
        self.wires.clear();
        if self.kinships.keep(&self.topology) {
            self.gather_owners();
        }
        self.scopes = Scopes::new(self.leases.stores(), &self.topology);
        if addresses_changed {
            let own: Vec<Address> = self
                .topology
                .own_addresses
                .iter()
                .map(|own| own.address)
                .collect();
            self.rejudge(own, now);
        }
    }

    fn leases_changed(&mut self, mut changes: leasebook::Changes, now: Timestamp) {
        self.scopes = Scopes::new(self.leases.stores(), &self.topology);
        let quarantine = &self.quarantine;
        changes
            .removed
            .retain(|address| !quarantine.watches(address));
        self.end_quarantines(changes.touched.iter().copied());
        self.keep_origins(changes.touched.iter().copied());
        if !changes.added.is_empty() || !changes.removed.is_empty() {
            self.commands.push_back(Command::Watch {
                add: changes.added,
                remove: changes.removed,
            });
        }
        self.record(changes.remember, changes.forget);
        if changes.pools {
            self.judge_all(now);
            let twice: BTreeSet<Address> = self
                .leases
                .several()
                .chain(self.twice.addresses())
                .collect();
            for address in twice {
                self.look_for_two(address, now);
            }
        } else {
            for &address in &changes.touched {
                self.look_for_two(address, now);
            }
            self.rejudge(changes.touched, now);
        }
        self.count_leases(now);
    }

    fn record(&mut self, leases: Vec<(StoreName, Address)>, forget: Vec<(StoreName, Address)>) {
        if !leases.is_empty() || !forget.is_empty() {
            self.commands
                .push_back(Command::Remember { leases, forget });
        }
    }

    fn rejudge(&mut self, addresses: impl IntoIterator<Item = Address>, now: Timestamp) {
        for address in addresses {
            let places: Vec<Place> = self.table.places_of(address).collect();
            for place in places {
                self.judge(place, None, None, now);
            }
        }
    }
}

fn conflict_of(entry: &Entry) -> Option<&Conflict> {
    entry.contest.as_ref()?.conflict.as_ref()
}
