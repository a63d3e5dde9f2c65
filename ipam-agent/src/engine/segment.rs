//! Which layer 2 domain a frame belongs to: the host's links, and the rule over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipam_common::{Address, Mac, sighting::Tags};

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

    /// Whether a person who says `text` means it: its name alone, or `NAME.VLAN`.
    pub fn is_called(&self, text: &str) -> bool {
        is_called(&self.name, self.vlan, text)
    }
}

/// Whether a person who says `text` means the segment of this name and VLAN.
pub fn is_called(name: &str, vlan: Option<u16>, text: &str) -> bool {
    let said = text
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('.'));
    text == name || (said.is_some() && said.and_then(|said| said.parse().ok()) == vlan)
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
    /// Every address that is configured on this host, on whatever link and in whatever state,
    /// with the link's name.
    pub local: BTreeMap<Address, Arc<str>>,
    /// Of a captured port, by ifindex, the interface that it was on its host; `None` where the
    /// capture doesn't say. A port of this host is the interface of its name.
    pub captured: BTreeMap<u32, Option<Arc<str>>>,
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
    /// The network namespace of a veth's other end, by the host's number for it.
    pub namespace: Option<i32>,
    /// The bridges behind its VLAN devices (`bond0.100` in `br100`), by VLAN.
    pub vlan_devices: BTreeMap<u16, Arc<str>>,
}

impl Port {
    /// A watched port that is up; of what is behind it nothing is known.
    pub fn new(name: impl Into<Arc<str>>, kind: PortKind, wiring: Wiring) -> Self {
        Self {
            name: name.into(),
            kind,
            up: true,
            carrier: true,
            wiring,
            wanted: true,
            namespace: None,
            vlan_devices: BTreeMap::new(),
        }
    }

    /// Whether a guest's namespace is behind it: whoever is there came with the port, and is
    /// heard from the beginning. Beyond any other are those who were there before.
    pub fn is_guests(&self) -> bool {
        self.kind == PortKind::Veth && self.namespace.is_some()
    }
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

impl Wiring {
    /// Into a bridge that doesn't filter VLANs.
    pub fn bridge(name: impl Into<Arc<str>>) -> Self {
        Self::Bridge {
            bridge: name.into(),
            pvid: None,
            members: BTreeSet::new(),
            untagged: BTreeSet::new(),
        }
    }
}

/// Why a frame belongs to no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unplaced {
    /// It came in by a port that isn't known, or no longer.
    UnknownPort,
    /// The bridge drops it: the port is no member of its VLAN.
    NotAMember,
}

impl Topology {
    /// The segment of a frame of `address` that came in by `ifindex` with these tags.
    ///
    /// A VLAN-filtering bridge takes the tag that the frame has, else the port's PVID, and
    /// drops what the port is no member of (Linux `br_vlan.c`, `__allowed_ingress`).
    pub fn segment(&self, ifindex: u32, tags: Tags, address: Address) -> Result<Segment, Unplaced> {
        let port = self.ports.get(&ifindex).ok_or(Unplaced::UnknownPort)?;
        let tagged = |name: &Arc<str>| Segment {
            name: Arc::clone(name),
            outer_vlan: vid(tags.outer),
            vlan: vid(tags.vlan),
        };
        // `bond0.100` in `br100`: it takes the frame first, and the tag is gone inside the bridge.
        if tags.outer == 0
            && tags.vlan != 0
            && let Some(bridge) = port.vlan_devices.get(&tags.vlan)
        {
            return Ok(self.bridge_segment(bridge, self.default_pvid(bridge)));
        }
        match &port.wiring {
            Wiring::Routed => Ok(Segment {
                // A link-local address means something on its own link only.
                name: if address.is_link_local() {
                    Arc::clone(&port.name)
                } else {
                    Segment::ROUTED.into()
                },
                ..tagged(&port.name)
            }),
            Wiring::Uplink => Ok(tagged(&port.name)),
            Wiring::Bridge {
                bridge,
                pvid,
                members,
                ..
            } => {
                if self.default_pvid(bridge).is_none() {
                    return Ok(tagged(bridge));
                }
                let outer = if tags.outer != 0 {
                    tags.outer
                } else {
                    tags.vlan
                };
                let vlan = if outer == 0 { pvid.unwrap_or(0) } else { outer };
                if vlan == 0 || !members.contains(&vlan) {
                    return Err(Unplaced::NotAMember);
                }
                let mut segment = self.bridge_segment(bridge, Some(vlan));
                if tags.outer != 0 {
                    segment.outer_vlan = Some(vlan);
                    segment.vlan = vid(tags.vlan);
                }
                Ok(segment)
            }
        }
    }

    /// The segment of a bridge's VLAN; of a bridge that doesn't filter, `vlan` is `None`.
    ///
    /// The VLAN is named as the network beyond names it: `None` where the bridge's uplinks
    /// send it untagged or, without an uplink, where it is the bridge's default.
    pub fn bridge_segment(&self, bridge: &Arc<str>, vlan: Option<u16>) -> Segment {
        let vlan = vlan.filter(|&vlan| !self.leaves_untagged(bridge, vlan));
        Segment {
            name: Arc::clone(bridge),
            outer_vlan: None,
            vlan,
        }
    }

    /// The tags that a frame needs which leaves by this port for the segment; `None` where
    /// the port is not, or no longer, part of it.
    pub fn tags_towards(&self, ifindex: u32, segment: &Segment) -> Option<Tags> {
        let port = self.ports.get(&ifindex)?;
        if !self.carries(port, segment) {
            return None;
        }
        let as_seen = Tags {
            outer: segment.outer_vlan.unwrap_or(0),
            vlan: segment.vlan.unwrap_or(0),
        };
        if !self.carries_itself(port, segment) {
            // Into the bridge of a VLAN device of the port.
            let mut devices = port.vlan_devices.iter();
            let (&vlan, _) = devices.find(|(_, bridge)| **bridge == segment.name)?;
            return Some(Tags { outer: 0, vlan });
        }
        match &port.wiring {
            Wiring::Routed => Some(Tags::default()),
            Wiring::Uplink => Some(as_seen),
            Wiring::Bridge {
                bridge,
                members,
                untagged,
                ..
            } => {
                if self.default_pvid(bridge).is_none() {
                    return Some(as_seen);
                }
                let outermost = segment.outer_vlan.or(segment.vlan);
                let called =
                    |vlan: &&u16| self.bridge_segment(bridge, Some(**vlan)).vlan == outermost;
                let &vlan = members.iter().find(called)?;
                Some(match (untagged.contains(&vlan), segment.outer_vlan) {
                    (true, None) => Tags::default(),
                    (true, Some(_)) => Tags {
                        outer: 0,
                        ..as_seen
                    },
                    (false, None) => Tags { outer: 0, vlan },
                    (false, Some(_)) => Tags {
                        outer: vlan,
                        ..as_seen
                    },
                })
            }
        }
    }

    /// The segment that this host's own address is on, unless it is on no segment of ours.
    pub fn own_segment(&self, own: &OwnAddress) -> Option<Segment> {
        let bridge_of = |index: u32| {
            self.bridges
                .iter()
                .find(|(_, bridge)| bridge.ifindex == index)
        };
        if let Some((name, bridge)) = bridge_of(own.ifindex) {
            return Some(self.bridge_segment(name, bridge.filtering));
        }
        if let Some(&(lower, vlan)) = self.vlan_links.get(&own.ifindex) {
            return match bridge_of(lower) {
                Some((name, bridge)) if bridge.filtering.is_some() => {
                    Some(self.bridge_segment(name, Some(vlan)))
                }
                Some((name, _)) => Some(Segment {
                    name: Arc::clone(name),
                    outer_vlan: None,
                    vlan: Some(vlan),
                }),
                None => self
                    .segment(lower, Tags { outer: 0, vlan }, own.address)
                    .ok(),
            };
        }
        match self.ports.get(&own.ifindex)?.wiring {
            // The host's end of a pod's link carries no claim of the segment of pods.
            Wiring::Routed => None,
            _ => self.segment(own.ifindex, Tags::default(), own.address).ok(),
        }
    }

    /// The ports by which life in a segment could be heard, whether watched or not.
    pub fn ports_of<'a>(&'a self, segment: &'a Segment) -> impl Iterator<Item = (u32, &'a Port)> {
        self.ports
            .iter()
            .filter(move |(_, port)| self.carries(port, segment))
            .map(|(&ifindex, port)| (ifindex, port))
    }

    fn carries(&self, port: &Port, segment: &Segment) -> bool {
        let mut beyond = port.vlan_devices.values();
        self.carries_itself(port, segment) || beyond.any(|bridge| *bridge == segment.name)
    }

    /// Not by a VLAN device over it.
    fn carries_itself(&self, port: &Port, segment: &Segment) -> bool {
        match &port.wiring {
            Wiring::Routed => *segment.name == *Segment::ROUTED || segment.name == port.name,
            Wiring::Uplink => segment.name == port.name,
            Wiring::Bridge {
                bridge, members, ..
            } => {
                *bridge == segment.name
                    && match self.default_pvid(bridge) {
                        None => true,
                        Some(_) => members.iter().any(|&vlan| {
                            let of = self.bridge_segment(bridge, Some(vlan)).vlan;
                            of == segment.outer_vlan.or(segment.vlan)
                        }),
                    }
            }
        }
    }

    /// Every segment that a wanted port is part of, in order; of a trunk its native one.
    pub fn segments(&self) -> BTreeSet<Segment> {
        let mut segments = BTreeSet::new();
        let untagged = |name: &Arc<str>| Segment {
            name: Arc::clone(name),
            outer_vlan: None,
            vlan: None,
        };
        for port in self.ports.values().filter(|port| port.wanted) {
            match &port.wiring {
                Wiring::Routed => {
                    segments.insert(untagged(&Segment::ROUTED.into()));
                }
                Wiring::Uplink => {
                    segments.insert(untagged(&port.name));
                }
                Wiring::Bridge {
                    bridge,
                    pvid,
                    members,
                    ..
                } => match self.default_pvid(bridge) {
                    None => {
                        segments.insert(untagged(bridge));
                    }
                    // A trunk is a member of thousands; what matters of them has access
                    // ports, or is heard.
                    Some(_) if matches!(port.kind, PortKind::Bond | PortKind::Physical) => {
                        segments.extend(pvid.map(|vlan| self.bridge_segment(bridge, Some(vlan))));
                    }
                    Some(_) => segments.extend(
                        members
                            .iter()
                            .map(|&vlan| self.bridge_segment(bridge, Some(vlan))),
                    ),
                },
            }
        }
        segments
    }

    /// The default PVID of a bridge that filters VLANs.
    pub fn default_pvid(&self, bridge: &Arc<str>) -> Option<u16> {
        self.bridges.get(bridge)?.filtering
    }

    fn leaves_untagged(&self, name: &Arc<str>, vlan: u16) -> bool {
        let mut uplinks = self.ports.values().filter_map(|port| match &port.wiring {
            Wiring::Bridge {
                bridge, untagged, ..
            } if bridge == name && matches!(port.kind, PortKind::Bond | PortKind::Physical) => {
                Some(untagged)
            }
            _ => None,
        });
        match uplinks.next() {
            Some(first) => {
                first.contains(&vlan) || uplinks.any(|untagged| untagged.contains(&vlan))
            }
            None => self.default_pvid(name) == Some(vlan),
        }
    }
}

fn vid(vlan: u16) -> Option<u16> {
    (vlan != 0).then_some(vlan)
}
