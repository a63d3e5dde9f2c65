//! Leases, and who is on the wires.

use ipam_common::Address;

use super::{Composer, segment_name};
use crate::{
    engine::{
        lease::{Lease, Mode},
        leasebook::Record,
        plan::{Blocker, Reason},
        quarantine::Quarantined,
        reclaim::{self, Planner},
        segment::Segment,
        time::Timestamp,
    },
    report::document::{
        AddressRecord, Addresses, LeaseCounts, LeaseName, LeaseRecord, LeaseState, Leases,
        QuarantineRecord,
    },
};

impl Composer<'_> {
    /// Every lease.
    pub fn leases(&self) -> Leases {
        let planner = self.engine.planner(self.now);
        let mut leases: Vec<LeaseRecord> = self
            .engine
            .leases()
            .iter()
            .map(|record| self.lease(&planner, record))
            .chain(self.quarantined())
            .collect();
        let stores = self.engine.leases().stores().values();
        let fences = stores.flat_map(|store| &store.fencing.fences);
        leases.extend(fences.map(|fence| self.fence(&planner, fence)));
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

    pub(super) fn lease(&self, planner: &Planner<'_>, record: &Record) -> LeaseRecord {
        let blockers = planner.plan_blockers(record);
        let state = lease_state(planner.state(record));
        LeaseRecord {
            lease: self.lease_name(record, state),
            segment: planner.segment(record).ok().map(|s| segment_name(&s)),
            damage: record.lease.damage,
            reason: match why(state, &blockers) {
                Some(blocker) => blocker.to_string(),
                None => String::from("nobody uses it: `reclaim apply` gives it back"),
            },
            since: Some(self.clock.at(record.since)),
            last_heard: planner.last_life(record).map(|at| self.clock.at(at)),
            blockers: {
                let paused = self.paused(record);
                let blockers = blockers.iter().chain(&paused);
                blockers.map(|b| self.blocker(b)).collect()
            },
            quarantine: None,
        }
    }

    /// That unattended releases are paused, where the store's mode would allow them.
    fn paused(&self, record: &Record) -> Option<Blocker> {
        let paused = self.engine.last_pass().paused.as_ref()?;
        let store = self.engine.leases().stores().get(&record.lease.store)?;
        (store.mode != Mode::Observe).then(|| Blocker::new(Reason::Mode, paused.clone()))
    }

    fn quarantined(&self) -> impl Iterator<Item = LeaseRecord> {
        let entries = self.engine.quarantine().iter();
        entries.map(|entry| self.quarantined_lease(entry))
    }

    /// A lease that was given back.
    pub(super) fn quarantined_lease(&self, entry: &Quarantined) -> LeaseRecord {
        let (lease, id) = (&entry.lease, entry.id());
        let heard = entry.stamps.last();
        LeaseRecord {
            lease: LeaseName {
                store: lease.store.to_string(),
                address: lease.address.ip(),
                holder: self.holder_name(&lease.holder()),
                state: LeaseState::Quarantined,
            },
            segment: self.engine.segment_of(lease).map(segment_name),
            damage: lease.damage,
            reason: format!(
                "given back, and watched in case somebody uses it after all; \
                 `reclaim undo {id}` puts the lease back"
            ),
            since: None,
            last_heard: (heard > 0).then(|| self.clock.at(Timestamp(heard))),
            blockers: Vec::new(),
            quarantine: Some(QuarantineRecord {
                id: id.to_owned(),
                released_at: self.clock.at(entry.at),
                until: self.clock.at(entry.until()),
            }),
        }
    }

    /// What the agent reserved.
    fn fence(&self, planner: &Planner<'_>, fence: &Lease) -> LeaseRecord {
        let heard = self.engine.last_heard(fence.address);
        LeaseRecord {
            lease: LeaseName {
                store: fence.store.to_string(),
                address: fence.address.ip(),
                holder: self.holder_name(&fence.holder()),
                state: LeaseState::Fenced,
            },
            segment: planner.segment_of(fence).ok().map(|s| segment_name(&s)),
            damage: None,
            reason: String::from("reserved by the agent: somebody uses it without a lease"),
            since: None,
            last_heard: heard.map(|at| self.clock.at(at)),
            blockers: Vec::new(),
            quarantine: None,
        }
    }

    pub(super) fn lease_name(&self, record: &Record, state: LeaseState) -> LeaseName {
        LeaseName {
            store: record.lease.store.to_string(),
            address: record.lease.address.ip(),
            holder: self.holder_name(&record.lease.holder()),
            state,
        }
    }

    pub(super) fn lease_names(&self, segment: &Segment, address: Address) -> Vec<LeaseName> {
        let records = self.engine.leases_in(segment, address);
        records
            .into_iter()
            .map(|record| self.lease_name(record, lease_state(self.engine.state(record, self.now))))
            .collect()
    }

    pub(super) fn lease_counts(&self) -> LeaseCounts {
        let planner = self.engine.planner(self.now);
        let records = self.engine.leases().iter();
        let quarantined = self.engine.quarantine().iter();
        let stores = self.engine.leases().stores().values();
        let fences = stores.flat_map(|store| &store.fencing.fences);
        records
            .map(|record| lease_state(planner.state(record)))
            .chain(quarantined.map(|_| LeaseState::Quarantined))
            .chain(fences.map(|_| LeaseState::Fenced))
            .collect()
    }
}

pub(super) fn lease_state(state: reclaim::LeaseState) -> LeaseState {
    match state {
        reclaim::LeaseState::Active => LeaseState::Active,
        reclaim::LeaseState::Quiet => LeaseState::Quiet,
        reclaim::LeaseState::Stale => LeaseState::Stale,
        reclaim::LeaseState::Unknown => LeaseState::Unknown,
    }
}

/// What says most of why a lease is in this state: of one in use who uses it, even where
/// weightier things stand against its release.
fn why(state: LeaseState, blockers: &[Blocker]) -> Option<&Blocker> {
    let is_life = |blocker: &&Blocker| {
        matches!(
            blocker.reason,
            Reason::ProbeAnswered | Reason::Seen | Reason::Holder
        )
    };
    let life = blockers.iter().find(is_life);
    life.filter(|_| state == LeaseState::Active)
        .or(blockers.first())
}
