//! A cluster of one node: the real etcd, API server, controller manager and scheduler, on
//! the laboratory's loopback, outlive the power cuts of a node with the real containerd and
//! kubelet.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    api::Api,
    containerd::{Node, wait_for},
    kubelet::{self, Kubelet},
    lab::{Lab, ip},
    process::Process,
};

/// The node's name.
pub const NODE: &str = "node";
/// The node's address, on a link of its own.
pub const NODE_ADDRESS: &str = "10.99.0.2";
/// What the API server tells pods of itself; nobody serves it here.
const ADVERTISED: &str = "10.99.0.1";
const SERVER: &str = "https://127.0.0.1:6443";
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
/// Who may do everything, and who is the kubelet: name, user, group.
const USERS: [(&str, &str, &str); 3] = [
    ("admin", "admin", "system:masters"),
    ("scheduler", "system:kube-scheduler", "system:authenticated"),
    ("kubelet", "system:node:node", "system:nodes"),
];

/// The servers of a cluster. They end when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    /// Who may do everything.
    pub api: Api,
    directory: PathBuf,
    _programs: Vec<Process>,
}

/// Runs `test` in a laboratory with a cluster's programs, or says that it is skipped.
///
/// # Panics
///
/// If the test fails, or is skipped where that is not allowed.
pub fn in_lab<F>(test: F)
where
    F: FnOnce(&mut Lab) -> Result<()> + Send + 'static,
{
    let programs = [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ];
    match programs
        .into_iter()
        .try_for_each(|name| kubelet::program(name).map(drop))
    {
        Ok(()) => kubelet::in_lab(test),
        Err(error) => {
            crate::skip::skip(&format!("{error:#}"));
        }
    }
}

impl ControlPlane {
    /// Starts the servers and waits until they serve.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory = lab.disk().join("control-plane");
        fs::create_dir_all(&directory)?;
        let users =
            USERS.map(|(name, user, group)| format!("{name}-token,{user},{name},{group}\n"));
        fs::write(directory.join("tokens.csv"), users.concat())?;
        let mut plane = Self {
            api: Api {
                server: SERVER.to_owned(),
                certificate: directory.join("apiserver.crt"),
                token: String::from("admin-token"),
            },
            directory,
            _programs: Vec::new(),
        };
        plane.etcd()?;
        plane.api_server()?;
        let api = plane.api.clone();
        wait_for("the API server", || Ok(api.ready().then_some(())))
            .with_context(|| plane.log("kube-apiserver"))?;
        for (program, user, port) in [
            ("kube-controller-manager", "admin", "10257"),
            ("kube-scheduler", "scheduler", "10259"),
        ] {
            let kubeconfig = plane.kubeconfig(user)?;
            let own = plane.directory.join(program);
            let mut arguments = vec![
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--secure-port={port}"),
                format!("--cert-dir={}", own.display()),
            ];
            arguments.extend(
                [
                    "--bind-address=127.0.0.1",
                    "--port=0",
                    "--leader-elect=false",
                ]
                .map(String::from),
            );
            if program == "kube-controller-manager" {
                let keys = &plane.directory;
                arguments.push(format!(
                    "--service-account-private-key-file={}",
                    keys.join("apiserver.key").display()
                ));
                arguments.push(format!(
                    "--root-ca-file={}",
                    keys.join("apiserver.crt").display()
                ));
            }
            plane.spawn(program, &arguments)?;
        }
        Ok(plane)
    }

    fn etcd(&mut self) -> Result<()> {
        let arguments = [
            String::from("--name=tests"),
            format!("--data-dir={}", self.directory.join("etcd").display()),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            format!("--listen-peer-urls={ETCD_PEER}"),
            format!("--initial-advertise-peer-urls={ETCD_PEER}"),
            format!("--initial-cluster=tests={ETCD_PEER}"),
            // Its power is never cut here.
            String::from("--unsafe-no-fsync"),
        ];
        self.spawn("etcd", &arguments)
    }

    fn api_server(&mut self) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        // It makes its certificate and its key itself; what signs tokens is the same key.
        let key = at("apiserver.key");
        let arguments = [
            format!("--etcd-servers={ETCD}"),
            String::from("--bind-address=127.0.0.1"),
            format!("--advertise-address={ADVERTISED}"),
            String::from("--secure-port=6443"),
            String::from("--insecure-port=0"),
            format!("--cert-dir={}", at("")),
            format!("--token-auth-file={}", at("tokens.csv")),
            String::from("--authorization-mode=Node,RBAC"),
            String::from("--allow-privileged=true"),
            String::from("--service-cluster-ip-range=10.96.0.0/16"),
            String::from("--service-account-issuer=https://kubernetes.default.svc"),
            format!("--service-account-signing-key-file={key}"),
            format!("--service-account-key-file={key}"),
        ];
        self.spawn("kube-apiserver", &arguments)
    }

    /// Starts one of the servers. It goes with this thread, whatever becomes of the test.
    fn spawn(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let mut program = Command::new("setpriv");
        program.args(["--pdeathsig", "KILL"]);
        program.arg(kubelet::program(name)?).args(arguments);
        let log = self.directory.join(format!("{name}.log"));
        self._programs.push(Process::spawn(program, &log, &log)?);
        Ok(())
    }

    /// What one of the servers logged.
    pub fn log(&self, name: &str) -> String {
        let log = self.directory.join(format!("{name}.log"));
        fs::read_to_string(log).unwrap_or_default()
    }

    /// The file by which a program finds the API server as this user.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{ "name": "tests", "cluster": {
                "server": SERVER, "certificate-authority": self.api.certificate,
            } }],
            "users": [{ "name": user, "user": { "token": format!("{user}-token") } }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": user } }],
        });
        let file = self.directory.join(format!("{user}.kubeconfig"));
        fs::write(&file, config.to_string())?;
        Ok(file)
    }
}

/// The one node of a cluster, booted.
pub struct Member {
    /// The machine and its container runtime.
    pub node: Node,
    _kubelet: Kubelet,
}

impl Member {
    /// Boots it, with its own link and address, and starts what it runs by itself.
    pub fn boot(lab: &Lab, plane: &ControlPlane) -> Result<Self> {
        ip(&["link", "add", "uplink", "type", "bridge"])?;
        let address = format!("{NODE_ADDRESS}/24");
        ip(&["address", "add", &address, "dev", "uplink"])?;
        ip(&["link", "set", "uplink", "up"])?;
        let node = Node::boot(lab)?;
        let _kubelet = Kubelet::join(lab, &node, &plane.kubeconfig("kubelet")?)?;
        Ok(Self { node, _kubelet })
    }

    /// Cuts its power: all that ran, `/run`, its links. What is on its disk stays.
    pub fn power_cut(self, lab: &mut Lab) -> Result<()> {
        drop(self._kubelet);
        self.node.power_cut();
        lab.power_cut()
    }

    /// Runs a program in a pod's first container, as a probe does; what it printed, and its
    /// exit status.
    pub fn exec(&self, pod: &Value, command: &[&str]) -> Result<(String, i32)> {
        self.node.exec(container(pod)?, command)
    }
}

/// The id of a pod's first container.
pub fn container(pod: &Value) -> Result<&str> {
    let id = pod.pointer("/status/containerStatuses/0/containerID");
    let id = id.and_then(Value::as_str).context("it has no container")?;
    Ok(id.trim_start_matches("containerd://"))
}

/// The pods of this namespace that carry this label, `key=value`.
pub fn pods(api: &Api, namespace: &str, label: &str) -> Result<Vec<Value>> {
    let list = api.get(&format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector={label}"
    ))?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Whether a pod is ready now.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    pod.pointer("/metadata/deletionTimestamp").is_none()
        && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
