//! In whose name a question is asked. Pure.

use ipam_common::{Address, Mac};

use super::Outlet;
use crate::engine::segment::{Segment, Topology, Wiring};

/// In whose name a question is asked: an address of this host, and the MAC that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub(super) address: Address,
    pub(super) mac: Mac,
}

impl Asker {
    /// This host's address on the segment in whose name `address` can be asked for out of a
    /// port. In IPv6 a link-local one, in IPv4 that most like it, as it is the likeliest to
    /// be in its subnet. A bridge's own rather than that of the bridge's port, at which the
    /// host itself hears nothing; never another port's.
    pub fn of(
        topology: &Topology,
        segment: &Segment,
        outlet: Outlet,
        address: Address,
    ) -> Option<Self> {
        let bridged = |ifindex| {
            let port = topology.ports.get(&ifindex);
            port.is_some_and(|port| matches!(port.wiring, Wiring::Bridge { .. }))
        };
        let own = topology.own_addresses.iter().filter(|own| {
            own.address.is_ipv4() == address.is_ipv4()
                && (address.is_ipv4() || own.address.is_link_local())
                && own.address != address
                && (own.ifindex == outlet.ifindex || !bridged(own.ifindex))
                && topology.own_segment(own).as_ref() == Some(segment)
        });
        let bits = |address: Address| u128::from_be_bytes(address.mapped());
        let alike = |own: Address| (bits(own) ^ bits(address)).leading_zeros();
        let best = own
            .filter_map(|own| Some((own, own.mac?)))
            .max_by_key(|(own, _)| (!bridged(own.ifindex), alike(own.address)));
        best.map(|(own, mac)| Self {
            address: own.address,
            mac,
        })
    }
}

#[cfg(test)]
mod tests {

    use ipam_common::sighting::Tags;

    use super::*;
    use crate::engine::segment::{Bridge, OwnAddress, Port, PortKind};

    #[test]
    fn a_question_is_asked_in_the_name_of_the_bridge_or_else_of_the_port() {
        let claimable = |text: &str| Address::from_ip(text.parse().expect(text)).expect(text);
        let mac = |last| Mac::new([2, 0, 0, 0, 0, last]).expect("unicast");
        let own = |text: &str, ifindex| OwnAddress {
            address: claimable(text),
            ifindex,
            mac: Some(mac(ifindex as u8)),
        };
        let port = |name: &str| Port::new(name, PortKind::Veth, Wiring::bridge("br0"));
        let bridge = Bridge {
            ifindex: 9,
            filtering: None,
        };
        let mut topology = Topology {
            ports: [(1, port("veth1")), (2, port("veth2"))].into(),
            bridges: [("br0".into(), bridge)].into(),
            own_addresses: vec![
                own("fe80::1", 1),
                own("fe80::2", 2),
                own("fe80::9", 9),
                own("fd00::9", 9),
                own("10.1.0.9", 9),
                own("10.2.0.9", 9),
                own("10.2.0.1", 8),
            ],
            ..Topology::default()
        };
        let segment = topology.bridge_segment(&"br0".into(), None);
        let outlet = Outlet {
            ifindex: 1,
            tags: Tags::default(),
        };
        let asker = |topology: &Topology, text| {
            let asker = Asker::of(topology, &segment, outlet, claimable(text))?;
            Some((asker.address.to_string(), asker.mac))
        };
        let is = |text: &str, last| Some((text.to_owned(), mac(last)));
        assert_eq!(asker(&topology, "fd00::5"), is("fe80::9", 9));
        assert_eq!(asker(&topology, "10.1.0.5"), is("10.1.0.9", 9));
        assert_eq!(asker(&topology, "10.2.0.5"), is("10.2.0.9", 9));
        // It can't ask for itself in its own name: that would be an announcement.
        assert_eq!(asker(&topology, "10.2.0.9"), is("10.1.0.9", 9));
        topology.own_addresses.retain(|own| own.ifindex != 9);
        assert_eq!(asker(&topology, "fd00::5"), is("fe80::1", 1));
        assert_eq!(asker(&topology, "10.2.0.5"), None);
        topology.own_addresses.retain(|own| own.ifindex != 1);
        assert_eq!(asker(&topology, "fd00::5"), None);
    }
}
