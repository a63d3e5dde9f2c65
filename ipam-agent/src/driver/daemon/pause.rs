//! Stopping and starting unattended releases, as a person asks.

use super::Daemon;
use crate::{
    driver::clock,
    engine::input::Input,
    error::in_full,
    report::document::{PauseRequest, PausedRecord, Pausing},
    serve::query::Reply,
    state::Paused,
};

impl Daemon {
    /// As an earlier run was told. What can't be read pauses.
    pub(super) fn pause_as_before(&mut self) {
        let paused = Paused::read(&self.state_dir).unwrap_or_else(|error| {
            tracing::error!("cannot read whether releases are paused: {error}");
            Some(Paused::default())
        });
        if let Some(paused) = &paused {
            tracing::warn!("unattended releases are {}", paused.sentence());
        }
        self.set_paused(paused);
    }

    pub(super) fn pause(&mut self, request: PauseRequest, reply: Reply<Pausing>) {
        let paused = self.paused.clone().unwrap_or_else(|| Paused {
            at: Some(clock::wall_time()),
            by: request.by,
        });
        // In any case: it is the careful thing.
        let problem = paused.write(&self.state_dir).err();
        tracing::warn!("unattended releases are {}", paused.sentence());
        self.set_paused(Some(paused));
        let problem = problem.map(|error| {
            let why = in_full(&error);
            format!("it could not be written down, so that a restart would end it: {why}")
        });
        drop(reply.send(self.pausing(problem)));
    }

    pub(super) fn resume(&mut self, reply: Reply<Pausing>) {
        let problem = match Paused::end(&self.state_dir) {
            Ok(()) => {
                tracing::warn!("unattended releases go on");
                self.set_paused(None);
                None
            }
            Err(error) => Some(in_full(&error)),
        };
        drop(reply.send(self.pausing(problem)));
    }

    fn set_paused(&mut self, paused: Option<Paused>) {
        self.releaser.pause(paused.is_some());
        let sentence = paused.as_ref().map(Paused::sentence);
        self.paused = paused;
        self.observer.tell(Input::Paused(sentence));
    }

    pub(super) fn paused(&self) -> Option<PausedRecord> {
        let paused = self.paused.clone()?;
        Some(PausedRecord {
            at: paused.at,
            by: paused.by,
        })
    }

    fn pausing(&self, problem: Option<String>) -> Pausing {
        Pausing {
            schema: Default::default(),
            generated_at: clock::wall_time(),
            host: self.observer.host.clone(),
            paused: self.paused(),
            problem,
        }
    }
}
