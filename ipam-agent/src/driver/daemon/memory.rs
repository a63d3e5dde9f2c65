//! What later runs of the agent have to know.

use ipam_common::Address;
use jiff::Timestamp as WallTime;

use super::Daemon;
use crate::{
    driver::clock,
    engine::{
        input::{Input, Remembered},
        lease::StoreName,
    },
    error::in_full,
    state,
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
        if let Err(error) = self.state.remember(&leases, forget) {
            tracing::error!("{}", in_full(&error));
        }
        self.check_state();
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
