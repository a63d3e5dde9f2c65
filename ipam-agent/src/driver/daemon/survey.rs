//! How every lease is, for whoever looks at it as a whole: looked at a portion at a time, so
//! that events don't wait for it.

use super::Daemon;
use crate::{
    driver::clock,
    journal,
    report::{
        compose::{self, Survey},
        document::History,
    },
    serve::query::{Overviewed, Reply},
};

/// How many conflicts an overview tells in full.
const CONFLICTS: usize = 1000;
/// How many releases of the journal are told.
const RELEASES: usize = 500;

impl Daemon {
    /// One survey answers all who ask while it is made.
    pub(super) fn survey(&mut self, reply: Reply<Overviewed>) {
        self.surveyed.push(reply);
        if self.survey.is_none() {
            self.survey = Some(Survey::new(&self.observer.engine));
        }
    }

    pub(super) fn survey_on(&mut self) {
        let Some(mut survey) = self.survey.take() else {
            return;
        };
        // Whoever asked may have gone.
        self.surveyed.retain(|reply| !reply.is_closed());
        if self.surveyed.is_empty() {
            return;
        }
        if !survey.go_on(&self.observer.engine, clock::now()) {
            self.survey = Some(survey);
            return;
        }
        let mut overview = self.observer.composer(&[]).overview(survey, CONFLICTS);
        overview.charts.paused = self.paused();
        let overview = Overviewed::from(overview);
        for reply in self.surveyed.drain(..) {
            drop(reply.send(Overviewed::clone(&overview)));
        }
    }

    /// The newest releases. A long journal takes its time, and none of the loop's.
    pub(super) fn history(&self, reply: Reply<Result<History, String>>) {
        let (state_dir, host) = (self.state_dir.clone(), self.observer.host.clone());
        tokio::task::spawn_blocking(move || {
            let history = journal::history(&state_dir, RELEASES);
            let history = history.map(|told| compose::history(told, clock::wall_time(), host));
            drop(reply.send(history.map_err(|error| crate::error::in_full(&error))));
        });
    }
}
