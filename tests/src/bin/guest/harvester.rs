//! A Harvester host's cluster network: a VLAN-filtering bridge whose trunk is a bond, and
//! guests on access ports.

use anyhow::{Result, ensure};
use ipam_agent::report::document::SegmentName;
use tests::lab::{Lab, Netns, run};

use crate::host::{
    Uplink, claimants, ip_line, machine, start, wait_for_claims, wait_for_duplicate,
    wait_until_watched,
};

const ADDRESS: &str = "10.100.0.5";
const GATEWAY: &str = "10.100.0.1";
const GUEST: &str = "02:00:00:00:00:0a";
const REMOTE: &str = "02:00:00:00:00:0b";

fn bridge_line(line: &str) -> Result<()> {
    run("bridge", &line.split(' ').collect::<Vec<_>>()).map(drop)
}

/// A guest on VLAN 100's access port and a machine on the trunk's VLAN 100 take one address;
/// one in VLAN 200 has it too, by right.
pub fn across(lab: &mut Lab) -> Result<()> {
    let uplink = Uplink::new(lab, "mgmt-bo")?;
    ip_line("link add mgmt-br type bridge vlan_filtering 1 mcast_snooping 0")?;
    ip_line("link set mgmt-bo master mgmt-br")?;
    ip_line("link set mgmt-br up")?;
    for vlan in [100, 200] {
        bridge_line(&format!("vlan add dev mgmt-bo vid {vlan}"))?;
    }
    let guest = machine(lab, "guest", "vethguest", GUEST)?;
    ip_line("link set vethguest master mgmt-br")?;
    bridge_line("vlan del dev vethguest vid 1")?;
    bridge_line("vlan add dev vethguest vid 100 pvid untagged")?;
    ip_line(&format!("-n guest addr add {ADDRESS}/24 dev eth0"))?;
    ip_line(&format!("-n remote link set eth0 address {REMOTE}"))?;
    let remote = &uplink.remote;
    let other = lab.pod("other")?;
    for (machine, vlan) in [(remote, 100), (&other, 200)] {
        let name = machine.name();
        ip_line(&format!(
            "-n remote link add link eth0 name vlan{vlan} type vlan id {vlan}"
        ))?;
        if name != "remote" {
            ip_line(&format!("-n remote link set vlan{vlan} netns {name}"))?;
        }
        ip_line(&format!("-n {name} link set vlan{vlan} up"))?;
        ip_line(&format!("-n {name} addr add {ADDRESS}/24 dev vlan{vlan}"))?;
    }

    let daemon = start(lab)?;
    wait_until_watched(&daemon, &["mgmt-bo", "vethguest"])?;
    let speak = |machine: &Netns| machine.speak_to(GATEWAY.parse()?);
    speak(&other)?;
    wait_for_claims(
        &daemon,
        ADDRESS,
        |claims| matches!(claims, [claim] if claim.segment == segment(200)),
    )?;
    speak(&guest)?;
    speak(remote)?;
    speak(&guest)?;
    let conflict = wait_for_duplicate(&daemon, ADDRESS)?;
    ensure!(conflict.segment == segment(100), "{conflict:#?}");
    let expected = [
        (GUEST.to_owned(), "vethguest"),
        (REMOTE.to_owned(), "mgmt-bo"),
    ];
    ensure!(claimants(&conflict) == expected, "{conflict:#?}");
    Ok(())
}

fn segment(vlan: u16) -> SegmentName {
    SegmentName {
        name: String::from("mgmt-br"),
        vlan: Some(vlan),
        outer_vlan: None,
    }
}
