//! The world's networks: one of each kind of wire, each with a store of its own.

use std::{collections::BTreeMap, sync::Arc};

use ipam_agent::engine::{
    lease::{Place, Pool, StoreName},
    segment::{Bridge, Port, PortKind, Topology, Wiring},
};
use ipam_common::{Address, sighting::Tags};
use ipnet::IpNet;

use super::plan::NETS;

/// A network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    number: usize,
    name: &'static str,
    prefix: &'static str,
    /// The uplink by which remote machines are on it.
    pub uplink: Option<&'static str>,
    /// Whether this host has pods on it.
    pub local: bool,
    /// Whether its wire can be watched from the host.
    pub watchable: bool,
}

const TABLE: [Net; NETS] = [
    Net {
        number: 0,
        name: "bridge",
        prefix: "10.0.0.0/28",
        uplink: None,
        local: true,
        watchable: true,
    },
    Net {
        number: 1,
        name: "vlan",
        prefix: "fd00:1::/124",
        uplink: Some("bond0"),
        local: true,
        watchable: true,
    },
    Net {
        number: 2,
        name: "routed",
        prefix: "10.2.0.0/28",
        uplink: None,
        local: true,
        watchable: true,
    },
    Net {
        number: 3,
        name: "uplink",
        prefix: "10.3.0.0/28",
        uplink: Some("eth1"),
        local: false,
        watchable: true,
    },
    Net {
        number: 4,
        name: "hidden",
        prefix: "10.4.0.0/28",
        uplink: None,
        local: true,
        watchable: false,
    },
];

/// VLAN of the network behind `bond0`, and of the one behind `eth1`.
const ACCESS: u16 = 100;
const TAGGED: u16 = 30;

/// The network whose pods have a link each, beyond which nobody is asked.
pub const ROUTED: usize = 2;

/// The network of this number, modulo how many there are.
pub fn net(number: usize) -> Net {
    TABLE[number % NETS]
}

/// All of them.
pub fn nets() -> impl Iterator<Item = Net> {
    TABLE.into_iter()
}

/// The network of a store.
pub fn of_store(store: &StoreName) -> Option<usize> {
    TABLE.iter().position(|net| net.store() == *store)
}

/// The network of an address.
pub fn of_address(address: Address) -> Option<usize> {
    let ip = address.ip();
    TABLE.iter().position(|net| net.prefix().contains(&ip))
}

impl Net {
    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its store's name.
    pub fn store(&self) -> StoreName {
        StoreName(format!("host-local:{}", self.name).into())
    }

    /// Its directory's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The addresses that it hands out.
    pub fn addresses(&self) -> Vec<Address> {
        let hosts = self.prefix().hosts().skip(1);
        hosts.filter_map(Address::from_ip).take(12).collect()
    }

    /// The address that the configuration keeps.
    pub fn kept(&self) -> IpNet {
        self.addresses()[0].ip().into()
    }

    /// What its store says of it.
    pub fn pool(&self) -> Pool {
        Pool {
            prefix: self.prefix(),
            range: None,
            gateway: None,
            gateway_mac: None,
            exclude: Vec::new(),
            place: Some(self.place()),
        }
    }

    /// Its wire.
    pub fn place(&self) -> Place {
        match self.number {
            0 => Place::Bridge {
                bridge: "br0".into(),
                vlan: None,
            },
            1 => Place::Bridge {
                bridge: "br1".into(),
                vlan: Some(ACCESS),
            },
            2 => Place::Routed,
            3 => Place::Segment {
                name: "eth1".into(),
                vlan: Some(TAGGED),
            },
            _ => Place::Unwatchable("macvlan".into()),
        }
    }

    /// The tags of its frames by a port of this name.
    pub fn tags(&self, port: &str) -> Tags {
        let vlan = match port {
            "bond0" => ACCESS,
            "eth1" => TAGGED,
            _ => 0,
        };
        Tags { outer: 0, vlan }
    }

    fn prefix(&self) -> IpNet {
        self.prefix.parse().expect("a prefix")
    }
}

/// A port as the links tell of it; `net` is a pod's network, `None` an uplink.
pub fn port(name: &str, net: Option<usize>, carrier: bool) -> Port {
    let bridge =
        |bridge: &str, pvid: Option<u16>, members: &[u16], untagged: &[u16]| Wiring::Bridge {
            bridge: bridge.into(),
            pvid,
            members: members.iter().copied().collect(),
            untagged: untagged.iter().copied().collect(),
        };
    let (kind, wiring) = match (net, name) {
        (None, "bond0") => (PortKind::Bond, bridge("br1", Some(1), &[1, ACCESS], &[1])),
        (None, _) => (PortKind::Physical, Wiring::Uplink),
        (Some(0), _) => (PortKind::Veth, bridge("br0", None, &[], &[])),
        (Some(1), _) => (
            PortKind::Veth,
            bridge("br1", Some(ACCESS), &[ACCESS], &[ACCESS]),
        ),
        (Some(_), _) => (PortKind::Veth, Wiring::Routed),
    };
    Port {
        carrier,
        namespace: net.map(|_| 1),
        ..Port::new(name, kind, wiring)
    }
}

/// The host's links with these ports.
pub fn topology(ports: BTreeMap<u32, Port>) -> Arc<Topology> {
    let bridges = [("br0", 2, None), ("br1", 3, Some(1))];
    let bridges = bridges
        .into_iter()
        .map(|(name, ifindex, filtering)| (Arc::from(name), Bridge { ifindex, filtering }));
    Arc::new(Topology {
        ports,
        bridges: bridges.collect(),
        ..Topology::default()
    })
}
