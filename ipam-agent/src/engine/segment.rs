//! Which layer 2 domain a frame belongs to: the host's links, and the rule over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipam_common::{Address, Mac};

/// One layer 2 domain: inside it, and only inside it, two claims of one address are
/// compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Bridge, uplink or capture; [`Segment::ROUTED`] for the routed pod veths.
    pub name: Arc<str>,
    /// The outer VLAN of a double-tagged frame.
    pub outer_vlan: Option<u16>,
    /// The VLAN, of two the inner; `None` untagged.
    pub vlan: Option<u16>,
}

impl Segment {
    /// The name of the one segment that a node's routed pod veths form.
    pub const ROUTED: &'static str = "routed";
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(outer) = self.outer_vlan {
            write!(f, " VLAN {outer}.{}", self.vlan.unwrap_or(0))
        } else if let Some(vlan) = self.vlan {
            write!(f, " VLAN {vlan}")
        } else {
            Ok(())
        }
    }
}

/// The host's links as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The ports that frames can come in by, by ifindex: watched or not, but for those
    /// that are part of another (a bond's slaves).
    pub ports: BTreeMap<u32, Port>,
    /// VLAN-filtering and plain bridges, by name.
    pub bridges: BTreeMap<Arc<str>, Bridge>,
    /// VLAN devices (`br0.100`, `bond0.100`), by ifindex: the link below, and the VLAN.
    pub vlan_links: BTreeMap<u32, (u32, u16)>,
    /// Every MAC that is this host's own: links, bond slaves, permanent addresses.
    pub own_macs: BTreeSet<Mac>,
    /// The addresses configured on this host: not on lo, dummy, ipvs or NOARP links, not
    /// tentative ones.
    pub own_addresses: Vec<OwnAddress>,
}

/// A bridge of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its ifindex.
    pub ifindex: u32,
    /// Its default PVID, if it filters VLANs.
    pub filtering: Option<u16>,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnAddress {
    /// The address.
    pub address: Address,
    /// The link it is configured on.
    pub ifindex: u32,
    /// That link's MAC.
    pub mac: Option<Mac>,
}

/// A port that frames come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: PortKind,
    /// Administratively up.
    pub up: bool,
    /// Has carrier.
    pub carrier: bool,
    /// Where its frames go.
    pub wiring: Wiring,
    /// Whether the configuration wants it watched: by pattern, or because it is a port of a
    /// bridge that has watched ports.
    pub wanted: bool,
    /// The bridges behind its VLAN devices (`bond0.100` in `br100`), by VLAN.
    pub vlan_devices: BTreeMap<u16, Arc<str>>,
}

/// What a port is, as far as that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// The host's end of a pod's or guest's link.
    Veth,
    /// A bond.
    Bond,
    /// A network card.
    Physical,
    /// Anything else (tap, vxlan, …).
    Other,
}

impl PortKind {
    /// The name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Bond => "bond",
            Self::Physical => "physical",
            Self::Other => "other",
        }
    }
}

/// Where a port's frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Into a bridge.
    Bridge {
        /// The bridge's name.
        bridge: Arc<str>,
        /// On a VLAN-filtering bridge: the port's PVID, `None` without one.
        pvid: Option<u16>,
        /// On a VLAN-filtering bridge: the VLANs the port is a member of.
        members: BTreeSet<u16>,
        /// Those of them that leave it untagged.
        untagged: BTreeSet<u16>,
    },
    /// To the host's routing, from a pod (no bridge).
    Routed,
    /// To the host, from the network.
    Uplink,
}
