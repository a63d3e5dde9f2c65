//! What a release needs, condition by condition; what is missing is a blocker.

use std::time::Duration;

use super::{Planner, of, words};
use crate::engine::{
    coverage::{Gap, Watched},
    lease::{Damage, Mode},
    leasebook::{Origin, Record, Store},
    plan::{Asker, Blocker, Coverage, Reason},
};

impl Planner<'_> {
    /// Mode, keep list, and whether store and state can be relied on.
    pub(super) fn leave(
        &self,
        record: &Record,
        store: Option<&Store>,
        asker: Asker,
        blockers: &mut Vec<Blocker>,
    ) {
        let mut block = |reason, detail: String| blockers.push(Blocker::new(reason, detail));
        let address = record.lease.address.ip();
        if let Some(net) = self.settings.keep.iter().find(|net| net.contains(&address)) {
            block(Reason::Kept, format!("`keep` names {net}"));
        }
        if record.lease.damage == Some(Damage::Oversized) {
            let why = "its record is larger than its store ever writes one: look at it, and \
                       remove it by hand if it is nobody's";
            block(Reason::Kept, why.into());
        }
        let Some(store) = store else {
            return block(Reason::SourceDown, String::from("its store is gone"));
        };
        if let Some(why) = &store.failed {
            block(Reason::SourceDown, format!("{}: {why}", record.lease.store));
        }
        if let Err(why) = &store.writable {
            block(Reason::Mode, why.clone());
        }
        if !self.settings.data_plane {
            let why = "observe.data_plane is off: a pod that talks and never asks is not heard";
            block(Reason::Coverage, why.into());
        }
        if let Some(why) = &self.pass.state {
            block(Reason::StateNotPersistent, why.clone());
        }
        if asker == Asker::Daemon
            && let Some(restored) = self.quarantine.restored(&record.lease)
            && restored.wanted
        {
            let why = format!(
                "it was released as {} and a person had it put back: unasked it is not released \
                 again in this boot",
                restored.id
            );
            block(Reason::Kept, why);
        }
        if asker == Asker::Daemon {
            if let Some(paused) = &self.pass.paused {
                block(Reason::Mode, paused.clone());
            }
            match (store.mode, &record.origin) {
                (Mode::Observe, _) => block(Reason::Mode, "the store's mode is observe".into()),
                (Mode::AfterReboot, Origin::Unknown) => block(
                    Reason::BootUnknown,
                    "it was there before the agent first looked; `reclaim apply` judges it by \
                     evidence alone"
                        .into(),
                ),
                (Mode::AfterReboot, Origin::ThisBoot) => block(
                    Reason::Mode,
                    "granted in this boot; the store's mode is after-reboot".into(),
                ),
                (Mode::AfterReboot, Origin::EarlierBoot(_)) | (Mode::Continuous, _) => {}
            }
        }
    }

    pub(super) fn holders(&self, record: &Record, asker: Asker, blockers: &mut Vec<Blocker>) {
        if let Some(port) = record.held {
            let port = port.and_then(|ifindex| self.topology.ports.get(&ifindex));
            let own = self.topology.local.get(&record.lease.address);
            let place = match (port, own) {
                (Some(port), _) => format!("behind {}", port.name),
                (None, Some(link)) => format!("on {link} of this host itself"),
                (None, None) => String::from("in a network namespace of this host"),
            };
            let detail = format!("the address is configured {place}");
            blockers.push(Blocker::new(Reason::Holder, detail));
        }
        blockers.extend(self.pass.sandboxes.holder(&record.lease, self.now));
        if self.pass.at.is_none() {
            let detail = "no source of holders was asked yet";
            blockers.push(Blocker::new(Reason::SourceDown, detail));
        } else if self.pass.sources.is_empty() && self.pass.down.is_empty() {
            let detail = "no source of holders is configured: set holders.netns or holders.cri";
            blockers.push(Blocker::new(Reason::SourceDown, detail));
        }
        for (source, why) in &self.pass.down {
            let detail = format!("{}: {why}", source.name());
            blockers.push(Blocker::new(Reason::SourceDown, detail));
        }
        let gate = match asker {
            Asker::Daemon => self.settings.gate,
            Asker::Person => self.settings.asked_gate,
        };
        blockers.extend(self.pass.sandboxes.doubt(gate, self.now));
    }

    pub(super) fn silence(&self, record: &Record, window: Duration, blockers: &mut Vec<Blocker>) {
        let Some(at) = self.last_life(record) else {
            return;
        };
        let quiet = self.now.since(at);
        if quiet < window {
            blockers.push(Blocker {
                reason: Reason::Seen,
                detail: format!("quiet for {}", of(quiet, window)),
                until: Some(at + window),
            });
        }
    }

    pub(super) fn coverage(
        &self,
        record: &Record,
        window: Duration,
        blockers: &mut Vec<Blocker>,
    ) -> Option<Coverage> {
        let segment = match self.segment(record) {
            Ok(segment) => segment,
            Err(why) => {
                blockers.push(Blocker::new(Reason::SegmentUnwatched, why));
                return None;
            }
        };
        let Some(watched) = record.watched_since() else {
            let why = "the kernel isn't watching for the address yet";
            blockers.push(Blocker::new(Reason::Coverage, why));
            return None;
        };
        match self.coverage.since(self.topology, &segment, self.now) {
            Err(why) => {
                blockers.push(Blocker::new(Reason::Coverage, why.to_string()));
                None
            }
            Ok(Watched { since, after }) => {
                let after = after.filter(|_| since > watched);
                let since = since.max(watched);
                let coverage = Coverage::of(since, window, self.now);
                if coverage.is_none() {
                    blockers.push(Blocker {
                        reason: Reason::Coverage,
                        detail: format!(
                            "{segment} watched for {}{}",
                            of(self.now.since(since), window),
                            after.as_ref().map(before).unwrap_or_default(),
                        ),
                        until: Some(since + window),
                    });
                }
                coverage
            }
        }
    }

    pub(super) fn age(
        &self,
        record: &Record,
        window: Duration,
        blockers: &mut Vec<Blocker>,
    ) -> Duration {
        // An earlier boot's lease is judged sooner, and by the sources: they must have
        // been answering for that long.
        let answered = match (&record.origin, self.pass.answered_since) {
            (Origin::EarlierBoot(_), Some(at)) => at,
            (Origin::EarlierBoot(_), None) => self.now,
            _ => record.since,
        };
        let since = record.since.max(answered);
        let unchanged = self.now.since(since);
        if unchanged < window {
            blockers.push(Blocker {
                reason: Reason::Age,
                detail: format!(
                    "seen unchanged for {}{}",
                    of(unchanged, window),
                    self.broke_its_silence(record).unwrap_or_default()
                ),
                until: Some(since + window),
            });
        }
        unchanged
    }

    /// Why it takes longer than for others.
    fn broke_its_silence(&self, record: &Record) -> Option<String> {
        let restored = self.quarantine.restored(&record.lease)?;
        restored.enough()?;
        Some(format!(
            ", since it was released as {}, after which its address broke a silence of {}",
            restored.id,
            words(restored.silence)
        ))
    }
}

/// What was before the watch.
fn before(gap: &Gap) -> String {
    format!(
        ", after {} in which life on {} could have been missed: {}",
        words(gap.length),
        gap.port,
        gap.why
    )
}
