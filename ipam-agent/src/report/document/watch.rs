//! What happens, one line each.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConflictRecord, EventRecord, PlannedRelease, named, schema};

schema!(WatchSchema, "ipam-agent/watch/v1");

/// One thing that happened: one line of `watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchLine {
    /// Which document this is.
    pub schema: WatchSchema,
    /// When it happened.
    pub at: Timestamp,
    /// The host's name.
    pub host: String,
    /// What happened.
    pub what: Happening,
    /// The conflict that was open, opened, changed or was resolved, as it is then.
    pub conflict: Option<ConflictRecord>,
    /// The lease that was released, and why.
    pub release: Option<PlannedRelease>,
    /// What happened that is no conflict, and still wants somebody to look.
    pub event: Option<EventRecord>,
    /// How many lines were missed.
    pub missed: Option<u64>,
}

named! {
    /// What a line of `watch` tells.
    Happening {
        /// This conflict lasts already. These come first.
        Open = "open",
        /// All that lasts was told; from here on things happen.
        Watching = "watching",
        /// A conflict began, or came back.
        Opened = "opened",
        /// A conflict is of another kind or severity.
        Changed = "changed",
        /// A conflict is over.
        Resolved = "resolved",
        /// A lease was given back.
        Released = "released",
        /// An address that was given back is in use after all.
        ReleasedButAlive = "released-but-alive",
        /// The reader was too slow: so many lines were left out here.
        Missed = "missed",
        /// The daemon stops: the last line.
        Stopping = "stopping",
    }
}
