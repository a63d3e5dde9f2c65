//! From the engine's state to documents: names instead of numbers, wall time instead of
//! the engine's.

mod watch;

use std::net::IpAddr;

use ipam_common::Address;
use jiff::Timestamp as WallTime;

use super::document::{
    AddressRecord, Addresses, BlockerRecord, ClaimRecord, ConflictKind, ConflictRecord,
    ConflictState, ConflictStep, EventKind, EventRecord, EvidenceName, Explain, Held, HolderAnswer,
    HolderName, KeptLease, LeaseCounts, LeaseName, LeaseRecord, LeaseState, Leases, Life, Plan,
    PlannedRelease, ProofRecord, Report, SegmentClaim, SegmentName, SegmentRecord, Segments,
    Severity, Summary,
};
use crate::engine::{
    Engine, conflict,
    lease::Holder,
    leasebook::Record,
    plan::{Asker, Blocker, Release},
    reclaim::{self, Planner},
    segment::Segment,
    table::Claim,
    time::Timestamp,
    view::Case,
};

/// How often an address may change its speaker before it flaps.
const FLAPPING: u32 = 4;

/// When the engine's clock began, in wall time, nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock(pub i128);

impl WallClock {
    /// The wall time of an engine's time.
    pub fn at(self, at: Timestamp) -> WallTime {
        WallTime::from_nanosecond(self.0 + i128::from(at.0)).unwrap_or(WallTime::MAX)
    }
}

/// Makes documents of the engine's state.
pub struct Composer<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Its clock.
    pub clock: WallClock,
    /// Now, on its clock.
    pub now: Timestamp,
    /// The host's name.
    pub host: &'a str,
    /// The kernel's boot id; `None` in a replay.
    pub boot: Option<&'a str>,
    /// Why the agent couldn't look at all, beyond what the engine knows.
    pub blind: &'a [String],
}

impl Composer<'_> {
    /// What is wrong.
    pub fn report(&self) -> Report {
        let mut conflicts: Vec<ConflictRecord> = self
            .engine
            .conflicts()
            .map(|case| self.conflict(case))
            .collect();
        sort_conflicts(&mut conflicts);
        Report {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            boot_id: self.boot.map(str::to_owned),
            blind: self.blind(),
            segments: self.segment_records(),
            summary: Summary::of(&conflicts),
            conflicts,
            events: self.events(|_| true),
            leases: self.lease_counts(),
            captures: Vec::new(),
        }
    }

    /// What is watched.
    pub fn segments(&self) -> Segments {
        Segments {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            segments: self.segment_records(),
        }
    }

    /// Every lease.
    pub fn leases(&self) -> Leases {
        let planner = self.engine.planner(self.now);
        let mut leases: Vec<LeaseRecord> = self
            .engine
            .leases()
            .iter()
            .map(|record| self.lease(&planner, record))
            .collect();
        leases.sort_by(|a, b| {
            (&a.lease.store, a.lease.address).cmp(&(&b.lease.store, b.lease.address))
        });
        Leases {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            blind: self.stores_down(),
            leases,
        }
    }

    /// Who is on the wires.
    pub fn addresses(&self) -> Addresses {
        let mut addresses = Vec::new();
        for (segment, address, entry) in self.engine.entries() {
            for claim in &entry.claims {
                addresses.push(AddressRecord {
                    address: address.ip(),
                    segment: segment_name(segment),
                    claim: self.claim(claim),
                    leases: self.lease_names(segment, address),
                });
            }
        }
        addresses.sort_by(|a, b| {
            (&a.segment, a.address, a.claim.mac).cmp(&(&b.segment, b.address, b.claim.mac))
        });
        Addresses {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            addresses,
        }
    }

    /// All that is known of one address.
    pub fn explain(&self, known: Address) -> Explain {
        let planner = self.engine.planner(self.now);
        let address = known.ip();
        let records: Vec<&Record> = self.engine.leases().of(&known).iter().collect();
        let mut claims = Vec::new();
        for (segment, at, entry) in self.engine.entries() {
            if at == known {
                claims.extend(entry.claims.iter().map(|claim| SegmentClaim {
                    segment: segment_name(segment),
                    claim: self.claim(claim),
                }));
            }
        }
        let mut conflicts: Vec<ConflictRecord> = self
            .engine
            .conflicts()
            .filter(|case| case.address == known)
            .map(|case| self.conflict(case))
            .collect();
        sort_conflicts(&mut conflicts);
        let leases: Vec<LeaseRecord> = records
            .iter()
            .map(|record| self.lease(&planner, record))
            .collect();
        let stamps = records.first().map(|record| record.stamps);
        let stamp = |at: u64| (at > 0).then(|| self.clock.at(Timestamp(at)));
        Explain {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            address,
            verdict: verdict_of(address, &conflicts, &leases, &claims),
            claims,
            life: stamps.map_or(Life::default(), |stamps| Life {
                assertion: stamp(stamps.assertion),
                probe: stamp(stamps.probe),
                packet: stamp(stamps.packet),
            }),
            holders: self.holders(&records),
            leases,
            conflicts,
            events: self.events(|event| event.address == known),
        }
    }

    /// What would be released if a person asked now.
    pub fn plan(&self) -> Plan {
        let plan = self.engine.plan(Asker::Person, self.now);
        let blind = self.plan_blind();
        let mut releases: Vec<PlannedRelease> =
            plan.releases.iter().map(|r| self.release(r)).collect();
        releases.sort_by(|a, b| (&a.store, a.address).cmp(&(&b.store, b.address)));
        let mut kept: Vec<KeptLease> = plan
            .kept
            .iter()
            .map(|kept| KeptLease {
                store: kept.store.to_string(),
                address: kept.address.ip(),
                blockers: kept.blockers.iter().map(|b| self.blocker(b)).collect(),
            })
            .collect();
        kept.sort_by(|a, b| (&a.store, a.address).cmp(&(&b.store, b.address)));
        Plan {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            complete: blind.is_empty(),
            blind,
            releases,
            kept,
        }
    }

    /// A blocker, dated.
    pub fn blocker(&self, blocker: &Blocker) -> BlockerRecord {
        BlockerRecord {
            reason: blocker.reason,
            detail: blocker.detail.clone(),
            ready_at: blocker.until.map(|at| self.clock.at(at)),
        }
    }

    fn release(&self, release: &Release) -> PlannedRelease {
        let (lease, proof) = (release.lease(), release.proof());
        PlannedRelease {
            store: lease.store.to_string(),
            address: lease.address.ip(),
            holder: holder_name(&lease.holder),
            damage: lease.damage,
            reason: release.sentence(),
            evidence: ProofRecord {
                watched_since: self.clock.at(proof.coverage().since()),
                gate_seconds: proof.coverage().window().as_secs(),
                quiet_seconds: proof.quiet_for().as_secs(),
                unchanged_seconds: proof.unchanged_for().as_secs(),
                earlier_boot: proof.earlier_boot().map(str::to_owned),
                sources: proof.sources().iter().map(|&s| s.to_owned()).collect(),
                passes: proof.passes(),
            },
        }
    }

    /// A conflict of which the engine has just told.
    pub fn conflict_told(
        &self,
        segment: &Segment,
        address: Address,
        conflict: &conflict::Conflict,
    ) -> ConflictRecord {
        self.conflict(self.engine.case(segment, address, conflict))
    }

    fn conflict(&self, case: Case<'_>) -> ConflictRecord {
        let Case {
            segment,
            address,
            claims,
            changes,
            conflict,
        } = case;
        let topology = self.engine.topology();
        let mut claims: Vec<ClaimRecord> = claims.iter().map(|claim| self.claim(claim)).collect();
        let unheard = conflict.verdict.macs().iter();
        for &mac in unheard.filter(|mac| topology.own_macs.contains(mac)) {
            // This host's own frames don't come in by a port.
            claims.push(ClaimRecord {
                mac: mac.into(),
                interface: None,
                first_seen: self.clock.at(conflict.first_seen),
                last_seen: self.clock.at(self.now),
                frames: 0,
                evidence: Vec::new(),
            });
        }
        ConflictRecord {
            id: conflict.id.to_string(),
            kind: kind(conflict.verdict.kind()),
            severity: severity(conflict.severity),
            state: state_of(conflict.is_active()),
            address: address.ip(),
            segment: segment_name(segment),
            first_seen: self.clock.at(conflict.first_seen),
            last_seen: self.clock.at(conflict.last_seen),
            resolved_at: conflict.resolved.map(|at| self.clock.at(at)),
            reason: self.engine.sentence(segment, address, conflict),
            changes: changes.into(),
            flapping: changes >= FLAPPING,
            claims,
            leases: self.lease_names(segment, address),
            history: conflict
                .steps
                .iter()
                .map(|step| ConflictStep {
                    at: self.clock.at(step.at),
                    kind: kind(step.kind),
                    severity: severity(step.severity),
                    state: state_of(step.active),
                })
                .collect(),
        }
    }

    fn claim(&self, claim: &Claim) -> ClaimRecord {
        let port = self.engine.topology().ports.get(&claim.ifindex);
        ClaimRecord {
            mac: claim.mac.into(),
            interface: port.map(|port| port.name.to_string()),
            first_seen: self.clock.at(claim.first_seen),
            last_seen: self.clock.at(claim.last_seen),
            frames: claim.frames.into(),
            evidence: claim.evidence().map(EvidenceName).collect(),
        }
    }

    fn lease(&self, planner: &Planner<'_>, record: &Record) -> LeaseRecord {
        let blockers = planner.plan_blockers(record);
        let state = lease_state(planner.state(record));
        LeaseRecord {
            lease: self.lease_name(record, state),
            segment: planner.segment(record).ok().map(|s| segment_name(&s)),
            damage: record.lease.damage,
            reason: match blockers.first() {
                Some(blocker) => blocker.to_string(),
                None => String::from("nobody uses it: `reclaim apply` gives it back"),
            },
            since: Some(self.clock.at(record.since)),
            last_heard: planner.last_life(record).map(|at| self.clock.at(at)),
            blockers: blockers.iter().map(|b| self.blocker(b)).collect(),
        }
    }

    fn lease_name(&self, record: &Record, state: LeaseState) -> LeaseName {
        LeaseName {
            store: record.lease.store.to_string(),
            address: record.lease.address.ip(),
            holder: holder_name(&record.lease.holder),
            state,
        }
    }

    fn lease_names(&self, segment: &Segment, address: Address) -> Vec<LeaseName> {
        let records = self.engine.leases_in(segment, address);
        records
            .into_iter()
            .map(|record| self.lease_name(record, lease_state(self.engine.state(record, self.now))))
            .collect()
    }

    fn lease_counts(&self) -> LeaseCounts {
        let planner = self.engine.planner(self.now);
        let records = self.engine.leases().iter();
        records
            .map(|record| lease_state(planner.state(record)))
            .collect()
    }

    fn holders(&self, records: &[&Record]) -> Vec<HolderAnswer> {
        let pass = self.engine.last_pass();
        let held = records.iter().find_map(|record| record.held);
        let answered = pass.sources.iter().map(|source| HolderAnswer {
            source: source.name().to_owned(),
            answer: if held.is_some() { Held::Yes } else { Held::No },
            detail: held.flatten().and_then(|ifindex| {
                let port = self.engine.topology().ports.get(&ifindex)?;
                Some(format!("configured behind {}", port.name))
            }),
        });
        let down = pass.down.iter().map(|(source, why)| HolderAnswer {
            source: source.name().to_owned(),
            answer: Held::Unknown,
            detail: Some(why.clone()),
        });
        answered.chain(down).collect()
    }

    fn events(&self, of: impl Fn(&conflict::Event) -> bool) -> Vec<EventRecord> {
        let mut events: Vec<EventRecord> = self
            .engine
            .events()
            .filter(|event| of(event))
            .map(|event| EventRecord {
                kind: match event.kind {
                    conflict::EventKind::AddressMoved => EventKind::AddressMoved,
                    conflict::EventKind::ProbeCollision => EventKind::ProbeCollision,
                    conflict::EventKind::SenderMismatch => EventKind::SenderMismatch,
                    conflict::EventKind::ReleasedButAlive => EventKind::ReleasedButAlive,
                },
                address: event.address.ip(),
                segment: segment_name(&event.segment),
                at: self.clock.at(event.at),
                macs: event.macs.iter().map(|&mac| mac.into()).collect(),
                reason: event.to_string(),
            })
            .collect();
        events.sort_by_key(|event| event.at);
        events
    }

    fn segment_records(&self) -> Vec<SegmentRecord> {
        let topology = self.engine.topology();
        let counts = self.engine.counts();
        self.engine
            .segments()
            .iter()
            .map(|segment| {
                let since = self.engine.covered_since(segment, self.now);
                SegmentRecord {
                    segment: segment_name(segment),
                    complete: since.is_ok(),
                    watched_since: since.ok().map(|at| self.clock.at(at)),
                    lost: counts.lost.saturating_add(counts.unsegmented),
                    evicted: counts.evicted,
                    interfaces: {
                        let ports = topology.ports_of(segment);
                        let watched = ports.filter(|(_, port)| port.wanted);
                        let mut names: Vec<String> =
                            watched.map(|(_, port)| port.name.to_string()).collect();
                        names.sort();
                        names
                    },
                }
            })
            .collect()
    }

    /// Why the agent could not look everywhere.
    fn blind(&self) -> Vec<String> {
        let mut blind = self.blind.to_vec();
        for segment in self.engine.segments() {
            if let Err(why) = self.engine.covered_since(&segment, self.now) {
                blind.push(format!("{segment}: {why}"));
            }
        }
        blind.extend(self.stores_down());
        blind.dedup();
        blind
    }

    fn stores_down(&self) -> Vec<String> {
        let leases = self.engine.leases();
        let stores = leases.stores().iter();
        let down =
            stores.filter_map(|(name, store)| Some(format!("{name}: {}", store.failed.as_ref()?)));
        down.chain(leases.failing().map(str::to_owned)).collect()
    }

    fn plan_blind(&self) -> Vec<String> {
        let mut blind = self.blind();
        let pass = self.engine.last_pass();
        let down = pass.down.iter();
        blind.extend(down.map(|(source, why)| format!("{}: {why}", source.name())));
        blind.extend(pass.state.clone());
        blind
    }
}

impl Release {
    /// Why, in one sentence.
    pub fn sentence(&self) -> String {
        let proof = self.proof();
        let origin = match proof.earlier_boot() {
            Some(_) => "recorded before the last boot",
            None => "unchanged",
        };
        format!(
            "{origin}, nobody heard for {} s of unbroken watch, no holder in {}, {} passes agree",
            proof.quiet_for().as_secs(),
            proof.sources().join(" and "),
            proof.passes()
        )
    }
}

fn verdict_of(
    address: IpAddr,
    conflicts: &[ConflictRecord],
    leases: &[LeaseRecord],
    claims: &[SegmentClaim],
) -> String {
    if let Some(conflict) = conflicts.first()
        && conflict.state == ConflictState::Active
    {
        return conflict.reason.clone();
    }
    match (leases, claims) {
        ([], []) => format!("nobody leased {address} and nobody was heard with it"),
        ([], [claim, ..]) => format!(
            "{address} is used by {}; no store that is read leased it",
            claim.claim.mac
        ),
        ([lease, ..], _) => format!(
            "{address} is leased by {} and {}: {}",
            lease.lease.store, lease.lease.state, lease.reason
        ),
    }
}

/// Active before resolved, then the worst and the newest first.
pub fn sort_conflicts(conflicts: &mut [ConflictRecord]) {
    conflicts.sort_by(|a, b| {
        (a.state, a.severity)
            .cmp(&(b.state, b.severity))
            .then(b.first_seen.cmp(&a.first_seen))
            .then((&a.segment, a.address).cmp(&(&b.segment, b.address)))
    });
}

fn kind(kind: conflict::Kind) -> ConflictKind {
    match kind {
        conflict::Kind::DuplicateAddress => ConflictKind::DuplicateAddress,
        conflict::Kind::LeaseMismatch => ConflictKind::LeaseMismatch,
        conflict::Kind::ReservedAddress => ConflictKind::ReservedAddress,
        conflict::Kind::UnleasedAddress => ConflictKind::UnleasedAddress,
        conflict::Kind::DuplicateMac => ConflictKind::DuplicateMac,
        conflict::Kind::DuplicateLease => ConflictKind::DuplicateLease,
    }
}

fn severity(severity: conflict::Severity) -> Severity {
    match severity {
        conflict::Severity::Info => Severity::Info,
        conflict::Severity::Warning => Severity::Warning,
        conflict::Severity::Critical => Severity::Critical,
    }
}

fn state_of(active: bool) -> ConflictState {
    if active {
        ConflictState::Active
    } else {
        ConflictState::Resolved
    }
}

fn lease_state(state: reclaim::LeaseState) -> LeaseState {
    match state {
        reclaim::LeaseState::Active => LeaseState::Active,
        reclaim::LeaseState::Quiet => LeaseState::Quiet,
        reclaim::LeaseState::Stale => LeaseState::Stale,
        reclaim::LeaseState::Unknown => LeaseState::Unknown,
    }
}

fn segment_name(segment: &Segment) -> SegmentName {
    SegmentName {
        name: segment.name.to_string(),
        vlan: segment.vlan,
        outer_vlan: segment.outer_vlan,
    }
}

fn holder_name(holder: &Holder) -> HolderName {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    HolderName {
        container_id: text(&holder.container_id),
        interface: text(&holder.interface),
        pod: text(&holder.pod),
        mac: holder.mac.map(Into::into),
        host_interface: text(&holder.host_interface),
    }
}
