//! The one kind of frame whose count and tags the suite must know exactly.

use std::net::Ipv4Addr;

use ipam_common::Mac;

/// A VLAN tag, by its VID.
#[derive(Clone, Copy, Debug)]
pub enum Tag {
    /// 802.1Q.
    C(u16),
    /// 802.1ad, the outer one of QinQ.
    S(u16),
}

/// A broadcast ARP announcement (RFC 5227 §1.1) with these tags, outermost first.
pub fn announcement(mac: Mac, address: Ipv4Addr, tags: &[Tag]) -> Vec<u8> {
    let mac = mac.bytes();
    let address = address.octets();
    let mut frame = [[0xff; 6], mac].concat();
    for tag in tags {
        let (ethertype, vid) = match *tag {
            Tag::C(vid) => (0x8100_u16, vid),
            Tag::S(vid) => (0x88a8, vid),
        };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(vid.to_be_bytes());
    }
    // ARP; Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    for part in [&mac[..], &address, &[0; 6], &address] {
        frame.extend(part);
    }
    frame
}
