//! What is applied to the cluster.

use serde_json::{Value, json};

/// The image of the agent.
pub const IMAGE: &str = "registry.local/ipam-agent:tests";
/// The agent's namespace.
pub const NAMESPACE: &str = "ipam-agent";

/// The agent, of this configuration: in order of need.
pub fn agent(config: &str) -> Vec<Value> {
    let labels = json!({ "app.kubernetes.io/name": "ipam-agent" });
    let host = |name: &str, path: &str, kind: &str| json!({ "name": name, "hostPath": { "path": path, "type": kind } });
    let mount = |name: &str, path: &str, read_only: bool| json!({ "name": name, "mountPath": path, "readOnly": read_only });
    let container = json!({
        "name": "agent", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        "args": ["run", "--config", "/etc/ipam-agent/config.yaml"],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "capabilities": { "drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "readinessProbe": {
            "exec": { "command": ["/ipam-agent", "segments"] },
            "periodSeconds": 1, "timeoutSeconds": 10,
        },
        "resources": {
            "requests": { "cpu": "20m", "memory": "64Mi" },
            "limits": { "memory": "512Mi" },
        },
        "volumeMounts": [
            mount("config", "/etc/ipam-agent", true),
            mount("cni", "/var/lib/cni", false),
            mount("networks", "/etc/cni/net.d", true),
            mount("runtime", "/run/containerd", true),
            mount("bpf", "/sys/fs/bpf", false),
            mount("run", "/run/ipam-agent", false),
            mount("state", "/var/lib/ipam-agent", false),
        ],
    });
    let pod = json!({
        "metadata": { "labels": labels },
        "spec": {
            "hostNetwork": true,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "automountServiceAccountToken": false,
            "serviceAccountName": "ipam-agent",
            "priorityClassName": "system-node-critical",
            "tolerations": [{ "operator": "Exists" }],
            "containers": [container],
            "volumes": [
                { "name": "config", "configMap": { "name": "ipam-agent" } },
                host("cni", "/var/lib/cni", "DirectoryOrCreate"),
                host("networks", "/etc/cni/net.d", "DirectoryOrCreate"),
                host("runtime", "/run/containerd", "Directory"),
                host("bpf", "/sys/fs/bpf", "Directory"),
                host("run", "/run/ipam-agent", "DirectoryOrCreate"),
                host("state", "/var/lib/ipam-agent", "DirectoryOrCreate"),
            ],
        },
    });
    let named = |name: &str| json!({ "name": name, "namespace": NAMESPACE, "labels": labels });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("ipam-agent") }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": named("ipam-agent"),
            "data": { "config.yaml": config },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": named("ipam-agent"),
            "spec": {
                "selector": { "matchLabels": labels },
                "updateStrategy": {
                    "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 },
                },
                "template": pod,
            },
        }),
    ]
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
