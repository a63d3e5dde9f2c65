//! Passes: the stores and every source of evidence, asked off the loop.

use std::{sync::Arc, time::Duration};

use ipam_common::{Address, sighting::Stamps};
use tokio::time::Instant;

use super::{Daemon, Done};
use crate::{
    driver::gather::{self, Gathered},
    engine::{evidence::PassEvidence, input::Input},
    error::in_full,
    serve::metrics::stage,
    source::live::TableError,
};

/// From one of the two passes that a person's question needs to the other.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);

impl Daemon {
    /// Reads the stores again; once more afterwards if they change meanwhile.
    pub(super) fn read_stores(&mut self) {
        if self.reading {
            self.read_again = true;
            return;
        }
        self.reading = true;
        self.metering.begin(stage::STORES);
        let releaser = self.releaser.clone();
        self.tasks
            .spawn_blocking(move || Done::Read(releaser.read()));
    }

    /// Begins a pass: the stores first, so that the leases are no older than the evidence.
    pub(super) fn gather(&mut self) {
        if self.gathering {
            return;
        }
        self.gathering = true;
        self.next_gather = None;
        self.read_stores();
    }

    pub(super) fn ask_sources(&mut self) {
        self.metering.begin(stage::HOLDERS);
        let tables = Arc::clone(&self.observer.tables);
        let (holders, clean) = (self.holders.clone(), self.clean_caches);
        self.tasks.spawn_blocking(move || {
            let gathered = gather::holders(&holders, clean);
            // Last, so that no sign of life is younger than the answer to it.
            Done::Gathered(gathered, tables.stamps())
        });
    }

    /// Everything of a pass has been answered.
    pub(super) fn pass(
        &mut self,
        gathered: Gathered,
        stamps: Result<Vec<(Address, Stamps)>, TableError>,
    ) {
        self.gathering = false;
        self.metering.end(stage::HOLDERS);
        if self.observer.is_behind() {
            // It would be judged by links that may be others by now.
            return self.gather();
        }
        self.retry_state();
        self.check_state();
        let ports = self.observer.check_all();
        let stamps = stamps.unwrap_or_else(|error| {
            // Without it no lease is known to be watched for.
            tracing::warn!("{}", in_full(&error));
            Vec::new()
        });
        // While the wire is being asked, what it answers is not among the evidence.
        let counts = self.probing.is_none();
        let person = self
            .asked
            .iter()
            .any(|asked| asked.passes > u32::from(counts));
        if let Some(dead) = gathered.dead {
            self.observer.tell(Input::DeadEntries(dead));
        }
        self.metering.begin(stage::JUDGE);
        self.observer.tell(Input::Evidence(PassEvidence {
            ports: ports.clone(),
            stamps,
            sources: gathered.sources,
            runtimes: gathered.runtimes,
            person,
        }));
        self.metering.end(stage::JUDGE);
        let down = self.observer.engine.last_pass().down.iter();
        let down = down.map(|(source, why)| (source.name().to_owned(), why.clone()));
        self.holders_down.tell(down.collect());
        self.observer.mend(&ports);
        self.obey();
        let mut ready = Vec::new();
        for asked in &mut self.asked {
            asked.passes = asked.passes.saturating_sub(u32::from(counts));
        }
        for asked in std::mem::take(&mut self.asked) {
            if asked.passes == 0 {
                ready.push(asked.question);
            } else {
                self.asked.push(asked);
            }
        }
        for question in ready {
            self.reply(question);
        }
        self.go_on_asking();
    }

    /// The next pass for a person's question, once the wire has been asked.
    pub(super) fn go_on_asking(&mut self) {
        if !self.asked.is_empty() && self.probing.is_none() && !self.gathering {
            self.next_gather = Some(Instant::now() + BETWEEN_PASSES);
        }
    }
}
