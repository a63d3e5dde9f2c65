//! Lease files as documented, wrong ones with their line, and large ones.

use std::{
    fmt::Write,
    fs,
    time::{Duration, Instant},
};

use ipam_common::{Address, Mac};
use tempfile::TempDir;

use super::*;

const SAMPLE: &str = r#"
leases:
  - address: 192.168.60.11
    mac: "52:54:00:00:00:0b"
    interface: veth1a2b
    holder: "vm/db-0"
    granted: 2026-11-01T10:00:00Z
  - address: fd00:60::b
pools:
  - cidr: 192.168.60.0/24
    segment: mgmt-br
    vlan: 10
    gateway: 192.168.60.1
    gateway_mac: "52:54:00:ff:ff:01"
    exclude: [192.168.60.2-192.168.60.9, 192.168.60.77]
owners:
  - { name: node2, macs: ["3c:ec:ef:00:01:a1", "3c:ec:ef:00:01:a2"] }
exempt:
  - { addresses: ["192.168.60.1/32"], macs: ["00:00:5e:00:01:*"], reason: "VRRP" }
"#;

fn file(name: &str, content: &str) -> (TempDir, LeaseFile) {
    let base = tempfile::tempdir().expect("a directory");
    let path = base.path().join(name);
    fs::write(&path, content).expect("a file");
    (base, LeaseFile::new(path, Vec::new()))
}

fn read(name: &str, content: &str) -> Result<(StoreView, Owners), FileError> {
    let (_base, file) = file(name, content);
    let mut reading = file.load()?;
    Ok((reading.views.remove(0).expect("a view"), reading.owners))
}

fn address(text: &str) -> Address {
    Address::from_ip(text.parse().expect("an address")).expect("claimable")
}

fn mac(text: &str) -> Mac {
    text.parse().expect("a MAC")
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (_base, file) = file("leases.yaml", SAMPLE);
    fs::remove_file(&file.path).expect("removed");
    nix::unistd::mkfifo(&file.path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let error = crate::error::in_full(&file.load().expect_err("a pipe"));
    assert!(error.contains("leases.yaml: it is a pipe"), "{error}");
}

#[test]
fn the_documented_file_is_read_in_full() {
    let (view, owners) = read("leases.yaml", SAMPLE).expect("read");
    let place = Place::Segment {
        name: "mgmt-br".into(),
        vlan: Some(10),
    };
    assert!(view.store.0.starts_with("file:/") && view.writable.is_err());
    assert_eq!(view.place, place);
    let [pool] = &view.pools[..] else {
        panic!("{:?}", view.pools);
    };
    assert_eq!(pool.prefix.to_string(), "192.168.60.0/24");
    assert_eq!(pool.gateway, Some(address("192.168.60.1")));
    assert_eq!(pool.gateway_mac, Some(mac("52:54:00:ff:ff:01")));
    let excluded = [
        ("192.168.60.2", "192.168.60.9"),
        ("192.168.60.77", "192.168.60.77"),
    ];
    assert_eq!(
        pool.exclude,
        excluded.map(|(first, last)| (address(first), address(last)))
    );
    assert_eq!(pool.place, Some(place));
    let [v4, v6] = &view.leases[..] else {
        panic!("{:?}", view.leases);
    };
    let v4 = if v4.address.is_ipv4() { v4 } else { v6 };
    assert_eq!(v4.holder().mac, Some(mac("52:54:00:00:00:0b")));
    assert_eq!(v4.holder().host_interface.as_deref(), Some("veth1a2b"));
    assert_eq!(v4.holder().pod.as_deref(), Some("vm/db-0"));
    assert_eq!(owners.owners[0].macs.len(), 2);
    assert!(owners.is_exempt(address("192.168.60.1"), mac("00:00:5e:00:01:05")));
    assert!(!owners.is_exempt(address("192.168.60.1"), mac("00:00:5e:00:02:05")));
}

#[test]
fn json_and_csv_say_the_same() {
    let json = r#"{"leases":[{"address":"192.168.60.11","mac":"52:54:00:00:00:0b","interface":"veth1a2b","holder":"vm/db-0","granted":"2026-11-01T10:00:00Z"},{"address":"fd00:60::b"}]}"#;
    let csv = "address,mac,interface,holder,granted\n192.168.60.11,52:54:00:00:00:0b,veth1a2b,vm/db-0,2026-11-01T10:00:00Z\nfd00:60::b,,,,\n";
    let leases = |name: &str, content: &str| {
        let leases = read(name, content).expect("read").0.leases.into_iter();
        leases
            .map(|lease| (lease.address, lease.holder(), lease.generation()))
            .collect::<Vec<_>>()
    };
    let expected = leases("leases.yaml", SAMPLE);
    assert_eq!(leases("leases.json", json), expected);
    assert_eq!(leases("leases.yaml", json), expected);
    assert_eq!(leases("leases.CSV", csv), expected);
    assert_eq!(leases("leases.csv", "address\n192.168.60.11\n").len(), 1);
    // As some editors begin a file.
    for (name, content) in [
        ("leases.yaml", SAMPLE),
        ("leases.json", json),
        ("leases.csv", csv),
    ] {
        assert_eq!(
            leases(name, &format!("\u{feff}{content}")),
            expected,
            "{name}"
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let cases = [
        (
            "a.yaml",
            "leases:\n  - address: 192.168.60.11\n    owner: me\n",
            Some(3),
            "owner",
        ),
        (
            "a.yaml",
            "leases:\n  - address: 192.168.60.300\n",
            Some(2),
            "`192.168.60.300` is no IP address",
        ),
        (
            "a.yaml",
            "leases:\n  - address: 224.0.0.1\n",
            Some(2),
            "no machine can have",
        ),
        (
            "a.yaml",
            "leases:\n  - mac: 52:54:00:00:00:0b\n",
            None,
            "address",
        ),
        (
            "a.yaml",
            "leases:\n  - address: 10.0.0.1\n    mac: \"01:00:5e:00:00:01\"\n",
            Some(3),
            "unicast",
        ),
        (
            "a.yaml",
            "pools:\n  - cidr: 192.168.60.1/24\n",
            None,
            "192.168.60.0/24",
        ),
        (
            "a.yaml",
            "pools:\n  - cidr: 192.168.60.0/24\n    segment: br\n    vlan: 4095\n",
            None,
            "VLAN 4095",
        ),
        (
            "a.yaml",
            "pools:\n  - cidr: 192.168.60.0/24\n    gateway: 192.168.61.1\n",
            None,
            "not in the pool",
        ),
        (
            "a.yaml",
            "pools:\n  - cidr: 192.168.60.0/24\n    exclude: [192.168.60.9-192.168.60.2]\n",
            Some(3),
            "ends before",
        ),
        (
            "a.yaml",
            "pools:\n  - cidr: 10.0.0.0/24\n  - cidr: 10.0.1.0/24\n  - cidr: 10.0.0.0/24\nleases: []\n",
            Some(4),
            "10.0.0.0/24 is there twice",
        ),
        (
            "a.json",
            "{\"pools\": [{\"cidr\": \"10.0.0.0/24\"},\n{\"cidr\": \"10.0.0.0/24\"}]}",
            Some(2),
            "10.0.0.0/24 is there twice",
        ),
        (
            "a.yaml",
            "owners:\n  - { name: a, macs: [\"3c:ec:ef:00:01:a1\"] }\n  - name: b\n    macs: [\"3c:ec:ef:00:01:a1\"]\n",
            Some(3),
            "`a` has it already",
        ),
        (
            "a.yaml",
            "owners:\n  - name: a\n    macs: []\n",
            Some(3),
            "names no MAC",
        ),
        (
            "a.yaml",
            "exempt:\n  - reason: x\n    addresses: []\n",
            Some(3),
            "names no address",
        ),
        (
            "a.yaml",
            "exempt:\n  - addresses: [10.88.0.77/24]\n    reason: x\n",
            Some(2),
            "did you mean 10.88.0.0/24?",
        ),
        ("a.yaml", "lease: []\n", Some(1), "lease"),
        ("a.yaml", "leases: [\n", None, ""),
        (
            "a.json",
            "{\n\"leases\": [{\n\"address\": 5}]}",
            Some(3),
            "string",
        ),
        ("a.json", "[]", Some(1), "expected keys with values"),
        (
            "a.json",
            "{\"leases\":\n[[\"10.0.0.1\"]]}",
            Some(2),
            "expected keys with values",
        ),
        (
            "a.json",
            "{\"pools\":\n[[\"10.0.0.0/24\"]]}",
            Some(2),
            "expected keys with values",
        ),
        (
            "a.json",
            "{\"exempt\":\n[[[\"10.0.0.1\"],[],\"x\"]]}",
            Some(2),
            "expected keys with values",
        ),
        ("a.yaml", "leases: []\n---\n", None, "one document only"),
        (
            "a.yaml",
            "leases:\n  - address:\n",
            Some(2),
            "a value is missing",
        ),
        (
            "a.yaml",
            "leases: []\nexempt: [{ addresses: [10.0.0.1], macs: [*x], reason: x }]\n",
            Some(2),
            "needs quotes",
        ),
        ("a.yaml", "leases: &a []\n", Some(1), "write it out"),
        ("a.yaml", "leases: []\n# \0\0\n", Some(2), "NUL bytes"),
        ("a.csv", "10.0.0.1\n", None, "names the columns"),
        (
            "a.csv",
            "# leases\n10.0.0.1,52:54:00:00:00:0b\n",
            None,
            "names the columns",
        ),
        ("a.csv", "address,nic\n10.0.0.1,x\n", None, "nic"),
        (
            "a.csv",
            "address\n10.0.0.1\nten\n",
            Some(3),
            "`ten` is no IP address",
        ),
    ];
    for (name, content, expected, words) in cases {
        let error = read(name, content).expect_err(content);
        let FileError::Syntax { line, message, .. } = &error else {
            panic!("{content}: {error:?}");
        };
        println!("{error}");
        assert!(message.contains(words), "{content}: {message}");
        assert!(
            expected.is_none() || *line == expected,
            "{content}: {error}"
        );
    }
    assert!(matches!(read("a.yaml", "\n"), Err(FileError::Empty { .. })));
    assert!(matches!(
        LeaseFile::new("/nowhere".into(), Vec::new()).load(),
        Err(FileError::Read { .. })
    ));
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, of) in ["b", "c", "d", "e", "f", "g"].iter().zip("abcdef".chars()) {
        let _ = writeln!(
            bomb,
            "{name}: &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]"
        );
    }
    let began = Instant::now();
    assert!(read("a.yaml", &bomb).is_err());
    assert!(read("a.yaml", &"[".repeat(100_000)).is_err());
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// A hundred thousand leases, in each form.
#[test]
fn large_files_are_read_in_seconds() {
    let number = 100_000u32;
    let mut forms = [
        ("a.yaml", "leases:\n".to_owned()),
        ("a.json", "{\"leases\":[".to_owned()),
        ("a.csv", "address,mac,holder\n".to_owned()),
    ];
    for n in 0..number {
        let [_, a, b, c] = n.to_be_bytes();
        let (ip, mac, holder) = (
            format!("10.{a}.{b}.{c}"),
            format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"),
            format!("vm/db-{n}"),
        );
        let comma = if n == 0 { "" } else { "," };
        let _ = writeln!(
            forms[0].1,
            "  - address: {ip}\n    mac: \"{mac}\"\n    holder: \"{holder}\""
        );
        let _ = writeln!(
            forms[1].1,
            "{comma}{{\"address\":\"{ip}\",\"mac\":\"{mac}\",\"holder\":\"{holder}\"}}"
        );
        let _ = writeln!(forms[2].1, "{ip},{mac},{holder}");
    }
    forms[1].1.push_str("]}");
    for (name, content) in forms {
        let (_base, file) = file(name, &content);
        let began = Instant::now();
        let reading = file.load().expect("read");
        let elapsed = began.elapsed();
        println!(
            "{number} leases of {name}, {} MiB, read in {elapsed:?}",
            content.len() >> 20
        );
        assert_eq!(
            reading.views[0].as_ref().map(|view| view.leases.len()).ok(),
            Some(number as usize)
        );
        // A guard against what grows with the square; the benchmark has the figures.
        assert!(elapsed < Duration::from_secs(20), "{name}: {elapsed:?}");
    }
}
