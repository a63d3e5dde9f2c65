//! Fences: addresses that somebody uses without a lease, reserved in their store so that it
//! hands them to nobody. To the judge a fence is no lease, and the conflict stays open.
//!
//! One is raised once the squatter has been known for a while and has answered a question of
//! ours, and lowered when nobody has been heard for a gate and nobody answers any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipam_common::{Address, Mac};

use super::{
    Engine,
    confirm::{Claimant, Question},
    conflict::{Conflict, Verdict},
    conflict_of,
    input::Command,
    lease::{Lease, Pool, StoreName},
    leasebook::Store,
    scope::Scope,
    segment::Segment,
    table::Place,
    time::Timestamp,
};

/// A squatter must have been known for so long.
const KNOWN: Duration = Duration::from_secs(10);
/// An answer is good for so long, and one who gave none is asked again after it at the latest.
const AGAIN: Duration = Duration::from_secs(60);
/// Who gave no answer is asked again after so long first, then twice as long each time: one lost
/// frame is no silence, and meanwhile the store may give the address to a pod.
const SOON: Duration = Duration::from_secs(5);
/// How much of a pool is fenced at most, in percent.
const MAX_PERCENT: u128 = 5;
/// How much of a store.
const MAX_FENCES: usize = 1024;
/// How many squatted addresses are followed at once.
const MAX_SQUATS: usize = 4096;

/// A fence that is to be raised or lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// In which store.
    pub store: StoreName,
    /// Which address.
    pub address: Address,
    /// What to do.
    pub change: Change,
}

/// What is done with a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is raised against this squatter, behind that port.
    Raise {
        /// Who.
        squatter: Mac,
        /// Where.
        port: Arc<str>,
    },
    /// This one, exactly as it was read, is lowered.
    Lower(Lease, Lowered),
}

/// Why a fence is lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowered {
    /// The squatter is gone.
    Gone,
    /// The configuration doesn't want fences in this store.
    Off,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// What it was about.
    pub fence: Fence,
    /// Done, or why not.
    pub result: Result<(), String>,
}

/// An address that is used without a lease, in a store that is fenced.
#[derive(Clone, Copy, Debug, Default)]
struct Squat {
    /// How often it was asked since it last answered, and when it may be asked again.
    asked: u32,
    again: Option<Timestamp>,
    answered: Option<(Mac, Timestamp)>,
    tried: Option<Timestamp>,
}

/// What is followed.
#[derive(Debug, Default)]
pub(super) struct Fences {
    squats: BTreeMap<Place, Squat>,
    /// What is being raised or lowered.
    busy: BTreeSet<(StoreName, Address)>,
    /// The fences whose squatters seem to be gone, and about which the wire is being asked.
    leaving: BTreeMap<(Segment, Address), Lease>,
    /// When to look again.
    next: Option<Timestamp>,
}

impl Fences {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.next
    }
}

impl Engine {
    /// An address was judged.
    pub(super) fn note_squat(&mut self, place: Place, conflict: Option<&Conflict>, now: Timestamp) {
        let fenced = conflict.filter(|conflict| conflict.is_active());
        let fenced = fenced.is_some_and(|conflict| match &conflict.verdict {
            Verdict::Unleased { store, .. } => self.may_fence(store).is_some(),
            _ => false,
        });
        if !fenced {
            self.fences.squats.remove(&place);
        } else if self.fences.squats.len() < MAX_SQUATS && !self.fences.squats.contains_key(&place)
        {
            self.fences.squats.insert(place, Squat::default());
            self.fences.next = Some(now);
        }
    }

    /// The squatter was asked.
    pub(super) fn squatter_answered(&mut self, place: Place, answered: &[Mac], now: Timestamp) {
        if let (Some(squat), Some(&mac)) = (self.fences.squats.get_mut(&place), answered.first()) {
            squat.answered = Some((mac, now));
            squat.asked = 0;
            self.fences.next = Some(now);
        }
    }

    /// Asks squatters, and raises the fences that are due.
    pub(super) fn fence(&mut self, now: Timestamp) {
        self.fences.next = None;
        let mut raised = Vec::new();
        for place in self.fences.squats.keys().copied().collect::<Vec<_>>() {
            let due = self.fence_at(place, &mut raised, now);
            if let Some(due) = due {
                let next = self.fences.next.map_or(due, |next| next.min(due));
                self.fences.next = Some(next);
            }
        }
        self.change_fences(raised);
    }

    /// When to look at this one again, if ever.
    fn fence_at(
        &mut self,
        place: Place,
        raised: &mut Vec<Fence>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let squat = *self.fences.squats.get(&place)?;
        let entry = self.table.get(&place)?;
        let Verdict::Unleased { claimants, store } = &conflict_of(entry)?.verdict else {
            return None;
        };
        let (address, key) = (place.1, (store.clone(), place.1));
        // Where a fence stands, a released lease can't be put back.
        let mut released = self.quarantine.of(address);
        if self.may_fence(store)?.fencing.has(address)
            || self.leases.contains(&address)
            || released.any(|entry| entry.lease.store == *store)
        {
            // Looked at again when something of it changes, and now and then.
            return Some(now + AGAIN);
        }
        let answered = squat.answered.filter(|(_, at)| now.since(*at) < AGAIN);
        let known = answered.and_then(|(mac, _)| entry.claims.iter().find(|c| c.mac == mac));
        if let Some(claim) = known {
            let since = claim.first_seen + KNOWN;
            if now < since {
                return Some(since);
            }
            let tried = squat.tried.is_some_and(|at| now.since(at) < AGAIN);
            let port = self.topology.ports.get(&claim.ifindex);
            if let Some(port) = port.filter(|_| !tried && !self.fences.busy.contains(&key))
                && self.pass.state.is_none()
                && self.is_within_share(store, address, raised)
            {
                raised.push(Fence {
                    store: store.clone(),
                    address,
                    change: Change::Raise {
                        squatter: claim.mac,
                        port: Arc::clone(&port.name),
                    },
                });
                self.fences.squats.get_mut(&place)?.tried = Some(now);
            }
            return Some(now + AGAIN);
        }
        if let Some(again) = squat.again.filter(|again| now < *again) {
            return Some(again);
        }
        let segment = self.table.segment(place.0).clone();
        let asked = entry.claims.iter().filter(|c| claimants.contains(&c.mac));
        let claimants: Vec<Claimant> = asked
            .filter_map(|claim| {
                Some(Claimant {
                    mac: claim.mac,
                    ifindex: claim.ifindex,
                    tags: self.topology.tags_towards(claim.ifindex, &segment)?,
                })
            })
            .collect();
        if !claimants.is_empty() {
            self.commands.push_back(Command::Ask(Question {
                segment,
                address,
                claimants,
                unprobed: !self.attempts.goes_on(&place, now),
            }));
        }
        let wait = SOON.saturating_mul(1 << squat.asked.min(4)).min(AGAIN);
        // While somebody probes, whoever has no address to ask with doesn't ask at all.
        let over = self.attempts.over_at(&place).filter(|over| now < *over);
        let again = over.map_or(now + wait, |over| over.min(now + wait));
        let squat = self.fences.squats.get_mut(&place)?;
        squat.asked += u32::from(over.is_none());
        squat.again = Some(again);
        Some(again)
    }

    /// The store, if it is to be fenced and can be.
    fn may_fence(&self, store: &StoreName) -> Option<&Store> {
        let store = self.leases.stores().get(store)?;
        (store.fencing.wanted && store.writable.is_ok() && store.failed.is_none()).then_some(store)
    }

    fn is_within_share(&self, name: &StoreName, address: Address, raised: &[Fence]) -> bool {
        let Some(store) = self.leases.stores().get(name) else {
            return false;
        };
        let holds = |pool: &&Pool| pool.prefix.contains(&address.ip());
        let Some(pool) = store.pools.iter().find(holds) else {
            return false;
        };
        let raised = raised.iter().filter(|fence| fence.store == *name);
        let raised = raised.map(|fence| fence.address);
        let busy = self.fences.busy.iter().filter(|(store, _)| store == name);
        let mut all: BTreeSet<Address> = store.fencing.fences.iter().map(|f| f.address).collect();
        all.extend(raised);
        all.extend(busy.map(|(_, address)| *address));
        let here = all
            .iter()
            .filter(|fenced| pool.prefix.contains(&fenced.ip()));
        all.len() < MAX_FENCES && (here.count() as u128) < pool.size() * MAX_PERCENT / 100
    }

    /// The fences about which the wire is asked, because nobody was heard for a gate. Those of
    /// a store that isn't fenced any more are lowered.
    pub(super) fn fences_to_ask(&mut self, now: Timestamp) -> Vec<(Lease, Segment)> {
        let mut lowered = Vec::new();
        let mut ask = Vec::new();
        for store in self.leases.stores().values() {
            for fence in &store.fencing.fences {
                if !store.fencing.wanted && store.writable.is_ok() && store.failed.is_none() {
                    lowered.push(lower(fence, Lowered::Off));
                } else if let Some(segment) = self.is_quiet(fence, now) {
                    ask.push((fence.clone(), segment));
                }
            }
        }
        self.change_fences(lowered);
        ask
    }

    /// The segment on which nobody was heard with the fenced address for a gate, though it was
    /// watched.
    fn is_quiet(&self, fence: &Lease, now: Timestamp) -> Option<Segment> {
        let Scope::Segment(segment) = self.scopes.of(fence) else {
            return None;
        };
        let gate = self.settings.reclaim.gate;
        let watched = self
            .coverage
            .since(&self.topology, segment, now)
            .ok()?
            .since;
        let is_recent = |at: Timestamp| now.since(at) < gate;
        let places = self.table.places_of(fence.address);
        let heard = places.filter_map(|place| self.table.get(&place)?.last_seen());
        let place = self.table.find(segment).map(|id| (id, fence.address));
        let wanted = place.is_some_and(|place| self.attempts.goes_on(&place, now));
        let quiet = !is_recent(watched) && !wanted && !{ heard }.any(is_recent);
        let asked = !self.pass.holds(&fence.address) && self.pass.down.is_empty();
        (quiet && asked).then(|| segment.clone())
    }

    /// The wire is being asked about these.
    pub(super) fn asked_about_fences(&mut self, asked: Vec<(Lease, Segment)>) {
        let leaving = asked
            .into_iter()
            .map(|(fence, segment)| ((segment, fence.address), fence));
        self.fences.leaving = leaving.collect();
    }

    /// Nobody answered for these addresses.
    pub(super) fn nobody_has(&mut self, silent: &BTreeSet<(Segment, Address)>, now: Timestamp) {
        let leaving = std::mem::take(&mut self.fences.leaving);
        let gone = leaving.into_iter().filter(|(place, fence)| {
            // Somebody may have spoken meanwhile.
            silent.contains(place) && self.is_quiet(fence, now).is_some()
        });
        let gone = gone
            .map(|(_, fence)| lower(&fence, Lowered::Gone))
            .collect();
        self.change_fences(gone);
    }

    fn change_fences(&mut self, mut changes: Vec<Fence>) {
        changes.retain(|fence| {
            let key = (fence.store.clone(), fence.address);
            self.pass.state.is_none() && self.fences.busy.insert(key)
        });
        if !changes.is_empty() {
            self.commands.push_back(Command::Fence(changes));
        }
    }

    /// What became of fences.
    pub(super) fn fenced(&mut self, fenced: &[Fenced]) {
        for Fenced { fence, .. } in fenced {
            let key = (fence.store.clone(), fence.address);
            self.fences.busy.remove(&key);
        }
    }
}

fn lower(fence: &Lease, why: Lowered) -> Fence {
    Fence {
        store: fence.store.clone(),
        address: fence.address,
        change: Change::Lower(fence.clone(), why),
    }
}

impl Pool {
    /// How many addresses it has to hand out, at most.
    fn size(&self) -> u128 {
        let number = |address: Address| u128::from_be_bytes(address.mapped());
        match self.range {
            Some((first, last)) => number(last).saturating_sub(number(first)).saturating_add(1),
            None => {
                let bits = self.prefix.max_prefix_len() - self.prefix.prefix_len();
                1u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
            }
        }
        // Times a percentage it must still fit.
        .min(u128::from(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
