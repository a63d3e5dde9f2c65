//! Samples from hosts, and files that power cuts and people left damaged.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::engine::lease::Pool;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/cni")
}

/// A host's CNI directories, empty.
fn host() -> (TempDir, Paths) {
    let base = tempfile::tempdir().expect("a directory");
    let paths = Paths {
        configurations: vec![base.path().join("net.d")],
        caches: vec![base.path().join("results"), base.path().join("multus")],
        flannel: base.path().join("subnet.env"),
    };
    for directory in paths.configurations.iter().chain(&paths.caches) {
        fs::create_dir(directory).expect("a directory");
    }
    (base, paths)
}

fn address(text: &str) -> Address {
    Address::from_ip(text.parse().expect("an address")).expect("claimable")
}

fn holder(id: &str, interface: Option<&str>) -> Holder {
    Holder {
        container_id: Some(id.into()),
        interface: interface.map(Into::into),
        ..Holder::default()
    }
}

fn range(pool: &Pool) -> (String, String, String) {
    let (first, last) = pool.range.expect("a range");
    (
        first.to_string(),
        last.to_string(),
        pool.gateway.expect("a gateway").to_string(),
    )
}

/// A cached result of the bridge plugin.
fn bridged(id: &str, bridge: &str, vlan: u16) -> serde_json::Value {
    use base64::Engine;
    let config = serde_json::json!({
        "name": "storage", "cniVersion": "1.0.0",
        "plugins": [{ "type": "bridge", "bridge": bridge, "vlan": vlan,
            "ipam": { "type": "host-local", "subnet": "192.168.60.0/24" } }],
    });
    serde_json::json!({
        "kind": "cniCacheV1", "containerId": id, "ifName": "net1", "networkName": "storage",
        "config": base64::prelude::BASE64_STANDARD.encode(config.to_string()),
        "cniArgs": [["K8S_POD_NAMESPACE", "vms"], ["K8S_POD_NAME", "db-0"]],
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": bridge, "mac": "02:00:00:00:00:01" },
                { "name": "veth1a2b3c4d", "mac": "02:00:00:00:00:02" },
                { "name": "net1", "mac": "52:54:00:00:00:0b", "sandbox": "/run/netns/cni-1" },
            ],
            "ips": [{ "address": "192.168.60.11/24", "interface": 2 }],
        },
    })
}

#[test]
fn a_harvester_hosts_files_say_where_and_who() {
    let (base, mut paths) = host();
    paths.configurations = vec![fixtures().join("net.d")];
    paths.caches = vec![
        fixtures().join("results"),
        fixtures().join("multus/results"),
    ];
    fs::write(
        base.path().join("subnet.env"),
        "FLANNEL_NETWORK=10.52.0.0/16\nFLANNEL_SUBNET=10.52.0.1/24\nFLANNEL_IPV6_SUBNET=fd00:52::1/64\nFLANNEL_MTU=1450\n",
    )
    .expect("flannel's file");
    let cni = Reader::new(paths).read();
    let network = cni.network("k8s-pod-network").expect("known");
    assert_eq!(
        (&*network.plugin, &network.place),
        ("calico", &Place::Routed)
    );
    let [v4, v6] = &network.pools[..] else {
        panic!("{:?}", network.pools);
    };
    assert_eq!(v4.prefix.to_string(), "10.52.0.0/24");
    assert_eq!(
        range(v4),
        ("10.52.0.1".into(), "10.52.0.254".into(), "10.52.0.1".into())
    );
    assert_eq!(
        range(v6),
        (
            "fd00:52::1".into(),
            "fd00:52::ffff:ffff:ffff:ffff".into(),
            "fd00:52::1".into()
        )
    );

    let id = "247610f4dedd4ab7247d07dbda19c81ca9817f85820742cad49d407ffae9e4ed";
    for interface in [Some("eth0"), None] {
        let mut holder = holder(id, interface);
        cni.complete("k8s-pod-network", address("10.52.0.86"), &mut holder);
        assert_eq!(holder.pod.as_deref(), Some("kube-system/rke2-coredns-abc"));
        assert_eq!(holder.host_interface.as_deref(), Some("calid408e9ebad0"));
        assert_eq!(holder.mac, None);
    }
    assert_eq!(cni.notes.count(Note::Empty), 1);
}

#[test]
fn a_name_that_is_nobodys_is_not_taken_from_a_cache() {
    for (length, known) in [(253, true), (254, false), (40_000, false)] {
        let (_base, paths) = host();
        let mut cached = bridged("c1", "mgmt-br", 60);
        cached["cniArgs"][1][1] = "p".repeat(length).into();
        cached["result"]["interfaces"][1]["name"] = "v".repeat(length).into();
        let file = paths.caches[0].join("storage-c1-net1");
        fs::write(file, cached.to_string()).expect("a cache");
        let mut holder = holder("c1", Some("net1"));
        let cni = Reader::new(paths).read();
        cni.complete("storage", address("192.168.60.11"), &mut holder);
        assert_eq!(holder.pod.is_some(), known, "{length}");
        assert_eq!(holder.host_interface.is_some(), known, "{length}");
        assert!(holder.mac.is_some());
    }
}

#[test]
fn a_bridged_lease_gets_its_mac_veth_and_vlan() {
    let (_base, paths) = host();
    fs::write(
        paths.caches[1].join("storage-c1-net1"),
        bridged("c1", "mgmt-br", 60).to_string(),
    )
    .expect("a cache");
    let cni = Reader::new(paths).read();
    let network = cni.network("storage").expect("known from the cache alone");
    assert_eq!(
        network.place,
        Place::Bridge {
            bridge: "mgmt-br".into(),
            vlan: Some(60)
        }
    );
    assert_eq!(
        range(&network.pools[0]),
        (
            "192.168.60.1".into(),
            "192.168.60.254".into(),
            "192.168.60.1".into()
        )
    );

    let mut known = holder("c1", Some("net1"));
    cni.complete("storage", address("192.168.60.11"), &mut known);
    assert_eq!(known.mac, "52:54:00:00:00:0b".parse().ok());
    assert_eq!(known.host_interface.as_deref(), Some("veth1a2b3c4d"));
    assert_eq!(known.pod.as_deref(), Some("vms/db-0"));

    // An address that this attachment wasn't given says nothing of its MAC.
    let mut other = holder("c1", Some("net1"));
    cni.complete("storage", address("192.168.60.12"), &mut other);
    assert_eq!((other.mac, other.host_interface), (None, None));
    for foreign in [
        holder("c1", Some("eth0")),
        holder("c", Some("net1")),
        Holder::default(),
    ] {
        let mut holder = foreign.clone();
        cni.complete("storage", address("192.168.60.11"), &mut holder);
        assert_eq!(holder, foreign);
    }
}

#[test]
fn pods_on_another_bridge_than_configured_make_the_wire_unknown() {
    let (_base, paths) = host();
    let cache = |name: &str, bridge: &str| {
        fs::write(
            paths.caches[0].join(name),
            bridged(name, bridge, 0).to_string(),
        )
        .expect("a cache");
    };
    cache("a", "br0");
    let reader = Reader::new(paths.clone());
    assert_eq!(
        reader.read().network("storage").expect("known").place,
        Place::Bridge {
            bridge: "br0".into(),
            vlan: None
        }
    );
    cache("b", "br1");
    assert_eq!(
        reader.read().network("storage").expect("known").place,
        Place::Unknown
    );
    // What is gone counts no more.
    fs::remove_file(paths.caches[0].join("a")).expect("removed");
    assert_eq!(
        reader.read().network("storage").expect("known").place,
        Place::Bridge {
            bridge: "br1".into(),
            vlan: None
        }
    );

    let configuration = r#"{ "name": "storage", "type": "bridge", "bridge": "br2" }"#;
    fs::write(paths.configurations[0].join("10.conf"), configuration).expect("a configuration");
    assert_eq!(
        reader.read().network("storage").expect("known").place,
        Place::Unknown
    );
}

#[test]
fn every_kind_of_plugin_has_its_place() {
    let node = network::NodeSubnets::parse(b"FLANNEL_SUBNET=10.42.3.1/24\n");
    let place = |configuration: &str| {
        network::parse(configuration.as_bytes(), &node)
            .expect("parsed")
            .remove(0)
            .place
    };
    let bridge = |name: &str, vlan| Place::Bridge {
        bridge: name.into(),
        vlan,
    };
    assert_eq!(
        place(r#"{"name":"n","type":"bridge"}"#),
        bridge("cni0", None)
    );
    assert_eq!(
        place(r#"{"name":"n","type":"bridge","bridge":"br1","vlan":0}"#),
        bridge("br1", None)
    );
    assert_eq!(
        place(r#"{"name":"n","type":"bridge","bridge":"br1","vlan":7}"#),
        bridge("br1", Some(7))
    );
    assert_eq!(
        place(r#"{"name":"n","type":"bridge","vlanTrunk":[{"id":7}]}"#),
        Place::Unknown
    );
    assert_eq!(place(r#"{"name":"n","type":"ptp"}"#), Place::Routed);
    assert_eq!(
        place(r#"{"name":"n","type":"macvlan"}"#),
        Place::Unwatchable("macvlan".into())
    );
    assert_eq!(
        place(r#"{"name":"n","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#),
        bridge("cni0", None)
    );
    assert_eq!(
        place(r#"{"name":"n","type":"flannel","delegate":{"bridge":"kube"}}"#),
        bridge("kube", None)
    );
}

#[test]
fn ranges_are_completed_as_host_local_does() {
    let node = network::NodeSubnets::default();
    let pools = |ipam: &str| {
        let configuration = format!(r#"{{"name":"n","type":"bridge","ipam":{ipam}}}"#);
        network::parse(configuration.as_bytes(), &node)
            .expect("parsed")
            .remove(0)
            .pools
    };
    let given = pools(
        r#"{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16","rangeStart":"10.1.2.10","rangeEnd":"10.1.2.20","gateway":"10.1.0.254"}],[{"subnet":"10.3.0.0/30"}]]}"#,
    );
    assert_eq!(
        range(&given[0]),
        ("10.1.2.10".into(), "10.1.2.20".into(), "10.1.0.254".into())
    );
    assert_eq!(
        range(&given[1]),
        ("10.3.0.1".into(), "10.3.0.2".into(), "10.3.0.1".into())
    );
    assert_eq!(pools(r#"{"type":"host-local","subnet":"usePodCidr"}"#), []);
    assert_eq!(pools(r#"{"type":"whereabouts","range":"10.1.0.0/16"}"#), []);
}

#[test]
fn a_meta_plugins_delegates_are_networks_too() {
    let configuration = r#"{"name":"multus-cni-network","type":"multus","delegates":[
        {"name":"k8s-pod-network","plugins":[{"type":"calico","ipam":{"type":"host-local","subnet":"10.52.0.0/24"}}]}]}"#;
    let networks =
        network::parse(configuration.as_bytes(), &network::NodeSubnets::default()).expect("parsed");
    let names: Vec<&str> = networks.iter().map(|network| &*network.name).collect();
    assert_eq!(names, ["multus-cni-network", "k8s-pod-network"]);
    assert_eq!(networks[1].place, Place::Routed);
}

#[test]
fn damaged_files_are_counted_and_hide_no_other() {
    let (_base, paths) = host();
    let cache = |name: &str, content: &[u8]| {
        fs::write(paths.caches[0].join(name), content).expect("a file")
    };
    let whole = bridged("c1", "br0", 0).to_string();
    cache("a-empty", b"");
    cache("b-cut", &whole.as_bytes()[..whole.len() / 2]);
    cache("c-nul", &[0; 17]);
    cache(
        "d-other",
        br#"{"kind":"other","containerId":"x","ifName":"y","networkName":"z"}"#,
    );
    cache("e-huge", &vec![b' '; FILE_LIMIT as usize + 1]);
    cache("f-whole", whole.as_bytes());
    // A pipe that has a writer, who says nothing: what waits for a word waits for ever.
    let pipes = [&paths.caches[0], &paths.configurations[0]].map(|dir| dir.join("g-pipe.conf"));
    let _writers = pipes.each_ref().map(|pipe| {
        nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        fs::File::options().read(true).write(true).open(pipe)
    });
    fs::write(paths.configurations[0].join("10.conflist"), "{").expect("a file");
    fs::write(
        paths.configurations[0].join("README"),
        "not a configuration",
    )
    .expect("a file");
    let reader = Reader::new(paths);
    for _ in 0..2 {
        let cni = reader.read();
        assert!(cni.network("storage").is_some());
        assert_eq!(cni.notes.count(Note::Empty), 1);
        assert_eq!(cni.notes.count(Note::Damaged), 4);
        assert_eq!(cni.notes.count(Note::TooLarge), 1);
        assert_eq!(cni.notes.count(Note::Unreadable), 2);
        let said = cni.notes.lines().find(|line| line.contains("it is a pipe"));
        assert!(said.is_some(), "{:?}", cni.notes);
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_readers(content in proptest::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let node = network::NodeSubnets::parse(&content);
        let _ = network::parse(&content, &node);
        let _ = Attachment::parse(&content, &node);
        let mut whole = bridged("c1", "br0", 0).to_string().into_bytes();
        let place = cut.index(whole.len());
        whole[place] = byte;
        let _ = Attachment::parse(&whole, &node);
    }
}
