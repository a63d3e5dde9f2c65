//! Lines of the journal about fences.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{JournalError, history};
use crate::engine::fence::{Change, Fence, Lowered};

/// A fence that is about to be raised or lowered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FenceIntent {
    /// Whether it is raised.
    pub raise: bool,
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// The MAC that it is raised against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub squatter: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FenceEffect {
    /// How it ended.
    pub result: FenceResult,
    /// In words, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FenceResult {
    /// It was raised, or lowered.
    Done,
    /// The store is as it was.
    Failed,
}

impl FenceIntent {
    /// Of a change.
    pub fn new(fence: &Fence) -> Self {
        let address = fence.address;
        let (raise, squatter, reason) = match &fence.change {
            Change::Raise { squatter, port } => (
                true,
                Some(squatter.to_string()),
                format!(
                    "{squatter} behind {port} uses {address} without a lease, and answered for it"
                ),
            ),
            Change::Lower(_, Lowered::Gone) => (
                false,
                None,
                format!("nobody was heard with {address} for a gate, and nobody answered for it"),
            ),
            Change::Lower(_, Lowered::Off) => (
                false,
                None,
                format!("{} is not fenced any more", fence.store),
            ),
        };
        Self {
            raise,
            store: fence.store.0.to_string(),
            address: address.ip(),
            squatter,
            reason,
        }
    }
}

/// The fences that were raised and, for all that the journal in this state directory knows,
/// not lowered since: store and address.
pub fn raised(directory: &Path) -> Result<BTreeSet<(String, IpAddr)>, JournalError> {
    let mut raised = BTreeSet::new();
    // The oldest first.
    for step in history(directory, usize::MAX)?.fences.into_iter().rev() {
        let FenceIntent {
            raise,
            store,
            address,
            ..
        } = step.intent;
        let failed = matches!(
            step.effect,
            Some((
                _,
                FenceEffect {
                    result: FenceResult::Failed,
                    ..
                }
            ))
        );
        match (raise, step.effect) {
            _ if failed => {}
            (true, _) => drop(raised.insert((store, address))),
            (false, Some(_)) => drop(raised.remove(&(store, address))),
            // Nobody knows whether it was lowered.
            (false, None) => {}
        }
    }
    Ok(raised)
}
