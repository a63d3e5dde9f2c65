//! Lines of the journal about dead entries of CNI's caches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::{Grant, minutes};
use crate::engine::{caches::Removal, lease::Damage};

/// The largest entry that a line has room for, in bytes.
pub const CACHE_LIMIT: usize = 10 * 1024;

/// A dead entry that is about to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheIntent {
    /// The file.
    pub path: String,
    /// The container, by the file's name.
    pub container_id: String,
    /// The file as it was, in full.
    pub generation: Grant,
    /// What was wrong with it.
    #[schemars(with = "String")]
    pub damage: Damage,
    /// For how long the agent had seen it unchanged, seconds.
    pub unchanged_for: u64,
    /// Who was asked for the container and knew none.
    pub sources: Vec<String>,
    /// Why, in a sentence.
    pub reason: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheEffect {
    /// How it ended.
    pub result: CacheResult,
    /// In words, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CacheResult {
    /// The file is gone.
    Removed,
    /// It stays: something stood against it at the last moment.
    Kept,
    /// It stays: it could not be done.
    Failed,
}

impl CacheIntent {
    /// Of a removal.
    pub fn new(removal: &Removal) -> Self {
        let subject = removal.subject();
        let unchanged_for = removal.unchanged_for().as_secs();
        Self {
            path: removal.path().display().to_string(),
            container_id: subject.container.to_string(),
            generation: Grant::new(&subject.generation, None),
            damage: removal.damage(),
            unchanged_for,
            sources: removal.sources().iter().map(|&s| s.to_owned()).collect(),
            reason: format!(
                "it can't be read ({}), was not written to for {}, no container of its id is \
                 known to {}, and two passes agree",
                removal.damage().name(),
                minutes(unchanged_for),
                removal.sources().join(" or "),
            ),
        }
    }
}
