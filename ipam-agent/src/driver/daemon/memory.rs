//! What later runs of the agent have to know.

use ipam_common::Address;
use jiff::Timestamp as WallTime;

use super::Daemon;
use crate::{
    driver::clock,
    engine::{
        holders::HeardSocket,
        input::{Input, Remembered},
        lease::StoreName,
    },
    error::in_full,
    state::{self, Paused, StateError},
};

impl Daemon {
    pub(super) fn remember(
        &mut self,
        leases: &[(StoreName, Address)],
        forget: &[(StoreName, Address)],
    ) {
        let at = clock::wall_time();
        let book = self.observer.engine.leases();
        let leases: Vec<state::Remembered> = leases
            .iter()
            .filter_map(|(store, address)| book.to_remember(store, address))
            .map(|lease| recorded(lease, at))
            .collect();
        let remembered = self.state.remember(&leases, forget);
        self.tried_state(remembered);
        self.check_state();
    }

    pub(super) fn remember_heard(&mut self, heard: Vec<HeardSocket>) {
        let remembered = self.state.remember_heard(&self.observer.boot, heard);
        self.tried_state(remembered);
        self.check_state();
    }

    /// What could not be opened, or written, is tried again: it may be possible now.
    pub(super) fn retry_state(&mut self) {
        if self.state.problem().is_some() {
            let retried = self.state.retry();
            self.tried_state(retried);
        }
    }

    /// The state was tried to be used. What it has and could not be read before is told.
    fn tried_state(&mut self, tried: Result<(), StateError>) {
        if let Err(error) = tried {
            tracing::error!("{}", in_full(&error));
        }
        let is_read = self.state.problem().is_none();
        if !std::mem::replace(&mut self.state_is_read, is_read) && is_read {
            let remembered = remembered(self.state.load());
            self.observer.tell(Input::Remembered(remembered));
            if let heard @ Some(_) = self.state.heard(&self.observer.boot) {
                self.observer.tell(Input::HeardBefore(heard));
            }
            // It paused because that could not be read either.
            if self.paused == Some(Paused::default()) {
                self.pause_as_before();
            }
        }
    }

    /// For the next run in this boot.
    pub(super) fn keep_claims(&mut self) {
        let claims = self.observer.engine.heard().collect();
        if let Err(error) = self.state.keep_claims(&self.observer.boot, claims) {
            tracing::warn!(
                "what was heard is not kept over a restart: {}",
                in_full(&error)
            );
        }
    }

    pub(super) fn check_state(&mut self) {
        let problem = self.state.problem().map(|problem| in_full(problem));
        let problem = problem
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
