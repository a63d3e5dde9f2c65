//! What later runs of the agent have to know.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipam_common::Address;
use jiff::Timestamp as WallTime;
use tokio::time::timeout;

use super::{Daemon, Done};
use crate::{
    driver::{clock, release::lock},
    engine::{
        holders::HeardSocket,
        input::{Input, Remembered},
        lease::StoreName,
    },
    error::in_full,
    state::{self, Paused, State, StateError},
};

/// How long what isn't written yet has when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is to be written once what is being written is.
#[derive(Default)]
pub(super) struct Unwritten {
    /// `None`: to be forgotten.
    leases: BTreeMap<(StoreName, Address), Option<state::Remembered>>,
    heard: Option<Vec<HeardSocket>>,
    /// What could not be opened, or written, is tried again: it may be possible now.
    again: bool,
}

impl Unwritten {
    fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.heard.is_none() && !self.again
    }

    fn write(self, state: &mut State, boot: &str) -> Result<(), StateError> {
        let (mut remember, mut forget) = (Vec::new(), Vec::new());
        for (key, lease) in self.leases {
            match lease {
                Some(lease) => remember.push(lease),
                None => forget.push(key),
            }
        }
        state.remember(&remember, &forget)?;
        match self.heard {
            Some(heard) => state.remember_heard(boot, heard),
            None => Ok(()),
        }
    }
}

impl Daemon {
    pub(super) fn remember(
        &mut self,
        leases: &[(StoreName, Address)],
        forget: &[(StoreName, Address)],
    ) {
        let at = clock::wall_time();
        let book = self.observer.engine.leases();
        let forgotten = forget.iter().map(|key| (key.clone(), None));
        self.unwritten.leases.extend(forgotten);
        for key @ (store, address) in leases {
            if let Some(lease) = book.to_remember(store, address) {
                let lease = recorded(lease, at);
                self.unwritten.leases.insert(key.clone(), Some(lease));
            }
        }
        self.write_state();
    }

    pub(super) fn remember_heard(&mut self, heard: Vec<HeardSocket>) {
        self.unwritten.heard = Some(heard);
        self.write_state();
    }

    pub(super) fn retry_state(&mut self) {
        if self.unrecorded.is_some() {
            self.unwritten.again = true;
            self.write_state();
        }
    }

    /// A slow disk is waited for off the loop, one write at a time.
    fn write_state(&mut self) {
        if self.writing || self.unwritten.is_empty() {
            return;
        }
        self.writing = true;
        let unwritten = std::mem::take(&mut self.unwritten);
        let (state, boot) = (Arc::clone(&self.state), self.observer.boot.clone());
        self.tasks
            .spawn_blocking(move || Done::Remembered(unwritten.write(&mut lock(&state), &boot)));
    }

    pub(super) fn remembered(&mut self, written: Result<(), StateError>) {
        self.writing = false;
        self.tried_state(written);
        self.check_state();
        self.write_state();
    }

    /// Waits, but not for long, until all is written.
    pub(super) async fn write_the_rest(&mut self) {
        let rest = async {
            while self.writing {
                match self.tasks.join_next().await {
                    Some(Ok(Done::Remembered(written))) => self.remembered(written),
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if timeout(FAREWELL, rest).await.is_err() {
            tracing::warn!(
                "the disk of {} takes too long: of the newest leases the next agent doesn't know \
                 that they are of this boot",
                self.state_dir.display()
            );
        }
    }

    /// The state was tried to be used. What it has and could not be read before is told.
    fn tried_state(&mut self, tried: Result<(), StateError>) {
        if let Err(error) = tried {
            tracing::error!("{}", in_full(&error));
        }
        let mut state = lock(&self.state);
        for warning in state.warnings() {
            tracing::warn!("{warning}");
        }
        let problem = state.problem().map(|problem| in_full(problem));
        let before = std::mem::replace(&mut self.unrecorded, problem);
        if before.is_some() && self.unrecorded.is_none() {
            let recorded = remembered(state.load());
            self.observer.tell(Input::Remembered(recorded.clone()));
            if let heard @ Some(_) = state.heard(&self.observer.boot) {
                self.observer.tell(Input::HeardBefore(heard));
            }
            drop(state);
            // It paused because that could not be read either.
            if self.paused == Some(Paused::default()) {
                self.pause_as_before();
            }
            self.record_again(&recorded);
        }
    }

    /// The database was opened anew and holds this: where it was damaged, much less than before.
    fn record_again(&mut self, recorded: &[Remembered]) {
        let (engine, at) = (&self.observer.engine, clock::wall_time());
        let unrecorded = engine.leases().unrecorded(recorded).into_iter();
        let leases: Vec<_> = unrecorded.map(|lease| self::recorded(lease, at)).collect();
        self.unwritten.heard = Some(engine.last_pass().sandboxes.heard().collect());
        for lease in leases {
            let key = (lease.store.clone(), lease.address);
            self.unwritten.leases.entry(key).or_insert(Some(lease));
        }
    }

    /// For the next run in this boot.
    pub(super) fn keep_claims(&mut self) {
        if self.writing {
            // Its disk hangs; that was told.
            return;
        }
        let claims = self.observer.engine.heard().collect();
        let kept = lock(&self.state).keep_claims(&self.observer.boot, claims);
        if let Err(error) = kept {
            tracing::warn!(
                "what was heard is not kept over a restart: {}",
                in_full(&error)
            );
        }
    }

    pub(super) fn check_state(&mut self) {
        let problem = { self.unrecorded.clone() }
            .or_else(|| {
                state::persistence(&self.state_dir)
                    .err()
                    .map(|e| in_full(&e))
            })
            .or_else(|| self.releaser.problem());
        if problem != self.state_problem {
            match &problem {
                Some(why) => tracing::warn!("nothing is released: {why}"),
                None => tracing::info!("the state can be relied on again"),
            }
            self.state_problem.clone_from(&problem);
        }
        self.observer
            .tell(Input::State(problem.map_or(Ok(()), Err)));
    }
}

/// For the engine, the oldest first. The wall clock may have been set between boots: that
/// changes the order in which leases are released, and not whether they are.
pub(super) fn remembered(mut known: Vec<state::Remembered>) -> Vec<Remembered> {
    known.sort_by_key(|lease| lease.at);
    let known = known.into_iter().map(|lease| Remembered {
        store: lease.store,
        address: lease.address,
        generation: lease.generation,
        boot: lease.boot_id,
        since: lease.first_seen,
    });
    known.collect()
}

fn recorded(lease: Remembered, at: WallTime) -> state::Remembered {
    state::Remembered {
        store: lease.store,
        address: lease.address,
        generation: lease.generation,
        boot_id: lease.boot,
        first_seen: lease.since,
        at,
    }
}
