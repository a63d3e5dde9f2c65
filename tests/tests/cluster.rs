//! The agent as a pod of a real cluster: its DaemonSet on a real API server, its pod run by
//! the real kubelet and containerd with the privileges that it asks for and no others, and
//! the node's power cut under it.

#[path = "cluster/manifests.rs"]
mod manifests;

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, time::Instant};

use self::manifests::{LABEL, Manifests, NAMESPACE, daemon_set, web};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    api::Apply,
    cluster::{ControlPlane, Member, container, in_lab, is_ready, pods},
    containerd::wait_for,
    image::{self, Image},
    lab::{Lab, run},
    runtime::Network,
};

/// Where the image has the agent.
const AGENT: &str = "/usr/bin/ipam-agent";
/// 13 addresses for pods.
const SUBNET: &str = "10.9.0.0/28";
const ROOM: usize = 13;
/// So many pods are wanted.
const PODS: usize = 4;

/// A cluster whose node runs the agent.
struct Cluster {
    plane: ControlPlane,
    manifests: Manifests,
    net: Network,
    member: Option<Member>,
}

impl Cluster {
    fn start(lab: &Lab, manifests: Manifests) -> Result<Self> {
        let state = lab.disk().join("agent");
        fs::create_dir_all(&state)?;
        fs::create_dir_all("/var/lib/ipam-agent")?;
        let state = state.display().to_string();
        run("mount", &["--bind", &state, "/var/lib/ipam-agent"])?;
        let net = Network::bridge("pods", "cni0", &[SUBNET])?;
        let plane = ControlPlane::start(lab)?;
        for document in &manifests.agent {
            plane.api.apply(document, Apply::Real)?;
        }
        let mut cluster = Self {
            plane,
            manifests,
            net,
            member: None,
        };
        cluster.boot(lab)?;
        Ok(cluster)
    }

    fn boot(&mut self, lab: &Lab) -> Result<()> {
        self.net.make_bridge()?;
        let member = Member::boot(lab, &self.plane)?;
        let image = Image {
            name: self.manifests.image()?,
            entrypoint: &[AGENT],
            stop_signal: Some("SIGUSR2"),
        };
        member.node.import(&image, &image::agent(AGENT)?)?;
        self.member = Some(member);
        Ok(())
    }

    /// Has so many pods that nobody will want again take addresses, and the agent see them;
    /// then cuts the power. The leases that are left.
    fn cut(&mut self, lab: &mut Lab, others: usize) -> Result<BTreeSet<IpAddr>> {
        for n in 0..others {
            self.net.start(lab, &format!("other{n}"))?;
        }
        let there = self.leases()?;
        let agent = self.agent(lab)?;
        wait_for("the agent to see all leases", || {
            let seen = self.command(&agent, &["leases"])?;
            let seen = seen["leases"].as_array().into_iter().flatten();
            // Beside those that were given back and are watched on.
            let seen = seen.filter(|lease| lease["quarantine"].is_null()).count();
            Ok((seen == there.len()).then_some(()))
        })?;
        let member = self.member.take().context("it runs")?;
        member.power_cut(lab)?;
        let left = self.leases()?;
        ensure!(left == there, "{left:?} survived of {there:?}");
        Ok(left)
    }

    /// Waits until the agent's pod is ready on this boot's node; the pod.
    fn agent(&self, lab: &Lab) -> Result<Value> {
        wait_for("the agent", || {
            let pods = pods(
                &self.plane.api,
                manifests::NAMESPACE,
                "app.kubernetes.io/name=ipam-agent",
            )?;
            let ready = pods.into_iter().find(is_ready);
            Ok(ready.filter(|pod| self.command(pod, &["segments"]).is_ok()))
        })
        .with_context(|| self.told(lab))
    }

    fn agents(&self) -> Result<Vec<Value>> {
        pods(&self.plane.api, NAMESPACE, LABEL)
    }

    /// Waits until one of these leases is gone; how many seconds after `boot` that is.
    fn first_back(&self, lab: &Lab, leaked: &BTreeSet<IpAddr>, boot: Instant) -> Result<f64> {
        wait_for("the first address", || {
            let gone = leaked.difference(&self.leases()?).next().is_some();
            Ok(gone.then(|| boot.elapsed().as_secs_f64()))
        })
        .with_context(|| agent_log(lab))
    }

    /// What the agent has given back in this boot.
    fn given_back(&self, agent: &Value) -> Result<BTreeSet<IpAddr>> {
        let history = self.command(agent, &["reclaim", "history"])?;
        let entries = history["entries"].as_array().into_iter().flatten();
        let boot = fs::read_to_string("/run/boot_id")?;
        let mut given = BTreeSet::new();
        for entry in entries.filter(|entry| entry["boot_id"] == *boot.trim()) {
            ensure!(entry["result"] == "released", "{entry:#}");
            given.insert(entry["address"].as_str().context("an address")?.parse()?);
        }
        Ok(given)
    }

    /// The pods keep their addresses, whatever the agent does next.
    fn stays(&self, lab: &Lab, agent: &Value, live: &BTreeSet<IpAddr>) -> Result<()> {
        let given = self.given_back(agent)?;
        // Each plan is made of two passes.
        for _ in 0..3 {
            let plan = self.command(agent, &["reclaim", "plan"])?;
            ensure!(plan["releases"] == json!([]), "{plan:#}");
        }
        ensure!(self.web(lab)? == *live);
        ensure!(self.given_back(agent)? == given, "{}", agent_log(lab));
        Ok(())
    }

    /// Runs a command of the agent in its pod; the JSON that it prints.
    fn command(&self, pod: &Value, command: &[&str]) -> Result<Value> {
        let member = self.member.as_ref().context("it runs")?;
        let agent = [&[AGENT], command, &["--output", "json"]].concat();
        let (said, status) = member.exec(pod, &agent)?;
        serde_json::from_str(&said).with_context(|| format!("{command:?}: {status}: {said}"))
    }

    /// Waits until all pods of the deployment are ready and those alone have leases; their
    /// addresses.
    fn web(&self, lab: &Lab) -> Result<BTreeSet<IpAddr>> {
        wait_for("the pods", || {
            let pods = pods(&self.plane.api, "default", "app=web")?;
            let ready = pods.iter().filter(|pod| is_ready(pod));
            let addresses = ready.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok());
            let addresses: BTreeSet<IpAddr> = addresses.collect();
            // The API server may tell of what was before a power cut.
            let sandboxes = self
                .member
                .as_ref()
                .context("it runs")?
                .node
                .ask()?
                .sandboxes;
            let ready = sandboxes.iter().filter(|sandbox| sandbox.ready);
            let there = ready.flat_map(|sandbox| &sandbox.addresses);
            let there: BTreeSet<IpAddr> = there.map(|address| address.ip()).collect();
            let all = addresses.len() == PODS && there == addresses && self.leases()? == addresses;
            Ok(all.then_some(addresses))
        })
        .with_context(|| self.told(lab))
    }

    fn leases(&self) -> Result<BTreeSet<IpAddr>> {
        let names = fs::read_dir(self.net.leases())?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// What is to be seen where something doesn't happen.
    fn told(&self, lab: &Lab) -> String {
        let mut told = String::new();
        for (namespace, label) in [(NAMESPACE, LABEL), ("default", "app=web")] {
            for pod in pods(&self.plane.api, namespace, label).unwrap_or_default() {
                told += &format!("{}: {:#}\n", pod["metadata"]["name"], pod["status"]);
            }
        }
        let events = self.plane.api.get("/api/v1/events").unwrap_or_default();
        for event in events["items"].as_array().into_iter().flatten() {
            told += &format!(
                "{}: {}\n",
                event["involvedObject"]["name"], event["message"]
            );
        }
        for log in ["kubelet.log", "containerd.log"] {
            let log = fs::read_to_string(lab.disk().join(log)).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(40).collect();
            told += &format!("{}\n", last.join("\n"));
        }
        told + &agent_log(lab)
    }
}

/// What the agent's containers logged, of all boots.
fn agent_log(lab: &Lab) -> String {
    let mut text = String::new();
    let mut directories = vec![lab.disk().join("log/pods")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.display().to_string().contains("ipam-agent") {
                text += &fs::read_to_string(&path).unwrap_or_default();
            }
        }
    }
    text
}

/// Its process has these privileges and no others.
fn is_confined(cluster: &Cluster, agent: &Value) -> Result<()> {
    let member = cluster.member.as_ref().context("it runs")?;
    let id = container(agent)?;
    let status = member.node.of_process(id, "status")?;
    tests::daemon::is_confined(&status)?;
    let mounts = member.node.mounts(id)?;
    let root = { mounts.lines() }.find(|line| line.split(' ').nth(4) == Some("/"));
    let root = root.and_then(|line| line.split(' ').nth(5));
    ensure!(
        root.is_some_and(|options| options.starts_with("ro")),
        "{mounts}"
    );
    Ok(())
}

/// `doctor` in its pod finds nothing, but that this is a laboratory.
fn is_healthy(cluster: &Cluster, agent: &Value) -> Result<()> {
    let doctor = cluster.command(agent, &["doctor"])?;
    let checks = doctor["checks"].as_array().context("checks")?;
    for check in checks {
        let right = if check["name"] == "floors" {
            "warn"
        } else {
            "ok"
        };
        ensure!(check["status"] == right, "{check:#}");
    }
    ensure!(checks.len() > 10, "{doctor:#}");
    Ok(())
}

/// Runs `test` with all manifests in a laboratory, or says that it is skipped.
fn in_lab_with<F>(test: F)
where
    F: FnOnce(&mut Lab, Manifests) -> Result<()> + Send + 'static,
{
    in_lab(|lab| match Manifests::read() {
        Some(manifests) => test(lab, manifests?),
        None => Ok(()),
    });
}

#[test]
fn the_api_server_takes_every_manifest_whole() {
    in_lab_with(|lab, manifests| {
        let plane = ControlPlane::start(lab)?;
        // What is in a namespace can't be tried without it.
        let namespace = manifests.agent.first().context("a namespace")?;
        plane.api.apply(namespace, Apply::Real)?;
        for (way, documents) in &manifests.others {
            for document in documents {
                plane.api.apply(document, Apply::Dry).context(way.clone())?;
            }
            let mut wrong = daemon_set(documents)?.clone();
            wrong["spec"]["template"]["spec"]["priorityclassname"] = json!("x");
            let refused = plane.api.apply(&wrong, Apply::Dry);
            ensure!(refused.is_err(), "a key that nobody knows is taken");
            let mut wrong = daemon_set(documents)?.clone();
            wrong["spec"]["template"]["spec"]["volumes"][1]["hostPath"]["type"] = json!("x");
            let refused = plane.api.apply(&wrong, Apply::Dry);
            ensure!(refused.is_err(), "a value that it doesn't know is taken");
        }
        let sets = plane.api.get("/apis/apps/v1/daemonsets")?;
        ensure!(sets["items"] == json!([]), "it was to be tried only");
        Ok(())
    });
}

#[test]
fn the_agents_pod_survives_power_cuts_and_gives_back_what_leaked() {
    in_lab_with(|lab, manifests| {
        let mut cluster = Cluster::start(lab, manifests)?;
        let agent = cluster.agent(lab)?;
        is_confined(&cluster, &agent)?;
        cluster.plane.api.apply(&web(PODS), Apply::Real)?;
        let own = cluster.web(lab)?;
        is_healthy(&cluster, &agent)?;
        let leased = cluster.command(&agent, &["leases"])?;
        for lease in leased["leases"].as_array().context("leases")? {
            let pod = lease.pointer("/holder/pod").and_then(Value::as_str);
            ensure!(
                pod.is_some_and(|pod| pod.starts_with("default/web-")),
                "{lease:#}"
            );
            ensure!(lease["state"] == "active", "{lease:#}");
        }

        // Everything that the node had is lost with its runtime's state: its pool is full of
        // leases of nobody.
        let leaked = cluster.cut(lab, ROOM - PODS)?;
        ensure!(
            leaked.len() == ROOM && leaked.is_superset(&own),
            "{leaked:?}"
        );
        fs::remove_dir_all(lab.disk().join("containerd"))?;
        let boot = Instant::now();
        cluster.boot(lab)?;
        let first_back = cluster.first_back(lab, &leaked, boot)?;
        let agent = cluster.agent(lab)?;
        let agent_ready = boot.elapsed().as_secs_f64();
        let live = cluster.web(lab)?;
        println!(
            "runtime state lost, seconds from boot: {first_back:.1} the first address is back, \
             {agent_ready:.1} the agent is ready, {:.1} all pods run",
            boot.elapsed().as_secs_f64()
        );
        ensure!(cluster.given_back(&agent)? == leaked, "{}", agent_log(lab));
        cluster.stays(lab, &agent, &live)?;

        // With it kept, kubelet frees what is its own, the agent what is nobody's.
        let leaked = cluster.cut(lab, 3)?;
        let others: BTreeSet<_> = leaked.difference(&live).copied().collect();
        ensure!(others.len() == 3, "{leaked:?}");
        let boot = Instant::now();
        cluster.boot(lab)?;
        let first_back = cluster.first_back(lab, &others, boot)?;
        let agent = cluster.agent(lab)?;
        let agent_ready = boot.elapsed().as_secs_f64();
        let live = cluster.web(lab)?;
        println!(
            "runtime state kept, seconds from boot: {first_back:.1} the first leaked address is back, \
             {agent_ready:.1} the agent is ready, {:.1} all pods run",
            boot.elapsed().as_secs_f64()
        );
        ensure!(cluster.given_back(&agent)? == others, "{}", agent_log(lab));
        cluster.stays(lab, &agent, &live)?;
        is_confined(&cluster, &agent)?;
        is_healthy(&cluster, &agent)
    });
}

#[test]
fn an_upgrade_of_the_daemon_set_misses_nothing() {
    in_lab_with(|lab, manifests| {
        let cluster = Cluster::start(lab, manifests)?;
        let before = cluster.agent(lab)?;
        cluster.plane.api.apply(&web(PODS), Apply::Real)?;
        cluster.web(lab)?;
        let watched = |agent: &Value| {
            let segments = cluster.command(agent, &["segments"])?;
            let segments_of = segments["segments"].as_array().into_iter().flatten();
            let found = { segments_of }.find(|segment| segment["name"] == "cni0");
            let since = found.and_then(|segment| segment["watched_since"].as_str());
            let since = since.with_context(|| format!("{segments:#}"))?;
            anyhow::Ok(since.parse::<jiff::Timestamp>()?)
        };
        watched(&before)?;
        let mut newer = daemon_set(&cluster.manifests.agent)?.clone();
        newer["spec"]["template"]["metadata"]["annotations"]["tests/version"] = json!("2");
        cluster.plane.api.apply(&newer, Apply::Real)?;
        let name = |pod: &Value| pod["metadata"]["name"].clone();
        let after = wait_for("the next agent", || {
            let pods = cluster.agents()?;
            Ok(pods
                .into_iter()
                .find(|pod| is_ready(pod) && name(pod) != name(&before)))
        })
        .with_context(|| cluster.told(lab))?;
        let made = after["metadata"]["creationTimestamp"].as_str();
        let made: jiff::Timestamp = made.context("it was made once")?.parse()?;
        let since = watched(&after)?;
        ensure!(since < made, "{since}, {made}\n{}", agent_log(lab));
        is_healthy(&cluster, &after)
    });
}

#[test]
fn uninstalling_leaves_nothing_on_the_node() {
    in_lab_with(|lab, manifests| {
        let cluster = Cluster::start(lab, manifests)?;
        cluster.agent(lab)?;
        cluster.plane.api.apply(&web(PODS), Apply::Real)?;
        cluster.web(lab)?;
        let left = || -> Result<Vec<String>> {
            let mut left = Vec::new();
            for directory in [
                "/sys/fs/bpf/ipam-agent",
                "/run/ipam-agent",
                "/var/lib/ipam-agent",
            ] {
                for entry in fs::read_dir(directory).into_iter().flatten() {
                    left.push(entry?.path().display().to_string());
                }
            }
            Ok(left)
        };
        ensure!(left()?.len() > 3, "{:?}", left()?);
        let leases = cluster.leases()?;

        for document in &cluster.manifests.uninstall {
            cluster.plane.api.apply(document, Apply::Real)?;
        }
        // As Helm does with what is in a chart no more.
        let sets = format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets");
        cluster.plane.api.delete(&format!("{sets}/ipam-agent"))?;
        // As `kubectl rollout status` knows it.
        wait_for("the pods to be rolled out", || {
            let set = cluster
                .plane
                .api
                .get(&format!("{sets}/ipam-agent-uninstall"))?;
            let status = &set["status"];
            let is_done = status["observedGeneration"] == set["metadata"]["generation"]
                && status["updatedNumberScheduled"] == 1
                && status["numberAvailable"] == 1;
            Ok(is_done.then_some(()))
        })
        .with_context(|| cluster.told(lab))?;
        ensure!(left()?.is_empty(), "{:?}\n{}", left()?, agent_log(lab));
        ensure!(!Path::new("/sys/fs/bpf/ipam-agent").exists());
        ensure!(
            cluster.leases()? == leases,
            "leases are not the agent's to remove"
        );
        // What remains ends when it is told to.
        cluster
            .plane
            .api
            .delete(&format!("{sets}/ipam-agent-uninstall"))?;
        wait_for("the pods to end", || {
            Ok(cluster.agents()?.is_empty().then_some(()))
        })?;
        ensure!(left()?.is_empty(), "{:?}", left()?);
        Ok(())
    });
}
