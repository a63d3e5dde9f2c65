//! What is applied to the cluster: what the chart renders to, the plain manifests, and pods
//! for the agent to watch.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::helm::{self, Render, Request};

/// The agent's namespace.
pub const NAMESPACE: &str = "ipam-agent";
/// What the agent's pods are known by.
pub const LABEL: &str = "app.kubernetes.io/name=ipam-agent";

/// Values of a laboratory: gates of seconds.
const LABORATORY: &str = "\
release: auto
config:
  reclaim: { lab: true, gate: 2s, damaged_gate: 2500ms, asked_gate: 2s,
    asked_damaged_gate: 2500ms, reboot_gate: 2s, pass_interval: 500ms }
";
/// Those of Harvester, whose nodes run RKE2 and keep little of `/var`.
const HARVESTER: &str = "\
stateDir: /var/lib/rancher/ipam-agent
runtimeDirs: [/run/k3s/containerd]
seLinuxOptions: { type: spc_t }
";

/// Manifests, each list in order of need.
pub struct Manifests {
    /// The agent, for the laboratory.
    pub agent: Vec<Value>,
    /// The agent in every other way.
    pub others: Vec<(String, Vec<Value>)>,
    /// The agent to be removed from its nodes.
    pub uninstall: Vec<Value>,
}

impl Manifests {
    /// All of them; `None` where it is skipped.
    pub fn read() -> Option<Result<Self>> {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let uninstall = format!("{LABORATORY}uninstall: true\n");
        let ways = ["", "release: \"off\"\n", "release: auto\n", HARVESTER];
        let own = [LABORATORY, &uninstall];
        let renders = own.iter().chain(&ways).map(|yaml| Render {
            name: String::from("ipam-agent"),
            namespace: NAMESPACE.to_owned(),
            yaml: (*yaml).to_owned(),
        });
        let plain = ["namespace", "serviceaccount", "daemonset"];
        let plain = plain.map(|name| deploy.join(format!("kustomize/{name}.yaml")));
        let request = Request {
            chart: deploy.join("chart"),
            renders: renders.collect(),
            files: Vec::from(plain),
            versions: Vec::new(),
        };
        Some(helm::ask(&request)?.and_then(|answer| Self::of(answer, &ways, &request.files)))
    }

    fn of(answer: helm::Answer, ways: &[&str], files: &[PathBuf]) -> Result<Self> {
        ensure!(
            answer.files.len() == files.len() && files.len() == 3,
            "the plain manifests"
        );
        let namespace = answer.files[0].clone();
        let mut all = Vec::new();
        for rendered in answer.renders {
            ensure!(rendered.error.is_none(), "{:?}", rendered.error);
            all.push([namespace.clone(), rendered.objects].concat());
        }
        let (agent, uninstall) = (all.remove(0), all.remove(0));
        let ways = ways.iter().map(|way| format!("the chart, {way:?}"));
        let mut others: Vec<_> = ways.zip(all).collect();
        // Kustomize says the namespace.
        let mut plain = answer.files.concat();
        for document in &mut plain {
            if document["kind"] != "Namespace" {
                document["metadata"]["namespace"] = json!(NAMESPACE);
            }
        }
        others.push((String::from("the plain manifests"), plain));
        Ok(Self {
            agent,
            others,
            uninstall,
        })
    }

    /// The image that the laboratory's agent is to have.
    pub fn image(&self) -> Result<&str> {
        let set = daemon_set(&self.agent)?;
        let image = set.pointer("/spec/template/spec/containers/0/image");
        image.and_then(Value::as_str).context("an image")
    }
}

/// The one DaemonSet of these.
pub fn daemon_set(manifests: &[Value]) -> Result<&Value> {
    let found = manifests.iter().find(|of| of["kind"] == "DaemonSet");
    found.context("no DaemonSet")
}

/// A deployment of pods that have an address each and sleep.
pub fn web(replicas: usize) -> Value {
    let labels = json!({ "app": "web" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": tests::containerd::IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                    }],
                },
            },
        },
    })
}
