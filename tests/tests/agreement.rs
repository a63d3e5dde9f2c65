//! One parser, two worlds: what the kernel's program records of a frame is what `parse`
//! says of it in user space, whatever the frame; and every frame leaves the program
//! unchanged, with `TC_ACT_UNSPEC`.
//!
//! `IPAM_AGENT_FRAMES` sets how many mutated frames are tried.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, ensure};
use ipam_agent::source::live::pod;
use ipam_common::{
    Address, Captured, Counter, Parsed, Refusal, Sighting, parse,
    sighting::{Event, SightingKey, Tally},
    source,
};
use tests::{
    frames,
    mutate::{Random, mutated},
    skip::privileged,
    testrun::{IFINDEX, Object, TC_ACT_UNSPEC},
};

/// An address, who spoke for it last, and how.
type Spoken = ([u8; 16], [u8; 6], u8);

/// What the kernel told of one frame.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    counters: BTreeMap<u32, u64>,
    sightings: Vec<(SightingKey, u32)>,
    speakers: Vec<Spoken>,
    events: Vec<Event>,
}

/// The program, and a look at its maps after each frame. Every frame finds them empty.
struct Kernel {
    object: Object,
    counters: Vec<u64>,
}

impl Kernel {
    fn load() -> anyhow::Result<Self> {
        Ok(Self {
            object: Object::load(true, 256)?,
            counters: vec![0; Counter::LEN as usize],
        })
    }

    /// Run a frame through, check that nothing happened to it, and take what it left.
    fn tell(&mut self, frame: &[u8]) -> anyhow::Result<Told> {
        let (verdict, out) = self.object.run(frame)?;
        ensure!(verdict == TC_ACT_UNSPEC, "returned {verdict:#x}");
        ensure!(out == frame, "changed the frame");
        let told = Told {
            counters: self.counters()?,
            sightings: self.sightings()?,
            speakers: self.speakers()?,
            events: self.object.events()?,
        };
        if !told.events.is_empty() {
            self.object.refill()?;
        }
        Ok(told)
    }

    /// What was counted since the last look.
    fn counters(&mut self) -> anyhow::Result<BTreeMap<u32, u64>> {
        let all = self.object.counters()?;
        let before = std::mem::replace(&mut self.counters, all.clone());
        let since = all.iter().zip(before).map(|(now, before)| now - before);
        Ok((0..).zip(since).filter(|(_, count)| *count != 0).collect())
    }

    fn sightings(&mut self) -> anyhow::Result<Vec<(SightingKey, u32)>> {
        let mut map = self
            .object
            .hash::<pod::SightingKey, pod::Tally>("SIGHTINGS")?;
        let entries = map.iter().collect::<Result<Vec<_>, _>>()?;
        for (key, _) in &entries {
            map.remove(key)?;
        }
        Ok(entries
            .into_iter()
            .map(|(key, tally)| (key.0, tally.0.kinds))
            .collect())
    }

    fn speakers(&mut self) -> anyhow::Result<Vec<Spoken>> {
        let mut map = self.object.hash::<[u8; 16], pod::Speaker>("SPEAKERS")?;
        let entries = map.iter().collect::<Result<Vec<_>, _>>()?;
        for (address, _) in &entries {
            map.remove(address)?;
        }
        Ok(entries
            .into_iter()
            .map(|(address, last)| (address, last.0.mac, last.0.evidence))
            .collect())
    }

    /// When a packet of each leased address came last.
    fn packets(&mut self) -> anyhow::Result<BTreeMap<[u8; 16], u64>> {
        let map = self.object.hash::<[u8; 16], pod::Stamps>("LEASED")?;
        let entries = map.iter().collect::<Result<Vec<_>, _>>()?;
        Ok(entries
            .into_iter()
            .map(|(address, stamps)| (address, stamps.0.packet))
            .collect())
    }
}

/// What the kernel should tell at `at` of a frame that user space read so.
fn expected(parsed: Parsed, at: u64) -> Told {
    let mut told = Told::default();
    match parsed {
        Parsed::Other => {}
        Parsed::Refused(refusal) => {
            told.counters.insert(Counter::REFUSALS + refusal as u32, 1);
        }
        Parsed::Sighting(sighting) => {
            let evidence = sighting.evidence;
            let counter = if evidence.name().starts_with("arp") {
                Counter::Arp
            } else {
                Counter::Nd
            };
            told.counters.insert(counter as u32, 1);
            told.counters.insert(Counter::EventsSent as u32, 1);
            // What may be an echo is told of and nothing more.
            let kept = evidence.is_probe() || sighting.nonce.is_none();
            if kept {
                told.sightings
                    .push((key(&sighting), Tally::kinds_of(&sighting)));
            }
            if kept && !evidence.is_probe() && !evidence.is_weak() {
                let address = sighting.address.mapped();
                told.speakers
                    .push((address, sighting.mac.bytes(), evidence as u8));
            }
            told.events.push(event(&sighting, at));
        }
    }
    told
}

fn key(sighting: &Sighting) -> SightingKey {
    SightingKey {
        ifindex: IFINDEX,
        outer_vlan: sighting.tags.outer,
        vlan: sighting.tags.vlan,
        address: sighting.address.mapped(),
        mac: sighting.mac.bytes(),
        probe: sighting.evidence.is_probe().into(),
        reserved: 0,
    }
}

fn event(sighting: &Sighting, at: u64) -> Event {
    Event {
        at,
        address: sighting.address.mapped(),
        asked: sighting.asked.map(Address::mapped).unwrap_or_default(),
        ifindex: IFINDEX,
        outer_vlan: sighting.tags.outer,
        vlan: sighting.tags.vlan,
        mac: sighting.mac.bytes(),
        ether_src: sighting.ether_src,
        to: sighting.to,
        nonce: sighting.nonce.unwrap_or_default(),
        evidence: sighting.evidence as u8,
        ..Event::default()
    }
}

/// One frame through both.
fn agree(kernel: &mut Kernel, frame: &[u8]) -> anyhow::Result<Parsed> {
    let parsed = parse(&Captured::new(frame));
    let told = kernel
        .tell(frame)
        .with_context(|| format!("frame {frame:02x?}"))?;
    let at = told.events.first().map_or(0, |event| event.at);
    let expected = expected(parsed, at);
    ensure!(
        told == expected,
        "frame {frame:02x?}\nuser space: {parsed:?}\nkernel: {told:?}\nexpected: {expected:?}"
    );
    Ok(parsed)
}

#[test]
fn every_kind_under_every_tag() -> anyhow::Result<()> {
    let Some(()) = privileged("BPF_PROG_TEST_RUN") else {
        return Ok(());
    };
    let mut kernel = Kernel::load()?;
    for (evidence, frame) in frames::of_every_kind() {
        for (frame, outer, vlan) in frames::under_every_tag(&frame) {
            let parsed = agree(&mut kernel, &frame)?;
            let Parsed::Sighting(sighting) = parsed else {
                anyhow::bail!("{evidence:?}: {parsed:?}");
            };
            assert_eq!(sighting.evidence, evidence);
            assert_eq!((sighting.tags.outer, sighting.tags.vlan), (outer, vlan));
            assert_eq!(sighting.mac.bytes(), frames::mac(1));
        }
    }
    Ok(())
}

#[test]
fn mutated_frames() -> anyhow::Result<()> {
    let Some(()) = privileged("BPF_PROG_TEST_RUN") else {
        return Ok(());
    };
    let tries: u32 = match std::env::var("IPAM_AGENT_FRAMES") {
        Ok(tries) => tries.parse().context("IPAM_AGENT_FRAMES is no number")?,
        Err(_) => 100_000,
    };
    let valid = frames::of_every_kind();
    let mut kernel = Kernel::load()?;
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut sightings = 0;
    let mut refused = BTreeMap::new();
    for _ in 0..tries {
        let (_, frame) = &valid[random.below(valid.len())];
        let frame = mutated(frame, &mut random);
        if !Object::takes(&frame) {
            continue;
        }
        match agree(&mut kernel, &frame)? {
            Parsed::Sighting(_) => sightings += 1,
            Parsed::Refused(refusal) => *refused.entry(refusal).or_insert(0) += 1,
            Parsed::Other => {}
        }
    }
    // The mutator must reach every answer, else agreement proves little.
    assert!(sightings > tries / 10, "{sightings} sightings");
    for refusal in Refusal::ALL {
        assert!(
            refused.contains_key(&refusal),
            "no frame was {}",
            refusal.name()
        );
    }
    Ok(())
}

#[test]
fn packets_stamp_their_leased_source() -> anyhow::Result<()> {
    let Some(()) = privileged("BPF_PROG_TEST_RUN") else {
        return Ok(());
    };
    let (v4, v6) = ("10.0.0.5".parse()?, "fd00::5".parse()?);
    let mut kernel = Kernel::load()?;
    kernel
        .object
        .lease(Address::from_ip(v4).context("10.0.0.5")?)?;
    kernel
        .object
        .lease(Address::from_ip(v6).context("fd00::5")?)?;
    let ipv4 = frames::ipv4_data(frames::mac(1), "10.0.0.5".parse()?, "10.0.0.9".parse()?);
    let ipv6 = frames::ipv6_data(frames::mac(1), "fd00::5".parse()?, "fe80::9".parse()?);
    // An experiment that is no extension header, and as one would be longer than the packet.
    let mut experiment = ipv6.clone();
    experiment[20] = 253;
    experiment[54..56].copy_from_slice(&[60, 255]);
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    let mut stamped = 0;
    for frame in [ipv4, ipv6, experiment] {
        for (frame, ..) in frames::under_every_tag(&frame) {
            assert!(stamps(&mut kernel, &frame)?, "no stamp for {frame:02x?}");
        }
        for _ in 0..200 {
            let frame = mutated(&frame, &mut random);
            if Object::takes(&frame) {
                stamped += u32::from(stamps(&mut kernel, &frame)?);
            }
        }
    }
    assert!((150..600).contains(&stamped), "{stamped} stamped");
    Ok(())
}

/// Whether a frame stamped its source: as it should, or else an error.
fn stamps(kernel: &mut Kernel, frame: &[u8]) -> anyhow::Result<bool> {
    // What a CPU stamped in this jiffy, of 10 ms at most, it doesn't stamp again.
    thread::sleep(Duration::from_millis(11));
    let before = kernel.packets()?;
    kernel.object.run(frame)?;
    let captured = Captured::new(frame);
    let expected = match parse(&captured) {
        Parsed::Other | Parsed::Refused(Refusal::ExtensionHeaders | Refusal::Truncated) => {
            source(&captured)
        }
        _ => None,
    };
    let mut stamped = false;
    for (address, packet) in kernel.packets()? {
        let now = packet != before[&address];
        ensure!(
            now == (expected.map(Address::mapped) == Some(address)),
            "frame {frame:02x?}: stamped {now}, source {expected:?}"
        );
        stamped |= now;
    }
    Ok(stamped)
}
