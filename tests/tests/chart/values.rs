//! What values may say.

use std::fmt::Write as _;

use super::{config, rendered};

#[test]
fn the_release_decides_what_each_store_may_lose() {
    let stores = "config: { stores: [{ kind: host-local }, { kind: host-local, dir: /opt/cni/networks, \
                  reclaim: observe }, { kind: file, path: /etc/ipam-agent/leases.yaml }] }\n";
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
        "stateDir: var/lib\n",
        "stateDir: /var/lib/../../etc\n",
        "runtimeDirs: [/run/containerd, /run/containerd]\n",
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
