//! What values may say.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use serde_json::Value;

use super::{config, rendered, root};

#[test]
fn the_release_decides_what_each_store_may_lose() {
    let stores = "config: { stores: [{ kind: host-local }, { kind: host-local, dir: /opt/cni/networks, \
                  reclaim: observe }, { kind: file, path: /var/lib/cni/leases.yaml }] }\n";
    let continuous = "config: { stores: [{ kind: host-local, reclaim: continuous }] }\n";
    let ways = [
        String::new(),
        "release: off\n".to_owned(),
        "release: auto\n".to_owned(),
        format!("release: auto\n{stores}"),
        format!("release: auto\n{continuous}"),
    ];
    let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
    let Some(answer) = rendered(&ways) else {
        return;
    };
    let mut story = String::new();
    for (way, rendered) in ways.iter().zip(&answer.renders) {
        let _ = writeln!(story, "{way}=>\n{}", config(rendered));
    }
    insta::assert_snapshot!("modes", story);
}

#[test]
fn no_store_at_all_is_no_default() {
    let none = "config: { stores: [] }\n";
    let file = "config: { stores: [] }\nleaseFile: { leases: [{ address: 192.168.60.11 }] }\n";
    let Some(answer) = rendered(&[none, file]) else {
        return;
    };
    let [none, file] = &answer.renders[..] else {
        panic!("two renders");
    };
    assert!(config(none).contains("stores: []"), "{}", config(none));
    let file = config(file);
    assert!(
        file.contains("kind: file") && !file.contains("host-local"),
        "{file}"
    );
}

#[test]
fn a_lease_file_that_is_named_twice_is_one_store() {
    let leases = "leaseFile: { leases: [{ address: 192.168.60.11 }] }\n";
    let ways = [
        leases.to_owned(),
        format!("config: {{ stores: [{{ kind: host-local }}, {{ kind: file }}] }}\n{leases}"),
    ];
    let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
    let Some(answer) = rendered(&ways) else {
        return;
    };
    for rendered in &answer.renders {
        assert_eq!(rendered.error, None);
        assert_eq!(config(rendered).matches("kind: file").count(), 1);
    }
}

#[test]
fn a_directory_is_mounted_once_and_writable_for_who_has_to_write() {
    let ways = [
        "config: { stores: [{ kind: host-local, dir: /var/lib/cni }] }\n",
        "release: off\nuninstall: true\n",
        "release: off\n",
    ];
    let Some(answer) = rendered(&ways) else {
        return;
    };
    let expected = [false, false, true];
    for ((way, rendered), read_only) in ways.iter().zip(&answer.renders).zip(expected) {
        let set = rendered.object("DaemonSet").expect("a DaemonSet");
        let mounts = &set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"];
        let of_cni: Vec<_> = { mounts.as_array().expect("mounts").iter() }
            .filter(|mount| mount["mountPath"] == "/var/lib/cni")
            .collect();
        assert_eq!(of_cni.len(), 1, "{way}");
        assert_eq!(of_cni[0]["readOnly"] == true, read_only, "{way}");
    }
}

#[test]
fn what_contradicts_only_releases_is_taken_without_them() {
    let ways = [
        "config: { observe: { data_plane: false } }\n",
        "release: auto\nconfig: { observe: { data_plane: false }, stores: [{ kind: host-local, \
         reclaim: observe }] }\n",
        "config: { holders: { cri: 'unix:///run/foo/a/foo.sock' } }\nruntimeDirs: [/run/foo]\n",
        "config: { reclaim: { max_per_pass: 1000, max_percent: 100, lab: true } }\n",
    ];
    let Some(answer) = rendered(&ways) else {
        return;
    };
    for (way, rendered) in ways.iter().zip(&answer.renders) {
        assert_eq!(rendered.error, None, "{way}");
    }
}

/// What a schema says of its keys, those that it refers to included: of each its type, as
/// `config.reclaim.gate: string`.
fn keys(schema: &Value, root: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        let meant = root.pointer(pointer).expect("a definition");
        return keys(meant, root, path, found);
    }
    // What may be null may be left out.
    let mut types = schema["type"].as_array().into_iter().flatten();
    let name = match schema["type"].as_str() {
        None => types.find_map(|name| name.as_str().filter(|name| *name != "null")),
        name => name,
    };
    found.insert(format!("{path}: {}", name.unwrap_or("string")));
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        keys(property, root, &format!("{path}.{key}"), found);
    }
    if schema["items"].is_object() {
        keys(&schema["items"], root, &format!("{path}[]"), found);
    }
    if schema["properties"].is_object() {
        assert_eq!(schema["additionalProperties"], false, "{path}");
    }
}

/// `config:` has the keys of the agent's own configuration, less those that are the chart's.
#[test]
fn the_schema_has_the_agents_keys() {
    let read = |path: &str| -> Value {
        let text = fs::read_to_string(root().join(path)).expect(path);
        serde_json::from_str(&text).expect(path)
    };
    let chart = read("deploy/chart/values.schema.json");
    let agent = read("docs/schema/config-v1.json");
    let (mut told, mut meant) = (BTreeSet::new(), BTreeSet::new());
    keys(&chart["properties"]["config"], &chart, "config", &mut told);
    keys(&agent, &agent, "config", &mut meant);
    let charts = ["config.state_dir", "config.socket", "config.listen"];
    meant.retain(|key| !charts.iter().any(|own| key.starts_with(own)));
    let differ: Vec<_> = told.symmetric_difference(&meant).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn wrong_values_are_refused_and_named() {
    let wrong = [
        "release: sometimes\n",
        "relaese: off\n",
        "config: { stores: [{ kind: host-local, reclaim: continuous }] }\n",
        "release: off\nconfig: { stores: [{ kind: host-local, fence: true }] }\n",
        "release: off\nconfig: { reclaim: { clean_caches: true } }\n",
        "config: { state_dir: /var/lib/elsewhere }\n",
        "config: { listen: '0.0.0.0:80' }\n",
        "config: { socket: /tmp/agent.sock }\n",
        "config: { storse: [] }\n",
        "config: { stores: [{ kind: kea }] }\n",
        "config: { interfaces: { includ: ['veth*'] } }\n",
        "config: { reclaim: { gate: 900 } }\n",
        "config: { reclaim: { gate: 15M } }\n",
        "config: { conflicts: { quiet: '120' } }\n",
        "config: { observe: { data-plane: false } }\n",
        "config: { metrics: { max_conflict_info: many } }\n",
        "config: { stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24, vlan: 4095 }] }] }\n",
        "config: { owners: [{ name: a, macs: [] }] }\n",
        "config: { exempt: [{ addresses: [10.0.0.1] }] }\n",
        "leaseFile: { leases: [{ ip: 10.0.0.1 }] }\n",
        "config: { stores: [{ kind: file }] }\n",
        "config: { reclaim: { max_per_pass: 65 } }\n",
        "config: { reclaim: { max_percent: 11, lab: false } }\n",
        "release: auto\nconfig: { observe: { data_plane: false } }\n",
        "release: auto\nconfig: { holders: { cri: off, netns: false } }\n",
        "config: { holders: { cri: off }, reclaim: { clean_caches: true } }\n",
        "config: { holders: { cri: 'unix:///run/foo/foo.sock' } }\n",
        "stateDir: var/lib\n",
        "stateDir: /var/lib/../../etc\n",
        "runtimeDirs: [/run/containerd, /run/containerd]\n",
        "runtimeDirs: [/run/flannel]\n",
        "runtimeDirs: [/run/ipam-agent]\n",
        "stateDir: /var/lib/cni\n",
        "stateDir: /run/ipam-agent\n",
        "stateDir: /etc/ipam-agent\n",
        "stateDir: /run/foo\nruntimeDirs: [/run/foo]\n",
        "config: { stores: [{ kind: host-local, dir: /var/lib/ipam-agent }] }\n",
        "config: { stores: [{ kind: host-local, dir: /run/containerd }] }\n",
        "config: { stores: [{ kind: host-local, dir: /etc/ipam-agent }] }\n",
        "config: { stores: [{ kind: host-local, dir: /opt/cni }, { kind: host-local, dir: /opt/cni }] }\n",
        "config: { stores: [{ kind: host-local }, { kind: host-local }] }\n",
        "podLabels: { app.kubernetes.io/name: mine }\n",
        "uninstall: true\npodLabels: { app.kubernetes.io/component: mine }\n",
        "port: 0\n",
        "port: '9477'\n",
        "image: { digest: latest }\n",
        "appArmorProfile: off\n",
        "podMonitor: { interval: soon }\n",
    ];
    let Some(answer) = rendered(&wrong) else {
        return;
    };
    let mut story = String::new();
    for (values, rendered) in wrong.iter().zip(&answer.renders) {
        let error = rendered.error.as_deref();
        let error = error.unwrap_or_else(|| panic!("accepted: {values}"));
        let _ = writeln!(story, "{values}  => {error}\n");
    }
    insta::assert_snapshot!("refused", story);
}
