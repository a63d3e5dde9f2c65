//! What became of releases and of leases to be put back that somebody was at when the agent
//! or the host went down, or whose end could not be written down.

use super::{Settled, effect};
use crate::{
    engine::{
        input::Input,
        lease::{Lease, StoreView},
        quarantine::Released,
        time::Timestamp,
    },
    journal::{
        Effect, EffectResult, Entry, Journal, JournalError, PutBack, UndoResult, Undone, When,
    },
};

/// What the engine is to watch, by what the journal says of releases in this boot.
pub fn quarantined(entries: impl IntoIterator<Item = Entry>) -> Input {
    let (mut quarantined, mut restored) = (Vec::new(), Vec::new());
    for entry in entries {
        let list = match (entry.is_put_back(), entry.is_released()) {
            (true, _) => &mut restored,
            (_, true) if entry.taken.is_none() => &mut quarantined,
            _ => continue,
        };
        list.extend(entry.intent.lease().map(|lease| Released {
            id: entry.id.as_str().into(),
            lease,
            // Before the last look at its stamps: what came between was a veto.
            at: Timestamp(entry.when.uptime),
        }));
    }
    Input::Released {
        quarantined,
        restored,
    }
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
