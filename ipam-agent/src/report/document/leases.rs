//! Leases, addresses, and all that is known of one address.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BlockerRecord, ClaimRecord, ConflictRecord, EventRecord, LeaseName, SegmentName, named, schema,
};
use crate::engine::lease::Damage;

schema!(LeasesSchema, "ipam-agent/leases/v1");
schema!(AddressesSchema, "ipam-agent/addresses/v1");
schema!(ExplainSchema, "ipam-agent/explain/v1");

/// Every lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leases {
    /// Which document this is.
    pub schema: LeasesSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Which stores could not be read, and why; empty if all could.
    pub blind: Vec<String>,
    /// By store and address.
    pub leases: Vec<LeaseRecord>,
}

/// One lease, and what the agent makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseRecord {
    /// Store, address, holder and state.
    #[serde(flatten)]
    pub lease: LeaseName,
    /// The wire its address lives on; null if nobody knows, or nobody can watch it.
    pub segment: Option<SegmentName>,
    /// What is wrong with the store's record of it.
    pub damage: Option<Damage>,
    /// Why it is in this state: one sentence.
    pub reason: String,
    /// Since when the agent has seen it unchanged, in this boot.
    pub since: Option<Timestamp>,
    /// The last sign of life of its address.
    pub last_heard: Option<Timestamp>,
    /// What stands against its release, were a person to ask now; the weightiest first. The
    /// last, if a person paused unattended releases, says so: it stands against those alone.
    pub blockers: Vec<BlockerRecord>,
    /// Of a lease that was given back: which release it was, and how long it is watched.
    pub quarantine: Option<QuarantineRecord>,
}

/// That an address was given back, and is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineRecord {
    /// The release's id in the journal.
    pub id: String,
    /// When it was given back.
    pub released_at: Timestamp,
    /// Until when it is watched, unless somebody leases it.
    pub until: Timestamp,
}

/// Who is on the wires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Addresses {
    /// Which document this is.
    pub schema: AddressesSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// By segment, address and MAC.
    pub addresses: Vec<AddressRecord>,
}

/// That somebody asserts an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressRecord {
    /// The address.
    pub address: IpAddr,
    /// Where.
    pub segment: SegmentName,
    /// Who, and since when.
    #[serde(flatten)]
    pub claim: ClaimRecord,
    /// Who leased the address, by store.
    pub leases: Vec<LeaseName>,
}

/// All that is known of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explain {
    /// Which document this is.
    pub schema: ExplainSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Which address.
    pub address: IpAddr,
    /// What the agent makes of it: one sentence.
    pub verdict: String,
    /// The interface of this host that has it; null if this host hasn't.
    #[serde(default)]
    pub this_host: Option<String>,
    /// The pools that never hand it out, by store.
    #[serde(default)]
    pub set_apart: Vec<SetApartRecord>,
    /// Who asserts it, by segment and MAC.
    pub claims: Vec<SegmentClaim>,
    /// Its last signs of life.
    pub life: Life,
    /// What each source of holders says of it.
    pub holders: Vec<HolderAnswer>,
    /// Its leases, by store, each with what stands against its release.
    pub leases: Vec<LeaseRecord>,
    /// Its conflicts, the newest first.
    pub conflicts: Vec<ConflictRecord>,
    /// What else happened to it, in order of time.
    pub events: Vec<EventRecord>,
    /// All that happened to it, as far as the agent remembers, in order of time.
    #[serde(default)]
    pub story: Vec<StoryRecord>,
    /// What could not be read, so that more may have happened; empty if all could.
    #[serde(default)]
    pub blind: Vec<String>,
}

/// A pool that never hands an address out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetApartRecord {
    /// The store: kind and network.
    pub store: String,
    /// The pool's prefix.
    pub pool: String,
    /// What the address is to it.
    pub role: PoolRole,
}

named! {
    /// What an address that is never handed out is to its pool.
    PoolRole {
        /// The gateway's.
        Gateway = "gateway",
        /// Excluded by somebody.
        Excluded = "excluded",
        /// The subnet's own number.
        Network = "network",
        /// The subnet's broadcast address.
        Broadcast = "broadcast",
    }
}

/// One thing that happened to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryRecord {
    /// When.
    pub at: Timestamp,
    /// What, in words.
    pub what: String,
}

/// Who asserts an address, in which segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentClaim {
    /// Where.
    pub segment: SegmentName,
    /// Who.
    #[serde(flatten)]
    pub claim: ClaimRecord,
}

/// When an address was last heard, by the kind of sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Life {
    /// Somebody asserted it.
    pub assertion: Option<Timestamp>,
    /// Somebody probed for it.
    pub probe: Option<Timestamp>,
    /// An IP packet came from it.
    pub packet: Option<Timestamp>,
}

/// What a source of holders says of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderAnswer {
    /// The source: `cri`, `namespaces`.
    pub source: String,
    /// Its answer.
    pub answer: Held,
    /// Who holds it, or why the source could not answer.
    pub detail: Option<String>,
}

named! {
    /// Whether somebody holds an address.
    Held {
        /// Somebody does.
        Yes = "held",
        /// Nobody the source knows of.
        No = "free",
        /// The source could not answer.
        Unknown = "source-down",
    }
}
