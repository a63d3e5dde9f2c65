//! Several captures at once.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::{
    capture::{Classic, ETHERNET, Endian, Ng},
    daemon,
};

use super::{Desk, SECOND, announcement, conflicts, duplicate, replay};

/// Frames as a capture of eth0.
fn ng(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut ng = Ng::new(Endian::Little).interface(ETHERNET, Some("eth0"));
    for (at, frame) in frames {
        ng = ng.frame(0, at / 1000, frame);
    }
    ng.bytes
}

fn classic(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut classic = Classic::new(Endian::Little, false, ETHERNET);
    for (at, frame) in frames {
        classic.add(*at, frame);
    }
    classic.bytes
}

/// Whatever order they are given in, frames are judged in the order of time, also where
/// captures overlap.
#[test]
fn captures_of_one_wire_in_any_order() -> Result<()> {
    let desk = Desk::new()?;
    let start = 1_700_000_000 * SECOND;
    // A and B in turns, a minute apart: four turns in 180 s are a contest only in order.
    let turns: Vec<_> = (0..6)
        .map(|n| announcement(1 + n % 2, start + u64::from(n) * 40 * SECOND))
        .collect();
    let one = desk.write("one.pcapng", &ng(&turns[..2]))?;
    let two = desk.write("two.pcapng", &ng(&turns[2..4]))?;
    let three = desk.write("three.pcapng", &ng(&turns[4..]))?;
    let odd: Vec<_> = turns.iter().step_by(2).cloned().collect();
    let even: Vec<_> = turns.iter().skip(1).step_by(2).cloned().collect();
    let a = desk.write("a.pcapng", &ng(&odd))?;
    let b = desk.write("b.pcapng", &ng(&even))?;
    let whole = desk.write("whole.pcapng", &ng(&turns))?;
    let wire = ["--segment", "wire=eth0"];

    let (alone, _) = replay(&[&[whole.as_str()], &wire[..]].concat())?;
    ensure!(conflicts(&alone) == ["wire 10.0.0.5 duplicate-address"]);
    let history = |report: &serde_json::Value| report["conflicts"][0]["history"].clone();
    for files in [
        [&one, &two, &three].as_slice(),
        &[&three, &two, &one],
        &[&a, &b],
        &[&b, &a],
    ] {
        let files: Vec<&str> = files.iter().map(|file| file.as_str()).collect();
        let (report, _) = replay(&[&files, &wire[..]].concat())?;
        ensure!(history(&report) == history(&alone), "{files:?}: {report:#}");
    }
    Ok(())
}

/// What two hosts call eth0 is not one wire, and neither are two files of one name, unless
/// that is said.
#[test]
fn names_of_several_captures() -> Result<()> {
    let desk = Desk::new()?;
    let frames = duplicate();
    let (a, b): (Vec<_>, Vec<_>) = frames
        .into_iter()
        .partition(|(_, frame)| *frame == announcement(1, 0).1);
    let one = desk.write("one.pcapng", &ng(&a))?;
    let two = desk.write("two.pcapng", &ng(&b))?;
    let files = [one.as_str(), &two];
    let (report, answer) = replay(&files)?;
    ensure!(answer.status == Some(0), "{report:#}");
    for segment in ["wire=eth0", "wire=one.pcapng:eth0,two.pcapng:eth0"] {
        let (report, _) = replay(&[&files[..], &["--segment", segment]].concat())?;
        ensure!(
            conflicts(&report) == ["wire 10.0.0.5 duplicate-address"],
            "{segment}: {report:#}"
        );
    }

    let one = desk.write("node1/eth0.pcap", &classic(&a))?;
    let two = desk.write("node2/eth0.pcap", &classic(&b))?;
    let files = [one.as_str(), &two];
    let (report, answer) = replay(&files)?;
    ensure!(answer.status == Some(0), "{report:#}");
    let segment = format!("wire={one},{two}");
    let (report, _) = replay(&[&files[..], &["--segment", &segment]].concat())?;
    ensure!(
        conflicts(&report) == ["wire 10.0.0.5 duplicate-address"],
        "{report:#}"
    );
    Ok(())
}

/// A ring of files is read one after the other: more of them than may be open at once.
#[test]
fn a_ring_of_many_files() -> Result<()> {
    let desk = Desk::new()?;
    let start = 1_700_000_000 * SECOND;
    let files: Vec<String> = (0..100_u16)
        .map(|n| {
            let frame = announcement(1 + n % 2, start + u64::from(n) * SECOND);
            desk.write(&format!("ring_{n}.pcapng"), &ng(&[frame]))
        })
        .collect::<Result<_>>()?;
    let output = Command::new("prlimit")
        .arg("--nofile=24")
        .arg(daemon::binary()?)
        .args(["replay", "--output", "json", "--segment", "wire=eth0"])
        .args(files.iter().rev())
        .output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["conflicts"][0]["changes"] == 99, "{report:#}");
    Ok(())
}

#[test]
fn a_segment_of_nothing_is_told_of() -> Result<()> {
    let desk = Desk::new()?;
    let file = desk.write("one.pcapng", &ng(&duplicate()))?;
    let (report, answer) = replay(&[&file, "--segment", "wire=eth0,eth9"])?;
    ensure!(
        conflicts(&report) == ["wire 10.0.0.5 duplicate-address"],
        "{report:#}"
    );
    ensure!(answer.status == Some(2), "{answer:?}");
    ensure!(
        answer
            .err
            .contains("no interface eth9 in what was captured, but eth0"),
        "{}",
        answer.err
    );
    Ok(())
}

/// A lease that names no MAC, but an interface: of a capture that doesn't say by which one its
/// frames came nobody can tell; of several the file is no part of the interface's name.
#[test]
fn a_lease_of_an_interface() -> Result<()> {
    let desk = Desk::new()?;
    let leases = "leases: [{ address: 10.0.0.5, interface: vA, holder: vm/db-0 }]";
    let leases = format!("file:{}", desk.write("leases.yaml", leases.as_bytes())?);
    let (at, frame) = announcement(1, SECOND);
    let mut classic = Classic::new(Endian::Little, true, ETHERNET);
    classic.add(at, &frame);
    let classic = desk.write("any.pcap", &classic.bytes)?;
    let of = |name| {
        let ng = Ng::new(Endian::Little).interface(ETHERNET, Some(name));
        ng.frame(0, at / 1000, &frame).bytes
    };
    let (own, other) = (
        desk.write("own.pcapng", &of("vA"))?,
        desk.write("other.pcapng", &of("vB"))?,
    );
    for (captures, expected) in [
        (vec![classic.as_str()], 0),
        (vec![own.as_str()], 0),
        (vec![own.as_str(), classic.as_str()], 0),
        (vec![other.as_str()], 1),
    ] {
        let with = [captures.as_slice(), &["--leases", &leases]].concat();
        let (report, _) = replay(&with)?;
        ensure!(
            conflicts(&report).len() == expected,
            "{captures:?}: {report:#}"
        );
    }
    Ok(())
}
