use ipam_common::{Mac, sighting::Tags};
use proptest::prelude::*;

use super::*;
use crate::engine::segment::Segment;

const ETHER_UP: u32 = UP | CARRIER;

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last]).unwrap()
}

fn link(index: u32, name: &str, kind: Option<&str>) -> LinkRecord {
    LinkRecord {
        index,
        name: name.into(),
        flags: ETHER_UP,
        ethernet: true,
        kind: kind.map(Box::from),
        mac: Some(mac(index as u8)),
        ..LinkRecord::default()
    }
}

fn part(of: u32, link: LinkRecord) -> LinkRecord {
    LinkRecord {
        master: Some(of),
        ..link
    }
}

fn filter() -> NameFilter {
    NameFilter::new(&["veth*", "cali*", "*-bo", "bond*"], &["veth-no*"]).unwrap()
}

fn records(links: impl IntoIterator<Item = LinkRecord>) -> Records {
    Records {
        links: links.into_iter().map(|link| (link.index, link)).collect(),
        ..Records::default()
    }
}

/// A Harvester host: a VLAN-filtering bridge with a bond of two slaves and a guest's veth,
/// beside it a bond with a VLAN device in a plain bridge, and a routed pod.
fn harvester() -> Records {
    let mut host = records([
        LinkRecord {
            flags: ETHER_UP | LOOPBACK,
            ethernet: false,
            ..link(1, "lo", None)
        },
        LinkRecord {
            permanent_mac: Some(mac(202)),
            mac: Some(mac(4)),
            ..part(4, link(2, "eth0", None))
        },
        part(4, link(3, "eth1", None)),
        part(5, link(4, "mgmt-bo", Some("bond"))),
        LinkRecord {
            filtering: Some(1),
            ..link(5, "mgmt-br", Some("bridge"))
        },
        part(5, link(6, "veth0a", Some("veth"))),
        link(7, "bond1", Some("bond")),
        part(
            9,
            LinkRecord {
                vlan: Some(100),
                link: Some(7),
                ..link(8, "bond1.100", Some("vlan"))
            },
        ),
        link(9, "br100", Some("bridge")),
        part(9, link(10, "tap0", Some("tun"))),
        link(11, "cali123", Some("veth")),
        link(12, "eth2", None),
        LinkRecord {
            flags: ETHER_UP | NOARP,
            ..link(13, "kube-ipvs0", Some("dummy"))
        },
    ]);
    let vlan = |vid, access| PortVlan {
        vid,
        pvid: access,
        untagged: access,
    };
    host.vlans
        .insert(4, vec![vlan(1, true), vlan(100, false), vlan(101, false)]);
    host.vlans.insert(6, vec![vlan(100, true)]);
    host
}

#[test]
fn a_harvester_host_is_told_apart() {
    let topology = harvester().topology(&filter());
    let ports: Vec<_> = topology
        .ports
        .values()
        .map(|port| (&*port.name, port.kind, port.wanted))
        .collect();
    assert_eq!(
        ports,
        [
            ("mgmt-bo", PortKind::Bond, true),
            ("veth0a", PortKind::Veth, true),
            ("bond1", PortKind::Bond, true),
            ("tap0", PortKind::Other, true),
            ("cali123", PortKind::Veth, true),
            ("eth2", PortKind::Physical, false),
        ]
    );
    assert_eq!(
        topology.ports[&4].wiring,
        Wiring::Bridge {
            bridge: "mgmt-br".into(),
            pvid: Some(1),
            members: [1, 100, 101].into(),
            untagged: [1].into(),
        }
    );
    assert_eq!(
        topology.ports[&6].wiring,
        Wiring::Bridge {
            bridge: "mgmt-br".into(),
            pvid: Some(100),
            members: [100].into(),
            untagged: [100].into(),
        }
    );
    assert_eq!(topology.ports[&7].wiring, Wiring::Uplink);
    assert_eq!(
        topology.ports[&7].vlan_devices,
        [(100, "br100".into())].into()
    );
    assert_eq!(topology.ports[&11].wiring, Wiring::Routed);
    assert_eq!(topology.vlan_links, [(8, (7, 100))].into());
    assert_eq!(topology.bridges["mgmt-br"].filtering, Some(1));
    assert_eq!(topology.bridges["br100"].filtering, None);
    // The slave's own address, though the bond lends it another now.
    assert!(topology.own_macs.contains(&mac(202)) && topology.own_macs.contains(&mac(3)));
}

#[test]
fn a_new_port_of_a_filtering_bridge_is_in_the_default_pvid() {
    let mut host = harvester();
    host.vlans.remove(&6);
    let wiring = |host: &Records| host.topology(&filter()).ports[&6].wiring.clone();
    let Wiring::Bridge { pvid, members, .. } = wiring(&host) else {
        panic!("not bridged");
    };
    assert_eq!((pvid, members), (Some(1), [1].into()));
    // It was heard of, and is in none.
    host.vlans.insert(6, Vec::new());
    let Wiring::Bridge { pvid, members, .. } = wiring(&host) else {
        panic!("not bridged");
    };
    assert_eq!((pvid, members), (None, [].into()));
}

#[test]
fn exclusion_wins_over_a_pattern_and_over_the_bridge() {
    let host = records([
        link(1, "br0", Some("bridge")),
        part(1, link(2, "veth1", Some("veth"))),
        part(1, link(3, "veth-not", Some("veth"))),
        part(1, link(4, "eth0", None)),
        link(5, "br1", Some("bridge")),
        part(5, link(6, "eth1", None)),
    ]);
    let wanted: Vec<_> = host
        .topology(&filter())
        .ports
        .values()
        .map(|port| port.wanted)
        .collect();
    assert_eq!(wanted, [true, false, true, false]);
}

#[test]
fn own_addresses_are_those_that_this_host_speaks_by() {
    let mut host = harvester();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (index, address, flags) in [
        (1, "10.0.0.1", 0),
        (5, "10.0.0.2", 0),
        (13, "10.96.0.1", 0),
        (5, "2001:db8::2", libc::IFA_F_TENTATIVE),
        (
            5,
            "2001:db8::3",
            libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED,
        ),
        (5, "2001:db8::4", 0x80),
        (99, "10.0.0.9", 0),
    ] {
        host.addresses.insert((index, ip(address)), flags);
    }
    let topology = host.topology(&filter());
    // Whatever the link and the state, it is configured here.
    let local = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.9",
        "10.96.0.1",
        "2001:db8::2",
        "2001:db8::3",
    ];
    let expected = local.into_iter().chain(["2001:db8::4"]).map(str::to_owned);
    assert!(topology.local.keys().map(Address::to_string).eq(expected));
    let own: Vec<_> = topology
        .own_addresses
        .iter()
        .map(|own| (own.address.to_string(), own.ifindex, own.mac))
        .collect();
    assert_eq!(
        own,
        [
            ("10.0.0.2".to_owned(), 5, Some(mac(5))),
            ("2001:db8::4".to_owned(), 5, Some(mac(5))),
        ]
    );
}

/// What lies over another link is that one's, unless a bridge has it: then no other port tells
/// what comes into the bridge by it.
#[test]
fn whatever_a_bridge_has_is_a_port_of_it() {
    let over = |below, vlan, record: LinkRecord| LinkRecord {
        link: Some(below),
        vlan,
        ..record
    };
    let host = records([
        part(2, link(1, "eno1", None)),
        link(2, "br0", Some("bridge")),
        // Over a bridge, over a port of a bridge, and over another that is in none.
        part(4, over(2, Some(100), link(3, "br0.100", Some("vlan")))),
        link(4, "br100", Some("bridge")),
        part(6, over(1, Some(200), link(5, "eno1.200", Some("vlan")))),
        link(6, "br200", Some("bridge")),
        over(1, Some(300), link(7, "eno1.300", Some("vlan"))),
        part(9, over(7, Some(7), link(8, "eno1.300.7", Some("vlan")))),
        link(9, "br7", Some("bridge")),
        part(11, over(1, None, link(10, "mv0", Some("macvlan")))),
        link(11, "brm", Some("bridge")),
        over(1, None, link(12, "mv1", Some("macvlan"))),
    ]);
    let topology = host.topology(&filter());
    let names = topology.ports.values().map(|port| &*port.name);
    let names: Vec<&str> = names.collect();
    assert_eq!(names, ["eno1", "br0.100", "eno1.300.7", "mv0"]);

    let untagged = |name: &str| Segment {
        name: name.into(),
        outer_vlan: None,
        vlan: None,
    };
    let by = |name: &str, ifindex, vlan| {
        let segment = untagged(name);
        let ports: Vec<u32> = topology.ports_of(&segment).map(|(port, _)| port).collect();
        assert_eq!(ports, [ifindex], "{name}");
        let tags = Tags { outer: 0, vlan };
        assert_eq!(topology.tags_towards(ifindex, &segment), Some(tags));
        let address = Address::v4([10, 0, 0, 5]).unwrap();
        assert_eq!(topology.segment(ifindex, tags, address), Ok(segment));
    };
    by("br0", 1, 0);
    by("br100", 3, 0);
    by("br200", 1, 200);
    by("br7", 8, 0);
    by("brm", 10, 0);
}

fn any_record() -> impl Strategy<Value = LinkRecord> {
    let kind = prop::sample::select(vec![
        None,
        Some("veth"),
        Some("bond"),
        Some("bridge"),
        Some("vlan"),
        Some("tun"),
        Some("dummy"),
        Some("vrf"),
    ]);
    let name = prop::sample::select(vec!["veth", "veth-no", "cali", "x", "bond"]);
    let index = 1u32..12;
    (
        (index.clone(), kind, name, any::<bool>(), any::<u32>()),
        (
            prop::option::of(index.clone()),
            prop::option::of(index),
            prop::option::of(0u16..4),
            prop::option::of(0u16..4),
        ),
    )
        .prop_map(
            |((index, kind, name, ethernet, flags), (master, below, vlan, filtering))| LinkRecord {
                flags,
                ethernet,
                master,
                link: below,
                vlan: vlan.filter(|_| kind == Some("vlan")),
                filtering: filtering.filter(|_| kind == Some("bridge")),
                ..link(index, &format!("{name}{index}"), kind)
            },
        )
}

proptest! {
    /// Whatever the kernel says, even a link that is its own master.
    #[test]
    fn any_records_give_a_consistent_topology(links in prop::collection::vec(any_record(), 0..12)) {
        let host = records(links);
        let filter = filter();
        let topology = host.topology(&filter);
        for (index, port) in &topology.ports {
            let link = &host.links[index];
            prop_assert!(link.ethernet);
            prop_assert!(!port.wanted || !port.name.starts_with("veth-no"));
            prop_assert!(!matches!(link.kind.as_deref(), Some("bridge" | "dummy" | "vrf")));
            let master = link.master.and_then(|master| host.links.get(&master));
            prop_assert!(!link.is("vlan") || master.is_some_and(|master| master.is("bridge")));
            prop_assert!(!master.is_some_and(|master| master.is("bond")));
            if let Wiring::Bridge { bridge, pvid, members, untagged } = &port.wiring {
                prop_assert!(topology.bridges.contains_key(bridge));
                prop_assert!(pvid.is_none_or(|pvid| members.contains(&pvid)));
                prop_assert!(untagged.is_subset(members));
            }
            prop_assert!(port.vlan_devices.values().all(|bridge| topology.bridges.contains_key(bridge)));
        }
    }
}
