//! Captures that are cut off, lie, or are none: what can be read is judged, what can't is
//! counted or said, and nothing is made up.

use anyhow::{Result, ensure};
use tests::{
    capture::{Addressed::Broadcast, COOKED_V2, Classic, ETHERNET, Endian, Ng, cooked_v2, option},
    daemon::agent,
    frames::{self, Arp},
    lab,
};

use super::{Desk, SECOND, announcement, capture, conflicts, duplicate, fixture, replay};

const IEEE_802_11: u16 = 105;

fn whole() -> Classic {
    let mut classic = Classic::new(Endian::Little, false, ETHERNET);
    for (at, frame) in duplicate() {
        classic.add(at, &frame);
    }
    classic
}

/// The report of what came before is given all the same.
fn damaged(file: &str, words: &str) -> Result<()> {
    let (report, answer) = replay(&[file])?;
    ensure!(answer.status == Some(2), "{answer:?}");
    ensure!(
        conflicts(&report).len() == 1 && capture(&report)["frames"] == 3,
        "{report:#}"
    );
    ensure!(answer.err.contains(words), "{words}: {}", answer.err);
    let damage = capture(&report)["damage"].as_str().unwrap_or_default();
    ensure!(damage.contains(words), "{words}: {damage}");
    Ok(())
}

#[test]
fn a_directory_of_leases_that_is_not_there_is_no_empty_one() -> Result<()> {
    let capture = fixture("demo/cni0.pcap");
    let answer = agent(&["replay", &capture, "--leases", "host-local:/nonexistent"])?;
    ensure!(answer.status == Some(2), "{answer:?}");
    ensure!(
        answer.err.contains("there is no /nonexistent"),
        "{answer:?}"
    );
    ensure!(answer.out.is_empty(), "{answer:?}");
    Ok(())
}

#[test]
fn a_cut_off_capture_is_judged_up_to_there() -> Result<()> {
    let desk = Desk::new()?;
    let (at, frame) = announcement(3, 1_700_000_010 * SECOND);
    let longer = whole().frame(at, &frame).bytes;
    for cut in [1, 20, 57] {
        let file = desk.write("cut.pcap", &longer[..longer.len() - cut])?;
        damaged(&file, "it is cut off after 3 frames, which were judged")?;
    }
    // A gzip'd one whose end is missing.
    let file = desk.write("cut.pcap", &whole().bytes)?;
    lab::run("gzip", &["-kf", &file])?;
    let zipped = std::fs::read(format!("{file}.gz"))?;
    let file = desk.write("cut.pcap.gz", &zipped[..zipped.len() - 5])?;
    damaged(&file, "can't read on after 3 frames")?;
    Ok(())
}

#[test]
fn lengths_that_lie_end_a_capture() -> Result<()> {
    let desk = Desk::new()?;
    for length in [0xffff_ffff_u32, 0x7fff_ffff, 0x0100_0000] {
        let mut classic = whole().bytes;
        classic.extend([0; 8]);
        classic.extend(length.to_le_bytes());
        classic.extend([0; 64]);
        let file = desk.write("lies.pcap", &classic)?;
        let (report, answer) = replay(&[&file])?;
        ensure!(answer.status == Some(2), "{answer:?}");
        ensure!(conflicts(&report).len() == 1, "{report:#}");
    }
    for length in [0, 4, 11, 13, 0x00ff_fffc, 0xffff_fffc_u32] {
        let mut ng = Ng::new(Endian::Little).interface(ETHERNET, Some("eth0"));
        for (at, frame) in duplicate() {
            ng = ng.frame(0, at / 1000, &frame);
        }
        let mut bytes = ng.bytes;
        bytes.extend(6_u32.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 64]);
        let file = desk.write("lies.pcapng", &bytes)?;
        let (report, answer) = replay(&[&file])?;
        ensure!(answer.status == Some(2), "{length}: {answer:?}");
        ensure!(conflicts(&report).len() == 1, "{length}: {report:#}");
    }
    Ok(())
}

/// Blocks that hold no frame may be longer than any frame.
#[test]
fn long_blocks_of_another_kind_are_passed_over() -> Result<()> {
    let desk = Desk::new()?;
    let mut ng = Ng::new(Endian::Little).interface(ETHERNET, Some("eth0"));
    for (at, frame) in duplicate() {
        ng = ng
            .block(0x0bad, &vec![7; 5 << 20])
            .frame(0, at / 1000, &frame);
    }
    let file = desk.write("long.pcapng", &ng.bytes)?;
    let (report, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(1), "{answer:?}");
    ensure!(conflicts(&report).len() == 1, "{report:#}");
    Ok(())
}

#[test]
fn what_is_no_capture_is_named() -> Result<()> {
    let desk = Desk::new()?;
    let text = "leases: []\n".repeat(100);
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty.pcap", b"", "is empty, and no capture"),
        ("byte.pcap", b"\xd4", "is no capture"),
        ("header.pcap", &whole().bytes[..20], "is no capture"),
        ("leases.yaml", text.as_bytes(), "is no capture"),
        ("zipped.gz", b"\x1f\x8b\x08\x00", "can't read"),
    ];
    for (name, bytes, words) in cases {
        let file = desk.write(name, bytes)?;
        let good = desk.write("good.pcap", &whole().bytes)?;
        for files in [&[file.as_str()][..], &[&good, &file]] {
            let answer = agent(&[&["replay"], files].concat())?;
            ensure!(answer.status == Some(2), "{name}: {answer:?}");
            ensure!(answer.out.is_empty(), "{name}: {answer:?}");
            ensure!(
                answer.err.contains(&file) && answer.err.contains(words),
                "{name}: {}",
                answer.err
            );
        }
    }
    let answer = agent(&["replay", "/no/such/file.pcap"])?;
    ensure!(answer.status == Some(2), "{answer:?}");
    ensure!(
        answer.err.contains("/no/such/file.pcap: No such file"),
        "{}",
        answer.err
    );
    // One with a header and no frame is a capture of a quiet wire.
    let header = Classic::new(Endian::Big, true, ETHERNET).bytes;
    let (report, answer) = replay(&[&desk.write("quiet.pcap", &header)?])?;
    ensure!(answer.status == Some(0), "{answer:?}");
    ensure!(capture(&report)["first_frame"].is_null(), "{report:#}");
    Ok(())
}

#[test]
fn frames_that_are_not_judged_are_counted_by_reason() -> Result<()> {
    let desk = Desk::new()?;
    let (at, good) = announcement(1, 1_700_000_000 * SECOND);
    let arp = Arp::announcement(frames::mac(1), [10, 0, 0, 5].into());
    let late = Arp {
        operation: 9,
        ..arp.clone()
    };
    let ng = Ng::new(Endian::Big)
        .interface(ETHERNET, Some("eth0"))
        .interface(IEEE_802_11, Some("wlan0"))
        .interface_with(ETHERNET, Some("eth1"), &[(option::RESOLUTION, vec![77])])
        .frame(0, at / 1000 + 3_000_000, &good)
        .frame(0, at / 1000, &good)
        .frame(0, at / 1000 + 1_000_000, &good[..33])
        .frame(0, at / 1000 + 2_000_000, &late.frame())
        .frame(
            0,
            at / 1000 + 2_000_000,
            &frames::ethernet([2; 6], [4; 6], 0x88cc, &[]),
        )
        .frame(0, u64::MAX, &good)
        .frame(1, at / 1000, &good)
        .frame(2, at / 1000, &good)
        .frame(3, at / 1000, &good)
        .frame(u32::MAX, at / 1000, &good)
        .simple_frame(&good);
    let file = desk.write("mixed.pcapng", &ng.bytes)?;
    let (report, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(0), "{answer:?}");
    let read = capture(&report);
    let expected = serde_json::json!({
        "file": file, "damage": null, "frames": 11, "arp": 2, "nd": 0, "late": 2,
        "first_frame": "2023-11-14T22:13:20Z", "last_frame": "2023-11-14T22:13:23Z",
        "refused": { "opcode": 1, "truncated": 1 },
        "skipped": { "no-time": 3, "not-ethernet": 1, "undescribed-interface": 2 },
    });
    ensure!(*read == expected, "{read:#}");
    let line = format!(
        "{file}: 11 frames, 2 ARP, 0 ND; refused 1 opcode, 1 truncated; skipped 3 no-time, \
         1 not-ethernet, 2 undescribed-interface; 2 more than a second out of order\n"
    );
    ensure!(answer.err == line, "{}", answer.err);
    Ok(())
}

/// Who sends frames makes up tags, and whoever writes a capture interfaces: so many are told
/// apart as hosts have, and no more.
#[test]
fn made_up_segments_are_bounded() -> Result<()> {
    const MADE_UP: u64 = 70_000;
    let desk = Desk::new()?;
    let mut tags = Classic::new(Endian::Little, true, ETHERNET);
    for n in 0..MADE_UP {
        let outer = (1 + n / 4000) as u16;
        let inner = (1 + n % 4000) as u16;
        let (at, frame) = announcement(1, SECOND + n);
        tags.add(
            at,
            &frames::tagged(&frame, &[(frames::DOT1AD, outer), (frames::DOT1Q, inner)]),
        );
    }
    let mut ports = Classic::new(Endian::Little, true, COOKED_V2);
    for n in 0..1100 {
        let (at, frame) = announcement(1, SECOND);
        ports.add(at + u64::from(n), &cooked_v2(&frame, Broadcast, n));
    }
    for (classic, too_many) in [(tags, MADE_UP - 65_536), (ports, 1100 - 1024)] {
        let answer = agent(&[
            "replay",
            "--output",
            "csv",
            &desk.write("made-up.pcap", &classic.bytes)?,
        ])?;
        ensure!(answer.status == Some(0), "{answer:?}");
        let words = format!("skipped {too_many} too-many-segments");
        ensure!(answer.err.contains(&words), "{}", answer.err);
    }
    Ok(())
}

/// Who could look at nothing has not looked.
#[test]
fn a_capture_of_no_ethernet_is_no_look() -> Result<()> {
    let desk = Desk::new()?;
    let mut radio = Classic::new(Endian::Little, false, IEEE_802_11);
    radio.add(SECOND, &[0; 40]);
    let mut tunnel = Classic::new(Endian::Little, false, COOKED_V2);
    let mut frame = cooked_v2(&announcement(1, 0).1, tests::capture::Addressed::Here, 1);
    frame[8..10].copy_from_slice(&65534_u16.to_be_bytes());
    tunnel.add(SECOND, &frame);
    for classic in [radio, tunnel] {
        let file = desk.write("none.pcap", &classic.bytes)?;
        let (report, answer) = replay(&[&file])?;
        ensure!(answer.status == Some(3), "{answer:?}");
        let why = report["blind"][0].as_str().unwrap_or_default();
        ensure!(
            why.ends_with("none of its 1 frames could be looked at: not-ethernet"),
            "{why}"
        );
    }
    Ok(())
}

/// One frame of the year 1970 and one of 2262 leave a clock to be turned for centuries.
#[test]
fn a_clock_that_leaps_is_followed() -> Result<()> {
    let desk = Desk::new()?;
    let mut classic = Classic::new(Endian::Little, true, ETHERNET);
    for (station, at) in [(1, 0), (2, 1), (1, 2), (2, u64::from(u32::MAX)), (1, 3)] {
        let (at, frame) = announcement(station, at * SECOND);
        classic.add(at, &frame);
    }
    let (report, answer) = replay(&[&desk.write("leap.pcap", &classic.bytes)?])?;
    ensure!(answer.status == Some(1), "{answer:?}");
    ensure!(conflicts(&report).len() == 1, "{report:#}");
    ensure!(report["conflicts"][0]["state"] == "resolved", "{report:#}");
    ensure!(capture(&report)["late"] == 1, "{report:#}");
    Ok(())
}

/// A contest after the clock was set back is told with the capture's own times; what was before
/// that moment proves nothing together with what comes after it, be it a clock or a second
/// capture appended to the first.
#[test]
fn a_clock_that_is_set_back_is_followed() -> Result<()> {
    let desk = Desk::new()?;
    let judged = |frames: &[(u16, u64)]| -> Result<serde_json::Value> {
        let mut classic = Classic::new(Endian::Little, true, ETHERNET);
        for &(station, at) in frames {
            let (at, frame) = announcement(station, at * SECOND);
            classic.add(at, &frame);
        }
        Ok(replay(&[&desk.write("back.pcap", &classic.bytes)?])?.0)
    };
    let contest = judged(&[(1, 4000), (1, 400), (2, 402), (1, 404)])?;
    ensure!(conflicts(&contest).len() == 1, "{contest:#}");
    let conflict = &contest["conflicts"][0];
    ensure!(conflict["state"] == "active", "{contest:#}");
    ensure!(
        conflict["first_seen"] == "1970-01-01T00:06:42Z",
        "{contest:#}"
    );
    ensure!(
        conflict["last_seen"] == "1970-01-01T00:06:44Z",
        "{contest:#}"
    );
    let across = judged(&[
        (1, 4000),
        (2, 4001),
        (1, 4002),
        (1, 400),
        (2, 402),
        (1, 404),
    ])?;
    ensure!(conflicts(&across).len() == 1, "{across:#}");
    let conflict = &across["conflicts"][0];
    ensure!(
        conflict["first_seen"] == "1970-01-01T01:06:41Z",
        "{across:#}"
    );
    ensure!(conflict["state"] == "active", "{across:#}");
    let twice = judged(&[
        (1, 1000),
        (2, 1100),
        (2, 1130),
        (1, 1000),
        (2, 1100),
        (2, 1130),
    ])?;
    ensure!(conflicts(&twice).is_empty(), "{twice:#}");
    Ok(())
}

/// What a short snap length cuts off is no reason to say that nothing is wrong.
#[test]
fn what_was_cut_short_as_it_was_captured() -> Result<()> {
    let desk = Desk::new()?;
    let mut classic = Classic::new(Endian::Little, false, ETHERNET);
    for (at, frame) in duplicate() {
        classic.cut(at, &frame[..40], 42);
    }
    // What isn't looked at may be cut as it likes.
    let (station, far) = (frames::mac(7), "10.0.0.9".parse()?);
    let other = frames::ipv4_data(station, "10.0.0.7".parse()?, far);
    classic.cut(1_700_000_007 * SECOND, &other[..20], 1500);
    let file = desk.write("short.pcap", &classic.bytes)?;
    let (report, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(3), "{answer:?}");
    ensure!(answer.err.contains("skipped 3 cut-short"), "{answer:?}");
    let blind = report["blind"][0].as_str().unwrap_or_default();
    ensure!(
        blind.contains("3 frames of ARP or ND were cut short"),
        "{report:#}"
    );
    Ok(())
}
