//! How many leases one unattended pass may release.

use std::collections::BTreeMap;

use ipam_common::Address;

use super::Planner;
use crate::engine::{
    lease::StoreName,
    plan::{Blocker, Kept, Reason, Release},
};

impl Planner<'_> {
    /// Unasked, and of leases not known to be of an earlier boot: so many a pass, and so
    /// much of each pool.
    pub(super) fn apply_budget(&self, releases: &mut Vec<Release>, kept: &mut Vec<Kept>) {
        let mut sizes: BTreeMap<StoreName, usize> = BTreeMap::new();
        for record in self.leases.iter() {
            *sizes.entry(record.lease.store.clone()).or_default() += 1;
        }
        let mut spent: BTreeMap<StoreName, usize> = BTreeMap::new();
        let mut total = 0;
        let percent = usize::from(self.settings.max_percent);
        releases.retain(|release| {
            if release.proof().earlier_boot().is_some() {
                return true;
            }
            let lease = release.lease();
            let pool = self.pool_size(&lease.store, lease.address);
            let size = pool.unwrap_or_else(|| sizes.get(&lease.store).copied().unwrap_or(0));
            let share = (size.saturating_mul(percent)).div_ceil(100).max(1);
            let spent = spent.entry(lease.store.clone()).or_default();
            let within = total < self.settings.max_per_pass && *spent < share;
            if within {
                total += 1;
                *spent += 1;
            } else {
                kept.push(Kept {
                    store: lease.store.clone(),
                    address: lease.address,
                    blockers: vec![Blocker {
                        reason: Reason::Budget,
                        detail: format!(
                            "this pass releases no more than {} leases and {share} of {}",
                            self.settings.max_per_pass, lease.store
                        ),
                        until: Some(self.now + self.settings.pass_interval),
                    }],
                });
            }
            within
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
