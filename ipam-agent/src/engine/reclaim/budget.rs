//! How many leases one unattended pass may release.

use std::collections::BTreeMap;

use ipam_common::Address;

use super::Planner;
use crate::engine::{
    lease::{Lease, StoreName},
    plan::{Blocker, Kept, Reason, Release},
};

/// What a pass has released so far, and how much more it may.
pub(super) struct Budget<'a> {
    planner: &'a Planner<'a>,
    /// How many leases each store has, where its pools say nothing.
    sizes: BTreeMap<StoreName, usize>,
    spent: BTreeMap<StoreName, usize>,
    total: usize,
}

impl<'a> Budget<'a> {
    pub(super) fn new(planner: &'a Planner<'a>) -> Self {
        let mut sizes: BTreeMap<StoreName, usize> = BTreeMap::new();
        for record in planner.leases.iter() {
            *sizes.entry(record.lease.store.clone()).or_default() += 1;
        }
        Self {
            planner,
            sizes,
            spent: BTreeMap::new(),
            total: 0,
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
                "this pass releases no more than {} leases and {share} of {}",
                settings.max_per_pass, lease.store
            ),
            until: Some(self.planner.now + settings.pass_interval),
        })
    }
}

impl Planner<'_> {
    /// Unasked, and of leases not known to be of an earlier boot.
    pub(super) fn apply_budget(&self, releases: &mut Vec<Release>, kept: &mut Vec<Kept>) {
        let mut budget = Budget::new(self);
        releases.retain(|release| {
            if release.proof().earlier_boot().is_some() {
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

    pub(super) fn pool_size(&self, store: &StoreName, address: Address) -> Option<usize> {
        let pools = &self.leases.stores().get(store)?.pools;
        let pool = pools
            .iter()
            .find(|pool| pool.prefix.contains(&address.ip()))?;
        let bits = u32::from(pool.prefix.max_prefix_len() - pool.prefix.prefix_len());
        1usize.checked_shl(bits)
    }
}
