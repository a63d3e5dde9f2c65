//! etherparse, which shares no line with our parser, reads the same fields of a frame.

use anyhow::{Context as _, bail, ensure};
use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use ipam_common::{Captured, Evidence, Parsed, Sighting, parse};
use tests::{
    frames,
    mutate::{Random, mutated},
};

/// ICMPv6, and the extension headers that etherparse follows as we do: Hop-by-Hop Options,
/// Routing, Fragment, Authentication, Destination Options.
const FOLLOWED: [u8; 6] = [58, 0, 43, 44, 51, 60];

#[test]
fn on_every_kind_under_every_tag() -> anyhow::Result<()> {
    for (_, frame) in frames::of_every_kind() {
        for (frame, ..) in frames::under_every_tag(&frame) {
            assert!(confirmed(&frame)?);
        }
    }
    Ok(())
}

#[test]
fn on_mutated_frames() -> anyhow::Result<()> {
    let valid = frames::of_every_kind();
    let mut random = Random::new(0xd1b5_4a32_d192_ed03);
    let mut sightings = 0;
    for _ in 0..300_000 {
        let (_, frame) = &valid[random.below(valid.len())];
        let frame = mutated(frame, &mut random);
        let confirmed = confirmed(&frame).with_context(|| format!("frame {frame:02x?}"))?;
        sightings += u32::from(confirmed);
    }
    assert!(sightings > 30_000, "{sightings} sightings");
    Ok(())
}

/// Whether the frame is a sighting; an error if etherparse reads it otherwise.
fn confirmed(frame: &[u8]) -> anyhow::Result<bool> {
    let Parsed::Sighting(sighting) = parse(&Captured::new(frame)) else {
        return Ok(false);
    };
    let sliced = SlicedPacket::from_ethernet(frame)?;
    tags(&sliced, &sighting)?;
    match sliced.net.context("no network layer")? {
        NetSlice::Arp(arp) => {
            ensure!(arp.proto_addr_type() == EtherType::IPV4, "protocol");
            ensure!(arp.sender_hw_addr() == sighting.mac.bytes(), "sender MAC");
            let address = match sighting.evidence {
                Evidence::ArpProbe => arp.target_protocol_addr(),
                _ => arp.sender_protocol_addr(),
            };
            ensure!(sighting.address.mapped()[12..] == *address, "address");
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            ensure!(header.hop_limit() == 255, "hop limit");
            let icmp = match sliced.transport {
                Some(TransportSlice::Icmpv6(icmp)) => icmp,
                // It follows fewer kinds of extension headers.
                None if !FOLLOWED.contains(&ip.payload().ip_number.0) => return Ok(true),
                _ => bail!("not ICMPv6"),
            };
            ensure!(
                icmp.is_checksum_valid(header.source(), header.destination()),
                "checksum"
            );
            let address = match sighting.evidence {
                Evidence::NeighborAdvertisement
                | Evidence::WeakAdvertisement
                | Evidence::DadProbe => icmp.slice()[8..24].try_into()?,
                _ => header.source(),
            };
            ensure!(sighting.address.mapped() == address, "address");
        }
        NetSlice::Ipv4(_) => bail!("IPv4"),
    }
    Ok(true)
}

fn tags(sliced: &SlicedPacket<'_>, sighting: &Sighting) -> anyhow::Result<()> {
    let vids: Vec<u16> = sliced.vlan_ids().iter().map(|vid| vid.value()).collect();
    let vids: Vec<u16> = vids.into_iter().filter(|vid| *vid != 0).collect();
    let tags = match vids[..] {
        [] => (0, 0),
        [vlan] => (0, vlan),
        [outer, vlan] => (outer, vlan),
        _ => bail!("{vids:?}"),
    };
    ensure!(
        (sighting.tags.outer, sighting.tags.vlan) == tags,
        "VLANs {vids:?}"
    );
    Ok(())
}
