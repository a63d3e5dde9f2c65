//! What works on this host, and what doesn't.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{named, schema};

schema!(DoctorSchema, "ipam-agent/doctor/v1");

/// What works on this host, what doesn't, and the mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Doctor {
    /// Which document this is.
    pub schema: DoctorSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// In the order in which things are needed.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it is.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub mend: Option<String>,
}

named! {
    /// How a thing is.
    CheckStatus {
        /// It works.
        Ok = "ok",
        /// It works in part.
        Warn = "warn",
        /// It doesn't work.
        Fail = "fail",
    }
}
