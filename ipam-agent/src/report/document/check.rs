//! Whether one address is free.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EvidenceName, HardwareAddress, named, schema};

schema!(AddressCheckSchema, "ipam-agent/check/v1");

/// Whether an address is free on the wire of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressCheck {
    /// Which document this is.
    pub schema: AddressCheckSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Which address.
    pub address: IpAddr,
    /// Out of which interface it was looked.
    pub interface: String,
    /// Whether it is free.
    pub verdict: AddressVerdict,
    /// Who has it or is about to take it; null if it is free or this host's own.
    pub mac: Option<HardwareAddress>,
    /// How that was said.
    pub evidence: Option<EvidenceName>,
    /// The interface of this host that has it.
    pub own_interface: Option<String>,
    /// How many probes were sent; null where the look ended before the last.
    pub probes: Option<u32>,
    /// How long the look took, in milliseconds; null where it ended early.
    pub listened_ms: Option<u64>,
    /// One sentence.
    pub reason: String,
}

named! {
    /// Whether an address is free.
    AddressVerdict {
        /// Nobody has it.
        Free = "free",
        /// Somebody has it.
        InUse = "in-use",
        /// Somebody is about to take it: it probes for the address, as we do.
        BeingClaimed = "being-claimed",
    }
}
