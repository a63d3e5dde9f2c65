mod reference;

use std::{path::Path, time::Duration};

use super::{Config, Cri, LEASE_FILE, Overrides, Reclaim};
use crate::{
    engine::lease::{Mode, Place},
    store::source::Source,
};

fn parse(text: &str) -> Result<Config, String> {
    let file = Path::new("/etc/ipam-agent/config.yaml");
    Config::parse(file, text, Overrides::default()).map_err(|error| error.to_string())
}

/// The configuration of the documentation, with what it says of each key's default.
const DOCUMENTED: &str = r#"
interfaces: { include: ["veth*", "cali*", "*-bo", "bond*"], exclude: [] }
stores:
  - { kind: host-local, dir: /var/lib/cni/networks, reclaim: observe, fence: false, pools: [] }
holders: { cri: auto, netns: true }
observe: { data_plane: true, confirm: [] }
owners: []
exempt: []
keep: []
conflicts: { quiet: 120s, lease_grace: 5s, memory: 1h }
reclaim: { gate: 15m, damaged_gate: 30m, asked_gate: 5m, asked_damaged_gate: 15m, reboot_gate: 60s, pass_interval: 60s,
           max_per_pass: 64, max_percent: 10, clean_caches: false, lab: false }
state_dir: /var/lib/ipam-agent
socket: /run/ipam-agent/agent.sock
listen: 127.0.0.1:9477
metrics: { max_conflict_info: 100, expose_conflict_info: false }
"#;

#[test]
fn the_documented_configuration_is_the_default_one() {
    let documented = parse(DOCUMENTED).expect("valid");
    for nothing in ["", "# nothing but a comment\n", "---\n"] {
        let default = parse(nothing).expect("valid");
        assert_eq!(format!("{documented:?}"), format!("{default:?}"));
    }
    assert_eq!(documented.reclaim, Reclaim::default());
    assert!(documented.interfaces.wants("veth1a2b"));
    assert!(documented.interfaces.wants("mgmt-bo"));
    assert!(!documented.interfaces.wants("mgmt-br"));
}

#[test]
fn all_that_can_be_said_is_understood() {
    let config = parse(
        r#"
interfaces: { include: ["eth*"], exclude: [eth9] }
stores:
  - kind: host-local
    reclaim: after-reboot
    fence: true
    pools:
      - cidr: 192.168.60.0/24
        segment: mgmt-br
        vlan: 10
        gateway: 192.168.60.1
        gateway_mac: "52:54:00:ff:ff:01"
        exclude: [192.168.60.2-192.168.60.9, 192.168.60.20]
  - { kind: file }
holders: { cri: "unix:///run/crio/crio.sock" }
owners:
  - { name: node2, macs: ["3c:ec:ef:00:01:a1", "3c:ec:ef:00:01:a2"] }
exempt:
  - { addresses: ["192.168.60.1/32"], macs: ["00:00:5E:00:01:*"], reason: VRRP }
keep: [10.0.0.5, "fd00:52::/64"]
reclaim: { gate: 1h30m, clean_caches: true }
"#,
    )
    .expect("valid");
    assert!(config.interfaces.wants("eth0") && !config.interfaces.wants("eth9"));
    let [networks, file] = config.stores.as_slice() else {
        panic!("two stores");
    };
    assert_eq!(networks.reclaim, Mode::AfterReboot);
    assert!(networks.fence && !file.fence);
    let pool = &networks.pools[0];
    let segment = Place::Segment {
        name: "mgmt-br".into(),
        vlan: Some(10),
    };
    assert_eq!(pool.place, Some(segment));
    assert_eq!(pool.exclude.len(), 2);
    assert_eq!(pool.exclude[0].1.to_string(), "192.168.60.9");
    let lease_file = Source::File(LEASE_FILE.into());
    assert_eq!((&file.source, file.reclaim), (&lease_file, Mode::Observe));
    assert_eq!(
        config.holders.cri,
        Cri::Socket("/run/crio/crio.sock".into())
    );
    let [owner] = config.owners.owners.as_slice() else {
        panic!("one owner");
    };
    assert_eq!((&*owner.name, owner.macs.len()), ("node2", 2));
    let exempt = &config.owners.exempt[0];
    assert_eq!(exempt.macs[0].to_string(), "00:00:5e:00:01:*");
    assert_eq!(config.keep[0].to_string(), "10.0.0.5/32");
    assert_eq!(config.reclaim.gate, Duration::from_secs(90 * 60));
    assert!(config.reclaim.clean_caches);
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
    let wrong = [
        "interfaces:\n  includes: [a]\n",
        "interfaces:\n  include: ['veth[']\n",
        "stores: [{ kind: kea }]\n",
        "stores: [{ kind: file, dir: /x }]\n",
        "stores: [{ kind: file, path: leases.yaml }]\n",
        "stores: [{ kind: file, reclaim: continuous }]\n",
        "stores:\n  - kind: host-local\n    reclaim: always\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.1/24 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24, vlan: 10 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24, segment: b, vlan: 4095 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24, gateway: 10.0.1.1 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24, exclude: [10.0.0.9-10.0.0.2] }] }]\n",
        "stores:\n  - kind: host-local\n    pools:\n      - cidr: 10.0.0.0/24\n        gateway_mac: '52:54:00:ff:ff:01'\n",
        "stores:\n  - kind: host-local\n    pools:\n      - cidr: 10.0.0.0/24\n        gateway: 10.0.0.0\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24, gateway: 10.0.0.255 }] }]\n",
        "stores:\n  - kind: host-local\n    pools:\n      - { cidr: 10.0.0.0/24 }\n      - { cidr: 10.0.1.0/24 }\n      - { cidr: 10.0.0.0/24 }\n",
        "stores: [{ kind: file, pools: [{ cidr: 10.0.0.0/24, segment: b, vlan: 5 }, { cidr: 10.0.0.0/24, segment: b, vlan: 5 }] }]\n",
        "stores: [{ kind: file, fence: true }]\n",
        "holders: { cri: docker }\n",
        "holders:\n  cri: off\n  netns: false\nstores: [{ kind: host-local, reclaim: continuous }]\n",
        "holders: { cri: off }\nreclaim:\n  gate: 1h\n  clean_caches: true\n",
        "observe:\n  data_plane: false\nstores: [{ kind: host-local, reclaim: after-reboot }]\n",
        "observe: { data_plane: perhaps }\n",
        "observe:\n  confirm:\n    - mgmt-br\n    - mgmt-br.5000\n",
        "observe: { confirm: [mgmt-br.0] }\n",
        "conflicts: { quiet: 120 }\n",
        "conflicts: { quiet: 1s }\n",
        "owners: [{ name: n, macs: ['01:00:5e:00:00:01'] }]\n",
        "owners: [{ name: n, macs: [] }]\n",
        "owners:\n  - { name: a, macs: ['3c:ec:ef:00:01:a1'] }\n  - { name: b, macs: ['3c:ec:ef:00:01:a1'] }\n",
        "owners:\n  - { name: a, macs: ['3c:ec:ef:*'] }\n  - { name: b, macs: ['3c:ec:ef:00:01:a1'] }\n",
        "exempt: [{ addresses: [], reason: x }]\n",
        "exempt: [{ addresses: [10.0.0.0/33], reason: x }]\n",
        "exempt: [{ addresses: [10.88.0.77/24], reason: x }]\n",
        "exempt: [{ addresses: ['::ffff:10.52.0.72'], reason: x }]\n",
        "exempt: [{ addresses: [10.0.0.1], macs: ['00:00:5e:0:*'], reason: VRRP }]\n",
        "reclaim:\n  gate: 900\n",
        "reclaim:\n  gate: soon\n",
        "reclaim:\n  gate: -15m\n",
        "reclaim:\n  gate: 299s\n",
        "reclaim:\n  asked_damaged_gate: 5m\n",
        "reclaim:\n  gate: 1000h\n",
        "reclaim:\n  max_percent: 50\n",
        "reclaim:\n  lab: true\n  pass_interval: 0s\n",
        "state_dir: state\n",
        "listen: 9477\n",
        "listen: localhost\n",
        "keep: []\nlisten:\n  - 127.0.0.1:9477\n  - 10.0.0.1\n",
        "listen: [127.0.0.1:9477, 127.0.0.1:9477]\n",
        "listen: [127.0.0.1:9477, 0.0.0.0:9477]\n",
        "listen:\n  - 0.0.0.0:9477\n  - 127.0.0.1:9477\n",
        "listen: ['[::]:9477', '[::1]:9477']\n",
        "listen: [10.0.0.1:9477, '[::]:9477']\n",
        "listen: []\n",
        "listen: { port: 9477 }\n",
        "metrics: { max_conflict_info: 5000 }\n",
        "keep: [everything]\n",
        "keep: [10.0.0.0/24\n",
        "- a\n- b\n",
        // What people get wrong.
        "reclaims: { gate: 15m }\n",
        "reclaim: { Gate: 15m }\n",
        "reclaim: { max-per-pass: 5 }\n",
        "zebra: 1\n",
        "stores: host-local\n",
        "stores: { kind: host-local }\n",
        "stores: [host-local]\n",
        "stores: [{ dir: /var/lib/cni/networks }]\n",
        "stores: [{ kind: hostlocal }]\n",
        "stores: [{ kind: host-local, reclaim: after_reboot }]\n",
        "stores: [{ kind: host-local, reclaim: true }]\n",
        "stores: [{ kind: host-local }, { kind: host-local, reclaim: continuous }]\n",
        "stores: [{ kind: host-local, fence: maybe }]\n",
        "interfaces: veth*\n",
        "interfaces: { include: eth0 }\n",
        "holders: auto\n",
        "observe: { data_plane: 2 }\n",
        "reclaim: { max_per_pass: many }\n",
        "reclaim: { max_per_pass: 0 }\n",
        "reclaim: { max_percent: -1 }\n",
        "reclaim: { max_percent: 7.5 }\n",
        "reclaim: { clean_caches: sure }\n",
        "reclaim: { gate: 15M }\n",
        "reclaim: { gate: 1h, damaged_gate: 30m }\n",
        "reclaim: { asked_gate: 20m, asked_damaged_gate: 15m }\n",
        "keep: 10.0.0.5\n",
        "keep: [10.0.0.5/24]\n",
        "keep: ['::ffff:10.52.0.72']\n",
        "keep: ['::ffff:10.52.0.0/120']\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 192.168.60.0 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: '::ffff:192.168.60.0/120' }] }]\n",
        "stores: [{ kind: file, pools: [{ cidr: 192.168.60.0/24, exclude: [192.168.60.0/28] }] }]\n",
        "stores: [{ kind: file, pools: [{ cidr: 192.168.60.0/24, exclude: ['192.168.60.9-fd00::1'] }] }]\n",
        "owners: [{ macs: ['3c:ec:ef:00:01:a1'] }]\n",
        "owners: [{ name: n, mac: '3c:ec:ef:00:01:a1' }]\n",
        "socket: agent.sock\n",
        "listen: ':9477'\n",
        "listen: 127.0.0.1:94770\n",
        "reclaim:\n  gate: 15m\n  gate: 20m\n",
        "reclaim:\n\tgate: 15m\n",
        "reclaim: { gate: 15m\nkeep: []\n",
        "stores:\n  - kind:\n",
        "keep:\n  -\n",
        "stores:\n  -\n",
        "owners: [{ name: n, macs: ~ }]\n",
        "keep: []\n---\nkeep: []\n",
        "interfaces: { include: [*-bo] }\n",
        "keep: &a [*a]\n",
        "keep: &a [*b]\n",
    ];
    let mut story = String::new();
    for text in wrong {
        let error = parse(text).expect_err(text);
        story += &format!("{text}  => {error}\n\n");
    }
    insta::assert_snapshot!(story);
}

#[test]
fn a_line_is_quoted_in_bounds() {
    let long = "10.0.0.300, ".repeat(10_000);
    for text in [format!("keep: [{long}]\n"), format!("keep: {long}\n"), long] {
        let error = parse(&text).expect_err("wrong");
        assert!(error.len() < 500, "{} bytes", error.len());
    }
}

#[test]
fn what_is_no_text_is_no_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yaml");
    let load = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("written");
        let overrides = Overrides {
            file: Some(file.clone()),
            ..Overrides::default()
        };
        Config::load(overrides).map_err(|error| crate::error::in_full(&error))
    };
    load("\u{feff}keep: []\n".as_bytes()).expect("valid");
    let error = load(b"keep: []\n# M\xfcller\n").expect_err("Latin 1");
    assert!(
        error.ends_with("config.yaml:2: byte 0xfc is no UTF-8: save it as UTF-8"),
        "{error}"
    );
    let error = load(&[b'#'; (1 << 20) + 1]).expect_err("too long");
    assert!(
        error.ends_with("config.yaml: it is longer than 1 MiB"),
        "{error}"
    );
}

/// What looks like a contradiction, and is none.
#[test]
fn what_is_legitimate_is_taken() {
    for text in [
        "stores: [{ kind: file, pools: [{ cidr: 10.0.0.0/24, segment: b, vlan: 5 }, \
         { cidr: 10.0.0.0/24, segment: b, vlan: 6 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/24 }] }, \
         { kind: file, pools: [{ cidr: 10.0.0.0/24 }] }]\n",
        // RFC 3021, and the routers' anycast address of RFC 4291.
        "stores: [{ kind: host-local, pools: [{ cidr: 10.0.0.0/31, gateway: 10.0.0.0 }] }]\n",
        "stores: [{ kind: host-local, pools: [{ cidr: 'fd00::/64', gateway: 'fd00::' }] }]\n",
        "owners: [{ name: a, macs: ['3c:ec:ef:*', '3c:ec:ef:00:01:a1'] }]\n",
        "exempt: [{ addresses: [10.0.0.1], reason: anycast }]\n",
        "observe: { confirm: [mgmt-br, mgmt-br.4094, eth0.mgmt] }\n",
        "holders: { cri: off }\nreclaim: { clean_caches: false }\n",
    ] {
        parse(text).expect(text);
    }
}

/// Of a damaged lease less is known: it is judged no sooner, whoever moves the other gate.
#[test]
fn a_longer_gate_takes_that_of_damaged_leases_along() {
    let reclaim = parse("reclaim: { gate: 2h, asked_gate: 20m }\n")
        .expect("valid")
        .reclaim;
    assert_eq!(reclaim.damaged_gate, Duration::from_secs(2 * 3600));
    assert_eq!(reclaim.asked_damaged_gate, Duration::from_secs(20 * 60));
    let shorter = parse("reclaim: { gate: 5m }\n").expect("valid").reclaim;
    assert_eq!(shorter.damaged_gate, Reclaim::default().damaged_gate);
}

#[test]
fn a_laboratory_may_go_below_the_floors() {
    let text = "reclaim: { lab: true, gate: 2s, asked_gate: 0s, max_per_pass: 1000, \
                max_percent: 100, pass_interval: 200ms }\n";
    let reclaim = parse(text).expect("valid").reclaim;
    assert_eq!(reclaim.gate, Duration::from_secs(2));
    assert_eq!(reclaim.pass_interval, Duration::from_millis(200));
    assert_eq!((reclaim.max_per_pass, reclaim.max_percent), (1000, 100));
}

#[test]
fn flags_override_the_file() {
    let overrides = Overrides {
        file: None,
        interfaces: vec!["eth0".to_owned()],
        leases: vec!["host-local:/tmp/x".parse().expect("a source")],
        state_dir: Some("/tmp/state".into()),
        socket: Some("/tmp/agent.sock".into()),
        listen: vec!["[::1]:1".to_owned(), "10.0.0.1:9477".to_owned()],
    };
    let text =
        "interfaces: { include: ['cali*'] }\nstores: [{ kind: host-local, reclaim: continuous }]\n";
    let config = Config::parse(Path::new("/c.yaml"), text, overrides).expect("valid");
    assert!(config.interfaces.wants("eth0") && !config.interfaces.wants("cali1"));
    assert_eq!(config.stores.len(), 1);
    assert_eq!(config.stores[0].reclaim, Mode::Observe);
    assert_eq!(config.state_dir, Path::new("/tmp/state"));
    assert_eq!(config.socket, Path::new("/tmp/agent.sock"));
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["[::1]:1", "10.0.0.1:9477"]);
}

#[test]
fn a_store_is_named_once_by_flags_too() {
    let source = |text: &str| text.parse().expect("a source");
    let of = |second| Config::without_file(vec![source("host-local:/a"), source(second)]);
    of("host-local:/b").expect("two stores");
    let error = of("host-local:/a").expect_err("one store").to_string();
    assert_eq!(
        error,
        "command line: --leases: host-local:/a: is there twice"
    );
}

#[test]
fn it_listens_on_one_address_or_several_or_none() {
    for (text, addresses) in [
        ("", &["127.0.0.1:9477"][..]),
        ("listen: 10.0.0.1:80\n", &["10.0.0.1:80"]),
        ("listen: '[10.0.0.1]:80'\n", &["10.0.0.1:80"]),
        (
            "listen: ['[::1]:9477', 10.0.0.1:9477]\n",
            &["[::1]:9477", "10.0.0.1:9477"],
        ),
        (
            "listen: [0.0.0.0:9477, 127.0.0.1:9478]\n",
            &["0.0.0.0:9477", "127.0.0.1:9478"],
        ),
        (
            "listen: [0.0.0.0:9477, '[::1]:9477']\n",
            &["0.0.0.0:9477", "[::1]:9477"],
        ),
        ("listen: off\n", &[]),
        ("listen: 'off'\n", &[]),
        ("listen: false\n", &[]),
    ] {
        let listen = parse(text).expect("valid").listen;
        let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, addresses, "{text}");
    }
}

#[test]
fn a_named_file_must_exist() {
    let overrides = Overrides {
        file: Some("/nonexistent/config.yaml".into()),
        ..Overrides::default()
    };
    let error = Config::load(overrides).expect_err("missing");
    assert!(error.to_string().contains("/nonexistent/config.yaml"));
}
