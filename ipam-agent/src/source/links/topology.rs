//! From the kernel's records to the topology that segments are told by. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use ipam_common::Address;

use crate::{
    engine::segment::{Bridge, OwnAddress, Port, PortKind, Topology, Wiring},
    netlink::{LinkRecord, PortVlan},
};

const UP: u32 = libc::IFF_UP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;
const NOARP: u32 = libc::IFF_NOARP as u32;
/// `IFF_LOWER_UP`, which libc types as another integer on some targets.
const CARRIER: u32 = 1 << 16;

/// Links that are made of ports, or by which no frame comes in.
const NOT_PORTS: [&str; 5] = ["bridge", "dummy", "ifb", "vrf", "nlmon"];
/// Links over another: what comes in by them came in by that one, and belongs to its wire,
/// unless they are put in a bridge.
const OVER_ANOTHER: [&str; 6] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"];

/// Which interfaces the configuration wants watched, by name.
#[derive(Clone, Debug)]
pub struct NameFilter {
    include: GlobSet,
    exclude: GlobSet,
}

impl NameFilter {
    /// Names that match one of `include` and none of `exclude`, with `*`, `?`, `[…]` and
    /// `{…}` as a shell has them.
    ///
    /// # Errors
    ///
    /// If a pattern is malformed; the error names it.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, globset::Error> {
        let build = |patterns: &[S]| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                set.add(Glob::new(pattern.as_ref())?);
            }
            set.build()
        };
        Ok(Self {
            include: build(include)?,
            exclude: build(exclude)?,
        })
    }

    fn includes(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.excludes(name)
    }

    fn excludes(&self, name: &str) -> bool {
        self.exclude.is_match(name)
    }
}

/// What the kernel said last.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Links by ifindex.
    pub links: BTreeMap<u32, LinkRecord>,
    /// Of ports of bridges their VLANs, by ifindex.
    pub vlans: BTreeMap<u32, Vec<PortVlan>>,
    /// Addresses, by link, with their `IFA_F_…`.
    pub addresses: BTreeMap<(u32, IpAddr), u32>,
}

impl Records {
    /// The topology that these records describe.
    pub fn topology(&self, filter: &NameFilter) -> Topology {
        let mut topology = Topology {
            bridges: self.bridges(),
            vlan_links: self.vlan_links(),
            own_addresses: self.own_addresses(),
            local: self.local(),
            ..Topology::default()
        };
        let links = || self.links.values().filter(|link| link.ethernet);
        for link in links() {
            topology.own_macs.extend(link.mac);
            topology.own_macs.extend(link.permanent_mac);
            if is_over_another(link) {
                continue;
            }
            if let Some(port) = self.port(link, filter) {
                topology.ports.insert(link.index, port);
            }
        }
        for link in links().filter(|link| is_over_another(link)) {
            let Some(bridge) = self.bridge_of(link) else {
                continue;
            };
            // The tag tells on the port below. Elsewhere the link itself is a port.
            let below = topology.vlan_links.get(&link.index);
            let below = below.and_then(|(below, vid)| Some((topology.ports.get_mut(below)?, *vid)));
            if let Some((port, vid)) = below {
                port.vlan_devices.insert(vid, Arc::clone(&bridge.name));
            } else if let Some(port) = self.port(link, filter) {
                topology.ports.insert(link.index, port);
            }
        }
        want_neighbours(&mut topology.ports, filter);
        topology
    }

    fn master(&self, link: &LinkRecord) -> Option<&LinkRecord> {
        self.links.get(&link.master?)
    }

    fn bridge_of(&self, link: &LinkRecord) -> Option<&LinkRecord> {
        self.master(link).filter(|master| master.is("bridge"))
    }

    fn bridges(&self) -> BTreeMap<Arc<str>, Bridge> {
        let bridges = self.links.values().filter(|link| link.is("bridge"));
        bridges
            .map(|link| {
                let bridge = Bridge {
                    ifindex: link.index,
                    filtering: link.filtering,
                };
                (Arc::clone(&link.name), bridge)
            })
            .collect()
    }

    fn vlan_links(&self) -> BTreeMap<u32, (u32, u16)> {
        let devices = self.links.values().filter(|link| link.namespace.is_none());
        devices
            .filter_map(|link| Some((link.index, (link.link?, link.vlan?))))
            .collect()
    }

    /// The addresses by which this host speaks on the wire. Those on loopback, dummy,
    /// kube-proxy's `kube-ipvs0` (a dummy too) and NOARP links are on every node of a
    /// cluster alike; a tentative address isn't ours yet, one that failed DAD never is.
    fn own_addresses(&self) -> Vec<OwnAddress> {
        let usable = |(index, ip): &(u32, IpAddr), flags: u32| {
            let link = self.links.get(index)?;
            let silent = link.flags & (LOOPBACK | NOARP) != 0 || link.is("dummy");
            if silent || flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0 {
                return None;
            }
            Some(OwnAddress {
                address: Address::from_ip(*ip)?,
                ifindex: *index,
                mac: link.mac,
            })
        };
        let addresses = self.addresses.iter();
        addresses
            .filter_map(|(key, flags)| usable(key, *flags))
            .collect()
    }

    fn local(&self) -> BTreeMap<Address, Arc<str>> {
        let addresses = self.addresses.keys();
        let of = addresses.filter_map(|(index, ip)| {
            // A link that isn't known yet has it all the same.
            let link = self.links.get(index).map(|link| Arc::clone(&link.name));
            let name = link.unwrap_or_else(|| format!("link {index}").into());
            Some((Address::from_ip(*ip)?, name))
        });
        of.collect()
    }

    /// The link as a port, if frames come in by it and it isn't part of another.
    fn port(&self, link: &LinkRecord, filter: &NameFilter) -> Option<Port> {
        let kind = match link.kind.as_deref() {
            Some(kind) if NOT_PORTS.contains(&kind) => return None,
            Some("veth") => PortKind::Veth,
            Some("bond") => PortKind::Bond,
            Some(_) => PortKind::Other,
            None if link.flags & LOOPBACK != 0 => return None,
            None => PortKind::Physical,
        };
        let master = self.master(link);
        if master.is_some_and(|master| master.is("bond") || master.is("team")) {
            return None;
        }
        Some(Port {
            name: Arc::clone(&link.name),
            kind,
            up: link.flags & UP != 0,
            carrier: link.flags & CARRIER != 0,
            wiring: match master {
                Some(bridge) if bridge.is("bridge") => self.bridged(link.index, bridge),
                // A VRF separates routing tables, not wires.
                Some(master) if !master.is("vrf") => Wiring::Uplink,
                _ if kind == PortKind::Veth => Wiring::Routed,
                _ => Wiring::Uplink,
            },
            wanted: filter.includes(&link.name),
            namespace: link.namespace,
            vlan_devices: BTreeMap::new(),
        })
    }

    fn bridged(&self, index: u32, bridge: &LinkRecord) -> Wiring {
        // A new port is a member of the default PVID (`nbp_vlan_init`) until we hear more.
        let new = bridge
            .filtering
            .filter(|vid| *vid != 0)
            .map(|vid| PortVlan {
                vid,
                pvid: true,
                untagged: true,
            });
        let vlans = match bridge.filtering {
            None => &[],
            Some(_) => self.vlans.get(&index).map_or(new.as_slice(), Vec::as_slice),
        };
        let vids = |of: fn(&PortVlan) -> bool| {
            vlans
                .iter()
                .filter(move |vlan| of(vlan))
                .map(|vlan| vlan.vid)
        };
        Wiring::Bridge {
            bridge: Arc::clone(&bridge.name),
            pvid: vids(|vlan| vlan.pvid).next(),
            members: vids(|_| true).collect(),
            untagged: vids(|vlan| vlan.untagged).collect(),
        }
    }
}

fn is_over_another(link: &LinkRecord) -> bool {
    OVER_ANOTHER.iter().any(|kind| link.is(kind))
}

/// Want the ports that share a bridge with an included one, be it through a VLAN device:
/// a wire that is watched at one end only hides the other speaker.
fn want_neighbours(ports: &mut BTreeMap<u32, Port>, filter: &NameFilter) {
    let included = ports.values().filter(|port| port.wanted);
    let bridges: BTreeSet<Arc<str>> = included.flat_map(bridges_of).cloned().collect();
    for port in ports
        .values_mut()
        .filter(|port| !filter.excludes(&port.name))
    {
        let neighbour = bridges_of(port).any(|bridge| bridges.contains(bridge));
        port.wanted |= neighbour;
    }
}

fn bridges_of(port: &Port) -> impl Iterator<Item = &Arc<str>> {
    let own = match &port.wiring {
        Wiring::Bridge { bridge, .. } => Some(bridge),
        Wiring::Routed | Wiring::Uplink => None,
    };
    own.into_iter().chain(port.vlan_devices.values())
}

#[cfg(test)]
mod tests;
