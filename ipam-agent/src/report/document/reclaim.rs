//! What would be released, what was, and what became of it.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BlockerRecord, CacheEntry, FenceEntry, HolderName, named, schema};
use crate::{
    engine::{lease::Damage, plan::Asker},
    journal::{Grant, UndoResult},
};

schema!(PlanSchema, "ipam-agent/plan/v1");
schema!(AppliedSchema, "ipam-agent/applied/v1");
schema!(PausingSchema, "ipam-agent/pausing/v1");
schema!(UndoneSchema, "ipam-agent/undone/v1");
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
    /// Who paused unattended releases, and when; null: nobody did. Whoever applies the plan
    /// is not held up by it.
    pub paused: Option<PausedRecord>,
    /// What would be released, by store and address.
    pub releases: Vec<PlannedRelease>,
    /// What stays, by store and address.
    pub kept: Vec<KeptLease>,
    /// The dead entries of CNI's caches, by path; empty unless `reclaim.clean_caches` is true.
    /// The daemon removes them by itself: whoever applies the plan has no part in it.
    #[serde(default)]
    pub caches: Vec<DeadCache>,
}

/// An entry of a CNI cache that can't be read any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadCache {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub damage: Damage,
    /// The container that it is about, by its name; null: nobody can say, or it is too large,
    /// and it is never removed.
    pub container_id: Option<String>,
    /// What stands against its removal; empty: it is about to go.
    pub blockers: Vec<BlockerRecord>,
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
    /// For whom the client asks, behind sudo; the journal has it after the user that the
    /// kernel tells of.
    #[serde(default)]
    pub by: Option<String>,
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

/// A pause of unattended releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PausedRecord {
    /// Since when; null: the file in the state directory doesn't say.
    pub at: Option<Timestamp>,
    /// By which user, by the socket's peer credentials, with what the client says in
    /// brackets; null: the same.
    pub by: Option<String>,
}

/// That unattended releases are to stop, or to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Who asks.
    #[serde(default)]
    pub by: Option<String>,
}

/// Whether unattended releases are paused now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pausing {
    /// Which document this is.
    pub schema: PausingSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Who paused them, and when; null: they go on.
    pub paused: Option<PausedRecord>,
    /// Why what was asked for is done in part, or not at all; null: it is done.
    pub problem: Option<String>,
}

/// That a released lease is to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// The release's id, as `reclaim history` has it; leading zeros may be missing.
    pub id: String,
    /// For whom the client asks, behind sudo; the journal has it after the user that the
    /// kernel tells of.
    #[serde(default)]
    pub by: Option<String>,
}

/// What became of putting a released lease back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Undone {
    /// Which document this is.
    pub schema: UndoneSchema,
    /// When it was done.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// The release's id.
    pub id: String,
    /// How it ended.
    pub result: UndoOutcome,
    /// The store; null unless it was put back.
    pub store: Option<String>,
    /// The address; null unless it was put back.
    pub address: Option<IpAddr>,
    /// Whose the lease is; null unless it was put back.
    pub holder: Option<HolderName>,
    /// Why it was not put back.
    pub detail: Option<String>,
}

named! {
    /// How putting a released lease back ended.
    UndoOutcome {
        /// The lease is there again.
        PutBack = "put-back",
        /// The address has a new lease; or it was put back already, or never released.
        Refused = "refused",
        /// No release has the id, or the store or the journal failed.
        Failed = "failed",
    }
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
    /// The fences that were raised and lowered.
    #[serde(default)]
    pub fences: Vec<FenceEntry>,
    /// The dead entries of CNI's caches that were removed.
    #[serde(default)]
    pub caches: Vec<CacheEntry>,
}

/// One release, as the journal has it: all that a person needs to see why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Which.
    pub id: String,
    /// When it was decided.
    pub at: Timestamp,
    /// In which boot.
    pub boot_id: String,
    /// Who asked: the daemon or a person.
    pub asker: Asker,
    /// Which user, by the socket's peer credentials; `(says …)` after it, whom the client
    /// says that it asks for, which is not proven.
    pub by: Option<String>,
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// Who had it.
    pub holder: HolderName,
    /// What was wrong with the store's record of it.
    pub damage: Option<Damage>,
    /// The store's record as it was: what is put back if it is undone.
    pub record: Grant,
    /// Why it was released: one sentence.
    pub reason: String,
    /// The same in numbers.
    pub evidence: ProofRecord,
    /// How it ended.
    pub result: ReleaseResult,
    /// When that was written down; null if it wasn't.
    pub finished_at: Option<Timestamp>,
    /// Why it was kept, or what went wrong.
    pub detail: Option<String>,
    /// The last time that the lease was to be put back; null: it never was.
    pub undo: Option<UndoRecord>,
    /// The new lease of the address, if there was one while it was quarantined.
    pub taken: Option<TakenRecord>,
}

/// That a released lease was to be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoRecord {
    /// When; null: the journal's line of it can't be read. So are the next three.
    pub at: Option<Timestamp>,
    /// Who asked: the daemon, which found the address in use, or a person.
    pub asker: Option<Asker>,
    /// Which user, by the socket's peer credentials; `(says …)` after it, whom the client
    /// says that it asks for, which is not proven.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// How it ended; null: the agent stopped before it could say.
    pub result: Option<UndoResult>,
    /// When that was written down.
    pub finished_at: Option<Timestamp>,
    /// What went wrong.
    pub detail: Option<String>,
}

/// That a released address was leased anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TakenRecord {
    /// When the agent saw it.
    pub at: Timestamp,
    /// To whom.
    pub holder: HolderName,
}
