//! How many leases there are of each kind, counted when they are judged or change, so that
//! telling the numbers costs nothing.

use std::{collections::BTreeMap, sync::Arc};

use ipam_common::Address;
use ipnet::IpNet;

use super::{
    Engine,
    lease::{Pool, StoreName},
    leasebook::Store,
    plan::{Kept, Reason},
    reclaim::LeaseState,
    time::Timestamp,
};

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// By store, and by the pool's prefix; `None`: in none of the store's pools.
    pub pools: BTreeMap<StoreName, BTreeMap<Option<IpNet>, PoolCount>>,
    /// How many leases each reason keeps from being released unasked.
    pub blocked: BTreeMap<StoreName, BTreeMap<Reason, u64>>,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolCount {
    /// How many addresses it hands out. Of IPv6 they may be many.
    pub addresses: f64,
    /// How many of them are leased, or reserved by the agent.
    pub used: u64,
    /// Leases, by their state at the last pass.
    pub active: u64,
    /// As above.
    pub quiet: u64,
    /// As above.
    pub stale: u64,
    /// As above.
    pub unknown: u64,
    /// Given back, and watched since.
    pub quarantined: u64,
    /// Reserved by the agent.
    pub fenced: u64,
}

impl PoolCount {
    fn lease(&mut self, state: LeaseState) {
        match state {
            LeaseState::Active => self.active += 1,
            LeaseState::Quiet => self.quiet += 1,
            LeaseState::Stale => self.stale += 1,
            LeaseState::Unknown => self.unknown += 1,
        }
    }

    /// Adds another's.
    pub(super) fn merge(&mut self, other: &Self) {
        self.addresses += other.addresses;
        self.used += other.used;
        self.active += other.active;
        self.quiet += other.quiet;
        self.stale += other.stale;
        self.unknown += other.unknown;
        self.quarantined += other.quarantined;
        self.fenced += other.fenced;
    }
}

/// One store while it is counted. A store has few pools, and its leases come one after
/// another.
struct Counting<'a> {
    name: &'a StoreName,
    pools: Vec<(&'a Pool, PoolCount)>,
    outside: PoolCount,
}

impl<'a> Counting<'a> {
    fn new(name: &'a StoreName, store: &'a Store) -> Self {
        let pools = store.pools.iter().map(|pool| {
            let count = PoolCount {
                addresses: pool.managed_size(),
                ..PoolCount::default()
            };
            (pool, count)
        });
        Self {
            name,
            pools: pools.collect(),
            outside: PoolCount::default(),
        }
    }

    fn of(&mut self, address: Address) -> (&mut PoolCount, bool) {
        let ip = address.ip();
        // Two ranges of one prefix are two pools.
        let holds = |pool: &Pool| pool.prefix.contains(&ip);
        let gives = |pool: &Pool| pool.manages(address);
        let place = self.pools.iter().position(|(pool, _)| gives(pool));
        let managed = place.is_some();
        let place = place.or_else(|| self.pools.iter().position(|(pool, _)| holds(pool)));
        match place.and_then(|place| self.pools.get_mut(place)) {
            Some((_, count)) => (count, managed),
            None => (&mut self.outside, false),
        }
    }
}

impl Engine {
    /// Notes the state of every lease.
    pub(super) fn judge_states(&mut self, now: Timestamp) {
        let planner = self.planner(now);
        let leases = self.leases.iter();
        let states: Vec<LeaseState> = leases.map(|record| planner.state(record)).collect();
        for (record, state) in self.leases.iter_mut().zip(states) {
            record.state = Some(state);
        }
    }

    /// Counts leases as they were judged; those that are new are judged now.
    pub(super) fn count_leases(&mut self, now: Timestamp) {
        let planner = self.planner(now);
        let stores = self.leases.stores().iter();
        let mut stores: Vec<Counting<'_>> = stores
            .map(|(name, store)| Counting::new(name, store))
            .collect();
        let mut last = 0;
        let mut find = |stores: &[Counting<'_>], store: &StoreName| {
            if stores.get(last).is_none_or(|at| at.name != store) {
                let found = stores.binary_search_by(|at| at.name.cmp(store));
                last = found.unwrap_or(usize::MAX);
            }
            last
        };
        for record in self.leases.unsorted() {
            let lease = &record.lease;
            let at = find(&stores, &lease.store);
            let Some(store) = stores.get_mut(at) else {
                continue;
            };
            let (count, managed) = store.of(lease.address);
            count.lease(record.state.unwrap_or_else(|| planner.state(record)));
            count.used += u64::from(managed);
        }
        for entry in self.quarantine.iter() {
            let at = find(&stores, &entry.lease.store);
            if let Some(store) = stores.get_mut(at) {
                store.of(entry.lease.address).0.quarantined += 1;
            }
        }
        for (name, store) in self.leases.stores() {
            let at = find(&stores, name);
            for fence in &store.fencing.fences {
                if let Some(store) = stores.get_mut(at) {
                    let (count, managed) = store.of(fence.address);
                    count.fenced += 1;
                    count.used += u64::from(managed);
                }
            }
        }
        let stores = stores.into_iter().map(|store| {
            let mut pools: BTreeMap<Option<IpNet>, PoolCount> = BTreeMap::new();
            for (pool, count) in &store.pools {
                let prefix = Some(pool.prefix.trunc());
                pools.entry(prefix).or_default().merge(count);
            }
            if store.pools.is_empty() || store.outside != PoolCount::default() {
                pools.insert(None, store.outside);
            }
            (store.name.clone(), pools)
        });
        self.census.pools = stores.collect();
    }

    /// Counts what keeps leases from being released unasked. One lease can have many reasons.
    pub(super) fn count_blocked(&mut self, kept: &[Kept]) {
        self.census.blocked.clear();
        for kept in kept {
            if !self.census.blocked.contains_key(&kept.store) {
                let store = StoreName(Arc::clone(&kept.store.0));
                self.census.blocked.insert(store, BTreeMap::new());
            }
            let Some(reasons) = self.census.blocked.get_mut(&kept.store) else {
                continue;
            };
            let blockers = kept.blockers.iter().enumerate();
            for (at, blocker) in blockers {
                let before = kept.blockers.iter().take(at);
                if before.clone().all(|other| other.reason != blocker.reason) {
                    *reasons.entry(blocker.reason).or_default() += 1;
                }
            }
        }
    }
}

impl Pool {
    /// How many addresses it hands out: those of which [`Pool::manages`] says so.
    pub(super) fn managed_size(&self) -> f64 {
        let number = |address: Address| u128::from_be_bytes(address.mapped());
        let (first, last) = match self.range {
            Some(range) => range,
            None => {
                let ends = (self.prefix.network(), self.prefix.broadcast());
                match (Address::from_ip(ends.0), Address::from_ip(ends.1)) {
                    (Some(first), Some(last)) => (first, last),
                    _ => return 0.0,
                }
            }
        };
        let (first, last) = (number(first), number(last));
        let mut taken: Vec<(u128, u128)> = { self.exclude.iter() }
            .map(|&(from, to)| (number(from), number(to)))
            .chain(
                self.gateway
                    .map(|gateway| (number(gateway), number(gateway))),
            )
            .collect();
        if let IpNet::V4(prefix) = self.prefix
            && prefix.prefix_len() < 31
        {
            let edge = |ip: std::net::Ipv4Addr| {
                let mapped = u128::from_be_bytes(ip.to_ipv6_mapped().octets());
                (mapped, mapped)
            };
            taken.extend([edge(prefix.network()), edge(prefix.broadcast())]);
        }
        taken.sort_unstable();
        let mut free = 0.0;
        let mut next = first;
        for (from, to) in taken {
            if to < next || from > last {
                continue;
            }
            free += from.saturating_sub(next) as f64;
            next = to.saturating_add(1);
        }
        if next <= last {
            free += (last - next) as f64 + 1.0;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(prefix: &str) -> Pool {
        Pool {
            prefix: prefix.parse().expect("a prefix"),
            range: None,
            gateway: None,
            gateway_mac: None,
            exclude: Vec::new(),
            place: None,
        }
    }

    #[test]
    fn sizes_of_whole_prefixes() {
        for (prefix, size) in [
            ("10.0.0.0/24", 254.0),
            ("10.0.0.0/31", 2.0),
            ("10.0.0.4/32", 1.0),
            ("10.0.0.0/8", 16_777_214.0),
            ("fd00::/64", 18_446_744_073_709_551_616.0),
        ] {
            assert_eq!(pool(prefix).managed_size(), size, "{prefix}");
        }
    }

    proptest! {
        /// Against asking for each address.
        #[test]
        fn a_size_is_what_is_managed(
            bits in 24u8..=32,
            gateway in any::<u8>(),
            range in proptest::option::of((any::<u8>(), any::<u8>())),
            exclude in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..4),
        ) {
            let address = |last: u8| Address::v4([10, 0, 0, last]).expect("claimable");
            let pair = |(a, b): (u8, u8)| (address(a.min(b)), address(a.max(b)));
            let prefix = format!("10.0.0.{gateway}/{bits}").parse::<IpNet>().expect("a prefix");
            let within = |at: &Address| prefix.contains(&at.ip());
            let range = range.map(pair).filter(|(a, b)| within(a) && within(b));
            let pool = Pool {
                prefix: prefix.trunc(),
                range,
                gateway: Some(address(gateway)),
                gateway_mac: None,
                exclude: exclude.into_iter().map(pair).collect(),
                place: None,
            };
            let managed = (0..=255).filter(|&last| pool.manages(address(last))).count();
            prop_assert_eq!(pool.managed_size(), managed as f64);
        }
    }
}
