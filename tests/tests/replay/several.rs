//! Several captures at once.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::{
    capture::{Classic, ETHERNET, Endian, Ng},
    daemon,
    frames::{self, Arp},
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

/// An interface by which nothing was heard is there all the same, and so is one whose frames
/// say nothing of addresses.
#[test]
fn a_silent_interface_is_one_of_a_segment() -> Result<()> {
    let desk = Desk::new()?;
    let mut ng = Ng::new(Endian::Little);
    for name in ["vA", "up", "vB"] {
        ng = ng.interface(ETHERNET, Some(name));
    }
    for (at, frame) in duplicate() {
        ng = ng.frame(1, at / 1000, &frame).frame(2, at / 1000, &[0; 60]);
    }
    let file = desk.write("ports.pcapng", &ng.bytes)?;
    let (report, answer) = replay(&[&file, "--segment", "br=vA,vB,up"])?;
    ensure!(
        conflicts(&report) == ["br 10.0.0.5 duplicate-address"],
        "{report:#}"
    );
    ensure!(answer.status == Some(1), "{answer:?}");
    let (_, answer) = replay(&[&file, "--segment", "br=vA,vC,up"])?;
    ensure!(
        answer
            .err
            .contains("no interface vC in what was captured, but up, vA, vB"),
        "{}",
        answer.err
    );
    Ok(())
}

/// A bridge passes each frame on to its other port a moment later, and the capture has the
/// later one first, now and then.
#[test]
fn copies_that_are_written_first_are_no_station_that_moves() -> Result<()> {
    let desk = Desk::new()?;
    let start = 1_700_000_000 * SECOND;
    let mut ng = Ng::new(Endian::Little)
        .interface(ETHERNET, Some("if1"))
        .interface(ETHERNET, Some("if2"));
    for n in 0..20 {
        let (at, frame) = announcement(1, start + n * SECOND);
        let mut pair = [(0, at / 1000), (1, at / 1000 + 20)];
        if n % 2 == 1 {
            pair.reverse();
        }
        for (interface, ticks) in pair {
            ng = ng.frame(interface, ticks, &frame);
        }
    }
    let file = desk.write("bridge.pcapng", &ng.bytes)?;
    let (report, answer) = replay(&[&file, "--segment", "br=if1,if2"])?;
    ensure!(answer.status == Some(0), "{report:#}");
    Ok(())
}

/// Of a capture on several interfaces each writes what it has ready, a quarter of a second's, while
/// others go on.
#[test]
fn copies_that_are_written_much_earlier_are_none_either() -> Result<()> {
    let desk = Desk::new()?;
    let leases = "leases: [{ address: 10.0.0.5, interface: vA, holder: vm/db-0 }]";
    let leases = format!("file:{}", desk.write("leases.yaml", leases.as_bytes())?);
    let start = 1_700_000_000 * SECOND;
    let mut ng = Ng::new(Endian::Little)
        .interface(ETHERNET, Some("vA"))
        .interface(ETHERNET, Some("up"));
    for n in 0..20 {
        let (at, frame) = announcement(1, start + n * SECOND);
        let ticks = at / 1000;
        ng = ng.frame(1, ticks + 20, &frame);
        for later in 1..=15 {
            ng = ng.frame(1, ticks + later * 15_000, &[0; 60]);
        }
        ng = ng.frame(0, ticks, &frame);
    }
    let file = desk.write("bridge.pcapng", &ng.bytes)?;
    let (report, answer) = replay(&[&file, "--segment", "br=vA,up", "--leases", &leases])?;
    ensure!(answer.status == Some(0), "{report:#}");
    Ok(())
}

/// Two VLANs that use one prefix: nobody said in which of them a lease is, so it is no stranger's
/// in either, and a stranger's in both.
#[test]
fn a_lease_of_a_prefix_that_two_vlans_use() -> Result<()> {
    let desk = Desk::new()?;
    let mac = "02:00:00:00:00:01";
    let pool = |vlan| format!("  - {{ cidr: 10.0.0.0/24, segment: trunk.pcap, vlan: {vlan} }}\n");
    let leases = format!(
        "leases: [{{ address: 10.0.0.5, mac: \"{mac}\" }}]\npools:\n{}{}",
        pool(100),
        pool(200)
    );
    let leases = format!("file:{}", desk.write("leases.yaml", leases.as_bytes())?);
    let start = 1_700_000_000 * SECOND;
    for (station, expected) in [
        (1, vec![]),
        (2, vec!["trunk.pcap 10.0.0.5 lease-mismatch".to_owned()]),
    ] {
        for vlan in [100, 200] {
            let spoken: Vec<_> = [0, 10]
                .map(|at| announcement(station, start + at * SECOND))
                .map(|(at, frame)| (at, frames::tagged(&frame, &[(frames::DOT1Q, vlan)])))
                .into();
            let file = desk.write("trunk.pcap", &classic(&spoken))?;
            let (report, _) = replay(&[&file, "--leases", &leases])?;
            ensure!(conflicts(&report) == expected, "{vlan}: {report:#}");
        }
    }
    Ok(())
}

/// What one of them never hands out is leased in the other, and compared there alone; and two
/// leases of one address may be one for each.
#[test]
fn a_lease_that_only_one_of_two_vlans_can_have() -> Result<()> {
    let desk = Desk::new()?;
    let pools = "pools:
  - { cidr: 10.0.0.0/24, segment: trunk.pcap, vlan: 100, gateway: 10.0.0.1 }
  - { cidr: 10.0.0.0/24, segment: trunk.pcap, vlan: 200, gateway: 10.0.0.254, exclude: [10.0.0.2-10.0.0.9] }
";
    let lease = |n, station: u16| {
        let mac = frames::mac(station)
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        format!("  - {{ address: 10.0.0.{n}, mac: \"{mac}\" }}\n")
    };
    let at = 1_700_000_000 * SECOND;
    let judged = |leased: &[u16], n: u8, vlan| -> Result<Vec<String>> {
        let leased: String = leased.iter().map(|&station| lease(n, station)).collect();
        let leases = desk.write(
            "leases.yaml",
            format!("leases:\n{leased}{pools}").as_bytes(),
        )?;
        let frame = Arp::announcement(frames::mac(9), [10, 0, 0, n].into()).frame();
        let frame = frames::tagged(&frame, &[(frames::DOT1Q, vlan)]);
        let file = desk.write("trunk.pcap", &classic(&[(at, frame)]))?;
        let (report, _) = replay(&[&file, "--leases", &format!("file:{leases}")])?;
        Ok(conflicts(&report))
    };
    let none: [&str; 0] = [];
    // The gateway of the other, and what the other excludes.
    assert_eq!(judged(&[1], 254, 200)?, none);
    assert_eq!(
        judged(&[1], 254, 100)?,
        ["trunk.pcap 10.0.0.254 lease-mismatch"]
    );
    assert_eq!(
        judged(&[1], 5, 200)?,
        ["trunk.pcap 10.0.0.5 reserved-address"]
    );
    assert_eq!(
        judged(&[1], 5, 100)?,
        ["trunk.pcap 10.0.0.5 lease-mismatch"]
    );
    // No pool is in a third.
    assert_eq!(judged(&[1], 50, 300)?, none);
    assert_eq!(judged(&[1, 9], 50, 100)?, none);
    assert_eq!(
        judged(&[1, 9], 5, 100)?,
        ["trunk.pcap 10.0.0.5 duplicate-lease"]
    );
    Ok(())
}

/// Pools of a bridge, and a capture that is called otherwise: that its leases are compared with
/// nothing is told, and how to mend it.
#[test]
fn pools_of_a_segment_that_was_not_captured() -> Result<()> {
    let desk = Desk::new()?;
    let leases = "leases: [{ address: 10.0.0.5, mac: \"02:00:00:00:00:09\" }]\n\
                  pools: [{ cidr: 10.0.0.0/24, segment: mgmt-br }]\n";
    let leases = format!("file:{}", desk.write("leases.yaml", leases.as_bytes())?);
    let file = desk.write("incident.pcapng", &ng(&duplicate()[..1]))?;
    let (report, answer) = replay(&[&file, "--leases", &leases])?;
    ensure!(conflicts(&report).is_empty(), "{report:#}");
    ensure!(
        answer.err.contains("--segment mgmt-br=INTERFACE"),
        "{}",
        answer.err
    );
    let joined = ["--segment", "mgmt-br=eth0"];
    let (report, answer) = replay(&[&[&*file, "--leases", &leases], &joined[..]].concat())?;
    ensure!(
        conflicts(&report) == ["mgmt-br 10.0.0.5 lease-mismatch"],
        "{report:#}"
    );
    ensure!(!answer.err.contains("note:"), "{}", answer.err);
    Ok(())
}

/// By whatever name: each station would be in two places.
#[test]
fn a_capture_that_is_given_twice_is_refused() -> Result<()> {
    let desk = Desk::new()?;
    let file = desk.write("one.pcap", &classic(&duplicate()))?;
    let link = format!("{file}.link");
    std::os::unix::fs::symlink(&file, &link)?;
    for second in [&file, &link] {
        let answer = daemon::agent(&["replay", &file, second])?;
        ensure!(answer.status == Some(2), "{answer:?}");
        ensure!(
            answer.err.contains(&format!("{second} is given twice")),
            "{answer:?}"
        );
    }
    Ok(())
}

/// Of very many events the last are listed, and that is said.
#[test]
fn events_that_are_left_out_are_counted() -> Result<()> {
    let desk = Desk::new()?;
    let mut moves = Vec::new();
    for number in 0..5000_u64 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number as u32 + 1);
        for station in [1, 2] {
            let at = (1_700_000_000_000 + 2 * number + u64::from(station)) * 1_000_000;
            moves.push((at, Arp::announcement(frames::mac(station), address).frame()));
        }
    }
    let file = desk.write("moves.pcap", &classic(&moves))?;
    let (report, answer) = replay(&[&file])?;
    ensure!(report["events"].as_array().map(Vec::len) == Some(4096));
    ensure!(answer.status == Some(0), "{answer:?}");
    ensure!(answer.err.contains("904 events before"), "{answer:?}");
    Ok(())
}
