//! What is installed on a cluster: the chart, rendered by Helm's own engine with many values,
//! the plain manifests and the add-on.

#[path = "chart/privileges.rs"]
mod privileges;
#[path = "chart/values.rs"]
mod values;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ipam_agent::config::{Config, Overrides};
use tests::{
    daemon::beside,
    helm::{Answer, Render, Rendered, Request, ask},
};

/// The oldest Kubernetes that the chart says it is for, up to the newest there is.
const KUBERNETES: std::ops::RangeInclusive<u32> = 25..=37;

/// Ways to install it.
const WAYS: [(&str, &str); 9] = [
    ("default", ""),
    ("off", "release: off\n"),
    ("quoted", "release: 'off'\n"),
    ("auto", "release: auto\n"),
    (
        "continuous",
        "release: auto\nconfig: { stores: [{ kind: host-local, reclaim: continuous, fence: true }], \
         reclaim: { clean_caches: true } }\n",
    ),
    (
        "elsewhere",
        "stateDir: /var/lib/rancher/ipam-agent\ncniConfDir: /var/lib/rancher/k3s/agent/etc/cni/net.d\n\
         runtimeDirs: [/run/k3s/containerd]\nport: 19477\nstatusPage: false\n\
         config: { holders: { cri: off }, stores: [{ kind: host-local }, { kind: host-local, dir: /opt/cni/networks }] }\n\
         leaseFile: { leases: [{ address: 192.168.60.11, mac: '52:54:00:00:00:0b' }] }\n",
    ),
    (
        "monitored",
        "podMonitor: { enabled: true, labels: { team: net } }\nprometheusRule: { enabled: true }\n\
         dashboard: { enabled: true }\n",
    ),
    (
        "confined",
        "seLinuxOptions: { type: spc_t }\nimage: { digest: \
         'sha256:0000000000000000000000000000000000000000000000000000000000000000' }\n\
         imagePullSecrets: [{ name: registry }]\nresources: { limits: { cpu: '1' } }\n",
    ),
    ("uninstall", "uninstall: true\n"),
];

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository")
}

fn render(yaml: &str) -> Render {
    Render {
        name: "ipam-agent".to_owned(),
        namespace: "ipam-agent".to_owned(),
        yaml: yaml.to_owned(),
    }
}

/// The chart rendered with each of these values.
fn rendered(values: &[&str]) -> Option<Answer> {
    let request = Request {
        chart: root().join("deploy/chart"),
        renders: values.iter().map(|yaml| render(yaml)).collect(),
        ..Request::default()
    };
    Some(ask(&request)?.expect("an answer"))
}

/// The agent's configuration in it.
fn config(rendered: &Rendered) -> &str {
    let map = rendered.object("ConfigMap").expect("a ConfigMap");
    map["data"]["config.yaml"].as_str().expect("a text")
}

#[test]
fn every_way_to_install_it_is_valid() {
    let addon = root().join("deploy/harvester/addon.yaml");
    let kustomize = root().join("deploy/kustomize");
    let files = ["namespace.yaml", "serviceaccount.yaml", "daemonset.yaml"];
    let request = Request {
        chart: root().join("deploy/chart"),
        renders: WAYS.iter().map(|(_, yaml)| render(yaml)).collect(),
        files: files
            .iter()
            .map(|name| kustomize.join(name))
            .chain([addon])
            .collect(),
        versions: KUBERNETES.map(|minor| format!("1.{minor}")).collect(),
    };
    let Some(answer) = ask(&request) else { return };
    let answer = answer.expect("an answer");
    for finding in &answer.lint {
        assert!(finding.severity < 2, "{finding:?}");
    }
    assert!(answer.invalid.is_empty(), "{:#?}", answer.invalid);
    for ((way, _), rendered) in WAYS.iter().zip(&answer.renders) {
        assert_eq!(rendered.error, None, "{way}");
        let overrides = Overrides {
            listen: vec!["[10.0.0.1]:9477".to_owned(), "127.0.0.1:9477".to_owned()],
            ..Overrides::default()
        };
        let config = Config::parse(Path::new(way), config(rendered), overrides);
        config.unwrap_or_else(|error| panic!("{way}: {error}"));
    }
    let whole = answer.renders.iter().map(|rendered| rendered.objects.len());
    assert_eq!(whole.collect::<Vec<_>>(), [3, 3, 3, 3, 3, 3, 6, 3, 3]);
}

#[test]
fn what_the_schemas_refuse_is_told() {
    let work = tempfile::tempdir().expect("a directory");
    let wrong = work.path().join("wrong.yaml");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: a }\nspec: { containers: [], hostNetwrk: true }\n";
    std::fs::write(&wrong, pod).expect("written");
    let request = Request {
        chart: root().join("deploy/chart"),
        files: vec![wrong],
        versions: vec!["1.25".to_owned(), "1.37".to_owned()],
        ..Request::default()
    };
    let Some(answer) = ask(&request) else { return };
    let answer = answer.expect("an answer");
    assert_eq!(answer.invalid.len(), 2, "{:#?}", answer.invalid);
    assert!(
        answer.invalid[0].contains("hostNetwrk"),
        "{:#?}",
        answer.invalid
    );
}

#[test]
fn what_is_rendered_is_this() {
    let Some(answer) = rendered(&[""]) else {
        return;
    };
    let texts = &answer.renders[0].texts;
    insta::assert_snapshot!("daemonset", texts["daemonset.yaml"].trim());
    insta::assert_snapshot!("configmap", texts["configmap.yaml"].trim());
    insta::assert_snapshot!("notes", texts["NOTES.txt"].trim());
}

#[test]
fn a_changed_configuration_rolls_the_pods() {
    let Some(answer) = rendered(&["", "", "config: { keep: [10.0.0.1] }\n"]) else {
        return;
    };
    let checksums = answer.renders.iter().map(|rendered| {
        let set = rendered.object("DaemonSet").expect("a DaemonSet");
        set["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone()
    });
    let checksums: Vec<_> = checksums.collect();
    assert!(checksums[0].is_string());
    assert_eq!(checksums[0], checksums[1]);
    assert_ne!(checksums[0], checksums[2]);
}

#[test]
fn rules_and_dashboard_are_the_ones_of_the_repository() {
    let Some(answer) = rendered(&[WAYS[6].1]) else {
        return;
    };
    let rendered = &answer.renders[0];
    let rule = rendered.object("PrometheusRule").expect("rules");
    assert!(
        !rule["spec"]["groups"]
            .as_array()
            .expect("groups")
            .is_empty()
    );
    let map = rendered.objects.iter().find(|object| {
        object["kind"] == "ConfigMap" && object["metadata"]["labels"]["grafana_dashboard"] == "1"
    });
    let dashboard = map.expect("a dashboard")["data"]["ipam-agent.json"].as_str();
    let dashboard: serde_json::Value =
        serde_json::from_str(dashboard.expect("a text")).expect("JSON");
    assert!(dashboard["panels"].is_array());
}

#[test]
fn the_operators_job_is_the_one_that_the_rules_look_for() {
    let mut monitored = render(WAYS[6].1);
    monitored.name = "elsewhere".to_owned();
    let request = Request {
        chart: root().join("deploy/chart"),
        renders: vec![monitored],
        ..Request::default()
    };
    let Some(answer) = ask(&request) else { return };
    let rendered = answer.expect("an answer").renders.remove(0);
    let monitor = rendered.object("PodMonitor").expect("a PodMonitor");
    let set = rendered.object("DaemonSet").expect("a DaemonSet");
    let pod = &set["spec"]["template"];
    let label = monitor["spec"]["jobLabel"].as_str().expect("a label");
    assert_eq!(pod["metadata"]["labels"][label], "ipam-agent");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    for (name, value) in wanted.as_object().expect("labels") {
        assert_eq!(pod["metadata"]["labels"][name], *value, "{name}");
    }
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let ports = pod["spec"]["containers"][0]["ports"].as_array();
    assert_eq!(ports.expect("ports")[0]["name"], endpoint["port"]);
    let rules = rendered.texts["prometheusrule.yaml"].as_str();
    assert!(rules.contains(r#"job=~"(.*/)?ipam-agent""#));
}

#[test]
fn before_it_is_uninstalled_its_pods_clean_their_nodes() {
    let Some(answer) = rendered(&[WAYS[8].1]) else {
        return;
    };
    let set = answer.renders[0].object("DaemonSet").expect("a DaemonSet");
    // Another one: no server merges what serves with what doesn't.
    assert_eq!(set["metadata"]["name"], "ipam-agent-uninstall");
    let component = &set["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"];
    assert_eq!(*component, "uninstall");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let words = container["args"].as_array().expect("arguments");
    let words: Vec<_> = words.iter().filter_map(|word| word.as_str()).collect();
    assert_eq!(words, ["uninstall", "--yes", "--wait"]);
    // It serves nothing.
    for absent in ["livenessProbe", "readinessProbe", "ports"] {
        assert!(container[absent].is_null(), "{absent}");
    }
    let notes = &answer.renders[0].texts["NOTES.txt"];
    assert!(
        notes.contains("helm -n ipam-agent uninstall ipam-agent"),
        "{notes}"
    );
}

#[test]
fn the_plain_manifests_are_the_charts() {
    if rendered(&[]).is_none() {
        return;
    }
    let check = Command::new(beside("xtask").expect("built"))
        .args(["manifests", "--check"])
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{said}");
}

#[test]
fn the_add_ons_values_are_the_charts() {
    let request = Request {
        chart: root().join("deploy/chart"),
        files: vec![root().join("deploy/harvester/addon.yaml")],
        ..Request::default()
    };
    let Some(answer) = ask(&request) else { return };
    let answer = answer.expect("an answer");
    let spec = &answer.files[0][0]["spec"];
    assert_eq!(spec["enabled"], false);
    assert_eq!(spec["version"], env!("CARGO_PKG_VERSION"));
    let values = spec["valuesContent"].as_str().expect("a text");
    let answer = rendered(&[values]).expect("rendered");
    let rendered = &answer.renders[0];
    assert_eq!(rendered.error, None);
    assert!(config(rendered).contains("state_dir: /var/lib/rancher/ipam-agent"));
}

#[test]
fn there_is_one_version() {
    let chart = std::fs::read_to_string(root().join("deploy/chart/Chart.yaml")).expect("a chart");
    let own = env!("CARGO_PKG_VERSION");
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {own}");
        assert!(chart.lines().any(|found| found == line), "no `{line}`");
    }
}
