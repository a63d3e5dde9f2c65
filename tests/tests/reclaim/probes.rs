//! Leases whose address somebody has who never speaks unless asked: another host's guest,
//! of which nothing here knows.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context, Result, ensure};
use ipam_common::{Captured, Evidence, Parsed, parse};
use serde_json::json;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tests::{
    frames::{self, Arp},
    lab::{self, Lab, Netns, run},
    runtime::{Network, Pod, claim, in_lab},
};

use super::*;

/// What is beyond the port `veth1` of the bridge: another host, and on its bridge a guest.
fn beyond(lab: &Lab, addresses: &[IpAddr]) -> Result<String> {
    let other = lab.guest("other", "veth1", "cni0")?;
    lab::ip(&["-n", "other", "link", "add", "br0", "type", "bridge"])?;
    lab::ip(&["-n", "other", "link", "set", "br0", "up"])?;
    lab::ip(&["-n", "other", "link", "set", "eth0", "master", "br0"])?;
    let guest = lab.pod("far")?;
    other.inside(|| {
        let veth = [
            "link", "add", "port", "type", "veth", "peer", "name", "eth0",
        ];
        lab::ip(&[&veth[..], &["netns", "far"]].concat())?;
        lab::ip(&["link", "set", "port", "master", "br0", "up"])
    })?;
    guest.inside(|| {
        fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0")?;
        fs::write("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode", "1")?;
        Ok(())
    })?;
    lab::ip(&["-n", "far", "link", "set", "eth0", "up"])?;
    has("far", "eth0", addresses)
}

/// Gives a guest addresses, without a word on the wire, and tells its MAC.
fn has(guest: &str, interface: &str, addresses: &[IpAddr]) -> Result<String> {
    for address in addresses {
        let length = if address.is_ipv4() { 24 } else { 64 };
        let prefix = format!("{address}/{length}");
        let add = [
            "-n", guest, "addr", "add", &prefix, "dev", interface, "nodad",
        ];
        lab::ip(&add)?;
    }
    let shown = run("ip", &["-n", guest, "-o", "link", "show", interface])?;
    let mut mac = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    Ok(mac.nth(1).context("a MAC")?.to_owned())
}

/// The daemon releases the others unasked, and keeps these because they answered.
fn kept(lab: &Lab, net: &Network, config: &str, kept: &Pod, gone: &[Pod], mac: &str) -> Result<()> {
    let daemon = start(lab, config)?;
    let history = released(&daemon, lab, all(gone).len())?;
    ensure!(addresses(&history, "entries") == all(gone), "{history:#}");
    for &address in &kept.addresses {
        let plan = daemon.wait_for("an answer", PATIENCE, "reclaim plan", |plan| {
            detail(plan, address, "probe-answered").map(|_| plan.clone())
        })?;
        let said = detail(&plan, address, "probe-answered").unwrap_or_default();
        ensure!(said.starts_with(&format!("{mac} on veth1 ")), "{said}");
        // What it answered is an assertion like any other.
        ensure!(
            reasons(&plan, "kept")[&address].contains("seen"),
            "{plan:#}"
        );
        let leases = daemon.query("leases", &[])?;
        let mut of = list(&leases, "leases").filter(|lease| self::address(lease) == Some(address));
        ensure!(of.all(|lease| lease["state"] == "active"), "{leases:#}");
    }
    let (applied, _) = daemon.command("reclaim apply", &["--yes"])?;
    ensure!(
        on_disk(net)? == all(std::slice::from_ref(kept)),
        "{applied}"
    );
    daemon.stop()?;
    for line in fs::read_to_string(state(lab).join("journal.jsonl"))?.lines() {
        let record: Value = serde_json::from_str(line)?;
        if record["phase"] == "intent" {
            let sent = record["evidence"]["unanswered"]["sent"].as_u64();
            ensure!(sent.is_some_and(|sent| sent >= 3), "{record:#}");
            let reason = record["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains("were not answered"), "{reason}");
        }
    }
    Ok(())
}

#[test]
fn a_silent_guest_of_another_host_keeps_its_leases() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])?;
        let pods = pods(lab, &net, &["silent", "gone1", "gone2"])?;
        power_cut(lab)?;
        let mac = beyond(lab, &pods[0].addresses)?;
        let config = config(lab, "continuous", "");
        kept(lab, &net, &config, &pods[0], &pods[1..], &mac)
    });
}

/// Answers every probe that comes with this VLAN's tag, with the same tag, until told to stop.
fn answer(
    guest: &Netns,
    vlan: u16,
    mac: [u8; 6],
    has: &BTreeSet<IpAddr>,
    done: &AtomicBool,
) -> Result<()> {
    // The kernel takes the tag out of the frame (Linux `SKF_AD_VLAN_TAG`).
    let program = [
        SockFilter::new(0x20, 0, 0, 0xffff_f000 + 44),
        SockFilter::new(0x54, 0, 0, 0x0fff),
        SockFilter::new(0x15, 0, 1, u32::from(vlan)),
        SockFilter::new(0x06, 0, 0, 2048),
        SockFilter::new(0x06, 0, 0, 0),
    ];
    guest.inside(|| {
        let every = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
        socket.attach_filter(&program)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut frame = [0; 2048];
        while !done.load(Ordering::Relaxed) {
            let Ok(length) = socket.read(&mut frame) else {
                continue;
            };
            let Parsed::Sighting(asked) = parse(&Captured::new(&frame[..length])) else {
                continue;
            };
            let target = asked.asked.unwrap_or(asked.address).ip();
            if !has.contains(&target) {
                continue;
            }
            let answer = match (asked.evidence, target) {
                (Evidence::ArpProbe, IpAddr::V4(ip)) => {
                    Arp::reply(mac, ip, asked.mac.bytes(), Ipv4Addr::UNSPECIFIED).frame()
                }
                (Evidence::DadProbe | Evidence::NeighborSolicitation, _) => claim(mac, target),
                _ => continue,
            };
            guest.send("eth0", &[frames::tagged(&answer, &[(frames::DOT1Q, vlan)])])?;
        }
        Ok(())
    })
}

#[test]
fn the_wire_is_asked_with_its_tag() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])?;
        let mut pods = pods(lab, &net, &["silent", "gone"])?;
        power_cut(lab)?;
        let other = lab.guest("other", "veth1", "cni0")?;
        let pool = |cidr: &str| format!("{{ cidr: {cidr}, segment: cni0, vlan: 100 }}");
        let pools = format!("pools: [{}, {}]", pool("10.9.0.0/24"), pool("fd00:9::/64"));
        let reclaim = format!("reclaim: continuous, {pools}");
        let config = config(lab, "continuous", "").replace("reclaim: continuous", &reclaim);
        let mac = frames::mac(9);
        let done = AtomicBool::new(false);
        // It answers for whatever is asked for, but for what is gone.
        let gone = pods.split_off(1);
        thread::scope(|scope| {
            let answering = scope.spawn(|| answer(&other, 100, mac, &all(&pods), &done));
            let mac = ipam_common::Mac::new(mac).context("a MAC")?.to_string();
            let result = kept(lab, &net, &config, &pods[0], &gone, &mac);
            done.store(true, Ordering::Relaxed);
            answering.join().map_err(|_| anyhow!("it failed"))??;
            result
        })
    });
}

#[test]
fn routed_pods_are_not_asked() {
    in_lab(|lab| {
        let conf = json!({ "cniVersion": "1.0.0", "name": "routed", "plugins": [
            { "type": "ptp", "ipam": { "type": "host-local", "subnet": "10.8.0.0/24" } } ] });
        fs::write("/etc/cni/net.d/10-routed.conflist", conf.to_string())?;
        let dir = "/var/lib/cni/networks/routed";
        fs::create_dir_all(dir)?;
        fs::write(format!("{dir}/10.8.0.5"), "0123456789abcdef\r\neth0")?;
        let pod = lab.pod("pod")?;
        let veth = [
            "link", "add", "veth9", "type", "veth", "peer", "name", "eth0",
        ];
        lab::ip(&[&veth[..], &["netns", pod.name()]].concat())?;
        lab::ip(&["-n", "pod", "link", "set", "eth0", "up"])?;
        lab::ip(&["link", "set", "veth9", "up"])?;
        let daemon = start(lab, &config(lab, "continuous", ""))?;
        released(&daemon, lab, 1)?;
        daemon.stop()?;
        let text = fs::read_to_string(state(lab).join("journal.jsonl"))?;
        let intent: Value = serde_json::from_str(text.lines().next().context("an intent")?)?;
        ensure!(intent["phase"] == "intent", "{intent:#}");
        ensure!(intent["evidence"]["unanswered"].is_null(), "{intent:#}");
        Ok(())
    });
}

#[test]
fn a_whole_pool_is_asked_for_side_by_side() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let pod = pods(lab, &net, &["one"])?;
        power_cut(lab)?;
        let _guest = lab.guest("guest", "veth1", "cni0")?;
        let leaked: BTreeSet<IpAddr> = (2..=254)
            .map(|last| IpAddr::from([10, 9, 0, last]))
            .collect();
        for address in &leaked {
            let file = net.leases().join(address.to_string());
            if pod[0].address(false)? != *address {
                fs::write(file, "0123456789abcdef\r\neth0")?;
            }
        }
        let daemon = start(lab, &config(lab, "observe", ""))?;
        planned(&daemon, &leaked)?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");
        ensure!(on_disk(&net)?.is_empty(), "{:?}", on_disk(&net)?);
        Ok(())
    });
}
