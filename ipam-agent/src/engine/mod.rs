//! The engine: judges what is seen against what is leased.
//!
//! Pure: it does no I/O, reads no clock and knows no runtime. Time is an argument, effects
//! are data. The same inputs in the same order give the same outputs, on a live wire, in
//! a replay and in a simulation.

pub mod conflict;
pub mod coverage;
pub mod evidence;
pub mod input;
mod judge;
pub mod lease;
pub mod leasebook;
pub mod owner;
pub mod plan;
pub mod reclaim;
mod runs;
mod scope;
pub mod segment;
pub mod table;
pub mod time;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ipam_common::{
    Address, Evidence, Mac,
    sighting::{SightingKey, Tags, Tally},
};

use self::{
    conflict::{Conflict, Event, EventKind},
    coverage::CoverageBook,
    evidence::{Held, PassEvidence, PortCheck, SourceReport},
    input::{Command, Input, Notice, Seen},
    judge::{Judge, Judged},
    leasebook::{LeaseBook, Record},
    owner::Owners,
    plan::{Asker, Outcome, OutcomeResult, ReclaimPlan},
    reclaim::{LeaseState, PassFacts, Planner, ReclaimSettings, slot},
    runs::ALTERNATION_WINDOW,
    scope::Scopes,
    segment::{Segment, Topology, Unplaced},
    table::{Entry, Heard, Place, Table},
    time::Timestamp,
};

/// A move is told of after so long without a return: then it is none of another kind.
const MOVE_SETTLES: Duration = Duration::from_secs(10);
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
    /// Frames of this host that came back.
    pub echoes: u64,
    /// Addresses dropped because the table was full.
    pub evicted: u64,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// The configuration's, and what sources of leases add to them.
    owners: Owners,
    told_owners: BTreeMap<usize, Owners>,
    topology: Arc<Topology>,
    table: Table,
    leases: LeaseBook,
    scopes: Scopes,
    coverage: CoverageBook,
    pass: PassFacts,
    timers: BTreeSet<(Timestamp, Place)>,
    events: VecDeque<Event>,
    unsettled: VecDeque<(Timestamp, Event)>,
    commands: VecDeque<Command>,
    counts: Counts,
    next_pass: Option<Timestamp>,
    next_forget: Option<Timestamp>,
    executing: bool,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            leases: LeaseBook::new(Arc::clone(&settings.boot)),
            owners: settings.owners.clone(),
            settings,
            told_owners: BTreeMap::new(),
            topology: Arc::default(),
            table: Table::default(),
            scopes: Scopes::default(),
            coverage: CoverageBook::default(),
            pass: PassFacts {
                state: Some(String::from("the agent's state was not checked yet")),
                ..PassFacts::default()
            },
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            unsettled: VecDeque::new(),
            commands: VecDeque::new(),
            counts: Counts::default(),
            next_pass: None,
            next_forget: None,
            executing: false,
        }
    }

    /// Learn something.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Seen(seen) => self.seen(&seen, now),
            Input::Snapshot(table) => self.snapshot(table, now),
            Input::Lost(count) => self.counts.lost = self.counts.lost.saturating_add(count),
            Input::Links(topology) => self.links(topology, now),
            Input::Attached { ifindex } => self.coverage.attached(ifindex, now),
            Input::Unattached { ifindex, why } => self.coverage.blind(ifindex, &why),
            Input::Stores {
                source,
                views,
                failed,
                owners,
            } => {
                self.told_owners.insert(source, owners);
                self.owners = self.settings.owners.clone();
                for told in self.told_owners.values() {
                    self.owners.merge(told);
                }
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
            Input::Outcomes(outcomes) => self.outcomes(outcomes),
            Input::State(state) => self.pass.state = state.err(),
            Input::Remembered(remembered) => self.leases.remember(remembered),
        }
    }

    /// Do what time alone asks for.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(at, place)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            // At its own time, so that a late wake-up changes no verdict.
            self.judge(place, None, None, at);
        }
        while let Some((at, _)) = self.unsettled.front()
            && *at <= now
        {
            if let Some((_, event)) = self.unsettled.pop_front() {
                self.publish(Notice::Happened(event));
            }
        }
        if self.next_pass.is_some_and(|at| at <= now) {
            self.next_pass = Some(now + self.settings.reclaim.pass_interval);
            self.commands.push_back(Command::Gather);
        }
        if self.next_forget.is_none_or(|at| at <= now) {
            self.next_forget = Some(now + FORGET_INTERVAL);
            self.table.forget(now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [
            self.timers.first().map(|&(at, _)| at),
            self.unsettled.front().map(|&(at, _)| at),
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

    fn seen(&mut self, seen: &Seen, now: Timestamp) {
        let sighting = &seen.sighting;
        if sighting.evidence.is_probe() {
            return;
        }
        // An answer goes to who asked; a gratuitous one, or one to everybody, answers nobody.
        let asker = Mac::new(sighting.ether_dst).map(Mac::bytes);
        let answers = matches!(
            sighting.evidence,
            Evidence::ArpReply | Evidence::NeighborAdvertisement | Evidence::WeakAdvertisement
        );
        let heard = Heard {
            mac: sighting.mac,
            ifindex: seen.ifindex,
            at: seen.at,
            strong: !sighting.evidence.is_weak(),
            kinds: sighting.evidence.bit(),
            answers: asker.filter(|_| answers),
            total: None,
        };
        self.assertion(sighting.address, sighting.tags, heard, now);
    }

    /// Every entry that says more than is known is an assertion, or two.
    fn snapshot(&mut self, table: Vec<(SightingKey, Tally)>, now: Timestamp) {
        let mut heard: Vec<(Address, Tags, Heard)> = Vec::new();
        for (key, tally) in table {
            let (Some(address), Some(mac)) = (Address::from_mapped(key.address), Mac::new(key.mac))
            else {
                continue;
            };
            if key.probe != 0 {
                continue;
            }
            let tags = Tags {
                outer: key.outer_vlan,
                vlan: key.vlan,
            };
            let known = self.claim(address, key.ifindex, tags, mac);
            let mut tell = |at: u64, strong: bool, total: u32| {
                let heard_then = Heard {
                    mac,
                    ifindex: key.ifindex,
                    at: Timestamp(at),
                    strong,
                    kinds: tally.kinds,
                    answers: None,
                    total: Some(total),
                };
                heard.push((address, tags, heard_then));
            };
            match known {
                // All there is to know, but for the count of frames.
                Some(claim) if claim.0 >= Timestamp(tally.last_seen) => {
                    if claim.1 < tally.frames {
                        tell(tally.last_seen, false, tally.frames);
                    }
                }
                Some(_) => tell(
                    tally.last_seen,
                    tally.last_strong == tally.last_seen,
                    tally.frames,
                ),
                None => {
                    let strong = tally.last_strong != 0;
                    tell(tally.first_seen, strong, 1);
                    if tally.last_seen > tally.first_seen {
                        tell(
                            tally.last_strong.max(tally.first_seen),
                            strong,
                            tally.frames,
                        );
                    }
                }
            }
        }
        heard.sort_by_key(|(address, tags, heard)| (heard.at, *address, *tags, heard.mac));
        for (address, tags, heard) in heard {
            self.assertion(address, tags, heard, now);
        }
    }

    /// When a claim was last heard, and in how many frames.
    fn claim(
        &mut self,
        address: Address,
        ifindex: u32,
        tags: Tags,
        mac: Mac,
    ) -> Option<(Timestamp, u32)> {
        let segment = self.topology.segment(ifindex, tags, address).ok()?;
        let place = (self.table.id(&segment), address);
        let claims = &self.table.get(&place)?.claims;
        let claim = claims.iter().find(|claim| claim.mac == mac)?;
        Some((claim.last_seen, claim.frames))
    }

    fn assertion(&mut self, address: Address, tags: Tags, mut heard: Heard, now: Timestamp) {
        if self.topology.own_macs.contains(&heard.mac) {
            self.counts.echoes += 1;
            return;
        }
        let segment = match self.topology.segment(heard.ifindex, tags, address) {
            Ok(segment) => segment,
            Err(Unplaced::UnknownPort) => {
                self.counts.unknown_port += 1;
                return;
            }
            Err(Unplaced::NotAMember) => {
                self.counts.not_a_member += 1;
                return;
            }
        };
        heard.strong &= !self.owners.is_exempt(address, heard.mac);
        let place = (self.table.id(&segment), address);
        let (topology, owners, leases) = (&self.topology, &self.owners, &self.leases);
        let owner_of = |mac| owners.of(mac, &topology.own_macs);
        let entry = self
            .table
            .entry(place, &|address| !leases.contains(address));
        let moved = entry.hear(&heard, &owner_of);
        self.counts.evicted = self.table.evicted();
        if heard.strong {
            self.judge(place, Some(heard.at), moved, now);
        }
    }

    fn judge(
        &mut self,
        place: Place,
        heard: Option<Timestamp>,
        moved: Option<(Mac, Mac)>,
        now: Timestamp,
    ) {
        let segment = self.table.segment(place.0).clone();
        let judge = Judge {
            topology: &self.topology,
            owners: &self.owners,
            leases: &self.leases,
            scopes: &self.scopes,
        };
        let Some(entry) = self.table.get_mut(&place) else {
            return;
        };
        let before = entry.contest.as_ref().and_then(|contest| contest.deadline);
        let judged = judge.judge(&segment, place.1, entry, heard, now);
        let conflict = conflict_of(entry).cloned();
        if let Some(at) = before {
            self.timers.remove(&(at, place));
        }
        if let Some(at) = judged.deadline {
            self.timers.insert((at, place));
        }
        self.tell(&segment, place.1, conflict, moved, heard, judged, now);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of `judge`, split off for its length"
    )]
    fn tell(
        &mut self,
        segment: &Segment,
        address: Address,
        conflict: Option<Conflict>,
        moved: Option<(Mac, Mac)>,
        heard: Option<Timestamp>,
        judged: Judged,
        now: Timestamp,
    ) {
        if judged.look_behind {
            self.commands.push_back(Command::LookBehindPorts);
        }
        let contested = conflict.as_ref().is_some_and(Conflict::is_active);
        if contested {
            self.withdraw_moves(segment, address, now);
        } else if let Some((from, to)) = moved.or(judged.moved) {
            let event = Event {
                kind: EventKind::AddressMoved,
                segment: segment.clone(),
                address,
                at: heard.unwrap_or(now),
                macs: vec![from, to],
            };
            if self.events.len() >= MAX_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event.clone());
            if self.unsettled.len() < MAX_EVENTS {
                self.unsettled.push_back((now + MOVE_SETTLES, event));
            }
        }
        let Some(conflict) = conflict else {
            return;
        };
        if judged.opened {
            self.publish(Notice::Opened(segment.clone(), address, conflict));
        } else if judged.resolved {
            self.publish(Notice::Resolved(segment.clone(), address, conflict));
        }
    }

    /// What looked like a move was part of a contest.
    fn withdraw_moves(&mut self, segment: &Segment, address: Address, now: Timestamp) {
        let part = |event: &Event| {
            event.kind == EventKind::AddressMoved
                && event.address == address
                && event.segment == *segment
                && now.since(event.at) <= ALTERNATION_WINDOW
        };
        self.events.retain(|event| !part(event));
        self.unsettled.retain(|(_, event)| !part(event));
    }

    fn publish(&mut self, notice: Notice) {
        self.commands.push_back(Command::Publish(notice));
    }

    fn links(&mut self, topology: Arc<Topology>, now: Timestamp) {
        let addresses_changed = self.topology.own_addresses != topology.own_addresses;
        self.coverage.links(&topology, now);
        self.topology = topology;
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

    fn leases_changed(&mut self, changes: leasebook::Changes, now: Timestamp) {
        self.scopes = Scopes::new(self.leases.stores(), &self.topology);
        if !changes.added.is_empty() || !changes.removed.is_empty() {
            self.commands.push_back(Command::Watch {
                add: changes.added,
                remove: changes.removed,
            });
        }
        if !changes.remember.is_empty() || !changes.forget.is_empty() {
            self.commands.push_back(Command::Remember {
                leases: changes.remember,
                forget: changes.forget,
            });
        }
        if changes.pools {
            let all: Vec<Place> = self.table.iter().map(|(&place, _)| place).collect();
            for place in all {
                self.judge(place, None, None, now);
            }
        } else {
            self.rejudge(changes.touched, now);
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

    fn evidence(&mut self, evidence: PassEvidence, now: Timestamp) {
        for (ifindex, check) in &evidence.ports {
            match check {
                PortCheck::Attached => self.coverage.attached(*ifindex, now),
                PortCheck::Blind(why) => self.coverage.blind(*ifindex, why),
            }
        }
        let stamps: BTreeMap<_, _> = evidence.stamps.into_iter().collect();
        let mut held: BTreeMap<Address, Option<u32>> = BTreeMap::new();
        self.pass.at = Some(now);
        self.pass.sources.clear();
        self.pass.down.clear();
        for report in evidence.sources {
            match report.answer {
                Ok(addresses) => {
                    self.pass.sources.push(report.source);
                    held.extend(addresses.iter().map(|held| (held.address, held.ifindex)));
                    self.look_behind(&addresses, now);
                }
                Err(why) => self.pass.down.push((report.source, why)),
            }
        }
        if self.pass.down.is_empty() {
            self.pass.answered_since.get_or_insert(now);
        }
        let mut unwatched = Vec::new();
        for record in self.leases.iter_mut() {
            let address = record.lease.address;
            match stamps.get(&address) {
                Some(stamps) => {
                    record.stamps = *stamps;
                    record.watched_since.get_or_insert(now);
                }
                // It was not being watched for, whatever we thought.
                None => {
                    record.watched_since = None;
                    unwatched.push(address);
                }
            }
            record.held = held.get(&address).copied();
        }
        if !unwatched.is_empty() {
            self.commands.push_back(Command::Watch {
                add: unwatched,
                remove: Vec::new(),
            });
        }
        self.count_passes(now);
        let plan = self.plan(Asker::Daemon, now);
        if !plan.releases.is_empty() && !self.executing {
            self.executing = true;
            self.commands.push_back(Command::Execute(plan));
        }
    }

    /// Count, for each lease and asker, how many passes in a row found nothing against it.
    fn count_passes(&mut self, now: Timestamp) {
        for asker in [Asker::Daemon, Asker::Person] {
            let planner = self.planner(now);
            let clear: Vec<bool> = self
                .leases
                .iter()
                .map(|record| planner.is_clear(record, asker))
                .collect();
            for (record, clear) in self.leases.iter_mut().zip(clear) {
                let passes = &mut record.passes[slot(asker)];
                *passes = if clear { passes.saturating_add(1) } else { 0 };
            }
        }
    }

    fn held(&mut self, report: SourceReport, now: Timestamp) {
        if let Ok(addresses) = report.answer {
            self.look_behind(&addresses, now);
        }
    }

    /// An address that is configured behind two ports of one segment is contested.
    fn look_behind(&mut self, addresses: &[Held], now: Timestamp) {
        let mut behind: BTreeMap<Address, BTreeSet<u32>> = BTreeMap::new();
        for held in addresses {
            if let Some(ifindex) = held.ifindex {
                behind.entry(held.address).or_default().insert(ifindex);
            }
        }
        behind.retain(|_, ports| ports.len() > 1);
        for (address, ports) in behind {
            let places: Vec<Place> = self.table.places_of(address).collect();
            for place in places {
                let judge = Judge {
                    topology: &self.topology,
                    owners: &self.owners,
                    leases: &self.leases,
                    scopes: &self.scopes,
                };
                if let Some(entry) = self.table.get_mut(&place) {
                    judge.behind(entry, &ports, now);
                }
                self.judge(place, None, None, now);
            }
        }
    }

    fn outcomes(&mut self, outcomes: Vec<Outcome>) {
        self.executing = false;
        for outcome in outcomes {
            if outcome.result == OutcomeResult::Released {
                continue;
            }
            for record in self.leases.iter_mut() {
                if record.lease.address == outcome.address && record.lease.store == outcome.store {
                    record.passes = [0; 2];
                }
            }
        }
    }

    /// What would be released for this asker, and why the rest stays.
    pub fn plan(&self, asker: Asker, now: Timestamp) -> ReclaimPlan {
        self.planner(now).plan(asker)
    }

    /// The planner over what is known now.
    pub fn planner(&self, now: Timestamp) -> Planner<'_> {
        Planner {
            settings: &self.settings.reclaim,
            leases: &self.leases,
            scopes: &self.scopes,
            topology: &self.topology,
            table: &self.table,
            coverage: &self.coverage,
            pass: &self.pass,
            now,
        }
    }

    /// Every conflict that is open or ended less than an hour ago, by segment and address.
    pub fn conflicts(&self) -> impl Iterator<Item = (&Segment, Address, &Entry, &Conflict)> {
        self.entries().filter_map(|(segment, address, entry)| {
            Some((segment, address, entry, conflict_of(entry)?))
        })
    }

    /// The conflict over an address of a segment, open or ended less than an hour ago.
    pub fn conflict(&self, segment: &Segment, address: Address) -> Option<(&Entry, &Conflict)> {
        let entry = self.table.get(&(self.table.find(segment)?, address))?;
        Some((entry, conflict_of(entry)?))
    }

    /// A conflict in one sentence, each MAC with where it was heard.
    pub fn sentence(&self, segment: &Segment, address: Address, conflict: &Conflict) -> String {
        let entry = self
            .table
            .find(segment)
            .and_then(|id| self.table.get(&(id, address)));
        let claim_of = |mac: Mac| entry?.claims.iter().find(|claim| claim.mac == mac);
        let name = |mac: Mac| {
            let port = claim_of(mac).and_then(|claim| self.topology.ports.get(&claim.ifindex));
            match port {
                Some(port) => format!("{mac} on {}", port.name),
                None if self.topology.own_macs.contains(&mac) => format!("{mac} (this host)"),
                None => mac.to_string(),
            }
        };
        conflict.verdict.sentence(address, &name)
    }

    /// Every address, by segment.
    pub fn entries(&self) -> impl Iterator<Item = (&Segment, Address, &Entry)> {
        self.table
            .iter()
            .map(|(place, entry)| (self.table.segment(place.0), place.1, entry))
    }

    /// Every segment that is watched or was heard, in order.
    pub fn segments(&self) -> BTreeSet<Segment> {
        let mut segments = self.topology.segments();
        segments.extend(self.table.segments().map(|(segment, _)| segment.clone()));
        segments
    }

    /// What happened that is no conflict, in order of time.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// The leases.
    pub fn leases(&self) -> &LeaseBook {
        &self.leases
    }

    /// The leases of an address in a segment.
    pub fn leases_in(&self, segment: &Segment, address: Address) -> Vec<&Record> {
        let of = self.leases.of(&address).iter();
        of.filter(|record| self.scopes.of(&record.lease).covers(segment))
            .collect()
    }

    /// The links.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Since when a segment has been watched whole or, in words, why it isn't.
    pub fn covered_since(&self, segment: &Segment, now: Timestamp) -> Result<Timestamp, String> {
        self.coverage.since(&self.topology, segment, now)
    }

    /// What the last pass was told.
    pub fn last_pass(&self) -> &PassFacts {
        &self.pass
    }

    /// A lease's state.
    pub fn state(&self, record: &Record, now: Timestamp) -> LeaseState {
        self.planner(now).state(record)
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn conflict_of(entry: &Entry) -> Option<&Conflict> {
    entry.contest.as_ref()?.conflict.as_ref()
}
