//! The frames of a question. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipam_common::{Address, Mac, sighting::Tags};
use pnet_packet::{
    Packet,
    arp::{Arp, ArpHardwareTypes, ArpOperations, MutableArpPacket},
    ethernet::{EtherType, EtherTypes, MutableEthernetPacket},
    icmpv6::{
        Icmpv6Packet, Icmpv6Types, checksum,
        ndp::{MutableNdpOptionPacket, MutableNeighborSolicitPacket, NdpOptionTypes},
    },
    ip::IpNextHeaderProtocols,
    ipv6::{Ipv6, MutableIpv6Packet},
    vlan::{ClassOfService, MutableVlanPacket},
};

use super::Asker;

/// RFC 4861 §4.3: what came through a router is not believed.
const HOP_LIMIT: u8 = 255;
/// Type, length and a MAC (RFC 4861 §4.6.1).
const LINK_LAYER_OPTION: usize = 8;

/// Who has this address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The address.
    pub address: Address,
    /// In whose name it is asked; `None`: an ARP probe, or duplicate address detection.
    pub asker: Option<Asker>,
    /// The MAC it comes from.
    pub mac: Mac,
    /// Whom it goes to; `None`: everybody.
    pub to: Option<Mac>,
    /// The tags it has.
    pub tags: Tags,
}

impl Question {
    /// The frame, without padding.
    pub(super) fn frame(&self) -> Vec<u8> {
        let asker = self.asker.map(|asker| asker.address.ip());
        match (self.address.ip(), asker) {
            (IpAddr::V4(target), Some(IpAddr::V4(asker))) => self.arp(target, asker),
            (IpAddr::V4(target), _) => self.arp(target, Ipv4Addr::UNSPECIFIED),
            (IpAddr::V6(target), Some(IpAddr::V6(asker))) => self.solicitation(target, asker),
            (IpAddr::V6(target), _) => self.solicitation(target, Ipv6Addr::UNSPECIFIED),
        }
    }

    /// An ARP request (RFC 826); from 0.0.0.0 a probe (RFC 5227 §1.1).
    fn arp(&self, target: Ipv4Addr, asker: Ipv4Addr) -> Vec<u8> {
        let request = Arp {
            hardware_type: ArpHardwareTypes::Ethernet,
            protocol_type: EtherTypes::Ipv4,
            hw_addr_len: 6,
            proto_addr_len: 4,
            operation: ArpOperations::Request,
            sender_hw_addr: self.mac.bytes().into(),
            sender_proto_addr: asker,
            target_hw_addr: [0; 6].into(),
            target_proto_addr: target,
            payload: Vec::new(),
        };
        let mut bytes = vec![0; MutableArpPacket::packet_size(&request)];
        if let Some(mut packet) = MutableArpPacket::new(&mut bytes) {
            packet.populate(&request);
        }
        let to = self.to.map_or([0xff; 6], Mac::bytes);
        self.framed(to, EtherTypes::Arp, bytes)
    }

    /// A Neighbor Solicitation (RFC 4861 §4.3); from `::` one of duplicate address detection
    /// (RFC 4862 §5.4.2), whose destination is always the solicited-node group.
    fn solicitation(&self, target: Ipv6Addr, asker: Ipv6Addr) -> Vec<u8> {
        let detection = asker.is_unspecified();
        let destination = match self.to {
            Some(_) if !detection => target,
            _ => solicited_node(target),
        };
        let fixed = MutableNeighborSolicitPacket::minimum_packet_size();
        let option = if detection { 0 } else { LINK_LAYER_OPTION };
        let mut message = vec![0; fixed + option];
        if let Some(mut option) = MutableNdpOptionPacket::new(&mut message[fixed..]) {
            option.set_option_type(NdpOptionTypes::SourceLLAddr);
            option.set_length(1);
            option.set_data(&self.mac.bytes());
        }
        if let Some(mut packet) = MutableNeighborSolicitPacket::new(&mut message) {
            packet.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
            packet.set_target_addr(target);
            let sum = Icmpv6Packet::new(packet.packet())
                .map_or(0, |packet| checksum(&packet, &asker, &destination));
            packet.set_checksum(sum);
        }
        let header = Ipv6 {
            version: 6,
            traffic_class: 0,
            flow_label: 0,
            payload_length: message.len() as u16,
            next_header: IpNextHeaderProtocols::Icmpv6,
            hop_limit: HOP_LIMIT,
            source: asker,
            destination,
            payload: message,
        };
        let mut bytes = vec![0; MutableIpv6Packet::packet_size(&header)];
        if let Some(mut packet) = MutableIpv6Packet::new(&mut bytes) {
            packet.populate(&header);
        }
        let to = self.to.map_or(group(destination), Mac::bytes);
        self.framed(to, EtherTypes::Ipv6, bytes)
    }

    fn framed(&self, to: [u8; 6], payload_type: EtherType, payload: Vec<u8>) -> Vec<u8> {
        let (ethertype, payload) = self.tagged(payload_type, payload);
        let mut bytes = vec![0; MutableEthernetPacket::minimum_packet_size() + payload.len()];
        if let Some(mut packet) = MutableEthernetPacket::new(&mut bytes) {
            packet.set_destination(to.into());
            packet.set_source(self.mac.bytes().into());
            packet.set_ethertype(ethertype);
            packet.set_payload(&payload);
        }
        bytes
    }

    /// The payload behind the tags, from the inside out, and what it is then.
    fn tagged(&self, mut ethertype: EtherType, mut payload: Vec<u8>) -> (EtherType, Vec<u8>) {
        let tags = [
            (self.tags.vlan, EtherTypes::Vlan),
            (self.tags.outer, EtherTypes::PBridge),
        ];
        for (vid, protocol) in tags.into_iter().filter(|(vid, _)| *vid != 0) {
            let mut bytes = vec![0; MutableVlanPacket::minimum_packet_size() + payload.len()];
            if let Some(mut packet) = MutableVlanPacket::new(&mut bytes) {
                packet.set_priority_code_point(ClassOfService(0));
                packet.set_vlan_identifier(vid);
                packet.set_ethertype(ethertype);
                packet.set_payload(&payload);
            }
            (ethertype, payload) = (protocol, bytes);
        }
        (ethertype, payload)
    }
}

/// ff02::1:ffXX:XXXX (RFC 4291 §2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// 33:33 and the last four bytes (RFC 2464 §7).
fn group(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use ipam_common::{Captured, Evidence, Parsed, Sighting, parse};

    use super::*;

    const PORT: Mac = Mac::new([2, 0, 0, 0, 0, 1]).unwrap();
    const BRIDGE: Mac = Mac::new([2, 0, 0, 0, 0, 2]).unwrap();
    const CLAIMANT: Mac = Mac::new([2, 0, 0, 0, 0, 9]).unwrap();

    fn claimable(text: &str) -> Address {
        Address::from_ip(text.parse().expect(text)).expect(text)
    }

    fn question(address: &str, asker: Option<&str>, to: Option<Mac>, tags: Tags) -> Question {
        let asker = asker.map(|asker| Asker {
            address: claimable(asker),
            mac: BRIDGE,
        });
        Question {
            address: claimable(address),
            asker,
            mac: asker.map_or(PORT, |asker| asker.mac),
            to,
            tags,
        }
    }

    /// What our own parser makes of it, which believes no frame that isn't right.
    fn read(question: &Question) -> Sighting {
        match parse(&Captured::new(&question.frame())) {
            Parsed::Sighting(sighting) => sighting,
            other => panic!("{question:?}: {other:?}"),
        }
    }

    #[test]
    fn nobodys_question_is_a_probe_and_claims_nothing() {
        let outlets = [
            Tags::default(),
            Tags {
                outer: 0,
                vlan: 100,
            },
            Tags {
                outer: 7,
                vlan: 100,
            },
        ];
        for (address, evidence, everybody) in [
            ("10.0.0.5", Evidence::ArpProbe, [0xff; 6]),
            (
                "fd00::1:2345",
                Evidence::DadProbe,
                [0x33, 0x33, 0xff, 1, 0x23, 0x45],
            ),
        ] {
            for tags in outlets {
                for to in [None, Some(CLAIMANT)] {
                    let seen = read(&question(address, None, to, tags));
                    assert_eq!(
                        (seen.address, seen.evidence),
                        (claimable(address), evidence)
                    );
                    assert_eq!((seen.mac, seen.tags), (PORT, tags));
                    assert_eq!(seen.to, to.map_or(everybody, Mac::bytes));
                }
            }
        }
    }

    #[test]
    fn a_question_in_our_name_asserts_our_own_address_with_its_own_mac() {
        for (address, asker, evidence, everybody) in [
            ("10.0.0.5", "10.0.0.1", Evidence::ArpRequest, [0xff; 6]),
            (
                "fd00::1:2345",
                "fe80::1",
                Evidence::NeighborSolicitation,
                [0x33, 0x33, 0xff, 1, 0x23, 0x45],
            ),
        ] {
            for to in [None, Some(CLAIMANT)] {
                let seen = read(&question(address, Some(asker), to, Tags::default()));
                assert_eq!((seen.address, seen.mac), (claimable(asker), BRIDGE));
                assert_eq!(
                    (seen.asked, seen.evidence),
                    (Some(claimable(address)), evidence)
                );
                assert_eq!(seen.ether_src, BRIDGE.bytes());
                assert_eq!(seen.to, to.map_or(everybody, Mac::bytes));
            }
        }
    }
}
