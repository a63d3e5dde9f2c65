//! Carries out a plan: the one place from which a lease store is written.
//!
//! It chooses nothing. Every release is in the journal before its store is touched; what
//! the store, the last look or the journal has against it keeps the lease, and an error
//! of one store is no other's.

mod caches;
mod fence;
mod settle;
mod undo;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    engine::{
        lease::StoreName,
        plan::{Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan, Release},
    },
    error::in_full,
    fault,
    journal::{Effect, EffectResult, Journal, When},
    store::{FileOwner, LeaseStore, Recheck, ReleaseError},
};

pub use caches::{clean, settle as settle_caches};
pub use fence::{fence, settle as settle_fences};
pub use settle::{quarantined, settle};
pub use undo::{Back, UndoError, put_back};

/// So many releases share what has to reach the disk: their intents, the directory that they
/// were taken from, and their effects.
const BATCH: usize = 512;

/// Releases what `plan` says, in its order, and tells of each what became of it; `by` is the
/// person who asked. `recheck` is asked under the store's lock right before each. Blocks on
/// file I/O and locks.
pub fn execute(
    plan: &ReclaimPlan,
    by: Option<&str>,
    stores: &[Arc<dyn LeaseStore>],
    journal: &mut Journal,
    clock: &dyn Fn() -> When,
    recheck: &mut Recheck<'_>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(plan.releases.len());
    let mut work = Work {
        stores,
        recheck,
        locked: BTreeMap::new(),
    };
    for batch in plan.releases.chunks(BATCH) {
        let owners = batch.iter().map(|release| (release, work.owner(release)));
        let written = match journal.append_intents(clock(), plan.asker, by, owners) {
            Ok(ids) => {
                let (results, effects): (Vec<_>, Vec<_>) =
                    work.carry_out(batch).into_iter().unzip();
                let written = journal.append_effects(clock(), ids.iter().cloned().zip(effects));
                let told = batch.iter().zip(ids).zip(results);
                outcomes
                    .extend(told.map(|((release, id), result)| outcome(release, Some(id), result)));
                written
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            // What became of those without an effect is found out by looking.
            let stores = plan.releases.iter().map(|release| &release.lease().store);
            journal.leave_open(stores.map(|store| store.0.to_string()));
            let left = plan.releases.iter().skip(outcomes.len());
            let failed = OutcomeResult::Failed(in_full(&error));
            outcomes.extend(left.map(|release| outcome(release, None, failed.clone())));
            return outcomes;
        }
    }
    if !outcomes.is_empty()
        && let Err(error) = journal.sync()
    {
        // The next start finds out by looking.
        tracing::warn!("{}", in_full(&error));
    }
    fault::reach("effects-synced");
    outcomes
}

/// What was found out about what an earlier run left under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The journal's ids of what it knows the end of now.
    pub ids: BTreeSet<String>,
    /// The stores that can't be read now, so that something of theirs is left open.
    pub left: BTreeSet<String>,
}

impl Settled {
    /// Adds what else was found out.
    pub fn merge(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.left.extend(other.left);
    }
}

/// What a plan is carried out with.
struct Work<'a, 'b> {
    stores: &'a [Arc<dyn LeaseStore>],
    recheck: &'a mut Recheck<'b>,
    /// Stores whose lock could not be had, and why: it isn't waited for again at once.
    locked: BTreeMap<StoreName, String>,
}

impl Work<'_, '_> {
    fn store(&self, name: &StoreName) -> Result<&Arc<dyn LeaseStore>, ReleaseError> {
        let mut stores = self.stores.iter();
        let store = stores.find(|store| store.has(name));
        store.ok_or_else(|| ReleaseError::Unknown(name.clone()))
    }

    fn owner(&self, release: &Release) -> Option<FileOwner> {
        let lease = release.lease();
        self.store(&lease.store).ok()?.owner(lease)
    }

    /// Releases a batch; on disk, but for what the results say, when it returns.
    fn carry_out(&mut self, batch: &[Release]) -> Vec<(OutcomeResult, Effect)> {
        let mut done: Vec<_> = batch.iter().map(|release| self.release(release)).collect();
        let mut flushed: BTreeMap<&StoreName, Option<String>> = BTreeMap::new();
        for (release, (result, effect)) in batch.iter().zip(&mut done) {
            if *result == OutcomeResult::Released {
                let name = &release.lease().store;
                let flush = || self.store(name).and_then(|store| store.flush(name));
                let error = flushed
                    .entry(name)
                    .or_insert_with(|| flush().err().map(|error| in_full(&error)));
                effect.detail = error.clone();
            }
        }
        fault::reach("store-flushed");
        done
    }

    fn release(&mut self, release: &Release) -> (OutcomeResult, Effect) {
        let name = &release.lease().store;
        if let Some(error) = self.locked.get(name) {
            return failed(error.clone());
        }
        let store = self.store(name).map(Arc::clone);
        match store.and_then(|store| store.release(release, self.recheck)) {
            Ok(()) => (
                OutcomeResult::Released,
                effect(EffectResult::Released, None),
            ),
            Err(error @ (ReleaseError::Changed { .. } | ReleaseError::Replaced { .. })) => {
                kept(Blocker::new(Reason::Changed, error.to_string()))
            }
            Err(ReleaseError::Blocked(blocker)) => kept(blocker),
            Err(error) => {
                let text = in_full(&error);
                if let ReleaseError::Locked { .. } = error {
                    self.locked.insert(name.clone(), text.clone());
                }
                failed(text)
            }
        }
    }
}

fn failed(error: String) -> (OutcomeResult, Effect) {
    (
        OutcomeResult::Failed(error.clone()),
        effect(EffectResult::Failed, Some(error)),
    )
}

fn kept(blocker: Blocker) -> (OutcomeResult, Effect) {
    let detail = blocker.to_string();
    (
        OutcomeResult::Kept(blocker),
        effect(EffectResult::Kept, Some(detail)),
    )
}

fn effect(result: EffectResult, detail: Option<String>) -> Effect {
    Effect { result, detail }
}

fn outcome(release: &Release, id: Option<String>, result: OutcomeResult) -> Outcome {
    Outcome {
        id,
        store: release.lease().store.clone(),
        address: release.lease().address,
        result,
    }
}

#[cfg(test)]
mod tests;
