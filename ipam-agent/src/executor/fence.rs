//! Raises and lowers fences: as with releases, what is meant is in the journal before a store
//! is touched, and what became of it after.

use std::sync::Arc;

use super::Settled;
use crate::{
    engine::{
        fence::{Change, Fence, Fenced},
        lease::StoreView,
    },
    error::in_full,
    journal::{FenceEffect, FenceIntent, FenceResult, Journal, JournalError, When},
    store::{LeaseStore, ReleaseError},
};

/// Does what `fences` says, in its order, and tells of each what became of it. Blocks on file
/// I/O and locks.
pub fn fence(
    fences: Vec<Fence>,
    stores: &[Arc<dyn LeaseStore>],
    journal: &mut Journal,
    clock: &dyn Fn() -> When,
) -> Vec<Fenced> {
    let ids = match journal.append_fences(clock(), fences.iter().map(FenceIntent::new)) {
        Ok(ids) => ids,
        Err(error) => {
            let failed = |fence| Fenced {
                fence,
                result: Err(in_full(&error)),
            };
            return fences.into_iter().map(failed).collect();
        }
    };
    let mut broken: Option<String> = None;
    let mut done = Vec::with_capacity(fences.len());
    for (fence, id) in fences.into_iter().zip(&ids) {
        let result = match &broken {
            Some(error) => Err(error.clone()),
            None => change(&fence, stores).map_err(|error| in_full(&error)),
        };
        if broken.is_none() {
            let effect = FenceEffect {
                result: match result {
                    Ok(()) => FenceResult::Done,
                    Err(_) => FenceResult::Failed,
                },
                detail: result.clone().err(),
            };
            let written = journal.append_fence_effect(clock(), id, effect);
            broken = written.err().map(|error| in_full(&error));
        }
        done.push(Fenced { fence, result });
    }
    if let Err(error) = journal.sync() {
        // The next start finds out by looking.
        tracing::warn!("{}", in_full(&error));
    }
    done
}

fn change(fence: &Fence, stores: &[Arc<dyn LeaseStore>]) -> Result<(), ReleaseError> {
    let store = stores.iter().find(|store| store.has(&fence.store));
    let store = store.ok_or_else(|| ReleaseError::Unknown(fence.store.clone()))?;
    match &fence.change {
        Change::Raise { .. } => store.raise_fence(&fence.store, fence.address),
        Change::Lower(lease, _) => match store.lower_fence(lease) {
            // It is gone, for all that is known now.
            Err(ReleaseError::NotDurable { .. }) => Ok(()),
            lowered => lowered,
        },
    }
}

/// Finds out what became of fences that an earlier run was at, and writes it down, for the
/// stores of these views.
pub fn settle(
    journal: &mut Journal,
    views: &[&StoreView],
    clock: &dyn Fn() -> When,
) -> Result<Settled, JournalError> {
    let mut settled = Settled::default();
    for (id, intent) in journal.unfinished_fences()? {
        let Some(view) = views.iter().find(|view| *view.store.0 == *intent.store) else {
            settled.left.insert(intent.store);
            continue;
        };
        let mut fences = view.fencing.fences.iter();
        let stands = fences.any(|fence| fence.address.ip() == intent.address);
        let (result, found) = match stands == intent.raise {
            true => (FenceResult::Done, "it was done"),
            false => (FenceResult::Failed, "it was not done"),
        };
        let effect = FenceEffect {
            result,
            detail: Some(format!("found later: {found}")),
        };
        journal.append_fence_effect(clock(), &id, effect)?;
        settled.ids.insert(id);
    }
    if !settled.ids.is_empty() {
        journal.sync()?;
    }
    Ok(settled)
}
