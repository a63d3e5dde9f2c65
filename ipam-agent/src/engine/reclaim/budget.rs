//! How many leases unattended passes may release in an interval.

use std::collections::BTreeMap;

use ipam_common::Address;

use super::{Planner, words};
use crate::engine::{
    lease::{Lease, Pool, StoreName},
    plan::{Blocker, Kept, Reason, ReclaimPlan, Release},
    time::Timestamp,
};

/// What was released of the budget, the oldest first: however close passes follow each other,
/// no more is released in any interval.
#[derive(Clone, Debug, Default)]
pub struct Spent(Vec<(Timestamp, BTreeMap<StoreName, usize>)>);

impl Spent {
    /// A plan is to be carried out.
    pub(in crate::engine) fn plan(&mut self, plan: &ReclaimPlan) {
        let mut spent = BTreeMap::new();
        let charged = plan.releases.iter().filter(|release| is_charged(release));
        for release in charged {
            *spent.entry(release.lease().store.clone()).or_default() += 1;
        }
        self.0.push((plan.at, spent));
    }

    /// It was carried out, and its last lease released right now.
    pub(in crate::engine) fn ended(&mut self, now: Timestamp) {
        if let Some((at, _)) = self.0.last_mut() {
            *at = now;
        }
    }

    /// An earlier run released a lease of each of these stores.
    pub(in crate::engine) fn earlier(&mut self, released: Vec<(StoreName, Timestamp)>) {
        let released = released.into_iter();
        self.0
            .extend(released.map(|(store, at)| (at, BTreeMap::from([(store, 1)]))));
        self.0.sort_by_key(|(at, _)| *at);
    }

    /// What is older than this counts no more.
    pub(in crate::engine) fn forget(&mut self, before: Timestamp) {
        self.0.retain(|(at, _)| *at > before);
    }
}

/// Leases of an earlier boot have no budget.
fn is_charged(release: &Release) -> bool {
    release.proof().earlier_boot().is_none()
}

/// What was released so far within an interval, and how much more may be.
pub(super) struct Budget<'a> {
    planner: &'a Planner<'a>,
    /// How many leases each store has, where its pools say nothing.
    sizes: BTreeMap<StoreName, usize>,
    spent: BTreeMap<StoreName, usize>,
    total: usize,
    /// When there is more.
    until: Timestamp,
}

impl<'a> Budget<'a> {
    /// What can be spent at `at`.
    pub(super) fn new(planner: &'a Planner<'a>, at: Timestamp) -> Self {
        let mut sizes: BTreeMap<StoreName, usize> = BTreeMap::new();
        for record in planner.leases.iter() {
            *sizes.entry(record.lease.store.clone()).or_default() += 1;
        }
        let interval = planner.settings.pass_interval;
        let before = planner.pass.spent.0.iter();
        let mut before = before
            .filter(|(then, _)| at.since(*then) < interval)
            .peekable();
        let until = before.peek().map_or(at, |(then, _)| *then) + interval;
        let mut spent: BTreeMap<StoreName, usize> = BTreeMap::new();
        for (store, count) in before.flat_map(|(_, spent)| spent) {
            *spent.entry(store.clone()).or_default() += count;
        }
        Self {
            planner,
            sizes,
            total: spent.values().sum(),
            spent,
            until,
        }
    }

    /// Whether one more lease of this store can go: so many a pass, and so much of each pool.
    /// It is spent then.
    pub(super) fn allows(&mut self, lease: &Lease) -> Result<(), Blocker> {
        let settings = self.planner.settings;
        let pool = self.planner.pool_size(&lease.store, lease.address);
        let size = pool.unwrap_or_else(|| self.sizes.get(&lease.store).copied().unwrap_or(0));
        let percent = usize::from(settings.max_percent);
        let share = (size.saturating_mul(percent)).div_ceil(100).max(1);
        let spent = self.spent.entry(lease.store.clone()).or_default();
        if self.total < settings.max_per_pass && *spent < share {
            self.total += 1;
            *spent += 1;
            return Ok(());
        }
        Err(Blocker {
            reason: Reason::Budget,
            detail: format!(
                "no more than {} leases, and {share} of {}, are released in {}",
                settings.max_per_pass,
                lease.store,
                words(settings.pass_interval)
            ),
            until: Some(self.until),
        })
    }
}

impl Planner<'_> {
    /// Unasked, and of leases not known to be of an earlier boot.
    pub(super) fn apply_budget(&self, releases: &mut Vec<Release>, kept: &mut Vec<Kept>) {
        let mut budget = Budget::new(self, self.now);
        releases.retain(|release| {
            if !is_charged(release) {
                return true;
            }
            let lease = release.lease();
            let allowed = budget.allows(lease);
            if let Err(blocker) = &allowed {
                kept.push(Kept {
                    store: lease.store.clone(),
                    address: lease.address,
                    blockers: vec![blocker.clone()],
                });
            }
            allowed.is_ok()
        });
    }

    /// How many addresses the pool has that this one is of.
    fn pool_size(&self, store: &StoreName, address: Address) -> Option<usize> {
        let pools = &self.leases.stores().get(store)?.pools;
        let here = pools
            .iter()
            .filter(|pool| pool.prefix.contains(&address.ip()));
        // A prefix may be of several pools; of what is in none of them the smallest counts.
        let pool = { here.clone() }
            .find(|pool| pool.manages(address))
            .map(Pool::managed_size)
            .or_else(|| here.map(Pool::managed_size).min_by(f64::total_cmp))?;
        Some(pool as usize)
    }
}
