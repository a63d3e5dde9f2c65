//! The incident that the agent exists for: the power fails, the leases stay, what held them
//! is gone. Some of their addresses are in use all the same.

use std::{collections::BTreeSet, fs, net::IpAddr};

use anyhow::{Result, ensure};
use tests::{
    frames::{self, Arp, Nd},
    lab::{self, Lab, Netns},
    runtime::{Network, Pod, claim, in_lab},
};

use super::*;

/// Pods before the cut. The first three leak; the others' addresses live on.
const PODS: [&str; 7] = [
    "gone1",
    "gone2",
    "gone3",
    "talks",
    "silent",
    "packets",
    "asked-for",
];

fn network() -> Result<Network> {
    Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])
}

/// After the cut the last pod's record is what power loss leaves: empty, or NUL bytes. The
/// inode is the same.
fn damage(net: &Network, pod: &Pod) -> Result<()> {
    for (v6, left) in [(false, &[][..]), (true, &[0; 17])] {
        fs::write(net.leases().join(pod.address(v6)?.to_string()), left)?;
    }
    Ok(())
}

/// What uses addresses of the leases after the boot, without any plugin.
struct Living {
    guests: Vec<Netns>,
    frames: Vec<Vec<Vec<u8>>>,
}

impl Living {
    fn new(lab: &Lab, pods: &[Pod]) -> Result<Self> {
        let mut living = Self {
            guests: Vec::new(),
            frames: Vec::new(),
        };
        for (n, pod) in (1..).zip(pods) {
            let guest = lab.guest(&pod.name, &format!("veth{n}"), "cni0")?;
            let (mac, v4, v6) = (frames::mac(n), pod.address(false)?, pod.address(true)?);
            let (IpAddr::V4(ip4), IpAddr::V6(ip6)) = (v4, v6) else {
                unreachable!()
            };
            let frames = match pod.name.as_str() {
                "talks" => vec![claim(mac, v4), claim(mac, v6)],
                "silent" => {
                    let add = |prefix: &str| {
                        let add = [
                            "-n", &pod.name, "addr", "add", prefix, "dev", "eth0", "nodad",
                        ];
                        lab::ip(&add)
                    };
                    add(&format!("{v4}/24"))?;
                    add(&format!("{v6}/64"))?;
                    vec![]
                }
                // Static neighbours, and no address that its kernel knows of: a guest behind
                // KubeVirt's bridge binding.
                "packets" => {
                    let peer = "10.9.0.1".parse()?;
                    let peer6 = "fd00:9::1".parse()?;
                    vec![
                        frames::ipv4_data(mac, ip4, peer),
                        frames::ipv6_data(mac, ip6, peer6),
                    ]
                }
                // Somebody wants to know whether it is free: then it may be about to be used.
                _ => vec![Arp::probe(mac, ip4).frame(), Nd::dad(mac, ip6).frame()],
            };
            living.guests.push(guest);
            living.frames.push(frames);
        }
        Ok(living)
    }

    fn talkers(&self) -> Vec<Talker<'_>> {
        let talkers = self.guests.iter().zip(self.frames.clone());
        talkers.filter(|(_, frames)| !frames.is_empty()).collect()
    }
}

/// Each living address is kept, and for the right reason.
fn kept_alive(plan: &Value, pods: &[Pod]) -> Result<()> {
    let reasons = reasons(plan, "kept");
    for pod in pods {
        let reason = if pod.name == "silent" {
            "holder"
        } else {
            "seen"
        };
        for address in &pod.addresses {
            let named = reasons.get(address).is_some_and(|of| of.contains(reason));
            ensure!(
                named,
                "{} {address} is not kept as {reason}: {plan:#}",
                pod.name
            );
        }
    }
    Ok(())
}

#[test]
fn what_leaked_in_a_power_cut_is_given_back_and_nothing_else() {
    in_lab(|lab| {
        let net = network()?;
        let before = pods(lab, &net, &PODS)?;
        let config = config(lab, "after-reboot", "");
        let daemon = start(lab, &config)?;
        let known = daemon.query("leases", &[])?;
        ensure!(addresses(&known, "leases") == all(&before), "{known:#}");
        daemon.kill()?;
        power_cut(lab)?;
        ensure!(on_disk(&net)? == all(&before), "leases survive a power cut");
        let (gone, alive) = before.split_at(3);
        damage(&net, &gone[2])?;
        let living = Living::new(lab, alive)?;
        while_talking(&living.talkers(), || {
            let daemon = start(lab, &config)?;
            // Granted in this boot: no business of after-reboot's, even when it is gone.
            let fresh = net.start(lab, "fresh")?;
            let history = released(&daemon, lab, all(gone).len())?;
            ensure!(addresses(&history, "entries") == all(gone), "{history:#}");
            for entry in list(&history, "entries") {
                ensure!(entry["asker"] == "daemon", "{entry:#}");
                ensure!(
                    entry["boot_id"] == "00000000-0000-4000-8000-000000000002",
                    "{entry:#}"
                );
            }
            // Two passes more, and still nothing but those.
            let plan = daemon.query("reclaim plan", &[])?;
            kept_alive(&plan, alive)?;
            let kept: BTreeSet<_> = all(alive).union(&all(&[fresh])).copied().collect();
            ensure!(on_disk(&net)? == kept, "{:?}", on_disk(&net)?);
            ensure!(addresses(&self::history(&daemon, lab)?, "entries") == all(gone));
            let status = daemon.stop()?;
            ensure!(status.success(), "{status}");
            Ok(())
        })?;
        journal_is_in_order(lab, gone)
    });
}

/// Without a daemon the journal can be read: each intent, with what would be put back,
/// comes before its effect.
fn journal_is_in_order(lab: &Lab, gone: &[Pod]) -> Result<()> {
    let text = fs::read_to_string(state(lab).join("journal.jsonl"))?;
    let mut open = BTreeSet::new();
    let mut done = 0;
    for line in text.lines() {
        let record: Value = serde_json::from_str(line)?;
        let id = record["id"].as_str().context("an id")?.to_owned();
        if record["phase"] == "intent" {
            let pod = gone
                .iter()
                .find(|pod| address(&record).is_some_and(|a| pod.addresses.contains(&a)));
            let pod = pod.with_context(|| format!("whose is {record:#}"))?;
            let content = record["generation"]["content"].to_string();
            let intact = pod.name != "gone3";
            ensure!(content.contains(&pod.container_id) == intact, "{record:#}");
            ensure!(open.insert(id), "{record:#}");
        } else {
            ensure!(open.remove(&id), "an effect without its intent: {record:#}");
            done += 1;
        }
    }
    ensure!(open.is_empty() && done == all(gone).len(), "{text}");
    let state = state(lab).display().to_string();
    let history =
        tests::daemon::agent(&["reclaim", "history", "--state-dir", &state, "-o", "json"])?;
    ensure!(
        addresses(&history.json()?, "entries") == all(gone),
        "{history:?}"
    );
    Ok(())
}

#[test]
fn installed_after_the_incident_it_releases_when_asked() {
    in_lab(|lab| {
        let net = network()?;
        let before = pods(lab, &net, &PODS)?;
        power_cut(lab)?;
        let (gone, alive) = before.split_at(3);
        damage(&net, &gone[2])?;
        let living = Living::new(lab, alive)?;
        while_talking(&living.talkers(), || {
            // Even where it may release unasked: nobody knows of which boot these are.
            let daemon = start(lab, &config(lab, "after-reboot", ""))?;
            let plan = planned(&daemon, &all(gone))?;
            kept_alive(&plan, alive)?;
            // All gates were passed, and still nothing was done unasked.
            ensure!(on_disk(&net)? == all(&before), "{:?}", on_disk(&net)?);
            let (_, status) = daemon.command("reclaim plan", &[])?;
            ensure!(status == Some(1), "{status:?}");

            let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
            let applied: Value = serde_json::from_str(&applied)?;
            ensure!(status == Some(0), "{status:?} {applied:#}");
            ensure!(addresses(&applied, "outcomes") == all(gone), "{applied:#}");
            let ok = list(&applied, "outcomes").all(|outcome| outcome["result"] == "released");
            ensure!(ok, "{applied:#}");
            ensure!(on_disk(&net)? == all(alive), "{:?}", on_disk(&net)?);
            for entry in list(&history(&daemon, lab)?, "entries") {
                ensure!(entry["asker"] == "person", "{entry:#}");
            }
            for address in all(gone) {
                let explain = daemon.query("explain", &[&address.to_string()])?;
                let given_back = list(&explain, "story").any(|told| {
                    let what = told["what"].as_str().unwrap_or_default();
                    what.starts_with("the agent gave it back to host-local:pods, as ")
                        && what.contains(" asked (release ")
                });
                ensure!(given_back, "{explain:#}");
            }
            let (_, status) = daemon.command("reclaim plan", &[])?;
            ensure!(status == Some(0), "nothing is left to do: {status:?}");
            // What was given back is given again.
            let next = net.start(lab, "next")?;
            ensure!(on_disk(&net)?.is_superset(&all(&[next])));
            Ok(())
        })
    });
}

#[test]
fn unasked_it_releases_no_more_than_its_budget_in_a_pass() {
    in_lab(|lab| {
        let net = network()?;
        let before = pods(lab, &net, &PODS)?;
        power_cut(lab)?;
        let few = GATES.replace("lab: true", "lab: true, max_per_pass: 3");
        let config = config(lab, "continuous", "").replace(GATES, &few);
        let daemon = start(lab, &config)?;
        let history = released(&daemon, lab, all(&before).len())?;
        let mut passes: BTreeMap<String, usize> = BTreeMap::new();
        for entry in list(&history, "entries") {
            *passes.entry(entry["at"].to_string()).or_default() += 1;
        }
        ensure!(passes.values().all(|&count| count <= 3), "{passes:?}");
        ensure!(
            passes.values().sum::<usize>() == all(&before).len(),
            "{passes:?}"
        );
        ensure!(on_disk(&net)?.is_empty());
        Ok(())
    });
}
