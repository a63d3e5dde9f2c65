//! Telling whoever watches.

use super::Daemon;
use crate::{
    driver::clock,
    engine::{conflict::Severity, input::Notice, plan::Release},
    report::{clean, vendor},
};

impl Daemon {
    /// In the log, and to who watches.
    pub(super) fn publish(&mut self, notice: &Notice) {
        self.metering.noticed(notice, clock::now());
        match notice {
            Notice::Opened(segment, address, conflict)
            | Notice::Resolved(segment, address, conflict) => {
                let composer = self.observer.composer(&[]);
                self.watchers
                    .tell(|| composer.conflict_news(segment, *address, conflict));
                let engine = &self.observer.engine;
                let reason = engine.sentence(segment, *address, conflict, &vendor);
                // Names are from leases, and a log is read in terminals.
                let reason = clean(&reason);
                let kind = conflict.verdict.kind().name();
                if conflict.is_active() {
                    tracing::warn!(id = %conflict.id, kind, "{reason}");
                } else {
                    tracing::info!(id = %conflict.id, kind, "resolved: {reason}");
                }
            }
            Notice::Happened(event) => {
                let kind = event.kind.name();
                let sentence = self.observer.engine.event_sentence(event, &vendor);
                let sentence = clean(&sentence);
                if event.kind.severity() == Severity::Critical {
                    tracing::error!(kind, severity = "critical", "{sentence}");
                    let composer = self.observer.composer(&[]);
                    self.watchers.tell(|| composer.event_news(event));
                } else {
                    tracing::info!(kind, "{sentence}");
                }
            }
        }
    }

    /// The same of a lease that was given back.
    pub(super) fn released(&self, release: &Release) {
        let lease = release.lease();
        let (store, address) = (&lease.store, lease.address);
        tracing::info!(%store, %address, "released: {}", release.sentence());
        let composer = self.observer.composer(&[]);
        self.watchers.tell(|| composer.release_news(release));
    }
}
