//! Carrying out a plan, off the event loop: the journal, the executor, and what is asked
//! again under a store's lock.

mod caches;
mod earlier;
mod last_look;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use self::last_look::LastLook;
use super::{clock, stores::Stores};
use crate::{
    config::Holders,
    engine::{
        fence::{Fence, Fenced},
        holders::SandboxBook,
        lease::Holder,
        plan::{Asker, Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan, Release},
        time::Timestamp,
        vigil::Vigil,
    },
    error::in_full,
    executor::{self, Back, UndoError},
    journal::{HolderRecord, Journal, JournalError, Taken, Undo},
    source::{
        links::NameFilter,
        live::{Live, Tables},
    },
};

/// Releases leases, one plan after the other.
#[derive(Clone)]
pub struct Releaser {
    /// `Err`: why the journal can't be opened.
    journal: Arc<Mutex<Result<Journal, JournalError>>>,
    state_dir: Arc<Path>,
    boot: Arc<str>,
    stores: Stores,
    live: Arc<Mutex<Live>>,
    tables: Arc<Tables>,
    filter: NameFilter,
    holders: Holders,
    paused: Arc<AtomicBool>,
    /// Since when the configuration is what it is; [`BEING_CONFIGURED`]: it is being changed.
    configured: Arc<AtomicU64>,
}

/// Nothing is written.
const BEING_CONFIGURED: u64 = u64::MAX;

impl Releaser {
    /// Why nothing can be released, if the journal can't be written. Never waits: whoever
    /// carries out a plan has the journal, and may be waiting for a store's lock.
    pub fn problem(&self) -> Option<String> {
        let journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(journal)) => journal.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        journal.as_ref().err().map(|error| in_full(error))
    }

    /// Whether to release nothing unasked, from this moment on.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Another configuration: nothing is written until [`Self::configured`].
    pub fn reconfigure(&mut self, stores: Stores, holders: Holders) {
        self.configured.store(BEING_CONFIGURED, Ordering::SeqCst);
        (self.stores, self.holders) = (stores, holders);
    }

    /// All that is decided after `at` is of the configuration that counts.
    pub fn configured(&self, at: Timestamp) {
        self.configured.store(at.0, Ordering::SeqCst);
    }

    fn is_of_this_configuration(&self, decided: Timestamp) -> Result<(), Blocker> {
        if self.configured.load(Ordering::SeqCst) > decided.0 {
            let why = "the configuration was changed since it was judged";
            return Err(Blocker::new(Reason::Changed, why));
        }
        Ok(())
    }

    fn may_release_unasked(&self) -> Result<(), Blocker> {
        if self.paused.load(Ordering::Relaxed) {
            let why = "a person has just paused unattended releases";
            return Err(Blocker::new(Reason::Mode, why));
        }
        Ok(())
    }

    /// Carries the plan out, whose wires `vigil` watches and which was made with these
    /// sandboxes known; `by` is the person who asked. Blocks on files, locks, netlink and
    /// container runtimes.
    pub fn execute(
        &self,
        plan: &ReclaimPlan,
        by: Option<&str>,
        vigil: Vigil,
        sandboxes: SandboxBook,
    ) -> Vec<Outcome> {
        let mut journal = lock(&self.journal);
        let journal = match journal.as_mut() {
            Ok(journal) => journal,
            Err(error) => {
                return failed(plan, &in_full(error));
            }
        };
        let mut look = LastLook::new(self, plan.at, vigil, sandboxes);
        executor::execute(
            plan,
            by,
            self.stores.sources(),
            journal,
            &clock::when,
            &mut |release| {
                self.is_of_this_configuration(plan.at)?;
                if plan.asker == Asker::Daemon {
                    self.may_release_unasked()?;
                }
                look.at(release)
            },
        )
    }

    /// [`Self::execute`] ended by a panic. What became of each release is found out by looking.
    pub fn broke_off(&self, plan: &ReclaimPlan) -> Vec<Outcome> {
        // Its lock is as good as any, for who only tries to have it, too.
        self.journal.clear_poison();
        if let Ok(journal) = lock(&self.journal).as_mut() {
            let stores = plan.releases.iter().map(|release| &release.lease().store);
            journal.leave_open(stores.map(|store| store.0.to_string()));
        }
        failed(plan, "the agent has a defect; its log has more")
    }

    /// Puts a released lease back. Blocks on files and locks.
    pub fn put_back(&self, id: &str, undo: Undo) -> Result<Back, PutBackError> {
        let put_back = || self.put_back_now(id, undo);
        // A panic is a defect of ours: the address is looked at again.
        catch_unwind(AssertUnwindSafe(put_back)).unwrap_or(Err(PutBackError::Defect))
    }

    fn put_back_now(&self, id: &str, undo: Undo) -> Result<Back, PutBackError> {
        let mut journal = lock(&self.journal);
        match journal.as_mut() {
            Ok(journal) => {
                let stores = self.stores.sources();
                let done = executor::put_back(id, undo, stores, journal, &clock::when);
                Ok(done?)
            }
            Err(error) => Err(PutBackError::NoJournal(in_full(error))),
        }
    }

    /// Writes down that released addresses have new leases. Blocks on files.
    pub fn taken(&self, id: &str, holder: &Holder) -> Result<(), JournalError> {
        let taken = Taken {
            holder: HolderRecord::from(holder),
        };
        match lock(&self.journal).as_mut() {
            Ok(journal) => journal.append_taken(clock::when(), id, taken),
            // That was told, and holds up every release.
            Err(_) => Ok(()),
        }
    }

    /// Raises and lowers fences. Blocks on files and locks.
    pub fn fence(&self, fences: Vec<Fence>, decided: Timestamp) -> Vec<Fenced> {
        if let Err(blocker) = self.is_of_this_configuration(decided) {
            let kept = |fence| Fenced {
                fence,
                result: Err(blocker.to_string()),
            };
            return fences.into_iter().map(kept).collect();
        }
        match lock(&self.journal).as_mut() {
            Ok(journal) => executor::fence(fences, self.stores.sources(), journal, &clock::when),
            Err(error) => {
                let error = in_full(error);
                let failed = |fence| Fenced {
                    fence,
                    result: Err(error.clone()),
                };
                fences.into_iter().map(failed).collect()
            }
        }
    }
}

fn failed(plan: &ReclaimPlan, why: &str) -> Vec<Outcome> {
    let failed = |release: &Release| Outcome {
        id: None,
        store: release.lease().store.clone(),
        address: release.lease().address,
        result: OutcomeResult::Failed(why.to_owned()),
    };
    plan.releases.iter().map(failed).collect()
}

/// A lease was not put back.
#[derive(Debug, thiserror::Error)]
pub enum PutBackError {
    /// By the executor.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// There is no journal to write it down in.
    #[error("nothing can be put back: {0}")]
    NoJournal(String),
    /// The agent panicked.
    #[error("the agent has a defect; its log has more")]
    Defect,
}

/// A lock that a panicked thread held is as good as any: what it guards is told anew.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
