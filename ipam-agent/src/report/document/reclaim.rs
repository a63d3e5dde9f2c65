//! What would be released, what was, and what became of it.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BlockerRecord, HolderName, named, schema};
use crate::engine::lease::Damage;

schema!(PlanSchema, "ipam-agent/plan/v1");
schema!(AppliedSchema, "ipam-agent/applied/v1");
schema!(HistorySchema, "ipam-agent/history/v1");

/// What would be released if a person asked for it now, and why the rest would stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Which document this is.
    pub schema: PlanSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Whether every lease could be judged: every store was read, every source answered,
    /// every wire was watched.
    pub complete: bool,
    /// Why not; empty if so.
    pub blind: Vec<String>,
    /// What would be released, by store and address.
    pub releases: Vec<PlannedRelease>,
    /// What stays, by store and address.
    pub kept: Vec<KeptLease>,
}

/// A lease that would be released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedRelease {
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// Who had it.
    pub holder: HolderName,
    /// What is wrong with the store's record of it.
    pub damage: Option<Damage>,
    /// Why it can go: one sentence.
    pub reason: String,
    /// The same in numbers.
    pub evidence: ProofRecord,
}

/// What proves that a lease is stale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProofRecord {
    /// Since when its segment has been watched without a gap.
    pub watched_since: Timestamp,
    /// For how long it had to be watched, in seconds.
    pub gate_seconds: u64,
    /// For how long nothing was heard of it, in seconds.
    pub quiet_seconds: u64,
    /// For how long the agent has seen it unchanged in this boot, in seconds.
    pub unchanged_seconds: u64,
    /// The earlier boot in which the agent recorded it.
    pub earlier_boot: Option<String>,
    /// The sources that were asked and know no holder.
    pub sources: Vec<String>,
    /// How many passes in a row agree.
    pub passes: u32,
    /// Probes for the address, out of all ports together, that nobody answered; null on routed
    /// links, where none are sent.
    pub unanswered_probes: Option<u32>,
}

/// A lease that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptLease {
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// What stands against its release, at least one; the weightiest first.
    pub blockers: Vec<BlockerRecord>,
}

/// The releases that a person confirmed. The daemon plans anew and releases what is in
/// both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Which leases.
    pub confirmed: Vec<ConfirmedRelease>,
}

/// One lease whose release was confirmed.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct ConfirmedRelease {
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
}

/// What became of the confirmed releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// Which document this is.
    pub schema: AppliedSchema,
    /// When it was done.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Why the agent could not judge; empty if it could.
    pub blind: Vec<String>,
    /// One for each confirmed release, by store and address.
    pub outcomes: Vec<OutcomeRecord>,
}

/// What became of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeRecord {
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// How it ended.
    pub result: ReleaseResult,
    /// What was found at the last moment, if the lease was kept.
    pub blocker: Option<BlockerRecord>,
    /// What went wrong, if it failed.
    pub error: Option<String>,
}

named! {
    /// How a release ended.
    ReleaseResult {
        /// The lease is gone, by the agent's hand.
        Released = "released",
        /// It stays.
        Kept = "kept",
        /// The store or the journal failed.
        Failed = "failed",
        /// The agent stopped before it could say; nobody knows yet.
        Unknown = "unknown",
    }
}

/// What the journal says, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Which document this is.
    pub schema: HistorySchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// The lines of the journal that could not be read.
    pub damaged_lines: u64,
    /// The releases.
    pub entries: Vec<HistoryEntry>,
}

/// One release, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Which.
    pub id: String,
    /// When it was decided.
    pub at: Timestamp,
    /// In which boot.
    pub boot_id: String,
    /// Who asked: the daemon or a person.
    pub asker: crate::engine::plan::Asker,
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// Who had it.
    pub holder: HolderName,
    /// What was wrong with the store's record of it.
    pub damage: Option<Damage>,
    /// Why it was released: one sentence.
    pub reason: String,
    /// How it ended.
    pub result: ReleaseResult,
    /// Why it was kept, or what went wrong.
    pub detail: Option<String>,
}
