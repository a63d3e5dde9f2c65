//! What happened to one address, in the order of time.

use jiff::{SignedDuration, Timestamp as WallTime};

use super::Composer;
use crate::{
    engine::{
        leasebook::{Origin, Record},
        plan::Asker,
    },
    journal::UndoResult,
    report::document::{
        ClaimRecord, ConflictRecord, ConflictState, ConflictStep, EventRecord, Explain,
        HistoryEntry, ReleaseResult, SegmentClaim, StoryRecord, UndoRecord,
    },
};

/// Who wasn't heard for so long fell silent: that is part of the story then.
const SILENT: SignedDuration = SignedDuration::from_secs(120);

impl Composer<'_> {
    /// What the engine remembers of it.
    pub(super) fn story(
        &self,
        records: &[&Record],
        claims: &[SegmentClaim],
        conflicts: &[ConflictRecord],
        events: &[EventRecord],
    ) -> Vec<StoryRecord> {
        let mut story: Vec<StoryRecord> = records
            .iter()
            .map(|record| self.lease_seen(record))
            .collect();
        let several = claims
            .windows(2)
            .any(|pair| pair[0].segment != pair[1].segment);
        let now = self.clock.at(self.now);
        for SegmentClaim { segment, claim } in claims {
            let place = if several {
                format!(" in {segment}")
            } else {
                String::new()
            };
            story.push(entry(
                claim.first_seen,
                format!("{} was first heard{place}", name(claim)),
            ));
            if now.duration_since(claim.last_seen) > SILENT {
                let what = format!("{} was last heard{place}", claim.mac);
                story.push(entry(claim.last_seen, what));
            }
        }
        let events = events.iter();
        story.extend(
            events.map(|event| entry(event.at, format!("{}: {}", event.kind, event.reason))),
        );
        for conflict in conflicts {
            let mut before = None;
            for step in &conflict.history {
                story.push(entry(step.at, turn(before, step)));
                before = Some(step.state);
            }
        }
        story.sort_by_key(|record| record.at);
        story
    }

    fn lease_seen(&self, record: &Record) -> StoryRecord {
        let store = &record.lease.store;
        let holder = self.holder_name(&record.lease.holder());
        let what = match record.origin {
            Origin::ThisBoot => format!("{store} leased it to {holder}"),
            Origin::EarlierBoot(_) => format!(
                "the agent found it leased to {holder} by {store}, as it was before the last boot"
            ),
            Origin::Unknown => {
                format!("the agent first saw that it is leased to {holder} by {store}")
            }
        };
        entry(self.clock.at(record.since), what)
    }
}

impl Explain {
    /// Adds to the story what the agent released, or tried to.
    pub fn tell_releases(&mut self, releases: impl IntoIterator<Item = HistoryEntry>) {
        for release in releases {
            self.story.push(entry(release.at, told(&release)));
            if let Some(undo) = &release.undo
                && let Some(at) = undo.finished_at.or(undo.at)
            {
                self.story.push(entry(at, told_undo(&release.id, undo)));
            }
            if let Some(taken) = &release.taken {
                let what = format!("{} leased it anew, to {}", release.store, taken.holder);
                self.story.push(entry(taken.at, what));
            }
        }
        self.story.sort_by_key(|record| record.at);
    }
}

fn entry(at: WallTime, what: String) -> StoryRecord {
    StoryRecord { at, what }
}

/// A claimant: its MAC, its vendor, and where it was heard.
pub(super) fn name(claim: &ClaimRecord) -> String {
    let vendor = claim.vendor.as_ref();
    let vendor = vendor.map_or_else(String::new, |vendor| format!(" ({vendor})"));
    let port = claim.interface.as_ref();
    let port = port.map_or_else(String::new, |port| format!(" on {port}"));
    format!("{}{vendor}{port}", claim.mac)
}

/// What a conflict became.
fn turn(before: Option<ConflictState>, step: &ConflictStep) -> String {
    let ConflictStep { kind, severity, .. } = step;
    match (before, step.state) {
        (_, ConflictState::Resolved) => format!("the {kind} is resolved"),
        (None, ConflictState::Active) => format!("a conflict opens: {kind}, {severity}"),
        (Some(ConflictState::Active), ConflictState::Active) => {
            format!("the conflict becomes {kind}, {severity}")
        }
        (Some(ConflictState::Resolved), ConflictState::Active) => {
            format!("the conflict comes back: {kind}, {severity}")
        }
    }
}

fn told(release: &HistoryEntry) -> String {
    let lease = format!("the lease of {} by {}", release.holder, release.store);
    let asker = match release.asker {
        Asker::Person => match &release.by {
            Some(by) => format!("as {by} asked"),
            None => "as a person asked".to_owned(),
        },
        Asker::Daemon => "unasked".to_owned(),
    };
    let id = &release.id;
    let detail = release
        .detail
        .as_deref()
        .unwrap_or("the journal doesn't say why");
    match release.result {
        ReleaseResult::Released => {
            let (store, reason) = (&release.store, &release.reason);
            format!("the agent gave it back to {store}, {asker} (release {id}): {reason}")
        }
        ReleaseResult::Kept => {
            format!("the agent was about to release {lease} and kept it: {detail}")
        }
        ReleaseResult::Failed => format!("the agent could not release {lease}: {detail}"),
        ReleaseResult::Unknown => format!(
            "the agent was about to release {lease}; the journal doesn't say what became of it"
        ),
    }
}

fn told_undo(id: &str, undo: &UndoRecord) -> String {
    let why = undo.reason.as_deref().unwrap_or("nobody knows why");
    let detail = undo.detail.as_deref().unwrap_or("no reason was written");
    match undo.result {
        Some(UndoResult::PutBack) => format!("the agent put the lease back (release {id}): {why}"),
        Some(UndoResult::Taken | UndoResult::Failed) => {
            format!("the agent did not put the lease back (release {id}): {detail}")
        }
        None => format!(
            "the agent was about to put the lease back (release {id}); the journal doesn't say \
             what became of it"
        ),
    }
}
