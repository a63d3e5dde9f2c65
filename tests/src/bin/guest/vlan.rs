//! 802.1Q and QinQ over a bond: addresses are compared inside one VLAN only.

use anyhow::{Result, ensure};
use ipam_agent::report::document::{AddressRecord, SegmentName};
use tests::{
    frames::{DOT1AD, DOT1Q},
    lab::{Lab, Netns},
};

use crate::host::{
    Uplink, announcement, claimants, ensure_no_conflict, ip_line, machine, start, wait_for_claims,
    wait_for_duplicate, wait_until_watched,
};

const ADDRESS: &str = "10.7.0.5";
const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const C: &str = "02:00:00:00:00:0c";

fn announce(machine: &Netns, mac: &str, tags: &[(u16, u16)]) -> Result<()> {
    let frame = announcement(mac, ADDRESS, tags)?;
    machine.send("eth0", &[frame])
}

fn segment(outer_vlan: Option<u16>, vlan: u16) -> SegmentName {
    SegmentName {
        name: String::from("bond0"),
        vlan: Some(vlan),
        outer_vlan,
    }
}

fn has(claims: &[AddressRecord], segment: &SegmentName, mac: &str) -> bool {
    claims
        .iter()
        .any(|claim| claim.segment == *segment && claim.claim.mac.to_string() == mac)
}

/// Two VLANs reuse an address; then a second machine takes it in one of them.
pub fn tagged(lab: &mut Lab) -> Result<()> {
    let uplink = Uplink::new(lab, "bond0")?;
    for vlan in [100, 200] {
        ip_line(&format!(
            "link add link bond0 name bond0.{vlan} type vlan id {vlan}"
        ))?;
        ip_line(&format!("link set bond0.{vlan} up"))?;
    }
    let daemon = start(lab)?;
    wait_until_watched(&daemon, &["bond0"])?;
    for _ in 0..3 {
        announce(&uplink.remote, A, &[(DOT1Q, 100)])?;
        announce(&uplink.remote, B, &[(DOT1Q, 200)])?;
    }
    wait_for_claims(&daemon, ADDRESS, |claims| {
        claims.len() == 2
            && has(claims, &segment(None, 100), A)
            && has(claims, &segment(None, 200), B)
    })?;
    ensure_no_conflict(&daemon)?;

    announce(&uplink.remote, C, &[(DOT1Q, 100)])?;
    announce(&uplink.remote, A, &[(DOT1Q, 100)])?;
    let conflict = wait_for_duplicate(&daemon, ADDRESS)?;
    ensure!(conflict.segment == segment(None, 100), "{conflict:#?}");
    let expected = [(A.to_owned(), "bond0"), (C.to_owned(), "bond0")];
    ensure!(claimants(&conflict) == expected, "{conflict:#?}");
    Ok(())
}

/// The same inner VLAN inside two outer ones, and the outer one alone, are three segments.
pub fn double_tagged(lab: &mut Lab) -> Result<()> {
    let uplink = Uplink::new(lab, "bond0")?;
    let daemon = start(lab)?;
    wait_until_watched(&daemon, &["bond0"])?;
    for _ in 0..3 {
        announce(&uplink.remote, A, &[(DOT1AD, 300), (DOT1Q, 10)])?;
        announce(&uplink.remote, B, &[(DOT1AD, 400), (DOT1Q, 10)])?;
        announce(&uplink.remote, C, &[(DOT1AD, 300)])?;
    }
    wait_for_claims(&daemon, ADDRESS, |claims| {
        claims.len() == 3
            && has(claims, &segment(Some(300), 10), A)
            && has(claims, &segment(Some(400), 10), B)
            && has(claims, &segment(None, 300), C)
    })?;
    ensure_no_conflict(&daemon)
}

/// What comes into a bridge by a VLAN device over another bridge comes in by no other port.
pub fn over_a_bridge(lab: &mut Lab) -> Result<()> {
    let uplink = Uplink::new(lab, "bond0")?;
    for line in [
        "link add br0 type bridge mcast_snooping 0",
        "link set bond0 master br0",
        "link add link br0 name br0.100 type vlan id 100",
        "link add br100 type bridge mcast_snooping 0",
        "link set br0.100 master br100",
    ] {
        ip_line(line)?;
    }
    for link in ["br0", "br0.100", "br100"] {
        ip_line(&format!("link set {link} up"))?;
    }
    let guest = machine(lab, "guest", "vethguest", A)?;
    ip_line("link set vethguest master br100")?;
    let daemon = start(lab)?;
    wait_until_watched(&daemon, &["bond0", "br0.100", "vethguest"])?;
    announce(&guest, A, &[])?;
    announce(&uplink.remote, B, &[(DOT1Q, 100)])?;
    announce(&guest, A, &[])?;
    let conflict = wait_for_duplicate(&daemon, ADDRESS)?;
    ensure!(
        (conflict.segment.name.as_str(), conflict.segment.vlan) == ("br100", None),
        "{conflict:#?}"
    );
    let expected = [(A.to_owned(), "vethguest"), (B.to_owned(), "br0.100")];
    ensure!(claimants(&conflict) == expected, "{conflict:#?}");
    Ok(())
}
