//! The real kubelet on a node: it has its pods run, whatever happened. Without an API server
//! they are files on the node's disk.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    cluster::{NODE, NODE_ADDRESS},
    containerd::{IMAGE, Node, SOCKET},
    lab::Lab,
    process::Process,
};

/// A running kubelet. It dies with its node, or when it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    _process: Process,
}

/// Runs `test` in a laboratory with a node's programs and a kubelet, or says that it is
/// skipped.
///
/// # Panics
///
/// If the test fails, or is skipped where that is not allowed.
pub fn in_lab<F>(test: F)
where
    F: FnOnce(&mut Lab) -> Result<()> + Send + 'static,
{
    match program("kubelet") {
        Ok(_) => crate::containerd::in_lab(test),
        Err(error) => {
            crate::skip::skip(&format!("{error:#}"));
        }
    }
}

/// Where `cargo xtask setup` puts Kubernetes's programs.
pub fn program(name: &str) -> Result<PathBuf> {
    let home = || Some(env::home_dir()?.join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    let cache = cache.map(PathBuf::from).or_else(home);
    let program = cache.map(|cache| cache.join("ipam-agent/kubelet-1.20.2").join(name));
    program
        .filter(|program| program.is_file())
        .with_context(|| format!("there is no {name}: run `cargo xtask setup`"))
}

/// Has every kubelet of this laboratory run a pod of this name.
pub fn write_pod(lab: &Lab, name: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "dnsPolicy": "Default",
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never" }],
        },
    });
    let pods = pods(lab);
    fs::create_dir_all(&pods)?;
    Ok(fs::write(
        pods.join(format!("{name}.json")),
        pod.to_string(),
    )?)
}

fn pods(lab: &Lab) -> PathBuf {
    lab.disk().join("pods")
}

impl Kubelet {
    /// Starts it on a node without an API server, and doesn't wait.
    pub fn start(lab: &Lab, node: &Node) -> Result<Self> {
        Self::run(lab, node, &[])
    }

    /// Starts it on the node of a cluster, and doesn't wait.
    pub fn join(lab: &Lab, node: &Node, kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = kubeconfig.display().to_string();
        let of_cluster = ["--kubeconfig", &kubeconfig, "--node-ip", NODE_ADDRESS];
        Self::run(lab, node, &of_cluster)
    }

    fn run(lab: &Lab, node: &Node, of_cluster: &[&str]) -> Result<Self> {
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "staticPodPath": pods(lab),
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "address": "127.0.0.1",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", node.cgroup()),
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "makeIPTablesUtilChains": false,
            "resolvConf": "",
            "volumePluginDir": "/var/lib/kubelet/plugins",
            // It is a guest here: what the machine is short of is no business of its.
            "evictionHard": { "memory.available": "1Mi" },
            "imageGCHighThresholdPercent": 100,
        });
        let file = lab.disk().join("kubelet.json");
        fs::write(&file, config.to_string())?;
        let mut kubelet = node.inside("sh")?;
        kubelet
            .args(["-ec", &prepared(lab.disk())])
            .arg(program("kubelet")?)
            .arg("--config")
            .arg(&file)
            .args(["--root-dir", "/var/lib/kubelet"])
            .args(["--hostname-override", NODE])
            .args(["--container-runtime", "remote"])
            .args(["--container-runtime-endpoint", &format!("unix://{SOCKET}")])
            .args(["--pod-infra-container-image", IMAGE])
            .args(of_cluster);
        let log = lab.disk().join("kubelet.log");
        Ok(Self {
            _process: Process::spawn(kubelet, &log, &log)?,
        })
    }
}

/// What runs the program that its arguments are, on a node whose disk is here. What it has
/// under `/var` is there; what it would set for the whole machine it finds set.
fn prepared(disk: &Path) -> String {
    let disk = disk.display();
    format!(
        "mkdir -p {disk}/kubelet {disk}/log /var/lib/kubelet
         mount --bind {disk}/kubelet /var/lib/kubelet
         mount --make-rshared /var/lib/kubelet
         mount --bind {disk}/log /var/log
         for of in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 \
             kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
             kernel/keys/root_maxbytes=25000000; do
             file=/run/$(basename ${{of%=*}})
             echo ${{of#*=}} >$file
             mount --bind $file /proc/sys/${{of%=*}}
         done
         exec \"$0\" \"$@\""
    )
}
