//! Leases as the engine knows them, whatever store they come from.

mod packed;

use std::{fmt, sync::Arc};

use ipam_common::{Address, Mac};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::packed::Packed;

/// A lease store's name in reports: its kind and its network, `host-local:k8s-pod-network`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreName(pub Arc<str>);

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// That `store` gave `address` to a holder. Small, for there may be a million.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who gave it.
    pub store: StoreName,
    /// What was given.
    pub address: Address,
    /// What is wrong with the store's record of it, if anything.
    pub damage: Option<Damage>,
    mac: Option<Mac>,
    inode: u64,
    modified: i64,
    texts: Packed,
}

impl Lease {
    /// That `store` gave `address` to `holder`, in that grant.
    pub fn new(
        store: StoreName,
        address: Address,
        holder: &Holder,
        generation: &Generation,
        damage: Option<Damage>,
    ) -> Self {
        Self {
            store,
            address,
            damage,
            mac: holder.mac,
            inode: generation.inode,
            modified: generation.modified,
            texts: Packed::new(holder, &generation.content),
        }
    }

    /// To whom, as far as the store and the libcni caches know.
    pub fn holder(&self) -> Holder {
        let parts = self.texts.parts();
        Holder {
            container_id: parts.container_id(),
            interface: parts.interface.map(Arc::from),
            pod: parts.pod.map(Arc::from),
            mac: self.mac,
            host_interface: parts.host_interface.map(Arc::from),
        }
    }

    /// The holder's MAC.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// The host interface behind which the holder is: `veth1a2b`.
    pub fn host_interface(&self) -> Option<&str> {
        self.texts.parts().host_interface
    }

    /// The holder's name for people, as [`Holder::name`].
    pub fn holder_name(&self) -> Option<Arc<str>> {
        self.texts.parts().name()
    }

    /// The file's inode number.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether this is the same grant by the same store, whatever else is known of its
    /// holder by now.
    pub fn is_same_grant(&self, other: &Self) -> bool {
        self.store == other.store
            && self.inode == other.inode
            && self.modified == other.modified
            && (self.texts == other.texts
                || self.texts.parts().content() == other.texts.parts().content())
    }

    /// Which grant this is: compare-and-swap is on this.
    pub fn generation(&self) -> Generation {
        Generation {
            inode: self.inode,
            modified: self.modified,
            content: self.texts.parts().content(),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("store", &self.store)
            .field("address", &self.address)
            .field("holder", &self.holder())
            .field("generation", &self.generation())
            .field("damage", &self.damage)
            .finish()
    }
}

/// To whom an address was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The CRI sandbox id, or whatever the runtime called the attachment.
    pub container_id: Option<Arc<str>>,
    /// The interface inside the container: `eth0`.
    pub interface: Option<Arc<str>>,
    /// `namespace/name` of the pod, or the name that a lease file gives.
    pub pod: Option<Arc<str>>,
    /// The holder's MAC.
    pub mac: Option<Mac>,
    /// The host interface behind which the holder is: `veth1a2b`.
    pub host_interface: Option<Arc<str>>,
}

/// How much of a container's id tells it from others, as container tools print it.
const SHORT_ID: usize = 12;

impl Holder {
    /// Its name for people: the pod, else the container, shortened. Untrusted text.
    pub fn name(&self) -> Option<Arc<str>> {
        let container = self.container_id.as_deref();
        let container = container.map(|id| format!("container {}", short(id)).into());
        self.pod.clone().or(container)
    }
}

/// The part of a container's id that tells it from others.
pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// What identifies one grant of one address for good: if any of it changes, it is another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The file's inode number.
    pub inode: u64,
    /// The file's modification time, nanoseconds since 1970. Compared, never believed.
    pub modified: i64,
    /// The record's bytes.
    pub content: Box<[u8]>,
}

/// What is wrong with a store's record of a lease. No DEL of the holder matches such a
/// record any more, except [`Damage::IdOnly`].
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// Zero bytes.
    Empty,
    /// NUL bytes where the id was.
    Nul,
    /// Cut off, or not what the store writes.
    Truncated,
    /// The id without the interface: what host-local before 0.8 wrote, or a record cut off
    /// at the line's end.
    IdOnly,
    /// More than the store ever writes, and not read to its end. Such a record is never
    /// released: what it says is not known, nor could it be put back.
    Oversized,
}

impl Damage {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Nul => "nul",
            Self::Truncated => "truncated",
            Self::IdOnly => "id-only",
            Self::Oversized => "oversized",
        }
    }
}

/// What the daemon does unasked with a store's leases.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing.
    #[default]
    Observe,
    /// Release proven leases which the agent itself recorded in an earlier boot.
    AfterReboot,
    /// Release every proven lease.
    Continuous,
}

/// The wire that a store's addresses live on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A bridge's ports; `vlan` is the access VLAN that the network's configuration names,
    /// `None` the bridge's own.
    Bridge {
        /// The bridge's name.
        bridge: Arc<str>,
        /// The VLAN.
        vlan: Option<u16>,
    },
    /// The segment of this name and VLAN: what a lease file says, and all there is in a
    /// capture.
    Segment {
        /// Bridge, bond, uplink or capture.
        name: Arc<str>,
        /// The VLAN, `None` untagged.
        vlan: Option<u16>,
    },
    /// The node's routed pod veths (calico, ptp).
    Routed,
    /// A wire that can't be watched from the host (macvlan, SR-IOV, …), with the plugin's
    /// name.
    Unwatchable(Arc<str>),
    /// Any: a lease file that names no segment is about whichever is looked at.
    Anywhere,
    /// One that nobody named.
    Unknown,
}

/// Addresses that a store hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The prefix.
    pub prefix: IpNet,
    /// The first and last address handed out, where that is less than the prefix.
    pub range: Option<(Address, Address)>,
    /// The gateway, which is nobody's lease.
    pub gateway: Option<Address>,
    /// The gateway's MAC, where known.
    pub gateway_mac: Option<Mac>,
    /// First and last of what is inside the prefix and still not the store's to give.
    pub exclude: Vec<(Address, Address)>,
    /// The wire, where it isn't the store's.
    pub place: Option<Place>,
}

/// One store, read completely: what was not in it is not leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreView {
    /// The store.
    pub store: StoreName,
    /// What may be done to it unasked.
    pub mode: Mode,
    /// Whether it can be written at all; if not, why.
    pub writable: Result<(), String>,
    /// The wire its addresses live on.
    pub place: Place,
    /// What it hands out, as far as known.
    pub pools: Vec<Pool>,
    /// What it has handed out, one entry an address.
    pub leases: Vec<Lease>,
    /// What the agent itself has reserved in it.
    pub fencing: Fencing,
}

/// What of a store the agent reserves, so that nobody gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fencing {
    /// Whether addresses that are used without a lease are to be reserved.
    pub wanted: bool,
    /// The reservations, by address. They are nobody's leases.
    pub fences: Vec<Lease>,
}

impl Fencing {
    /// Whether the address is reserved.
    pub fn has(&self, address: Address) -> bool {
        let found = self
            .fences
            .binary_search_by_key(&address, |fence| fence.address);
        found.is_ok()
    }
}
