use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::netlink::{Netlink, PortVlan, Request};

fn read(kind: u16, body: &[u8]) -> News {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    News::deserialize(&header, body).unwrap()
}

/// A message's body: the family's header, and attributes.
fn body(family: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut request = Request::new(0, 0, family);
    for (kind, value) in attributes {
        request = request.with(*kind, value);
    }
    request.finish(0).split_off(16)
}

fn header(family: i32, index: u32) -> Vec<u8> {
    let mut header = vec![family as u8, 0];
    header.extend(libc::ARPHRD_ETHER.to_ne_bytes());
    header.extend(index.to_ne_bytes());
    header.extend([0; 8]);
    header
}

fn nested(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    body(&[], attributes)
}

/// A veth that is a bridge's port, with an attribute more.
fn veth(more: (u16, &[u8])) -> Vec<u8> {
    body(
        &header(libc::AF_UNSPEC, 7),
        &[
            (libc::IFLA_IFNAME, b"veth7\0"),
            more,
            (libc::IFLA_MASTER, &3u32.to_ne_bytes()),
            (
                libc::IFLA_LINKINFO,
                &nested(&[(libc::IFLA_INFO_KIND, b"veth\0")]),
            ),
        ],
    )
}

fn refused(kind: u16, body: &[u8]) -> bool {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, body).is_err()
}

fn expected() -> LinkRecord {
    LinkRecord {
        index: 7,
        name: "veth7".into(),
        ethernet: true,
        kind: Some("veth".into()),
        master: Some(3),
        ..LinkRecord::default()
    }
}

/// The attributes that a newer kernel might send differently, one at a time.
#[test]
fn a_link_is_known_whatever_attribute_is_odd() {
    let xdp = nested(&[(2, &[1]), (4, &[0, 0])]);
    let odd: [(u16, &[u8]); 5] = [
        (libc::IFLA_MTU, &[5, 220]),
        (libc::IFLA_OPERSTATE, &[]),
        (libc::IFLA_IFALIAS, &[0xff, 0xfe, 0]),
        (libc::IFLA_AF_SPEC, &[9, 0, 2, 0, 1]),
        (libc::IFLA_XDP, &xdp),
    ];
    for attribute in odd {
        let message = veth(attribute);
        assert!(refused(libc::RTM_NEWLINK, &message), "{attribute:?}");
        let xdp = attribute.0 == libc::IFLA_XDP;
        let link = LinkRecord { xdp, ..expected() };
        assert_eq!(read(libc::RTM_NEWLINK, &message), News::Link(link));
        assert_eq!(read(libc::RTM_DELLINK, &message), News::LinkGone(7));
    }
}

/// The kernel takes any bytes but `/`, `:` and blanks (`dev_valid_name`).
#[test]
fn a_link_whose_name_is_no_text_is_known() {
    let message = body(
        &header(libc::AF_UNSPEC, 7),
        &[(libc::IFLA_IFNAME, b"veth\xff\0")],
    );
    assert!(refused(libc::RTM_NEWLINK, &message));
    let News::Link(link) = read(libc::RTM_NEWLINK, &message) else {
        panic!("no link");
    };
    assert_eq!((link.index, &*link.name), (7, "veth\u{fffd}"));
}

#[test]
fn the_vlans_of_a_port_are_known_whatever_attribute_is_odd() {
    let vlan: Vec<u8> = [6u16, 100].into_iter().flat_map(u16::to_ne_bytes).collect();
    let spec = nested(&[(2, &vlan)]);
    let port = |more: (u16, &[u8])| {
        body(
            &header(libc::AF_BRIDGE, 7),
            &[(libc::IFLA_AF_SPEC, &spec), more],
        )
    };
    let vlans = vec![PortVlan {
        vid: 100,
        pvid: true,
        untagged: true,
    }];
    let known = News::Port(PortVlans { index: 7, vlans });
    let plain = port((libc::IFLA_MTU, &1500u32.to_ne_bytes()));
    let odd = port((libc::IFLA_MTU, &[5, 220]));
    assert!(!refused(libc::RTM_NEWLINK, &plain) && refused(libc::RTM_NEWLINK, &odd));
    for message in [plain, odd] {
        assert_eq!(read(libc::RTM_NEWLINK, &message), known);
        assert_eq!(read(libc::RTM_DELLINK, &message), News::PortGone(7));
    }
}

#[test]
fn an_address_is_known_whatever_attribute_is_odd() {
    let ip = [192, 0, 2, 1];
    let header = [libc::AF_INET as u8, 24, 0, 0, 7, 0, 0, 0];
    for label in [&b"br0\0"[..], b"br\xff\0"] {
        let message = body(
            &header,
            &[
                (libc::IFA_ADDRESS, &[192, 0, 2, 2]),
                (libc::IFA_LOCAL, &ip),
                (libc::IFA_LABEL, label),
                (libc::IFA_FLAGS, &libc::IFA_F_TENTATIVE.to_ne_bytes()),
            ],
        );
        let address = AddressRecord {
            index: u32::from_ne_bytes([7, 0, 0, 0]),
            ip: ip.into(),
            flags: libc::IFA_F_TENTATIVE,
            namespace: None,
        };
        assert_eq!(read(libc::RTM_NEWADDR, &message), News::Address(address));
        assert_eq!(
            read(libc::RTM_DELADDR, &message),
            News::AddressGone(address.index, address.ip)
        );
    }
}

/// The mode of a network card's own switch, and the state of CFM, are told by the same
/// messages.
#[test]
fn what_is_not_about_a_port_says_nothing_of_its_vlans() {
    let cfm = 5 | libc::NLA_F_NESTED as u16;
    for attribute in [(1, &[0, 0][..]), (cfm, &[])] {
        let spec = nested(&[attribute]);
        let message = body(&header(libc::AF_BRIDGE, 7), &[(libc::IFLA_AF_SPEC, &spec)]);
        assert_eq!(read(libc::RTM_NEWLINK, &message), News::Other);
        assert_eq!(untyped(libc::RTM_NEWLINK, &message), None);
    }
}

/// What this kernel says of its links and addresses is the same to both readers.
#[test]
fn both_readers_agree_on_what_this_kernel_says() {
    let mut netlink = Netlink::open(Duration::from_secs(5)).unwrap();
    let both = |message: Message<'_>| {
        let mut header = NetlinkHeader::default();
        header.message_type = message.kind;
        let typed = typed(RouteNetlinkMessage::deserialize(&header, message.body).ok()?);
        Some((typed, untyped(message.kind, message.body)))
    };
    let mut names = Vec::new();
    for request in [Request::links(), Request::addresses(libc::AF_UNSPEC, None)] {
        for (typed, untyped) in netlink.dump(&request, both).unwrap() {
            assert_eq!(typed, untyped);
            if let Some(News::Link(link)) = typed {
                names.push(link.name);
            }
        }
    }
    assert!(names.contains(&Arc::from("lo")));
}

proptest! {
    #[test]
    fn any_message_is_read(kind in 16u16..120, body: Vec<u8>) {
        let _ = read(kind, &body);
    }

    /// As above, but with attributes that are whole.
    #[test]
    fn any_attributes_are_read(
        bridge: bool,
        attributes in prop::collection::vec(
            (0u16..70, prop::collection::vec(any::<u8>(), 0..24)), 0..4),
    ) {
        let family = if bridge { libc::AF_BRIDGE } else { libc::AF_UNSPEC };
        let attributes: Vec<_> = attributes.iter().map(|(k, v)| (*k, v.as_slice())).collect();
        let body = body(&header(family, 7), &attributes);
        let known = match read(libc::RTM_NEWLINK, &body) {
            News::Link(link) => Some(link.index),
            News::Port(port) => Some(port.index),
            _ => None,
        };
        prop_assert!(bridge || known == Some(7));
    }
}
