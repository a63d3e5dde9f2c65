//! Frames for tests: each builder yields one whole Ethernet frame, valid unless asked
//! otherwise, with right lengths and checksums.
//!
//! Nothing here is shared with the parser under test: checksums are pnet's.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipam_common::Evidence;
use pnet_packet::{ip::IpNextHeaderProtocols, util::ipv6_checksum};

/// A station's MAC.
pub type Mac = [u8; 6];

/// ff:ff:ff:ff:ff:ff.
pub const BROADCAST: Mac = [0xff; 6];
/// ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// ff02::2.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Tag protocol identifier of 802.1Q.
pub const DOT1Q: u16 = 0x8100;
/// Tag protocol identifier of 802.1ad.
pub const DOT1AD: u16 = 0x88a8;

/// Ethernet's shortest frame without its frame check sequence.
const MINIMUM: usize = 60;

/// A locally administered MAC that ends in `n`.
pub const fn mac(n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    [0x02, 0, 0, 0, high, low]
}

/// A frame from `source` to `destination`.
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&destination[..], &source, &ethertype.to_be_bytes()].concat();
    frame.extend_from_slice(payload);
    frame
}

/// The frame filled up with zeros to Ethernet's minimum, as it is on a cable.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(MINIMUM), 0);
    frame
}

/// The frame with tags, outermost first, each a tag protocol identifier and tag control
/// information.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (stations, rest) = frame.split_at(12);
    let mut frame = stations.to_vec();
    for (protocol, control) in tags {
        frame.extend_from_slice(&protocol.to_be_bytes());
        frame.extend_from_slice(&control.to_be_bytes());
    }
    frame.extend_from_slice(rest);
    frame
}

/// An ARP packet (RFC 826); fields that no builder below sets may be set by hand.
#[derive(Clone, Debug)]
pub struct Arp {
    /// Ethernet destination.
    pub ether_dst: Mac,
    /// Ethernet source.
    pub ether_src: Mac,
    /// `ar$hrd`, 1 for Ethernet.
    pub hardware_type: u16,
    /// `ar$pro`, 0x0800 for IPv4.
    pub protocol: u16,
    /// `ar$hln` and `ar$pln`.
    pub lengths: [u8; 2],
    /// `ar$op`: 1 request, 2 reply.
    pub operation: u16,
    /// `ar$sha`.
    pub sender_mac: Mac,
    /// `ar$spa`.
    pub sender: Ipv4Addr,
    /// `ar$tha`.
    pub target_mac: Mac,
    /// `ar$tpa`.
    pub target: Ipv4Addr,
}

impl Arp {
    /// A broadcast request.
    pub fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            ether_dst: BROADCAST,
            ether_src: mac,
            hardware_type: 1,
            protocol: 0x0800,
            lengths: [6, 4],
            operation: 1,
            sender_mac: mac,
            sender,
            target_mac: [0; 6],
            target,
        }
    }

    /// The unicast answer to an asker.
    pub fn reply(mac: Mac, sender: Ipv4Addr, asker_mac: Mac, asker: Ipv4Addr) -> Self {
        Self {
            ether_dst: asker_mac,
            operation: 2,
            target_mac: asker_mac,
            ..Self::request(mac, sender, asker)
        }
    }

    /// An announcement (RFC 5227 §1.1): a request for one's own address.
    pub fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, address, address)
    }

    /// A reply for one's own address that nobody asked for.
    pub fn gratuitous_reply(mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation: 2,
            target_mac: BROADCAST,
            ..Self::announcement(mac, address)
        }
    }

    /// A probe (RFC 5227 §1.1): a request from 0.0.0.0.
    pub fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, address)
    }

    /// The frame, 42 bytes without padding.
    pub fn frame(&self) -> Vec<u8> {
        let packet = [
            &self.hardware_type.to_be_bytes()[..],
            &self.protocol.to_be_bytes(),
            &self.lengths,
            &self.operation.to_be_bytes(),
            &self.sender_mac,
            &self.sender.octets(),
            &self.target_mac,
            &self.target.octets(),
        ]
        .concat();
        ethernet(self.ether_dst, self.ether_src, 0x0806, &packet)
    }
}

/// A Neighbor Discovery message (RFC 4861 §4); fields may be set by hand.
#[derive(Clone, Debug)]
pub struct Nd {
    /// Ethernet destination.
    pub ether_dst: Mac,
    /// Ethernet source.
    pub ether_src: Mac,
    /// IPv6 source.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// 255 unless it came through a router.
    pub hop_limit: u8,
    /// Extension headers: next header value of each, and its bytes without the first one.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// ICMPv6 type: 133 RS, 134 RA, 135 NS, 136 NA.
    pub kind: u8,
    /// ICMPv6 code.
    pub code: u8,
    /// What follows the checksum, up to the options.
    pub body: Vec<u8>,
    /// The options.
    pub options: Vec<u8>,
    /// Added to the right checksum.
    pub checksum_error: u16,
}

/// Flags of a Neighbor Advertisement.
pub mod flags {
    /// R.
    pub const ROUTER: u8 = 0x80;
    /// S.
    pub const SOLICITED: u8 = 0x40;
    /// O.
    pub const OVERRIDE: u8 = 0x20;
}

impl Nd {
    fn new(mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, kind: u8, body: Vec<u8>) -> Self {
        Self {
            ether_dst: multicast_mac(destination).unwrap_or(BROADCAST),
            ether_src: mac,
            source,
            destination,
            hop_limit: 255,
            extensions: Vec::new(),
            kind,
            code: 0,
            body,
            options: Vec::new(),
            checksum_error: 0,
        }
    }

    /// A multicast solicitation with its source link-layer address.
    pub fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Self {
        Self::new(
            mac,
            source,
            solicited_node(target),
            135,
            target_body(0, target),
        )
        .link_layer(1, mac)
    }

    /// A solicitation from `::`: duplicate address detection (RFC 4862 §5.4.2).
    pub fn dad(mac: Mac, target: Ipv6Addr) -> Self {
        Self {
            options: Vec::new(),
            ..Self::solicitation(mac, Ipv6Addr::UNSPECIFIED, target)
        }
    }

    /// An unsolicited advertisement to all nodes with its target link-layer address.
    pub fn advertisement(mac: Mac, target: Ipv6Addr, flags: u8) -> Self {
        Self::new(mac, target, ALL_NODES, 136, target_body(flags, target)).link_layer(2, mac)
    }

    /// A router solicitation with its source link-layer address.
    pub fn router_solicitation(mac: Mac, source: Ipv6Addr) -> Self {
        Self::new(mac, source, ALL_ROUTERS, 133, vec![0; 4]).link_layer(1, mac)
    }

    /// A router advertisement with its source link-layer address.
    pub fn router_advertisement(mac: Mac, source: Ipv6Addr) -> Self {
        let body = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        Self::new(mac, source, ALL_NODES, 134, body).link_layer(1, mac)
    }

    /// Sent to one station.
    pub fn unicast(mut self, mac: Mac, destination: Ipv6Addr) -> Self {
        self.ether_dst = mac;
        self.destination = destination;
        self
    }

    /// With a link-layer address option more: type 1 source, 2 target.
    pub fn link_layer(self, kind: u8, mac: Mac) -> Self {
        self.option(kind, &mac)
    }

    /// With a nonce more (RFC 3971 §5.3.2).
    pub fn nonce(self, nonce: [u8; 6]) -> Self {
        self.option(14, &nonce)
    }

    /// With an option more, filled up with zeros to whole words.
    pub fn option(mut self, kind: u8, data: &[u8]) -> Self {
        let words = (data.len() + 2).div_ceil(8);
        let length = u8::try_from(words).unwrap_or(u8::MAX);
        let end = self.options.len() + words * 8;
        self.options.extend_from_slice(&[kind, length]);
        self.options.extend_from_slice(data);
        self.options.resize(end, 0);
        self
    }

    /// Without options.
    pub fn bare(mut self) -> Self {
        self.options.clear();
        self
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend_from_slice(&self.body);
        message.extend_from_slice(&self.options);
        let checksum = ipv6_checksum(
            &message,
            1,
            &[],
            &self.source,
            &self.destination,
            IpNextHeaderProtocols::Icmpv6,
        )
        .wrapping_add(self.checksum_error);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());

        let mut next: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        next.push(58);
        let mut payload = Vec::new();
        for ((_, bytes), next) in self.extensions.iter().zip(&next[1..]) {
            payload.push(*next);
            payload.extend_from_slice(bytes);
        }
        payload.extend_from_slice(&message);
        let packet = ipv6(
            self.source,
            self.destination,
            self.hop_limit,
            next[0],
            &payload,
        );
        ethernet(self.ether_dst, self.ether_src, 0x86dd, &packet)
    }
}

/// A UDP packet over IPv4 with a payload of 18 zeros: 60 bytes of frame.
pub fn ipv4_data(mac: Mac, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let udp = udp();
    let total = (20 + udp.len()) as u16;
    let mut header = [
        &[0x45, 0][..],
        &total.to_be_bytes(),
        &[0, 0, 0x40, 0, 64, 17, 0, 0],
    ]
    .concat();
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&destination.octets());
    let checksum = pnet_packet::util::checksum(&header, 5);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header.extend_from_slice(&udp);
    ethernet(self::mac(0xfffe), mac, 0x0800, &header)
}

/// A UDP packet over IPv6 with a payload of 18 zeros.
pub fn ipv6_data(mac: Mac, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let packet = ipv6(source, destination, 64, 17, &udp());
    ethernet(self::mac(0xfffe), mac, 0x86dd, &packet)
}

/// ff02::1:ffXX:XXXX (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// 33:33 and the last four bytes (RFC 2464 §7); `None` for a unicast address.
pub fn multicast_mac(address: Ipv6Addr) -> Option<Mac> {
    let [first, .., a, b, c, d] = address.octets();
    (first == 0xff).then_some([0x33, 0x33, a, b, c, d])
}

fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut packet = [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[next, hop_limit],
    ]
    .concat();
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// Source port 4000, destination port 4001, no checksum.
fn udp() -> Vec<u8> {
    let mut udp = vec![0x0f, 0xa0, 0x0f, 0xa1, 0, 26, 0, 0];
    udp.resize(26, 0);
    udp
}

fn target_body(flags: u8, target: Ipv6Addr) -> Vec<u8> {
    [&[flags, 0, 0, 0][..], &target.octets()].concat()
}

/// One frame of every kind of evidence, all of `mac(1)`, with the variants that a parser
/// treats apart: padded, answered to a prober, without options, with a nonce, unicast.
pub fn of_every_kind() -> Vec<(Evidence, Vec<u8>)> {
    use Evidence::*;
    let (v4, v4_other) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 9));
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
    let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let (me, other) = (mac(1), mac(2));
    let nonce = [1, 2, 3, 4, 5, 6];
    let answer = flags::SOLICITED | flags::OVERRIDE;
    let request = Arp::request(me, v4, v4_other);
    let solicitation = Nd::solicitation(me, local, v6);
    let prober = Ipv4Addr::UNSPECIFIED;
    vec![
        (ArpRequest, request.frame()),
        (ArpRequest, padded(request.frame())),
        (ArpReply, Arp::reply(me, v4, other, v4_other).frame()),
        (ArpReply, Arp::reply(me, v4, other, prober).frame()),
        (ArpAnnouncement, Arp::announcement(me, v4).frame()),
        (ArpGratuitousReply, Arp::gratuitous_reply(me, v4).frame()),
        (ArpProbe, Arp::probe(me, v4).frame()),
        (NeighborSolicitation, solicitation.frame()),
        (NeighborSolicitation, solicitation.clone().bare().frame()),
        (NeighborSolicitation, solicitation.nonce(nonce).frame()),
        (DadProbe, Nd::dad(me, v6).frame()),
        (DadProbe, Nd::dad(me, v6).nonce(nonce).frame()),
        (
            NeighborAdvertisement,
            Nd::advertisement(me, v6, flags::OVERRIDE).frame(),
        ),
        (
            NeighborAdvertisement,
            Nd::advertisement(me, v6, answer)
                .unicast(other, local)
                .frame(),
        ),
        (WeakAdvertisement, Nd::advertisement(me, v6, 0).frame()),
        (
            WeakAdvertisement,
            Nd::advertisement(me, v6, flags::SOLICITED)
                .bare()
                .unicast(other, local)
                .frame(),
        ),
        (
            RouterSolicitation,
            Nd::router_solicitation(me, local).frame(),
        ),
        (
            RouterAdvertisement,
            Nd::router_advertisement(me, local).frame(),
        ),
        (
            RouterAdvertisement,
            Nd::router_advertisement(me, local)
                .option(3, &[0; 30])
                .option(25, &[0; 22])
                .frame(),
        ),
    ]
}

/// The frame under each set of tags that counts, with the outer VID and the VID it has then.
pub fn under_every_tag(frame: &[u8]) -> Vec<(Vec<u8>, u16, u16)> {
    vec![
        (frame.to_vec(), 0, 0),
        (tagged(frame, &[(DOT1Q, 0)]), 0, 0),
        (tagged(frame, &[(DOT1Q, 0xe064)]), 0, 100),
        (tagged(frame, &[(DOT1AD, 7), (DOT1Q, 100)]), 7, 100),
        (tagged(frame, &[(DOT1AD, 0), (DOT1Q, 100)]), 0, 100),
        (tagged(frame, &[(DOT1Q, 7), (DOT1Q, 0)]), 0, 7),
    ]
}
