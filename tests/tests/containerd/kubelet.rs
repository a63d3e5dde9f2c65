//! Who is first after a power cut: a real kubelet frees what is its own, the agent what is
//! nobody's, and all pods come back.

use std::time::Instant;

use tests::kubelet::{Kubelet, in_lab, write_pod};

use super::*;

/// The pods that kubelet has run.
const PODS: [&str; 3] = ["one", "two", "three"];
/// 13 addresses for pods.
const SUBNET: &str = "10.9.0.0/28";
const ROOM: usize = 13;

/// A node whose kubelet has its pods run.
struct Cluster {
    net: Network,
    node: Node,
    _kubelet: Kubelet,
}

impl Cluster {
    fn new(lab: &Lab) -> Result<Self> {
        for name in PODS {
            write_pod(lab, name)?;
        }
        let net = Network::bridge("pods", "cni0", &[SUBNET])?;
        let node = Node::boot(lab)?;
        let _kubelet = Kubelet::start(lab, &node)?;
        let cluster = Self {
            net,
            node,
            _kubelet,
        };
        cluster.running(lab)?;
        Ok(cluster)
    }

    /// Has other pods take so many addresses, and the agent see them; then cuts the power.
    fn cut(self, lab: &mut Lab, mode: &str, others: usize) -> Result<Network> {
        for n in 0..others {
            self.net.start(lab, &format!("other{n}"))?;
        }
        let there = leases(&self.net)?;
        let daemon = start(lab, mode)?;
        daemon.wait_for("the leases", PATIENCE, "leases", |told| {
            (told["leases"].as_array()?.len() == there.len()).then_some(())
        })?;
        daemon.kill()?;
        self.node.power_cut();
        lab.power_cut()?;
        let left = leases(&self.net)?;
        ensure!(left == there, "{left:?} survived of {there:?}");
        Ok(self.net)
    }

    fn boot(lab: &Lab, net: Network) -> Result<Self> {
        let node = Node::boot(lab)?;
        Self::with_kubelet(lab, net, node)
    }

    fn with_kubelet(lab: &Lab, net: Network, node: Node) -> Result<Self> {
        let _kubelet = Kubelet::start(lab, &node)?;
        Ok(Self {
            net,
            node,
            _kubelet,
        })
    }

    /// Waits until a pod runs; how many seconds after `boot` that is.
    fn first_pod(&self, lab: &Lab, boot: Instant) -> Result<f64> {
        wait_for("the first pod", || {
            Ok((self.node.running()? > 0).then(|| boot.elapsed().as_secs_f64()))
        })
        .with_context(|| log(lab))
    }

    /// Waits until each pod runs, and those alone have leases; their addresses.
    fn running(&self, lab: &Lab) -> Result<BTreeSet<IpAddr>> {
        wait_for("all pods, and no lease beside theirs", || {
            let sandboxes = self.node.ask()?.sandboxes;
            let ready = sandboxes.iter().filter(|sandbox| sandbox.ready);
            let addresses = ready.flat_map(|sandbox| &sandbox.addresses);
            let addresses: BTreeSet<IpAddr> = addresses.map(|address| address.ip()).collect();
            let all = addresses.len() == PODS.len()
                && self.node.running()? == PODS.len()
                && leases(&self.net)? == addresses;
            Ok(all.then_some(addresses))
        })
        .with_context(|| format!("{:?}\n{}", leases(&self.net), log(lab)))
    }
}

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.disk().join("kubelet.log")).unwrap_or_default()
}

fn start(lab: &Lab, mode: &str) -> Result<Daemon> {
    let config = config(lab, "{ cri: auto, netns: true }").replace("continuous", mode);
    Daemon::start(&lab.disk().join("daemon"), &config)
}

/// All that the agent has tried to give back, in order of address.
fn tried(lab: &Lab) -> Result<Vec<IpAddr>> {
    let state = lab.disk().join("state").display().to_string();
    let history = daemon::agent(&["reclaim", "history", "--state-dir", &state, "-o", "json"])?;
    let history = history.json()?;
    let entries = history["entries"].as_array().into_iter().flatten();
    let mut tried: Vec<IpAddr> = entries
        .filter_map(|entry| entry["address"].as_str()?.parse().ok())
        .collect();
    tried.sort();
    Ok(tried)
}

fn race(mode: &'static str) {
    in_lab(move |lab| {
        let cluster = Cluster::new(lab)?;
        let own = cluster.running(lab)?;
        let net = cluster.cut(lab, mode, 4)?;
        let leaked: BTreeSet<_> = leases(&net)?.difference(&own).copied().collect();

        // The agent has all that it needs, and kubelet is late.
        let boot = Instant::now();
        let node = Node::boot(lab)?;
        net.make_bridge()?;
        let daemon = start(lab, mode)?;
        for lease in &leaked {
            gone(&net, *lease)?;
        }
        let agent_done = boot.elapsed().as_secs_f64();
        for lease in &own {
            kept(&daemon, *lease, "holder", "of 10 min, its kubelet frees it")?;
        }
        let kubelet_starts = boot.elapsed().as_secs_f64();
        let cluster = Cluster::with_kubelet(lab, net, node)?;
        let first_pod = cluster.first_pod(lab, boot)?;
        let live = cluster.running(lab)?;
        println!(
            "{mode}, seconds from boot: {agent_done:.1} the agent has given back all that \
             leaked, {kubelet_starts:.1} kubelet starts, {first_pod:.1} the first pod runs, \
             {:.1} all run and no lease is left over",
            boot.elapsed().as_secs_f64()
        );
        // Each plan is made of two passes.
        for _ in 0..3 {
            daemon.query("reclaim plan", &[])?;
        }
        ensure!(cluster.running(lab)? == live);
        let leaked: Vec<_> = leaked.into_iter().collect();
        ensure!(tried(lab)? == leaked, "{:?}\n{}", tried(lab)?, daemon.log());
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}

#[test]
fn after_a_reboot_a_late_kubelet_frees_its_own() {
    race("after-reboot");
}

#[test]
fn a_late_kubelet_frees_its_own_though_the_agent_may_release_all() {
    race("continuous");
}

#[test]
fn a_full_pool_whose_runtime_lost_its_state_serves_its_pods_again() {
    in_lab(|lab| {
        let cluster = Cluster::new(lab)?;
        let net = cluster.cut(lab, "after-reboot", ROOM - PODS.len())?;
        fs::remove_dir_all(lab.disk().join("containerd"))?;
        let leaked: Vec<_> = leases(&net)?.into_iter().collect();
        ensure!(leaked.len() == ROOM, "{leaked:?}");
        let boot = Instant::now();
        let cluster = Cluster::boot(lab, net)?;
        let daemon = start(lab, "after-reboot")?;
        let with_agent = cluster.first_pod(lab, boot)?;
        cluster.running(lab).with_context(|| daemon.log())?;
        ensure!(tried(lab)? == leaked, "{:?}\n{}", tried(lab)?, daemon.log());
        ensure!(daemon.stop()?.success());

        // The same with what people have at boot instead.
        let net = cluster.cut(lab, "observe", ROOM - PODS.len())?;
        fs::remove_dir_all(lab.disk().join("containerd"))?;
        let boot = Instant::now();
        fs::remove_dir_all(net.leases())?;
        let cluster = Cluster::boot(lab, net)?;
        let with_script = cluster.first_pod(lab, boot)?;
        println!(
            "from boot to the first pod: {with_agent:.1} s with the agent and gates of 2 s, \
             {with_script:.1} s with rm -rf at boot"
        );
        Ok(())
    });
}
