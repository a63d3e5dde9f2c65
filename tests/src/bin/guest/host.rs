//! Hosts to run the agent on, and what the kernel and the agent say of them.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use ipam_agent::report::document::{AddressRecord, Addresses, ConflictRecord, Report, Segments};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tests::{
    daemon::Daemon,
    frames::{Arp, tagged},
    lab::{Lab, Netns, ip, run},
};

/// The emulated machine is some ten times slower than a real one.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A bond of two links to a switch that another machine is on.
pub struct Uplink {
    bond: &'static str,
    switch: Netns,
    /// The other machine; its link is `eth0`.
    pub remote: Netns,
}

/// The slaves' names match the agent's patterns, so that it is the bond that keeps them
/// from being watched.
pub const SLAVES: [&str; 2] = ["vethup0", "vethup1"];

impl Uplink {
    /// Makes the bond, active-backup, both links up.
    pub fn new(lab: &Lab, bond: &'static str) -> Result<Self> {
        let switch = lab.pod("switch")?;
        let remote = lab.pod("remote")?;
        ip_line("-n switch link add sw type bridge mcast_snooping 0")?;
        ip_line("-n switch link set sw up")?;
        ip_line(&format!(
            "link add {bond} type bond mode active-backup miimon 20"
        ))?;
        for (slave, port) in SLAVES.into_iter().zip(["p0", "p1"]) {
            ip_line(&format!(
                "link add {slave} type veth peer name {port} netns switch"
            ))?;
            ip_line(&format!("-n switch link set {port} master sw up"))?;
            ip_line(&format!("link set {slave} master {bond}"))?;
        }
        ip_line("-n switch link add r0 type veth peer name eth0 netns remote")?;
        ip_line("-n switch link set r0 master sw up")?;
        ip_line("-n remote link set eth0 up")?;
        ip_line(&format!("link set {bond} up"))?;
        let uplink = Self {
            bond,
            switch,
            remote,
        };
        uplink.wait_for_active(|_| true)?;
        Ok(uplink)
    }

    /// Takes the link away that carries the bond's traffic; when it gives back, the other
    /// one does.
    pub fn fail_over(&self) -> Result<()> {
        let failing = self.wait_for_active(|_| true)?;
        let port = if failing == SLAVES[0] { "p0" } else { "p1" };
        ip_line(&format!("-n {} link set {port} down", self.switch.name()))?;
        self.wait_for_active(|active| active != failing)?;
        Ok(())
    }

    fn wait_for_active(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        eventually("an active slave", || {
            let bond = only(json("ip", &["-j", "-d", "link", "show", self.bond])?)?;
            let active = bond["linkinfo"]["info_data"]["active_slave"].as_str();
            Ok(active.filter(|&slave| wanted(slave)).map(str::to_owned))
        })
    }
}

/// A machine of its own behind the host's link `veth`; its end is `eth0`, with this MAC.
pub fn machine(lab: &Lab, name: &str, veth: &str, mac: &str) -> Result<Netns> {
    let machine = lab.pod(name)?;
    ip_line(&format!(
        "link add {veth} type veth peer name eth0 netns {name}"
    ))?;
    ip_line(&format!("-n {name} link set eth0 address {mac} up"))?;
    ip_line(&format!("link set {veth} up"))?;
    Ok(machine)
}

/// A broadcast ARP announcement with these tags, outermost first.
pub fn announcement(mac: &str, address: &str, tags: &[(u16, u16)]) -> Result<Vec<u8>> {
    let mac: ipam_common::Mac = mac.parse()?;
    let frame = Arp::announcement(mac.bytes(), address.parse()?).frame();
    Ok(tagged(&frame, tags))
}

/// Starts the agent with its defaults, on this host's disk.
pub fn start(lab: &Lab) -> Result<Daemon> {
    let state = lab.disk().join("state");
    Daemon::start(
        &lab.disk().join("agent"),
        &format!("state_dir: {}", state.display()),
    )
}

/// Waits until the agent watches these ports, each in a segment of which it hears all.
pub fn wait_until_watched(daemon: &Daemon, ports: &[&str]) -> Result<()> {
    daemon.wait_for("ports to be watched", PATIENCE, "segments", |document| {
        let segments: Segments = serde_json::from_value(document.clone()).ok()?;
        let watched = |port: &&str| {
            segments.segments.iter().any(|segment| {
                segment.complete && segment.interfaces.iter().any(|name| name == port)
            })
        };
        ports.iter().all(watched).then_some(())
    })
}

/// Waits until the agent's claims on this address are as they should be.
pub fn wait_for_claims(
    daemon: &Daemon,
    address: &str,
    right: impl Fn(&[AddressRecord]) -> bool,
) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let what = format!("the claims on {address}");
    daemon.wait_for(&what, PATIENCE, "addresses", |document| {
        let all: Addresses = serde_json::from_value(document.clone()).ok()?;
        let mut claims = all.addresses;
        claims.retain(|claim| claim.address == address);
        right(&claims).then_some(())
    })
}

/// Waits for the duplicate of this address, which must be the only conflict over it.
pub fn wait_for_duplicate(daemon: &Daemon, address: &str) -> Result<ConflictRecord> {
    let address: IpAddr = address.parse()?;
    let what = format!("the duplicate of {address}");
    daemon.wait_for(&what, PATIENCE, "report", |document| {
        let report: Report = serde_json::from_value(document.clone()).ok()?;
        let mut conflicts = report.conflicts;
        conflicts.retain(|conflict| conflict.address == address);
        let conflict = conflicts.pop()?;
        let found = conflicts.is_empty() && conflict.kind.name() == "duplicate-address";
        found.then_some(conflict)
    })
}

/// Who claims what is contested, and behind which port, in order.
pub fn claimants(conflict: &ConflictRecord) -> Vec<(String, &str)> {
    let mut claimants: Vec<_> = conflict
        .claims
        .iter()
        .map(|claim| {
            let port = claim.interface.as_deref().unwrap_or_default();
            (claim.mac.to_string(), port)
        })
        .collect();
    claimants.sort();
    claimants
}

/// Fails if the agent reports any conflict.
pub fn ensure_no_conflict(daemon: &Daemon) -> Result<()> {
    let report: Report = ask(daemon, "report")?;
    ensure!(
        report.conflicts.is_empty(),
        "invented: {:#?}",
        report.conflicts
    );
    Ok(())
}

fn ask<T: DeserializeOwned>(daemon: &Daemon, command: &str) -> Result<T> {
    let document = daemon.query(command, &[])?;
    serde_json::from_value(document).with_context(|| format!("{command} is another document"))
}

/// The kernel's ids of the eBPF programs that hang on a link's ingress. On a host of the
/// suite nobody but the agent hangs any there.
pub fn programs(link: &str) -> Result<Vec<u64>> {
    let filters = json("tc", &["-j", "filter", "show", "dev", link, "ingress"])?;
    Ok(filters
        .iter()
        .filter_map(|filter| filter["options"]["prog"]["id"].as_u64())
        .collect())
}

/// Whether a link has the qdisc that ingress filters hang on.
pub fn has_clsact(link: &str) -> Result<bool> {
    let qdiscs = json("tc", &["-j", "qdisc", "show", "dev", link])?;
    Ok(qdiscs.iter().any(|qdisc| qdisc["kind"] == "clsact"))
}

/// How many frames a link has received.
pub fn received(link: &str) -> Result<u64> {
    let link = only(json("ip", &["-j", "-s", "link", "show", link])?)?;
    let packets = link["stats64"]["rx"]["packets"].as_u64();
    packets.context("no statistics")
}

/// Runs `ip` with the words of this line.
pub fn ip_line(line: &str) -> Result<()> {
    ip(&line.split(' ').collect::<Vec<_>>())
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let step = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        thread::sleep(step);
    }
    bail!("waited {} s for {what}", PATIENCE.as_secs())
}

fn json(program: &str, args: &[&str]) -> Result<Vec<Value>> {
    let text = run(program, args)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{program} {} says: {text}", args.join(" ")))
}

fn only(mut list: Vec<Value>) -> Result<Value> {
    ensure!(list.len() == 1, "expected one: {list:?}");
    Ok(list.remove(0))
}
