//! The ladder from a silent lease to a release, as types: none of its steps can be
//! skipped, because each needs the one before.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    lease::{Lease, StoreName},
    probing::Unanswered,
    time::Timestamp,
};
use ipam_common::Address;

/// Who wants leases released.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Asker {
    /// The daemon itself, as the store's mode allows.
    Daemon,
    /// A person, who confirmed it.
    Person,
}

/// What stands against a release. The names are those of the metric's label `reason`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The store's mode doesn't allow it unasked.
    Mode,
    /// `keep` names the address.
    Kept,
    /// The agent hasn't seen the lease unchanged for long enough.
    Age,
    /// Life could have been missed.
    Coverage,
    /// The lease's wire isn't watched, or unknown.
    SegmentUnwatched,
    /// Somebody was heard with the address, or asking for it.
    Seen,
    /// Somebody answered our probe.
    ProbeAnswered,
    /// Somebody holds it.
    Holder,
    /// A source of holders could not answer.
    SourceDown,
    /// Two passes in a row must agree.
    SecondPass,
    /// The lease is no longer the one that was judged.
    Changed,
    /// Enough for one interval between passes.
    Budget,
    /// The agent's state would not survive a reboot, or can't be written.
    StateNotPersistent,
    /// The agent has no record of the lease from an earlier boot.
    BootUnknown,
}

impl Reason {
    /// The name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Kept => "kept",
            Self::Age => "age",
            Self::Coverage => "coverage",
            Self::SegmentUnwatched => "segment-unwatched",
            Self::Seen => "seen",
            Self::ProbeAnswered => "probe-answered",
            Self::Holder => "holder",
            Self::SourceDown => "source-down",
            Self::SecondPass => "second-pass",
            Self::Changed => "changed",
            Self::Budget => "budget",
            Self::StateNotPersistent => "state-not-persistent",
            Self::BootUnknown => "boot-unknown",
        }
    }
}

/// Why a lease is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Which condition is open.
    pub reason: Reason,
    /// In words and numbers.
    pub detail: String,
    /// When it will be met, if only time is missing.
    pub until: Option<Timestamp>,
}

impl Blocker {
    /// A blocker that time alone doesn't lift.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            until: None,
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

/// That a lease's whole segment was watched, without a moment in which life could have
/// been missed, from `since` until the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    since: Timestamp,
    window: Duration,
}

impl Coverage {
    /// Coverage that began at `since`, if at `now` it spans the whole `window`.
    pub(super) fn of(since: Timestamp, window: Duration, now: Timestamp) -> Option<Self> {
        (now.since(since) >= window).then_some(Self { since, window })
    }

    /// Since when.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The window it had to span.
    pub fn window(&self) -> Duration {
        self.window
    }
}

/// That nobody uses a lease's address: covered, silent even when asked, without a holder,
/// twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleProof {
    pub(super) coverage: Coverage,
    pub(super) quiet_for: Duration,
    pub(super) unchanged_for: Duration,
    pub(super) earlier_boot: Option<String>,
    pub(super) sources: Vec<&'static str>,
    pub(super) passes: u32,
    pub(super) unanswered: Option<Unanswered>,
}

impl StaleProof {
    /// The watch that found nothing.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// For how long nothing was heard: since the last sign of life or, without one, since
    /// the watch began.
    pub fn quiet_for(&self) -> Duration {
        self.quiet_for
    }

    /// For how long the agent has seen the lease unchanged, in this boot.
    pub fn unchanged_for(&self) -> Duration {
        self.unchanged_for
    }

    /// The earlier boot in which the agent recorded the lease, if it did.
    pub fn earlier_boot(&self) -> Option<&str> {
        self.earlier_boot.as_deref()
    }

    /// The sources that were asked and know no holder.
    pub fn sources(&self) -> &[&'static str] {
        &self.sources
    }

    /// How many passes in a row agree.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// The probes that nobody answered; `None` on routed links, where none are sent.
    pub fn unanswered(&self) -> Option<Unanswered> {
        self.unanswered
    }
}

/// One release: a lease exactly as it was judged, and the proof. Only the planner can
/// make one, and only from a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    lease: Lease,
    proof: StaleProof,
}

impl Release {
    pub(super) fn new(lease: Lease, proof: StaleProof) -> Self {
        Self { lease, proof }
    }

    /// A release of `lease` without the ladder, for tests of what carries releases out.
    #[cfg(test)]
    pub(crate) fn for_test(lease: Lease) -> Self {
        let coverage = Coverage {
            since: Timestamp(0),
            window: Duration::from_secs(900),
        };
        let proof = StaleProof {
            coverage,
            quiet_for: Duration::from_secs(960),
            unchanged_for: Duration::from_secs(1000),
            earlier_boot: None,
            sources: vec!["namespaces"],
            passes: 2,
            unanswered: Some(Unanswered { sent: 6, ports: 2 }),
        };
        Self { lease, proof }
    }

    /// The lease; its generation is what the store must still hold.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Why.
    pub fn proof(&self) -> &StaleProof {
        &self.proof
    }
}

/// A lease that stays, and what stands against its release: at least one blocker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The store.
    pub store: StoreName,
    /// The address.
    pub address: Address,
    /// Everything that stands against it, the weightiest first.
    pub blockers: Vec<Blocker>,
}

/// What a pass decided for every lease: it is released, or it has its blockers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimPlan {
    /// Who asked.
    pub asker: Asker,
    /// When it was made.
    pub at: Timestamp,
    /// What to release, in this order.
    pub releases: Vec<Release>,
    /// What stays.
    pub kept: Vec<Kept>,
}

/// What became of one planned release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The journal's id of it; `None`: it isn't in the journal.
    pub id: Option<String>,
    /// The store.
    pub store: StoreName,
    /// The address.
    pub address: Address,
    /// The result.
    pub result: OutcomeResult,
}

/// How a planned release ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeResult {
    /// The lease is gone, by our hand.
    Released,
    /// It stays: something was found at the last moment.
    Kept(Blocker),
    /// The store or the journal failed; in words. The lease stays, or its fate is in the
    /// journal.
    Failed(String),
}
