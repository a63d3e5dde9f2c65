//! Conflicts, who takes part in them, and what happened that is none.

use ipam_common::{Address, Mac};

use super::{Composer, segment_name};
use crate::{
    engine::{conflict, segment::Segment, table::Claim, view::Case},
    report::{
        document::{
            ClaimRecord, ConflictKind, ConflictRecord, ConflictState, ConflictStep, EventKind,
            EventRecord, EvidenceName, LeaseCounts, Report, Severity, Summary,
        },
        vendor,
    },
};

/// How often an address may change its speaker before it flaps.
const FLAPPING: u32 = 4;

impl Composer<'_> {
    /// A conflict of which the engine has just told.
    pub fn conflict_told(
        &self,
        segment: &Segment,
        address: Address,
        conflict: &conflict::Conflict,
    ) -> ConflictRecord {
        self.conflict(self.engine.case(segment, address, conflict))
    }

    pub(super) fn conflict(&self, case: Case<'_>) -> ConflictRecord {
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
                vendor: vendor_name(mac),
                interface: None,
                this_host: true,
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
            reason: self.engine.sentence(segment, address, conflict, &vendor),
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

    /// The worst of these cases, as [`sort_conflicts`] has them, and all of them counted.
    pub(super) fn worst(
        &self,
        mut cases: Vec<Case<'_>>,
        limit: usize,
        leases: LeaseCounts,
    ) -> Report {
        let mut summary = Summary::default();
        for case in &cases {
            summary.conflicts += 1;
            summary.active += u64::from(case.conflict.is_active());
            let kind = kind(case.conflict.verdict.kind());
            *summary.by_kind.entry(kind).or_default() += 1;
        }
        cases.sort_by(|one, next| {
            let rank = |case: &Case<'_>| (case.conflict.is_active(), case.conflict.severity);
            rank(next)
                .cmp(&rank(one))
                .then(next.conflict.first_seen.cmp(&one.conflict.first_seen))
                .then((one.segment, one.address).cmp(&(next.segment, next.address)))
        });
        cases.truncate(limit);
        let conflicts = cases.into_iter().map(|case| self.conflict(case)).collect();
        self.report_of(summary, conflicts, leases)
    }

    pub(super) fn claim(&self, claim: &Claim) -> ClaimRecord {
        let topology = self.engine.topology();
        let port = topology.ports.get(&claim.ifindex);
        ClaimRecord {
            mac: claim.mac.into(),
            vendor: vendor_name(claim.mac),
            interface: port.map(|port| port.name.to_string()),
            this_host: topology.own_macs.contains(&claim.mac),
            first_seen: self.clock.at(claim.first_seen),
            last_seen: self.clock.at(claim.last_seen),
            frames: claim.frames.into(),
            evidence: claim.evidence().map(EvidenceName).collect(),
        }
    }

    pub(super) fn events(&self, of: impl Fn(&conflict::Event) -> bool) -> Vec<EventRecord> {
        let mut events: Vec<EventRecord> = self
            .engine
            .events()
            .filter(|event| of(event))
            .map(|event| self.event(event))
            .collect();
        events.sort_by_key(|event| event.at);
        events
    }

    pub(super) fn event(&self, event: &conflict::Event) -> EventRecord {
        EventRecord {
            kind: match event.kind {
                conflict::EventKind::AddressMoved => EventKind::AddressMoved,
                conflict::EventKind::ProbeCollision => EventKind::ProbeCollision,
                conflict::EventKind::SenderMismatch => EventKind::SenderMismatch,
                conflict::EventKind::ReleasedButAlive => EventKind::ReleasedButAlive,
            },
            severity: severity(event.kind.severity()),
            address: event.address.ip(),
            segment: segment_name(&event.segment),
            at: self.clock.at(event.at),
            macs: event.macs.iter().map(|&mac| mac.into()).collect(),
            reason: self.engine.event_sentence(event, &vendor),
        }
    }
}

fn vendor_name(mac: Mac) -> Option<String> {
    vendor(mac).map(str::to_owned)
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
