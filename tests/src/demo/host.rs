//! A host of the demo: its pods and its agent.

use std::{collections::BTreeSet, fs, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Duplicates, Story};
use crate::{
    daemon::Daemon,
    lab::{self, Lab},
    runtime::{Network, Pod},
};

/// How long the agent may take over anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The network's gateways: the bridge's own addresses, which pods talk to.
const GATEWAYS: [&str; 2] = ["10.88.0.1", "fd00:88::1"];

/// The network that all pods are on.
pub fn network() -> Result<Network> {
    Network::bridge("demo", "cni0", &["10.88.0.0/24", "fd00:88::/120"])
}

/// The agent with gates of seconds in place of minutes, so that nobody waits.
pub fn agent(lab: &Lab, mode: &str) -> Result<Daemon> {
    let config = format!(
        "stores: [{{ kind: host-local, reclaim: {mode} }}]
holders: {{ cri: off }}
reclaim: {{ lab: true, gate: 6s, damaged_gate: 8s, asked_gate: 4s, asked_damaged_gate: 6s,
           reboot_gate: 3s, pass_interval: 1s }}
state_dir: {}",
        lab.disk().join("state").display()
    );
    Daemon::start(&lab.disk().join("agent"), &config)
}

/// Starts pods, each with a word to its gateways.
pub fn start_pods(lab: &Lab, network: &Network, names: &[String]) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for name in names {
        let pod = network.start(lab, name)?;
        speak(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

/// Has a pod ask for its gateways, as its first packet would.
pub fn speak(pod: &Pod) -> Result<()> {
    for gateway in GATEWAYS {
        pod.netns.speak_to(gateway.parse()?)?;
    }
    Ok(())
}

/// Has a pod take an address that isn't its own, and use it.
pub fn take(pod: &Pod, address: IpAddr) -> Result<()> {
    let (prefix, gateway) = match address {
        IpAddr::V4(_) => ("24", GATEWAYS[0]),
        IpAddr::V6(_) => ("120", GATEWAYS[1]),
    };
    let with_prefix = format!("{address}/{prefix}");
    let mut add = vec!["-n", pod.netns.name(), "address", "add", &with_prefix];
    add.extend(["dev", "eth0"]);
    if address.is_ipv6() {
        // Else the kernel's own duplicate address detection would stop it.
        add.push("nodad");
    }
    lab::ip(&add)?;
    pod.netns.speak_from(address, gateway.parse()?)
}

/// What files the network's leases are in, by address.
pub fn leases(network: &Network) -> Result<BTreeSet<IpAddr>> {
    let mut leases = BTreeSet::new();
    for entry in fs::read_dir(network.leases())?.flatten() {
        if let Some(address) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            leases.insert(address);
        }
    }
    Ok(leases)
}

/// Waits for the duplicates that were planted, and counts what was found.
pub fn find(daemon: &Daemon, planted: &[IpAddr]) -> Result<Duplicates> {
    let wanted: BTreeSet<String> = planted.iter().map(IpAddr::to_string).collect();
    let all = |report: &Value| {
        let found = duplicates(report);
        (wanted.is_subset(&found)).then_some(())
    };
    // What is missing is counted below, and told.
    let _ = daemon.wait_for("the duplicates", PATIENCE, "report", all);
    let found = duplicates(&daemon.query("report", &[])?);
    Ok(Duplicates {
        planted: wanted.len(),
        found: wanted.intersection(&found).count(),
        invented: found.difference(&wanted).count(),
    })
}

fn duplicates(report: &Value) -> BTreeSet<String> {
    let conflicts = report["conflicts"].as_array().into_iter().flatten();
    conflicts
        .filter(|conflict| conflict["kind"] == "duplicate-address")
        .filter_map(|conflict| conflict["address"].as_str().map(str::to_owned))
        .collect()
}

/// Waits until no lease but these is left, as far as that comes.
pub fn settle(network: &Network, live: &BTreeSet<IpAddr>) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    while leases(network)? != *live && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Empties lease files, as a power cut does with what was not on the disk yet.
pub fn truncate(network: &Network, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let file = network.leases().join(address.to_string());
        ensure!(file.is_file(), "no lease {}", file.display());
        let open = fs::OpenOptions::new().write(true).open(&file);
        open.and_then(|file| file.set_len(0))
            .with_context(|| format!("can't empty {}", file.display()))?;
    }
    Ok(())
}

/// Runs a command of the agent as a person would, and shows it.
pub fn show(story: &Story, daemon: &Daemon, command: &str, args: &[&str]) -> Result<()> {
    let output = daemon.text(command, args)?;
    story.show(&[&[command], args].concat().join(" "), &output);
    Ok(())
}
