//! Every JSON document that the agent gives out, as types: serde writes and reads them,
//! schemars makes `docs/schema/` of them.
//!
//! Names are a contract: fields may be added, none renamed. Lists come in a fixed order
//! (that of their type's documentation), so that two documents can be compared as text.
//! Times are RFC 3339. A key is always there; what isn't known is null.

mod check;
mod doctor;
mod hardware;
mod history;
mod leases;
mod overview;
mod pools;
mod reclaim;
mod report;
mod watch;

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::{plan::Reason, segment};

pub use self::{
    check::*, doctor::*, hardware::*, history::*, leases::*, overview::*, pools::*, reclaim::*,
    report::*, watch::*,
};

/// An enum whose variants have one name each: in JSON, in tables and as a flag's value.
macro_rules! named {
    ($(#[$meta:meta])* $Enum:ident { $($(#[$doc:meta])* $Variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $Enum {
            $($(#[$doc])* #[serde(rename = $name)] $Variant,)+
        }

        impl $Enum {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];

            /// The name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

/// A document's `schema`: one value, so that another document is refused when it is read.
macro_rules! schema {
    ($Enum:ident, $name:literal) => {
        #[doc = concat!("Says that this is `", $name, "`.")]
        #[derive(
            Clone,
            Copy,
            Debug,
            Default,
            PartialEq,
            Eq,
            serde::Serialize,
            serde::Deserialize,
            schemars::JsonSchema,
        )]
        pub enum $Enum {
            /// The only value.
            #[default]
            #[serde(rename = $name)]
            V1,
        }
    };
}

use {named, schema};

named! {
    /// What kind of conflict it is.
    ConflictKind {
        /// Two machines assert one address in one segment, and both are alive.
        DuplicateAddress = "duplicate-address",
        /// One MAC on two ports at once.
        DuplicateMac = "duplicate-mac",
        /// A leased address is asserted by somebody other than its holder.
        LeaseMismatch = "lease-mismatch",
        /// An address of a managed pool is asserted, and nobody leased it.
        UnleasedAddress = "unleased-address",
        /// One address was given to two holders.
        DuplicateLease = "duplicate-lease",
        /// A pool's gateway, excluded, network or broadcast address is asserted by somebody
        /// it isn't reserved for.
        ReservedAddress = "reserved-address",
    }
}

named! {
    /// How bad a conflict is; the worst first.
    Severity {
        /// Somebody is losing traffic now.
        Critical = "critical",
        /// Probably so.
        Warning = "warning",
        /// Good to know.
        Info = "info",
    }
}

named! {
    /// Whether a conflict lasts.
    ConflictState {
        /// It does.
        Active = "active",
        /// It is over.
        Resolved = "resolved",
    }
}

named! {
    /// What happened that is no conflict.
    EventKind {
        /// An address went from one machine to another.
        AddressMoved = "address-moved",
        /// Somebody probed for an address that another owns or probes for.
        ProbeCollision = "probe-collision",
        /// Ethernet source and ARP sender hardware address differ.
        SenderMismatch = "sender-mismatch",
        /// A released address is in use after all.
        ReleasedButAlive = "released-but-alive",
    }
}

named! {
    /// What the agent makes of a lease.
    LeaseState {
        /// Heard, or its holder known, within the gate.
        Active = "active",
        /// Neither, and not proven stale.
        Quiet = "quiet",
        /// Proven: nobody uses it.
        Stale = "stale",
        /// Released a short while ago, and watched.
        Quarantined = "quarantined",
        /// Given back.
        Released = "released",
        /// Reserved by the agent against a squatter.
        Fenced = "fenced",
        /// The agent can't tell: no coverage, or a source that doesn't answer.
        Unknown = "unknown",
    }
}

/// One layer 2 domain.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct SegmentName {
    /// Bridge, uplink or capture; `routed` for the routed pod veths; of a duplicate-lease on
    /// a wire that nobody watches, the network's name.
    pub name: String,
    /// The VLAN, of two the inner; null untagged.
    pub vlan: Option<u16>,
    /// The outer VLAN of double-tagged frames.
    pub outer_vlan: Option<u16>,
}

impl SegmentName {
    /// Whether a person who says `text` means it: its name alone, or `NAME.VLAN`.
    pub fn is_called(&self, text: &str) -> bool {
        segment::is_called(&self.name, self.vlan, text)
    }

    /// What a person says who means it and no other.
    pub fn called(&self) -> String {
        match self.vlan {
            Some(vlan) => format!("{}.{vlan}", self.name),
            None => self.name.clone(),
        }
    }
}

/// To whom an address was given, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderName {
    /// The CRI sandbox id, or what the runtime called the attachment.
    pub container_id: Option<String>,
    /// The interface inside the container.
    pub interface: Option<String>,
    /// `namespace/name` of the pod, or the name that a lease file gives.
    pub pod: Option<String>,
    /// Its MAC.
    pub mac: Option<HardwareAddress>,
    /// The host interface behind which it is.
    pub host_interface: Option<String>,
}

/// That a store gave an address to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseName {
    /// The store: kind and network.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// Who got it.
    pub holder: HolderName,
    /// What the agent makes of it.
    pub state: LeaseState,
}

/// Who asserts an address, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimRecord {
    /// Who.
    pub mac: HardwareAddress,
    /// Who made its interface, by the IEEE's registries, or which protocol made up the MAC;
    /// null of one that is locally administered or unknown.
    pub vendor: Option<String>,
    /// The port it came in by; null once that is gone and forgotten, and of this host, whose
    /// own frames come in by none.
    pub interface: Option<String>,
    /// Whether it is this host itself.
    #[serde(default)]
    pub this_host: bool,
    /// When it was heard first.
    pub first_seen: Timestamp,
    /// When it was heard last.
    pub last_seen: Timestamp,
    /// How many frames said so.
    pub frames: u64,
    /// By which kinds of frame, in the order of the kinds.
    pub evidence: Vec<EvidenceName>,
}

impl ClaimRecord {
    /// Behind which port it is, for people.
    pub fn behind(&self) -> &str {
        match &self.interface {
            Some(interface) => interface,
            None if self.this_host => "this host",
            None => "gone",
        }
    }
}

/// Why a lease is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockerRecord {
    /// Which condition is open.
    pub reason: Reason,
    /// In words and numbers.
    pub detail: String,
    /// When it will be met, if only time is missing.
    pub ready_at: Option<Timestamp>,
}
