//! The same frames in every form that a capture may have give the same conflict.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tests::{
    capture::{
        Addressed::{self, Broadcast, Elsewhere, Here, Outgoing},
        COOKED_V1, COOKED_V2, Classic, ETHERNET, Endian, Ng, cooked_v1, cooked_v2, option,
    },
    daemon,
    frames::{self, DOT1AD, DOT1Q, Nd, flags},
    lab,
};

use super::{Desk, SECOND, announcement, capture, conflicts, duplicate, replay};

const ENDIANS: [Endian; 2] = [Endian::Little, Endian::Big];
/// When the frames of [`duplicate`] begin and end.
const SPAN: [&str; 2] = ["2023-11-14T22:13:20Z", "2023-11-14T22:13:26Z"];

/// One capture, of which is told that one address is a duplicate.
fn finds(desk: &Desk, name: &str, bytes: &[u8], segment: &str) -> Result<()> {
    let file = desk.write(name, bytes)?;
    let (report, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(1), "{name}: {answer:?}");
    let expected = format!("{segment} 10.0.0.5 duplicate-address");
    ensure!(conflicts(&report) == [expected], "{name}: {report:#}");
    let read = capture(&report);
    let span = [&read["first_frame"], &read["last_frame"]];
    ensure!(span == SPAN, "{name}: {span:?}");
    ensure!(read["damage"].is_null(), "{name}: {read:#}");
    Ok(())
}

#[test]
fn classic_in_both_endians_and_both_resolutions() -> Result<()> {
    let desk = Desk::new()?;
    for endian in ENDIANS {
        for nanoseconds in [false, true] {
            let mut classic = Classic::new(endian, nanoseconds, ETHERNET);
            for (at, frame) in duplicate() {
                classic.add(at, &frame);
            }
            finds(&desk, "one.pcap", &classic.bytes, "one.pcap")?;
            let path = desk.write("one.pcap", &classic.bytes)?;
            let zipped = format!("{path}.gz");
            lab::run("gzip", &["-kf", &path])?;
            let (report, _) = replay(&[&zipped])?;
            ensure!(
                conflicts(&report) == ["one.pcap.gz 10.0.0.5 duplicate-address"],
                "{report:#}"
            );
        }
    }
    Ok(())
}

/// Ticks of every size, and where they begin.
#[test]
fn pcapng_with_clocks_of_every_kind() -> Result<()> {
    let desk = Desk::new()?;
    let hour = 3600;
    let ten_years = 315_360_000;
    let clocks: [(Option<u8>, u128, i64); 8] = [
        (None, 1_000_000, 0),
        (Some(3), 1000, 0),
        (Some(9), 1_000_000_000, 0),
        (Some(0x80 | 10), 1 << 10, 0),
        (Some(0x80 | 32), 1 << 32, 0),
        (Some(6), 1_000_000, hour),
        (Some(6), 1_000_000, -hour),
        (Some(0x80 | 33), 1 << 33, ten_years),
    ];
    for endian in ENDIANS {
        for (resolution, per_second, offset) in clocks {
            let power = resolution.map(|power| (option::RESOLUTION, vec![power]));
            let from = (option::OFFSET, endian.eight(offset).to_vec());
            let options: Vec<_> = power.into_iter().chain([from]).collect();
            let mut ng = Ng::new(endian).interface_with(ETHERNET, Some("eth7"), &options);
            for (at, frame) in duplicate() {
                let seconds = (at / SECOND) as i64 - offset;
                let ticks = seconds as u128 * per_second;
                ng = ng.frame(0, u64::try_from(ticks)?, &frame);
            }
            finds(&desk, "one.pcapng", &ng.bytes, "eth7")?;
        }
    }
    Ok(())
}

#[test]
fn the_block_that_packets_came_in_before() -> Result<()> {
    let desk = Desk::new()?;
    for endian in ENDIANS {
        let mut ng = Ng::new(endian).interface(ETHERNET, Some("eth7"));
        for (at, frame) in duplicate() {
            ng = ng.old_frame(0, at / 1000, &frame);
        }
        finds(&desk, "old.pcapng", &ng.bytes, "eth7")?;
    }
    Ok(())
}

/// Sections describe their interfaces anew, each in its own order of bytes. One name in two
/// sections is one interface, two of one name in one section are two.
#[test]
fn several_sections_and_names() -> Result<()> {
    let desk = Desk::new()?;
    let [(first, a), (second, b), (third, c)] = &duplicate()[..] else {
        unreachable!("three frames");
    };
    let ng = Ng::new(Endian::Little)
        .interface(ETHERNET, Some("eth8"))
        .interface(ETHERNET, Some("eth7"))
        .frame(1, first / 1000, a)
        .frame(1, second / 1000, b)
        .section(Endian::Big)
        .interface(ETHERNET, Some("eth7"))
        .frame(0, third / 1000, c);
    finds(&desk, "sections.pcapng", &ng.bytes, "eth7")?;

    for (names, segments) in [
        ([Some("eth7"), Some("eth7")], ["eth7", "eth7#2"]),
        ([None, None], ["two.pcapng:0", "two.pcapng:1"]),
    ] {
        let mut ng = Ng::new(Endian::Big)
            .interface(ETHERNET, names[0])
            .interface(ETHERNET, names[1]);
        for (at, frame) in duplicate() {
            // Each on a wire of its own is nothing.
            let station = u32::from(frame == announcement(2, 0).1);
            ng = ng.frame(station, at / 1000, &frame);
        }
        let file = desk.write("two.pcapng", &ng.bytes)?;
        let (report, answer) = replay(&[&file])?;
        ensure!(answer.status == Some(0), "{answer:?}");
        let names: Vec<_> = report["segments"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        let names: Vec<_> = names.iter().map(|segment| &segment["name"]).collect();
        ensure!(names == segments, "{names:?}");
        let joined = format!("wire={}", segments.join(","));
        let (report, answer) = replay(&[&file, "--segment", &joined])?;
        ensure!(answer.status == Some(1), "{answer:?}");
        ensure!(
            conflicts(&report) == ["wire 10.0.0.5 duplicate-address"],
            "{report:#}"
        );
    }
    Ok(())
}

#[test]
fn tags_in_the_frame_are_segments_of_their_own() -> Result<()> {
    let desk = Desk::new()?;
    let tags: [&[(u16, u16)]; 3] = [&[], &[(DOT1Q, 100)], &[(DOT1AD, 7), (DOT1Q, 100)]];
    let mut frames_of: Vec<_> = duplicate();
    frames_of.extend(
        duplicate()
            .into_iter()
            .map(|(at, frame)| (at, frames::tagged(&frame, tags[1]))),
    );
    frames_of.extend(
        duplicate()
            .into_iter()
            .map(|(at, frame)| (at, frames::tagged(&frame, tags[2]))),
    );
    frames_of.sort();
    for cooked in [false, true] {
        let link = if cooked { COOKED_V1 } else { ETHERNET };
        let mut classic = Classic::new(Endian::Little, false, link);
        for (at, frame) in &frames_of {
            match cooked {
                true => classic.add(*at, &cooked_v1(frame, Broadcast)),
                false => classic.add(*at, frame),
            }
        }
        let file = desk.write("trunk.pcap", &classic.bytes)?;
        let (report, _) = replay(&[&file])?;
        let found = report["conflicts"].as_array().context("a list")?;
        let mut vlans: Vec<_> = found
            .iter()
            .map(|conflict| &conflict["segment"])
            .map(|segment| (segment["outer_vlan"].as_u64(), segment["vlan"].as_u64()))
            .collect();
        vlans.sort();
        let expected = [(None, None), (None, Some(100)), (Some(7), Some(100))];
        ensure!(vlans == expected, "{vlans:?}");
    }
    Ok(())
}

fn cooked(version: u16, frames: &[(u64, Vec<u8>, Addressed, u32)]) -> Vec<u8> {
    let mut classic = Classic::new(Endian::Little, true, version);
    for (at, frame, addressed, ifindex) in frames {
        let frame = match version {
            COOKED_V1 => cooked_v1(frame, *addressed),
            _ => cooked_v2(frame, *addressed, *ifindex),
        };
        classic.add(*at, &frame);
    }
    classic.bytes
}

/// Version 1 is one segment, version 2 has one for each interface.
#[test]
fn cooked_frames_have_a_sender_and_perhaps_an_interface() -> Result<()> {
    let desk = Desk::new()?;
    for (version, segment) in [(COOKED_V1, "any.pcap"), (COOKED_V2, "if12")] {
        let frames = duplicate().into_iter();
        let frames: Vec<_> = frames
            .map(|(at, frame)| (at, frame, Broadcast, 12))
            .collect();
        finds(&desk, "any.pcap", &cooked(version, &frames), segment)?;
    }
    let apart = [1, 2, 1].into_iter().zip(duplicate());
    let apart: Vec<_> = apart
        .map(|(ifindex, (at, frame))| (at, frame, Broadcast, ifindex))
        .collect();
    let file = desk.write("any.pcap", &cooked(COOKED_V2, &apart))?;
    let (_, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(0), "{answer:?}");
    let (report, _) = replay(&[&file, "--segment", "br0=if1,if2"])?;
    ensure!(
        conflicts(&report) == ["br0 10.0.0.5 duplicate-address"],
        "{report:#}"
    );
    Ok(())
}

/// What a host passes on was heard coming in; what it says itself counts; its answers may be
/// for others.
#[test]
fn what_the_host_that_captured_sent() -> Result<()> {
    let desk = Desk::new()?;
    let own = duplicate();
    let own: Vec<_> = own
        .into_iter()
        .zip([Outgoing, Broadcast, Outgoing])
        .map(|((at, frame), addressed)| (at, frame, addressed, 2))
        .collect();
    finds(&desk, "own.pcap", &cooked(COOKED_V2, &own), "if2")?;

    // A and B each on a port, and passed on to the other's.
    let mut passed = Vec::new();
    for ((at, frame), port) in duplicate().into_iter().zip([1, 2, 1]) {
        passed.push((at, frame.clone(), Broadcast, port));
        passed.push((at + 1000, frame, Outgoing, 3 - port));
    }
    let file = desk.write("passed.pcap", &cooked(COOKED_V2, &passed))?;
    let (report, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(0), "{report:#}");
    ensure!(capture(&report)["skipped"]["outgoing"] == 3, "{report:#}");

    // The host answers for a pod, which answers for itself.
    let (pod, asker) = (frames::mac(1), frames::mac(3));
    let reply = |station| {
        let address = "10.0.0.5".parse()?;
        let other = "10.0.0.9".parse()?;
        Ok::<_, anyhow::Error>(frames::Arp::reply(station, address, asker, other).frame())
    };
    let start = 1_700_000_000 * SECOND;
    let proxied = [
        (start, reply(pod)?, Here, 1),
        (start + SECOND / 2, reply(frames::mac(2))?, Outgoing, 2),
        (start + SECOND, reply(pod)?, Here, 1),
    ];
    let file = desk.write("proxied.pcap", &cooked(COOKED_V1, &proxied))?;
    let (report, answer) = replay(&[&file])?;
    ensure!(answer.status == Some(0), "{report:#}");

    // Two who answer one asker within a second: whom a unicast frame went to is in it.
    let answers = [
        (start, reply(pod)?, Here, 1),
        (start + SECOND / 2, reply(frames::mac(2))?, Here, 1),
    ];
    let file = desk.write("answers.pcap", &cooked(COOKED_V1, &answers))?;
    let (report, _) = replay(&[&file])?;
    ensure!(
        conflicts(&report) == ["answers.pcap 10.0.0.5 duplicate-address"],
        "{report:#}"
    );
    // Of advertisements the station's address is.
    let asker = "fd00::9".parse()?;
    let advertisement = |station| {
        let flags = flags::OVERRIDE | flags::SOLICITED;
        let answer = Nd::advertisement(station, "fd00::5".parse()?, flags);
        Ok::<_, anyhow::Error>(answer.unicast(frames::mac(3), asker).frame())
    };
    let answers = [
        (start, advertisement(pod)?, Here, 1),
        (start + SECOND / 2, advertisement(frames::mac(2))?, Here, 1),
    ];
    for version in [COOKED_V1, COOKED_V2] {
        let file = desk.write("answers.pcap", &cooked(version, &answers))?;
        let (report, _) = replay(&[&file])?;
        let proof = report["conflicts"][0]["reason"]
            .as_str()
            .unwrap_or_default();
        ensure!(proof.contains("both answered"), "{report:#}");
    }
    Ok(())
}

/// A switch asks one station whether it is still there; the frame's own header, which would say
/// that it went to that station alone, isn't in a cooked capture.
#[test]
fn a_keep_alive_is_no_attempt() -> Result<()> {
    let desk = Desk::new()?;
    let (switch, owner) = (frames::mac(9), frames::mac(1));
    let address = "10.0.0.5".parse()?;
    let probe = frames::Arp::probe(switch, address).frame();
    let any = "0.0.0.0".parse()?;
    let answer = frames::Arp::reply(owner, address, switch, any).frame();
    let start = 1_700_000_000 * SECOND;
    for (addressed, events) in [(Elsewhere, 0), (Broadcast, 1)] {
        let exchange = [
            (start, probe.clone(), addressed, 2),
            (start + 1_000_000, answer.clone(), Elsewhere, 2),
        ];
        let file = desk.write("any.pcap", &cooked(COOKED_V1, &exchange))?;
        let (report, _) = replay(&[&file])?;
        let told = report["events"].as_array().context("events")?.len();
        ensure!(told == events, "{addressed:?}: {report:#}");
    }
    Ok(())
}

/// `tcpdump -w - | ipam-agent replay -`: in pieces as small as they may be.
#[test]
fn from_a_pipe() -> Result<()> {
    let mut classic = Classic::new(Endian::Little, false, ETHERNET);
    for (at, frame) in duplicate() {
        classic.add(at, &frame);
    }
    let mut child = Command::new(daemon::binary()?)
        .args(["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().context("piped")?;
    for byte in classic.bytes {
        pipe.write_all(&[byte])?;
    }
    drop(pipe);
    let output = child.wait_with_output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let (out, err) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    ensure!(out.contains("duplicate-address  10.0.0.5  stdin"), "{out}");
    ensure!(err == "standard input: 3 frames, 3 ARP, 0 ND\n", "{err}");
    Ok(())
}
