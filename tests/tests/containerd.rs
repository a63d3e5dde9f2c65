//! The agent beside a real containerd: whose sandboxes hold, and when their leases go.

#[path = "containerd/kubelet.rs"]
mod kubelet;

#[path = "containerd/caches.rs"]
mod caches;

#[path = "containerd/restarts.rs"]
mod restarts;

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use ipam_agent::holder::cri::sandbox_of;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    containerd::{Node, in_lab, slow_plugin, wait_for, write_network},
    daemon::{self, Daemon},
    lab::Lab,
    runtime::Network,
};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gates of seconds: what a laboratory is for.
const GATES: &str = "reclaim: { lab: true, gate: 2s, damaged_gate: 2500ms, asked_gate: 2s, \
                     asked_damaged_gate: 2500ms, reboot_gate: 2s, pass_interval: 500ms }";

/// The runtime alone says who holds what.
const RUNTIME_ALONE: &str = "{ cri: auto, netns: false }";

fn config(lab: &Lab, holders: &str) -> String {
    format!(
        "state_dir: {}\nholders: {holders}\n\
         stores: [{{ kind: host-local, dir: /var/lib/cni/networks, reclaim: continuous }}]\n\
         {GATES}\n",
        lab.disk().join("state").display()
    )
}

fn start(lab: &Lab, holders: &str) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), &config(lab, holders))
}

fn network() -> Result<Network> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
    net.make_bridge()?;
    Ok(net)
}

/// The lease of a sandbox.
fn lease_of(net: &Network, sandbox: &str) -> Result<IpAddr> {
    let lease = leases(net)?.into_iter().find(|address| {
        let text = fs::read_to_string(net.leases().join(address.to_string()));
        text.is_ok_and(|text| text.starts_with(sandbox))
    });
    lease.with_context(|| format!("sandbox {sandbox} has no lease"))
}

fn leases(net: &Network) -> Result<BTreeSet<IpAddr>> {
    let names = fs::read_dir(net.leases())?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// A lease that nobody has, which must go: else a test in which nothing goes proves nothing.
fn leak(net: &Network, last: u8) -> Result<IpAddr> {
    let address = IpAddr::from([10, 9, 0, last]);
    let id = format!("{last:02x}").repeat(32);
    fs::write(
        net.leases().join(address.to_string()),
        format!("{id}\r\neth0"),
    )?;
    Ok(address)
}

fn gone(net: &Network, lease: IpAddr) -> Result<()> {
    wait_for("a release", || {
        Ok((!leases(net)?.contains(&lease)).then_some(()))
    })
}

/// Waits until a lease is kept with these words, and gives back its blocker.
fn kept(daemon: &Daemon, lease: IpAddr, reason: &str, words: &str) -> Result<Value> {
    daemon.wait_for(words, PATIENCE, "reclaim plan", |plan| {
        let is = |kept: &&Value| kept["address"] == json!(lease);
        let kept = plan["kept"].as_array()?.iter().find(is)?;
        let is = |blocker: &&Value| {
            let detail = blocker["detail"].as_str();
            blocker["reason"] == *reason && detail.is_some_and(|detail| detail.contains(words))
        };
        kept["blockers"].as_array()?.iter().find(is).cloned()
    })
}

/// What the agent gave back.
fn released(lab: &Lab) -> Result<BTreeSet<IpAddr>> {
    let state = lab.disk().join("state").display().to_string();
    // What became of a release is written down after the store is on disk.
    wait_for("the journal", || {
        let history = daemon::agent(&["reclaim", "history", "--state-dir", &state, "-o", "json"])?;
        let history = history.json()?;
        let entries = || history["entries"].as_array().into_iter().flatten();
        let released = entries().filter(|entry| entry["result"] == "released");
        let released = released.filter_map(|entry| entry["address"].as_str()?.parse().ok());
        let done = entries().all(|entry| entry["result"] != "unknown");
        Ok(done.then(|| released.collect()))
    })
}

#[test]
fn a_sandbox_holds_its_lease_until_its_kubelet_stops_it() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let (silent, killed) = (node.run_pod("silent", &[])?, node.run_pod("killed", &[])?);
        let [of_silent, of_killed] = [&silent, &killed].map(|id| lease_of(&net, id));
        let (of_silent, of_killed) = (of_silent?, of_killed?);
        let leaked = leak(&net, 200)?;
        let daemon = start(lab, RUNTIME_ALONE)?;
        gone(&net, leaked)?;
        let words = format!("sandbox {} of default/silent is READY", &silent[..12]);
        kept(&daemon, of_silent, "holder", &words)?;

        // Damaged, so that only the address tells whose it is.
        fs::write(net.leases().join(of_silent.to_string()), [0; 17])?;
        kept(&daemon, of_silent, "holder", &words)?;
        fs::write(
            net.leases().join(of_silent.to_string()),
            format!("{silent}\r\neth0"),
        )?;

        node.kill_pod(&killed)?;
        let words = format!("sandbox {} of default/killed NOTREADY for", &killed[..12]);
        kept(&daemon, of_killed, "holder", &words)?;
        let explain = daemon.query("explain", &[&of_killed.to_string()])?;
        let answer = &explain["holders"][0];
        ensure!(
            answer["source"] == "cri" && answer["answer"] == "held",
            "{explain:#}"
        );
        let leaked = leak(&net, 201)?;
        gone(&net, leaked)?;
        ensure!(leases(&net)?.is_superset(&BTreeSet::from([of_silent, of_killed])));

        node.stop_pod(&killed)?;
        ensure!(!leases(&net)?.contains(&of_killed), "its DEL frees it");
        node.remove_pod(&killed)?;
        ensure!(!released(lab)?.contains(&of_killed), "the agent was faster");
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}

#[test]
fn after_a_power_cut_kubelet_comes_first() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let ids = [node.run_pod("one", &[])?, node.run_pod("two", &[])?];
        let before = leases(&net)?;
        let [one, two] = ids.each_ref().map(|id| lease_of(&net, id));
        let (one, two) = (one?, two?);
        node.power_cut();
        lab.power_cut()?;
        net.make_bridge()?;
        ensure!(leases(&net)? == before, "leases survive a power cut");
        let leaked = leak(&net, 200)?;
        let node = Node::boot(lab)?;
        let runtime = node.ask()?;
        let lost = |id: &String| {
            let mut sandboxes = runtime.sandboxes.iter();
            sandboxes.any(|s| *s.id == **id && !s.ready && s.namespace_gone)
        };
        ensure!(ids.iter().all(lost), "{runtime:?}");
        let daemon = start(lab, "{ cri: auto, netns: true }")?;
        gone(&net, leaked)?;
        for lease in [one, two] {
            let blocker = kept(&daemon, lease, "holder", "of 10 min, its kubelet frees it")?;
            ensure!(blocker["ready_at"].is_string(), "{blocker:#}");
        }
        node.stop_pod(&ids[0])?;
        let left = BTreeSet::from([two]);
        ensure!(leases(&net)? == left, "{:?}", leases(&net)?);
        ensure!(released(lab)? == BTreeSet::from([leaked]));
        Ok(())
    });
}

#[test]
fn a_runtime_that_lost_its_state_is_doubted_and_then_believed() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let id = node.run_pod("one", &[])?;
        let lease = lease_of(&net, &id)?;
        let slow = config(lab, RUNTIME_ALONE).replace(" gate: 2s", " gate: 5s");
        let daemon = Daemon::start(&lab.disk().join("daemon"), &slow)?;
        kept(&daemon, lease, "holder", "is READY")?;
        node.power_cut();
        fs::remove_dir_all(lab.disk().join("containerd"))?;
        // The agent lives on, and knows what was there.
        let words = "answered earlier in this boot and nobody listens there now";
        kept(&daemon, lease, "source-down", words)?;
        let _node = Node::boot(lab)?;
        kept(&daemon, lease, "source-down", "lists no sandbox any more")?;
        gone(&net, lease)?;
        ensure!(released(lab)? == BTreeSet::from([lease]));

        // In another boot it is empty from the beginning.
        let leaked = leak(&net, 200)?;
        drop(daemon);
        let _daemon = start(lab, RUNTIME_ALONE)?;
        gone(&net, leaked)?;
        Ok(())
    });
}

#[test]
fn nothing_goes_while_the_runtime_is_hung_or_gone() {
    in_lab(|lab| {
        let net = network()?;
        let mut node = Node::boot(lab)?;
        let id = node.run_pod("silent", &[])?;
        let lease = lease_of(&net, &id)?;
        let daemon = start(lab, RUNTIME_ALONE)?;
        kept(&daemon, lease, "holder", "is READY")?;

        node.signal(Signal::SIGSTOP)?;
        let leaked = leak(&net, 200)?;
        kept(&daemon, leaked, "source-down", "gives no whole answer")?;
        let blocked = daemon.wait_for("the gates", PATIENCE, "reclaim plan", |plan| {
            let is = |kept: &&Value| kept["address"] == json!(leaked);
            let kept = plan["kept"].as_array()?.iter().find(is)?;
            let blockers = kept["blockers"].as_array()?;
            (blockers.len() == 1).then(|| blockers[0].clone())
        })?;
        ensure!(blocked["reason"] == "source-down", "{blocked:#}");
        ensure!(leases(&net)?.contains(&leaked));
        let (_, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(3), "it could not judge: {status:?}");
        node.signal(Signal::SIGCONT)?;
        gone(&net, leaked)?;

        node.kill_containerd()?;
        let leaked = leak(&net, 201)?;
        kept(&daemon, leaked, "source-down", "nobody listens there now")?;
        ensure!(leases(&net)?.contains(&leaked));
        node.start()?;
        gone(&net, leaked)?;
        ensure!(leases(&net)?.contains(&lease), "the pod ran all the time");
        Ok(())
    });
}

#[test]
fn a_runtime_that_restarts_all_the_time_costs_no_live_lease() {
    in_lab(|lab| {
        let net = network()?;
        let mut node = Node::boot(lab)?;
        let ids = [node.run_pod("one", &[])?, node.run_pod("two", &[])?];
        let live = leases(&net)?;
        ensure!(live.len() == ids.len());
        let leaked = leak(&net, 200)?;
        let quick =
            config(lab, RUNTIME_ALONE).replace("pass_interval: 500ms", "pass_interval: 100ms");
        let quick = quick.replace("2s", "300ms").replace("2500ms", "400ms");
        let daemon = Daemon::start(&lab.disk().join("daemon"), &quick)?;
        for _ in 0..5 {
            node.kill_containerd()?;
            node.start()?;
            ensure!(leases(&net)?.is_superset(&live), "{:?}", leases(&net)?);
        }
        gone(&net, leaked)?;
        ensure!(
            released(lab)? == BTreeSet::from([leaked]),
            "\n{}",
            daemon.log()
        );
        ensure!(leases(&net)? == live);
        Ok(())
    });
}

#[test]
fn a_runtime_killed_in_the_middle_of_add_keeps_the_lease() {
    in_lab(|lab| {
        let net = network()?;
        let go_on = lab.disk().join("go-on");
        let slow = slow_plugin(lab, &go_on)?;
        let bridge = json!({ "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.9.0.0/24" }]] } });
        write_network("pods", &[bridge, json!({ "type": slow })])?;
        let mut node = Node::boot(lab)?;
        fs::create_dir_all(net.leases())?;
        let leaked = leak(&net, 200)?;
        let daemon = start(lab, "{ cri: auto, netns: true }")?;
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| node.run_pod("slow", &[]));
            let lease = wait_for("a lease", || {
                Ok(leases(&net)?.into_iter().find(|lease| *lease != leaked))
            })?;
            // Not listed yet, and configured already.
            kept(&daemon, lease, "holder", "the address is configured behind")?;
            gone(&net, leaked)?;
            node.signal(Signal::SIGKILL)?;
            let added = adding.join().expect("a thread");
            ensure!(added.is_err(), "{added:?}");
            Ok(())
        })?;
        fs::write(go_on, "")?;
        node.kill_containerd()?;
        node.start()?;
        let runtime = node.ask()?;
        let [sandbox] = &runtime.sandboxes[..] else {
            anyhow::bail!("it lists what it left: {runtime:?}")
        };
        ensure!(!sandbox.ready, "{sandbox:?}");
        let lease = lease_of(&net, &sandbox.id)?;
        kept(&daemon, lease, "holder", "NOTREADY for")?;
        let leaked = leak(&net, 201)?;
        gone(&net, leaked)?;
        node.stop_pod(&sandbox.id)?;
        ensure!(!released(lab)?.contains(&lease), "the agent was faster");
        Ok(())
    });
}

#[test]
fn two_sources_that_contradict_each_other_release_nothing() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let pods = "/run/netns";
        let virt = [("kubevirt.io", "virt-launcher")];
        let vm = node.run_pod("virt-launcher-db-0", &virt)?;
        let flush = |known: &BTreeSet<String>| {
            let names = fs::read_dir(pods)?.flatten();
            let names: BTreeSet<String> = names
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect();
            let new = names.difference(known).next().context("a namespace")?;
            node.run(&["ip", "-n", new, "address", "flush", "dev", "eth0"])?;
            anyhow::Ok(names)
        };
        // The guest has it: what KubeVirt's bridge binding does.
        let known = flush(&BTreeSet::new())?;
        let daemon = start(lab, "{ cri: auto, netns: true }")?;
        let leaked = leak(&net, 200)?;
        gone(&net, leaked)?;
        kept(&daemon, lease_of(&net, &vm)?, "holder", "is READY")?;

        let pod = node.run_pod("pod", &[])?;
        let lease = lease_of(&net, &pod)?;
        flush(&known)?;
        let leaked = leak(&net, 201)?;
        let words = format!("of default/pod is READY with {lease}, which is configured behind no");
        kept(&daemon, leaked, "source-down", &words)?;
        ensure!(leases(&net)?.contains(&leaked));
        node.stop_pod(&pod)?;
        gone(&net, leaked)?;
        Ok(())
    });
}

#[test]
fn in_a_pod_the_agent_looks_for_itself() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        let own = node.run_pod("agent", &[])?;
        let other = node.run_pod("other", &[])?;
        let lease = lease_of(&net, &other)?;
        let leaked = leak(&net, 200)?;
        let dir = lab.disk().join("daemon");
        let config = config(lab, RUNTIME_ALONE);
        let daemon = Daemon::start_as_pod(&node.files(&own), &dir, &config)?;
        gone(&net, leaked)?;
        // A runtime that doesn't know the agent isn't the one that runs this host's pods.
        node.stop_pod(&own)?;
        node.remove_pod(&own)?;
        let leaked = leak(&net, 201)?;
        let words = format!("the agent's own sandbox {} isn't listed", &own[..12]);
        kept(&daemon, leaked, "source-down", &words)?;
        kept(&daemon, lease, "source-down", &words)?;
        ensure!(leases(&net)?.contains(&leaked));
        Ok(())
    });
}

#[test]
fn a_runtime_that_hangs_at_the_last_moment_keeps_the_lease() {
    in_lab(|lab| {
        let net = network()?;
        let node = Node::boot(lab)?;
        node.run_pod("one", &[])?;
        let leaked = leak(&net, 200)?;
        let observe = config(lab, RUNTIME_ALONE).replace("continuous", "observe");
        let daemon = Daemon::start(&lab.disk().join("daemon"), &observe)?;
        daemon.wait_for("the plan", PATIENCE, "reclaim plan", |plan| {
            (plan["releases"][0]["address"] == json!(leaked)).then_some(())
        })?;
        // Whoever has the store's lock makes the agent wait between its word and its deed.
        let lock = fs::File::open(net.leases().join("lock"))?;
        lock.lock()?;
        let (applied, status) = std::thread::scope(|scope| {
            let apply = scope.spawn(|| daemon.command("reclaim apply", &["--yes"]));
            let journal = lab.disk().join("state/journal.jsonl");
            wait_for("the intent", || {
                let written = fs::read_to_string(&journal).unwrap_or_default();
                Ok(written.contains("\"intent\"").then_some(()))
            })?;
            node.signal(Signal::SIGSTOP)?;
            lock.unlock()?;
            apply.join().expect("a thread")
        })?;
        let applied: Value = serde_json::from_str(&applied)?;
        let outcome = &applied["outcomes"][0];
        ensure!(outcome["result"] == "kept", "{status:?} {applied:#}");
        ensure!(outcome["blocker"]["reason"] == "source-down", "{applied:#}");
        ensure!(leases(&net)?.contains(&leaked));
        node.signal(Signal::SIGCONT)?;
        Ok(())
    });
}

#[test]
fn doctor_tells_what_the_runtime_answers() {
    in_lab(|lab| {
        network()?;
        let looked = |config: &Path| {
            let config = config.display().to_string();
            let looked = daemon::agent(&["doctor", "-o", "json", "--config", &config])?.json()?;
            let checks = looked["checks"].as_array().into_iter().flatten();
            let found = { checks }.find(|check| check["name"] == "container runtime");
            found.cloned().context("the runtime is looked at")
        };
        let file = lab.disk().join("config.yaml");
        fs::write(&file, config(lab, RUNTIME_ALONE))?;
        let check = looked(&file)?;
        ensure!(check["status"] == "warn", "{check:#}");
        let mut node = Node::boot(lab)?;
        let id = node.run_pod("one", &[])?;
        node.kill_pod(&node.run_pod("two", &[])?)?;
        let check = looked(&file)?;
        let detail = check["detail"].as_str().unwrap_or_default();
        let told = " on /run/containerd/containerd.sock: 2 sandboxes, 1 of them NOTREADY";
        ensure!(
            detail.starts_with("containerd ") && detail.ends_with(told),
            "{check:#}"
        );
        ensure!(check["status"] == "ok", "{check:#}");
        // What the agent looks for when it is a pod itself.
        let mounts = node.mounts(&id)?;
        ensure!(sandbox_of(&mounts) == Some(&id), "{mounts}");
        node.signal(Signal::SIGSTOP)?;
        let check = looked(&file)?;
        ensure!(
            check["status"] == "fail" && check["mend"].is_string(),
            "{check:#}"
        );
        node.kill_containerd()?;
        fs::write(
            &file,
            config(lab, "{ cri: \"unix:///run/containerd/containerd.sock\" }"),
        )?;
        let check = looked(&file)?;
        ensure!(check["status"] == "fail", "{check:#}");
        Ok(())
    });
}
