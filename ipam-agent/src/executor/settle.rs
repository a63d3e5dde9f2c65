//! What became of releases and of leases to be put back that somebody was at when the agent
//! or the host went down, or whose end could not be written down.

use std::{sync::Arc, time::Duration};

use super::{Settled, effect};
use crate::{
    engine::{
        input::Input,
        lease::{Lease, StoreView},
        plan::Asker,
        quarantine::{Released, Returned},
        time::Timestamp,
    },
    journal::{
        Effect, EffectResult, Entry, Journal, JournalError, PutBack, UndoResult, Undone, When,
    },
};

/// What the engine is to watch, by what the journal says of releases in this boot.
pub fn quarantined(entries: impl IntoIterator<Item = Entry>) -> Input {
    let (mut quarantined, mut returned, mut budgeted) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let Some(lease) = entry.intent.lease() else {
            continue;
        };
        let (id, evidence) = (entry.id.as_str().into(), &entry.intent.evidence);
        if let Some((when, Effect { result, .. })) = &entry.effect
            && *result == EffectResult::Released
            && entry.intent.asker == Asker::Daemon
            && evidence.earlier_boot.is_none()
        {
            budgeted.push((lease.store.clone(), Timestamp(when.uptime)));
        }
        // Before the last look at its stamps: what came between was a veto.
        let at = Timestamp(entry.when.uptime);
        let quiet_since = at - Duration::from_secs(evidence.quiet_for);
        if entry.is_put_back() {
            let silence = broken(&entry).map(|broken| broken.since(quiet_since));
            returned.push(Returned { id, lease, silence });
        } else if entry.is_released() && entry.taken.is_none() {
            quarantined.push(Released {
                id,
                lease,
                at,
                quiet_since,
                earlier_boot: evidence.earlier_boot.as_deref().map(Arc::from),
            });
        }
    }
    Input::Released {
        quarantined,
        returned,
        budgeted,
    }
}

/// When it was to be put back, if that was because its address was in use.
fn broken(entry: &Entry) -> Option<Timestamp> {
    let (when, undo) = entry.put_back.as_ref()?.undo.as_ref()?;
    (undo.asker == Asker::Daemon).then_some(Timestamp(when.uptime))
}

/// Finds out what became of what an earlier run left under way, and writes it down. A store
/// that isn't among `views`, because it can't be read now, leaves what is about it as it is.
/// Nothing may be carried out from before the views were read until this returns.
pub fn settle(
    journal: &mut Journal,
    views: &[&StoreView],
    clock: &dyn Fn() -> When,
) -> Result<Settled, JournalError> {
    let mut settled = Settled::default();
    for entry in journal.unfinished()? {
        let Some(view) = views
            .iter()
            .find(|view| *view.store.0 == *entry.intent.store)
        else {
            settled.left.insert(entry.intent.store);
            continue;
        };
        if entry.effect.is_none() {
            let effect = found(&entry, view);
            journal.append_effects(clock(), [(entry.id.clone(), effect)])?;
        }
        if let Some(PutBack { undone: None, .. }) = entry.put_back {
            journal.append_undone(clock(), &entry.id, found_back(&entry, view))?;
        }
        settled.ids.insert(entry.id);
    }
    if !settled.ids.is_empty() {
        journal.sync()?;
    }
    Ok(settled)
}

fn found(entry: &Entry, view: &StoreView) -> Effect {
    let judged = entry.intent.generation.generation();
    let mut there = view
        .leases
        .iter()
        .filter(|lease| lease.address.ip() == entry.intent.address)
        .peekable();
    // A power cut may have emptied it meanwhile: the same file, and nobody else's.
    let is_left = |lease: &Lease| {
        let same_file = judged.as_ref().is_some_and(|of| of.inode == lease.inode());
        Some(lease.generation()) == judged || lease.damage.is_some() && same_file
    };
    let (result, detail) = if there.peek().is_none() {
        (EffectResult::Released, "found later: the lease is gone")
    } else if there.any(is_left) {
        (
            EffectResult::Failed,
            "found later: the lease is still there",
        )
    } else {
        (
            EffectResult::Released,
            "found later: the lease is gone, and the address has another",
        )
    };
    effect(result, Some(detail.to_owned()))
}

fn found_back(entry: &Entry, view: &StoreView) -> Undone {
    let former = entry.intent.generation.generation();
    let former = former.map(|former| former.content);
    let mut there = view
        .leases
        .iter()
        .filter(|lease| lease.address.ip() == entry.intent.address)
        .peekable();
    let (result, detail) = if there.peek().is_none() {
        (UndoResult::Failed, "found later: the lease is not there")
    } else if there.any(|lease| Some(&lease.generation().content) == former.as_ref()) {
        (UndoResult::PutBack, "found later: the lease is there")
    } else {
        (
            UndoResult::Taken,
            "found later: the address has another lease",
        )
    };
    Undone {
        result,
        detail: Some(detail.to_owned()),
    }
}
