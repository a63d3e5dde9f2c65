//! What the wire is asked before a release, and what its silence is worth.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipam_common::Address;

use super::{Clear, Planner, Silence, budget::Budget, slot, words};
use crate::engine::{
    attempt::ATTEMPT_WINDOW,
    lease::{Lease, StoreName},
    leasebook::{Origin, Record},
    plan::{Asker, Blocker, Reason},
    probing::{Against, MAX_ASKED, Unanswered, exits},
    segment::{Port, Segment, Wiring},
    time::Timestamp,
};

impl Planner<'_> {
    /// Somebody answered a probe of ours.
    pub(super) fn answered(&self, record: &Record, window: Duration, blockers: &mut Vec<Blocker>) {
        let known = self.probing.of(&record.lease);
        let Some(Against::Answered { mac, port, at }) = known.and_then(|k| k.against.as_ref())
        else {
            return;
        };
        let ago = self.now.since(*at);
        if ago < window {
            blockers.push(Blocker {
                reason: Reason::ProbeAnswered,
                detail: format!("{mac} on {port} answered a probe {} ago", words(ago)),
                until: Some(*at + window),
            });
        }
    }

    /// That nobody answered our probes; `None` where none are sent.
    pub(super) fn unanswered(
        &self,
        record: &Record,
        asker: Asker,
        silence: Silence,
    ) -> Result<Option<Unanswered>, Blocker> {
        let segment = self
            .segment(record)
            .map_err(|why| Blocker::new(Reason::SegmentUnwatched, why))?;
        if self.is_routed(&segment) {
            return Ok(None);
        }
        let later = |detail: &str| Blocker {
            reason: Reason::SecondPass,
            detail: detail.into(),
            until: self.pass.at.map(|at| at + self.settings.pass_interval),
        };
        let Some(known) = self.probing.of(&record.lease) else {
            return Err(self
                .wanted(record, &segment)
                .unwrap_or_else(|| later("the wire was not asked for it yet")));
        };
        let silent = match silence {
            Silence::OfAny => known.last_silent(),
            Silence::OfThisPass => known.silent.as_ref(),
        };
        if let Some(silent) = silent {
            let number = self.pass.number;
            // The pass that asked is among those that agree.
            let agreed = u64::from(record.passes[slot(asker)]);
            let timely = silent.judged == number && number < silent.asked.saturating_add(agreed);
            let guests =
                |ifindex| { self.topology.ports.get(ifindex) }.is_some_and(Port::is_guests);
            let whole = exits(self.topology, &segment)
                .iter()
                .all(|(ifindex, _)| silent.ports.contains(ifindex) || guests(ifindex));
            if silence == Silence::OfAny || (timely && whole) {
                return Ok(Some(silent.unanswered));
            }
        }
        Err(match &known.against {
            Some(Against::Wanted(mac)) => Blocker {
                reason: Reason::Seen,
                detail: format!("{mac} probes for it, to take it"),
                until: None,
            },
            Some(Against::Unsent(why)) => Blocker::new(Reason::Coverage, why.clone()),
            _ if known.waiting => later("the wire is being asked for it"),
            _ => later("the wire is to be asked for it again"),
        })
    }

    /// The leases about which the wire is asked after this pass, and where, those first that
    /// would go first; `next` is the next pass, which alone can go by what is answered.
    pub fn to_ask(
        &self,
        clear: &Clear,
        person: bool,
        going: &BTreeSet<(StoreName, Address)>,
        next: Timestamp,
    ) -> Vec<(Lease, Segment)> {
        let mut asked = BTreeSet::new();
        let mut questions = Vec::new();
        let (mut sent, mut reached) = (0, BTreeMap::new());
        let mut ask = |record: &Record| {
            let lease = &record.lease;
            let key = (lease.store.clone(), lease.address);
            if going.contains(&key) || asked.contains(&key) {
                return;
            }
            if let Ok(segment) = self.segment(record)
                && !self.is_routed(&segment)
                && self.wanted(record, &segment).is_none()
            {
                // Where nobody is there to be asked it takes no time.
                let is_sent = *reached
                    .entry(segment.clone())
                    .or_insert_with(|| !exits(self.topology, &segment).is_empty());
                if is_sent && sent >= MAX_ASKED {
                    return;
                }
                sent += usize::from(is_sent);
                asked.insert(key);
                questions.push((lease.clone(), segment));
            }
        };
        let mut unasked: Vec<&Record> = self.records(&clear.daemon).collect();
        unasked
            .retain(|record| !going.contains(&(record.lease.store.clone(), record.lease.address)));
        unasked.sort_by_key(|record| (!is_of_earlier_boot(record), record.lease.damage.is_some()));
        let mut budget = Budget::new(self, next);
        for record in unasked {
            if is_of_earlier_boot(record) || budget.allows(&record.lease).is_ok() {
                ask(record);
            }
        }
        for record in self.records(&clear.person) {
            let known = self.probing.of(&record.lease);
            if person || known.is_none_or(|known| known.last_silent().is_none()) {
                ask(record);
            }
        }
        questions
    }

    /// Whether there are leases that a pass at `next` could release unasked, by what the wire
    /// said since the last one.
    pub fn any_to_go(&self, next: Timestamp) -> bool {
        let mut budget = Budget::new(self, next);
        self.leases.iter().any(|record| {
            record.passes[slot(Asker::Daemon)] > 0
                && self.probing.is_fresh(&record.lease)
                && (is_of_earlier_boot(record) || budget.allows(&record.lease).is_ok())
        })
    }

    fn records<'a>(&'a self, keys: &'a [(StoreName, Address)]) -> impl Iterator<Item = &'a Record> {
        keys.iter().filter_map(|(store, address)| {
            let mut records = self.leases.of(address).iter();
            records.find(|record| record.lease.store == *store)
        })
    }

    /// Whether the segment is that of routed pods: they have one link each, and behind it
    /// whoever is there is looked at.
    fn is_routed(&self, segment: &Segment) -> bool {
        let mut ports = self.topology.ports_of(segment);
        let is_its_own = |port: &Port| port.wiring == Wiring::Routed && port.name == segment.name;
        *segment.name == *Segment::ROUTED || ports.any(|(_, port)| is_its_own(port))
    }

    /// Somebody was heard probing for the address a moment ago: a probe of ours would make it
    /// give the address up.
    fn wanted(&self, record: &Record, segment: &Segment) -> Option<Blocker> {
        let address = record.lease.address;
        let place = self.table.find(segment).map(|id| (id, address));
        let probed = Timestamp(record.stamps.probe);
        let stamped = record.stamps.probe > 0 && self.now.since(probed) < ATTEMPT_WINDOW;
        (stamped || place.is_some_and(|place| self.attempts.goes_on(&place, self.now)))
            .then(|| Blocker::new(Reason::Seen, "somebody probes for it, to take it"))
    }
}

fn is_of_earlier_boot(record: &Record) -> bool {
    matches!(record.origin, Origin::EarlierBoot(_))
}
