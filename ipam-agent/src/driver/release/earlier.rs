//! What earlier runs left: releases that they were at, and addresses to be watched.

use std::{
    path::Path,
    sync::{Arc, Mutex, TryLockError},
};

use super::{Releaser, lock};
use crate::{
    config::Holders,
    driver::{clock, observer::Observer, stores::Readings},
    engine::{input::Input, lease::StoreView, quarantine::MAX_QUARANTINED},
    error::in_full,
    executor::{self, Settled},
    journal::{Journal, JournalError},
};

impl Releaser {
    /// Opens the journal in the state directory, and writes down what became of releases
    /// that an earlier run left open, by what was read of the stores since.
    pub fn new(
        state_dir: &Path,
        observer: &Observer,
        readings: &Readings,
        holders: Holders,
    ) -> Self {
        let journal = open(state_dir, &observer.boot, &readings.views());
        Self {
            journal: Arc::new(Mutex::new(journal)),
            state_dir: state_dir.into(),
            boot: observer.boot.as_str().into(),
            stores: observer.stores.clone(),
            live: Arc::clone(&observer.live),
            tables: Arc::clone(&observer.tables),
            filter: observer.filter.clone(),
            holders,
            paused: Arc::default(),
            configured: Arc::default(),
        }
    }

    /// Reads the stores and, where one of them may tell now what became of a release that was
    /// left open, has the engine watch its address. So it does with all that was released in
    /// this boot, once the journal can be opened that could not be before. Blocks on files.
    pub fn read(&self) -> Readings {
        let mut journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(journal)) => journal.into_inner(),
            // Whoever carries out a plan has the journal; the next reading will do.
            Err(TryLockError::WouldBlock) => return self.stores.read(),
        };
        let mut readings = self.stores.read();
        let found = match journal.as_mut() {
            Ok(journal) => turned_out(journal, &readings.views()),
            Err(_) => {
                let opened = open(&self.state_dir, &self.boot, &readings.views());
                let opened = opened.and_then(|opened| Ok((released(&opened)?, opened)));
                let (found, opened) = match opened {
                    Ok((found, opened)) => (Some(found), Ok(opened)),
                    Err(error) => (None, Err(error)),
                };
                *journal = opened;
                found
            }
        };
        readings.inputs.extend(found);
        readings
    }

    /// What earlier runs released in this boot.
    pub fn released_before(&self) -> Result<Input, JournalError> {
        match lock(&self.journal).as_ref() {
            Ok(journal) => released(journal),
            // It is told once it can be opened.
            Err(_) => Ok(executor::quarantined([])),
        }
    }
}

/// Opens the journal, and writes down what became of what was left open.
fn open(state_dir: &Path, boot: &str, views: &[&StoreView]) -> Result<Journal, JournalError> {
    let mut journal = Journal::open(state_dir, boot)?;
    settle(&mut journal, views)?;
    Ok(journal)
}

/// What was released in this boot.
fn released(journal: &Journal) -> Result<Input, JournalError> {
    let entries = journal.of_this_boot(MAX_QUARANTINED, |_| true)?;
    Ok(executor::quarantined(entries))
}

/// What of that which was left open turns out to have been released, now that its store can
/// be read.
fn turned_out(journal: &mut Journal, views: &[&StoreView]) -> Option<Input> {
    let mut stores = views.iter().map(|view| &*view.store.0);
    if !stores.any(|store| journal.open_stores().contains(store)) {
        return None;
    }
    let found = settle(journal, views).and_then(|settled| {
        journal.of_this_boot(MAX_QUARANTINED, |entry| settled.ids.contains(&entry.id))
    });
    match found {
        Ok(entries) => Some(executor::quarantined(entries)),
        Err(error) => {
            tracing::warn!("{}", in_full(&error));
            None
        }
    }
}

/// Writes down what became of everything that was left open, as far as these views tell.
fn settle(journal: &mut Journal, views: &[&StoreView]) -> Result<Settled, JournalError> {
    let mut settled = executor::settle(journal, views, &clock::when)?;
    settled.merge(executor::settle_fences(journal, views, &clock::when)?);
    settled.merge(executor::settle_caches(journal, &clock::when)?);
    journal.settled(settled.left.clone());
    if !settled.ids.is_empty() {
        tracing::warn!(
            settled = settled.ids.len(),
            "the journal now says what became of releases, fences or removals that were cut short"
        );
    }
    Ok(settled)
}
