//! Captures replayed by the real binary: reports as they are kept, every form that a capture
//! may have, and captures that are none.

#[path = "replay/damaged.rs"]
mod damaged;
#[path = "replay/forms.rs"]
mod forms;
#[path = "replay/several.rs"]
mod several;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    capture::{ETHERNET, Endian, Ng},
    daemon::{Answer, agent},
    frames::{self, Arp},
    scenario::{Family, World, recorded},
};

const SECOND: u64 = 1_000_000_000;

/// A place for captures.
struct Desk(TempDir);

impl Desk {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    }
}

fn fixture(name: &str) -> String {
    let fixtures: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fixtures", name]
        .iter()
        .collect();
    fixtures.display().to_string()
}

/// A report, and how the command ended.
fn replay(args: &[&str]) -> Result<(Value, Answer)> {
    let answer = agent(&[&["replay", "--output", "json"], args].concat())?;
    let report = answer.json()?;
    Ok((report, answer))
}

/// Of each conflict the segment, the address and the kind.
fn conflicts(report: &Value) -> Vec<String> {
    let conflicts = report["conflicts"].as_array().into_iter().flatten();
    let mut conflicts: Vec<String> = conflicts
        .map(|conflict| {
            let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            format!(
                "{} {} {}",
                word(&conflict["segment"]["name"]),
                word(&conflict["address"]),
                word(&conflict["kind"])
            )
        })
        .collect();
    conflicts.sort();
    conflicts
}

/// The one capture of a report.
fn capture(report: &Value) -> &Value {
    &report["captures"][0]
}

fn announcement(station: u16, at: u64) -> (u64, Vec<u8>) {
    let address = Ipv4Addr::new(10, 0, 0, 5);
    (at, Arp::announcement(frames::mac(station), address).frame())
}

/// Two stations in turns: one duplicate of 10.0.0.5.
fn duplicate() -> Vec<(u64, Vec<u8>)> {
    [(1, 0), (2, 3), (1, 6)]
        .map(|(station, at)| announcement(station, 1_700_000_000 * SECOND + at * SECOND))
        .into()
}

/// Captures of tcpdump and dumpcap, and the demo's.
#[test]
fn reports_are_as_they_are_kept() -> Result<()> {
    let leases = format!("file:{}", fixture("demo/leases.yaml"));
    let bridge = "br0=vetha,vethb,br0";
    let cases: [(&str, &str, &[&str]); 6] = [
        ("demo", "demo/cni0.pcap", &["--leases", &leases]),
        ("nanoseconds", "captures/nanoseconds.pcap.gz", &[]),
        ("cooked_v1", "captures/any-cooked-v1.pcap", &[]),
        ("cooked_v2", "captures/any-cooked-v2.pcap", &[]),
        ("ports_apart", "captures/three-ports.pcapng", &[]),
        (
            "ports_of_a_bridge",
            "captures/three-ports.pcapng",
            &["--segment", bridge],
        ),
    ];
    for (name, file, more) in cases {
        let file = fixture(file);
        let table = agent(&[&["replay", &file], more].concat())?;
        ensure!(table.status == Some(1), "{table:?}");
        let here = fixture("");
        let told = format!("{}\n{}", table.err, table.out);
        insta::assert_snapshot!(name, told.replace(&here, ""));
        let (mut report, _) = replay(&[&[file.as_str()], more].concat())?;
        report["host"] = "host".into();
        let text = serde_json::to_string_pretty(&report)?.replace(&here, "");
        insta::assert_snapshot!(format!("{name}_json"), text);
    }
    Ok(())
}

/// In the five seconds after a capture's end what is pending ripens, and nothing resolves.
#[test]
fn nothing_resolves_after_the_end() -> Result<()> {
    let scripts = [
        ("a squat ripens", "pool\n0 vB ANN B Y", 1),
        (
            "a stranger stays",
            "lease X A\n0 up ANN B X\n118 vA ANN A Y",
            1,
        ),
        (
            "two stay",
            "0,2 vA ANN A X\n1 vB ANN B X\n120 vA ANN A Y",
            1,
        ),
    ];
    for (what, script, active) in scripts {
        World::same_as_capture(Family::V4, script)?;
        let recording = recorded(Family::V4, script)?.expect("no links change");
        let report = recording.replay()?;
        ensure!(report.summary.active == active, "{what}: {report:#?}");
    }
    Ok(())
}

/// What was over for more than an hour is in the report all the same.
#[test]
fn what_is_long_over_is_told() -> Result<()> {
    let script = "0,2 vA ANN A X\n1 vB ANN B X\n90000 vA ANN A X\n200000 end";
    for family in [Family::V4, Family::V6] {
        World::same_as_capture(family, script)?;
        let report = recorded(family, script)?
            .expect("no links change")
            .replay()?;
        ensure!(report.summary.conflicts == 1, "{report:#?}");
        ensure!(report.summary.active == 0, "{report:#?}");
    }
    Ok(())
}

/// A lease file says not since when: what it contradicts itself in is as old as the capture.
#[test]
fn leases_are_as_old_as_the_capture() -> Result<()> {
    let desk = Desk::new()?;
    let mut ng = Ng::new(Endian::Little).interface(ETHERNET, Some("eth7"));
    for (at, frame) in duplicate() {
        ng = ng.frame(0, at / 1000, &frame);
    }
    let file = desk.write("leased.pcapng", &ng.bytes)?;
    let leases = desk.write(
        "leases.yaml",
        b"leases:
  - { address: 10.0.0.9, mac: \"02:00:00:00:00:0a\" }
  - { address: 10.0.0.9, mac: \"02:00:00:00:00:0b\" }
",
    )?;
    let (report, _) = replay(&[&file, "--leases", &format!("file:{leases}")])?;
    let mut conflicts = report["conflicts"].as_array().into_iter().flatten();
    let twice = conflicts.find(|conflict| conflict["kind"] == "duplicate-lease");
    let twice = twice.ok_or_else(|| anyhow::anyhow!("no duplicate-lease: {report:#}"))?;
    let first = "2023-11-14T22:13:20Z";
    ensure!(capture(&report)["first_frame"] == first, "{report:#}");
    for at in [
        &twice["first_seen"],
        &twice["last_seen"],
        &twice["history"][0]["at"],
    ] {
        ensure!(at == first, "{twice:#}");
    }
    Ok(())
}
