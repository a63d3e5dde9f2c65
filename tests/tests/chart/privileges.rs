//! What the pods may do, whatever the values.

use serde_json::{Value, json};

use super::{WAYS, rendered};

/// Host paths that may be written to, besides the state directory and the lease stores.
const WRITABLE: [&str; 2] = ["/run/ipam-agent", "/sys/fs/bpf"];

/// The pod template of each way to install it.
fn pods() -> Option<Vec<(&'static str, Value)>> {
    let values: Vec<_> = WAYS.iter().map(|(_, yaml)| *yaml).collect();
    let answer = rendered(&values)?;
    let pods = WAYS
        .iter()
        .zip(&answer.renders)
        .map(|((way, _), rendered)| {
            let set = rendered.object("DaemonSet").expect("a DaemonSet");
            (*way, set["spec"]["template"]["spec"].clone())
        });
    Some(pods.collect())
}

/// Mount path, host path, and whether it is read-only.
fn mounts(pod: &Value) -> Vec<(&str, &str, bool)> {
    let volumes = pod["volumes"].as_array().expect("volumes");
    let mounts = pod["containers"][0]["volumeMounts"].as_array();
    let mounts = mounts.expect("mounts").iter().map(|mount| {
        let named = |volume: &&Value| volume["name"] == mount["name"];
        let volume = volumes.iter().find(named).expect("a volume");
        let host = volume["hostPath"]["path"].as_str().unwrap_or_default();
        let path = mount["mountPath"].as_str().expect("a path");
        (path, host, mount["readOnly"] == true)
    });
    mounts.collect()
}

#[test]
fn exactly_these_capabilities_and_no_more() {
    let Some(pods) = pods() else { return };
    for (way, pod) in pods {
        let containers = pod["containers"].as_array().expect("containers");
        assert_eq!(containers.len(), 1, "{way}");
        assert!(pod["initContainers"].is_null(), "{way}");
        let mut context = containers[0]["securityContext"].clone();
        let fields = context.as_object_mut().expect("a security context");
        fields.remove("seLinuxOptions");
        let expected = json!({
            "runAsUser": 0, "runAsGroup": 0,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {
                "drop": ["ALL"],
                "add": ["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"],
            },
            "seccompProfile": { "type": "RuntimeDefault" },
        });
        assert_eq!(context, expected, "{way}");
        assert_eq!(pod["hostNetwork"], true, "{way}");
        for never in [
            "hostPID",
            "hostIPC",
            "shareProcessNamespace",
            "securityContext",
        ] {
            assert!(pod[never].is_null(), "{way}: {never}");
        }
        assert_eq!(pod["automountServiceAccountToken"], false, "{way}");
    }
}

#[test]
fn what_is_only_read_is_mounted_read_only() {
    let Some(pods) = pods() else { return };
    for (way, pod) in pods {
        let off = ["off", "quoted"].contains(&way);
        for (path, host, read_only) in mounts(&pod) {
            let is_state = host.ends_with("/ipam-agent") && host.starts_with("/var/lib/");
            let is_store = host == "/var/lib/cni" || host.ends_with("/networks");
            let writable = is_state || WRITABLE.contains(&host) || is_store && !off;
            assert_eq!(read_only, !writable, "{way}: {path} from {host}");
        }
    }
}

#[test]
fn it_goes_to_every_node_and_is_never_put_out() {
    let Some(pods) = pods() else { return };
    for (way, pod) in pods {
        assert_eq!(
            pod["tolerations"],
            json!([{ "operator": "Exists" }]),
            "{way}"
        );
        assert_eq!(pod["priorityClassName"], "system-node-critical", "{way}");
        assert!(
            pod["containers"][0]["resources"]["limits"]["memory"].is_string(),
            "{way}"
        );
        for probe in ["livenessProbe", "readinessProbe"] {
            if way == "uninstall" {
                continue;
            }
            let get = &pod["containers"][0][probe]["httpGet"];
            assert_eq!(get["port"], "metrics", "{way}: {probe}");
        }
    }
}

#[test]
fn apparmor_is_lifted_as_each_kubernetes_has_it() {
    let Some(answer) = rendered(&["appArmorProfile: Unconfined\n"]) else {
        return;
    };
    let set = answer.renders[0].object("DaemonSet").expect("a DaemonSet");
    let pod = &set["spec"]["template"];
    let profile = &pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"];
    assert_eq!(*profile, json!({ "type": "Unconfined" }));
    let annotations = pod["metadata"]["annotations"]
        .as_object()
        .expect("annotations");
    assert!(!annotations.keys().any(|key| key.contains("apparmor")));
}
