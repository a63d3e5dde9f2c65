//! Carries out a plan: the one place from which a lease store is written.
//!
//! It chooses nothing. Every release is in the journal before its store is touched; what
//! the store, the last look or the journal has against it keeps the lease, and an error
//! of one store is no other's.

mod fence;

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    engine::{
        lease::StoreView,
        plan::{Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan, Release},
    },
    error::in_full,
    journal::{Effect, EffectResult, Intent, Journal, JournalError},
    store::{LeaseStore, Recheck, ReleaseError},
};

pub use fence::{fence, settle as settle_fences};

/// Releases what `plan` says, in its order, and tells of each what became of it. `recheck`
/// is asked under the store's lock right before each. Blocks on file I/O and locks.
pub fn execute(
    plan: &ReclaimPlan,
    stores: &[Arc<dyn LeaseStore>],
    journal: &mut Journal,
    clock: &dyn Fn() -> Timestamp,
    recheck: &mut Recheck<'_>,
) -> Vec<Outcome> {
    if plan.releases.is_empty() {
        return Vec::new();
    }
    let ids = match journal.append_intents(clock(), plan.asker, &plan.releases) {
        Ok(ids) => ids,
        Err(error) => {
            let failed = |release| outcome(release, OutcomeResult::Failed(in_full(&error)));
            return plan.releases.iter().map(failed).collect();
        }
    };
    let mut broken: Option<String> = None;
    let mut outcomes = Vec::with_capacity(ids.len());
    for (release, id) in plan.releases.iter().zip(&ids) {
        if let Some(error) = &broken {
            outcomes.push(outcome(release, OutcomeResult::Failed(error.clone())));
            continue;
        }
        let (result, effect) = carry_out(release, stores, recheck);
        if let Err(error) = journal.append_effect(clock(), id, effect) {
            broken = Some(in_full(&error));
        }
        outcomes.push(outcome(release, result));
    }
    if let Err(error) = journal.sync() {
        // The next start finds out by looking.
        tracing::warn!("{}", in_full(&error));
    }
    outcomes
}

fn carry_out(
    release: &Release,
    stores: &[Arc<dyn LeaseStore>],
    recheck: &mut Recheck<'_>,
) -> (OutcomeResult, Effect) {
    let name = &release.lease().store;
    let done = match stores.iter().find(|store| store.has(name)) {
        Some(store) => store.release(release, recheck),
        None => Err(ReleaseError::Unknown(name.clone())),
    };
    match done {
        Ok(()) => (
            OutcomeResult::Released,
            effect(EffectResult::Released, None),
        ),
        Err(error @ ReleaseError::NotDurable { .. }) => (
            OutcomeResult::Released,
            effect(EffectResult::Released, Some(in_full(&error))),
        ),
        Err(error @ (ReleaseError::Changed { .. } | ReleaseError::Replaced { .. })) => {
            kept(Blocker::new(Reason::Changed, error.to_string()))
        }
        Err(ReleaseError::Blocked(blocker)) => kept(blocker),
        Err(error) => {
            let error = in_full(&error);
            (
                OutcomeResult::Failed(error.clone()),
                effect(EffectResult::Failed, Some(error)),
            )
        }
    }
}

/// Finds out what became of the intents that an earlier run left without an effect, and
/// writes it down. A store that isn't among `views`, because it can't be read now, leaves
/// its intents as they are. Returns how many were settled.
pub fn settle(
    journal: &mut Journal,
    views: &[&StoreView],
    clock: &dyn Fn() -> Timestamp,
) -> Result<usize, JournalError> {
    let mut settled = 0;
    for (id, intent) in journal.unfinished()? {
        let Some(view) = views.iter().find(|view| *view.store.0 == *intent.store) else {
            continue;
        };
        journal.append_effect(clock(), &id, found(&intent, view))?;
        settled += 1;
    }
    if settled > 0 {
        journal.sync()?;
    }
    Ok(settled)
}

fn found(intent: &Intent, view: &StoreView) -> Effect {
    let judged = intent.generation.generation();
    let mut there = view
        .leases
        .iter()
        .filter(|lease| lease.address.ip() == intent.address)
        .peekable();
    let (result, detail) = if there.peek().is_none() {
        (
            EffectResult::Released,
            "found at the next start: the lease is gone",
        )
    } else if there.any(|lease| Some(&lease.generation) == judged.as_ref()) {
        (
            EffectResult::Failed,
            "found at the next start: the lease is still there",
        )
    } else {
        (
            EffectResult::Released,
            "found at the next start: the lease is gone, and the address has another",
        )
    };
    effect(result, Some(detail.to_owned()))
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

fn outcome(release: &Release, result: OutcomeResult) -> Outcome {
    Outcome {
        store: release.lease().store.clone(),
        address: release.lease().address,
        result,
    }
}

#[cfg(test)]
mod tests;
