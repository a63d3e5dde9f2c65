//! Putting a released lease back, as a person asks or because its address is in use.

use std::sync::Arc;

use crate::{
    engine::lease::{Generation, Lease},
    error::in_full,
    fault,
    journal::{Entry, Journal, JournalError, Undo, UndoResult, Undone, When},
    store::{Former, LeaseStore, ReleaseError},
};

/// A lease was not put back. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// No release has this id.
    #[error("no release has the id {0}: `ipam-agent reclaim history` lists them")]
    Unknown(String),
    /// The lease was not released.
    #[error("{0} released nothing: there is nothing to put back")]
    NotReleased(String),
    /// It was put back already.
    #[error("{0} was put back already")]
    AlreadyUndone(String),
    /// The journal's line doesn't say what to put back.
    #[error("the journal's line of {0} doesn't say what to put back")]
    Unreadable(String),
    /// The address has a new lease.
    #[error("{0}")]
    Taken(ReleaseError),
    /// The store could not be written.
    #[error("{0} was not put back")]
    Store(String, #[source] ReleaseError),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl UndoError {
    /// Whether the lease stays given back because that is how things are, and not because
    /// something went wrong.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NotReleased(_) | Self::AlreadyUndone(_) | Self::Taken(_)
        )
    }
}

/// A lease that was put back.
#[derive(Debug)]
pub struct Back {
    /// Its release.
    pub entry: Entry,
    /// The lease as it was.
    pub lease: Lease,
    /// The record that is there now, if the store could tell.
    pub record: Option<Generation>,
}

/// Puts back the lease whose release has this id. In the journal before the store is
/// touched, and after. Blocks on file I/O and locks.
///
/// # Errors
/// Nothing has changed, but for [`UndoError::Journal`] after the fact: then that is found out
/// by looking.
pub fn put_back(
    id: &str,
    undo: Undo,
    stores: &[Arc<dyn LeaseStore>],
    journal: &mut Journal,
    clock: &dyn Fn() -> When,
) -> Result<Back, UndoError> {
    let entry = journal.entry(id)?;
    let entry = entry.ok_or_else(|| UndoError::Unknown(id.to_owned()))?;
    if entry.is_put_back() {
        return Err(UndoError::AlreadyUndone(id.to_owned()));
    }
    if !entry.is_released() {
        return Err(UndoError::NotReleased(id.to_owned()));
    }
    let lease = entry.intent.lease();
    let lease = lease.ok_or_else(|| UndoError::Unreadable(id.to_owned()))?;
    let former = Former {
        content: lease.generation().content,
        store: lease.store.clone(),
        address: lease.address,
        file: entry.intent.generation.file.clone(),
    };
    let store = stores.iter().find(|store| store.has(&former.store));
    let failed = |error| UndoError::Store(id.to_owned(), error);
    let store = store.ok_or_else(|| failed(ReleaseError::Unknown(former.store.clone())))?;
    journal.append_undo(clock(), id, undo)?;
    let done = store.put_back(&former);
    let (result, detail) = match &done {
        Ok(_) => (UndoResult::PutBack, None),
        Err(error @ ReleaseError::NotDurable { .. }) => (UndoResult::PutBack, Some(in_full(error))),
        Err(error @ ReleaseError::Taken { .. }) => (UndoResult::Taken, Some(in_full(error))),
        Err(error) => (UndoResult::Failed, Some(in_full(error))),
    };
    let written = journal.append_undone(clock(), id, Undone { result, detail });
    if let Err(error) = written {
        journal.leave_open([entry.intent.store]);
        return Err(error.into());
    }
    fault::reach("undone-synced");
    let back = |record| Back {
        entry,
        lease,
        record,
    };
    match done {
        Ok(record) => Ok(back(record)),
        Err(ReleaseError::NotDurable { .. }) => Ok(back(None)),
        Err(error @ ReleaseError::Taken { .. }) => Err(UndoError::Taken(error)),
        Err(error) => Err(failed(error)),
    }
}
