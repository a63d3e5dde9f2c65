//! What else the journal tells of than releases.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HardwareAddress, named};
use crate::{engine::lease::Damage, journal::Grant};

/// A fence that was raised or lowered, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FenceEntry {
    /// Which line of the journal.
    pub id: String,
    /// When it was decided.
    pub at: Timestamp,
    /// In which boot.
    pub boot_id: String,
    /// Whether it was raised or lowered.
    pub change: FenceChange,
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// The MAC that it was raised against; null of one that was lowered.
    pub squatter: Option<HardwareAddress>,
    /// Why: one sentence.
    pub reason: String,
    /// How it ended.
    pub result: FenceOutcome,
    /// When that was written down; null if it wasn't.
    pub finished_at: Option<Timestamp>,
    /// What went wrong.
    pub detail: Option<String>,
}

named! {
    /// What was done to a fence.
    FenceChange {
        /// The address was reserved.
        Raised = "raised",
        /// It was given back.
        Lowered = "lowered",
    }
}

named! {
    /// How raising or lowering a fence ended.
    FenceOutcome {
        /// It is done.
        Done = "done",
        /// The store is as it was.
        Failed = "failed",
        /// The agent stopped before it could say; nobody knows yet.
        Unknown = "unknown",
    }
}

/// A dead entry of a CNI cache that was removed, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheEntry {
    /// Which line of the journal.
    pub id: String,
    /// When it was decided.
    pub at: Timestamp,
    /// In which boot.
    pub boot_id: String,
    /// The file.
    pub path: String,
    /// The container, by the file's name.
    pub container_id: String,
    /// What was wrong with it.
    pub damage: Damage,
    /// The file as it was, in full.
    pub record: Grant,
    /// For how long the agent had seen it unchanged, seconds.
    pub unchanged_seconds: u64,
    /// Who was asked for the container and knew none.
    pub sources: Vec<String>,
    /// Why it was removed: one sentence.
    pub reason: String,
    /// How it ended.
    pub result: CacheOutcome,
    /// When that was written down; null if it wasn't.
    pub finished_at: Option<Timestamp>,
    /// Why it was kept, or what went wrong.
    pub detail: Option<String>,
}

named! {
    /// How removing a dead entry of a CNI cache ended.
    CacheOutcome {
        /// The file is gone.
        Removed = "removed",
        /// It stays.
        Kept = "kept",
        /// It stays: it could not be done.
        Failed = "failed",
        /// The agent stopped before it could say; nobody knows yet.
        Unknown = "unknown",
    }
}
