//! What frames that follow each other leave in the kernel's maps: who is told of, who is
//! counted, who is kept out.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::Context as _;
use ipam_agent::source::live::pod;
use ipam_common::{
    Address, Counter, Evidence,
    sighting::{Event, PortBudget, Stamps, Tally},
};
use tests::{
    frames::{self, Arp, DOT1Q, Nd, flags, mac},
    skip::privileged,
    testrun::Object,
};

const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const G: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

struct Kernel(Object);

impl Kernel {
    /// `None` if this machine can't run it, which is printed.
    fn load() -> anyhow::Result<Option<Self>> {
        let Some(()) = privileged("BPF_PROG_TEST_RUN") else {
            return Ok(None);
        };
        Ok(Some(Self(Object::load(false, 65_536)?)))
    }

    /// The events that a frame makes.
    fn hear(&mut self, frame: &[u8]) -> anyhow::Result<Vec<Event>> {
        self.0.run(frame)?;
        self.0.events()
    }

    fn tallies(&mut self) -> anyhow::Result<Vec<Tally>> {
        let map = self.0.hash::<pod::SightingKey, pod::Tally>("SIGHTINGS")?;
        let entries = map.iter().collect::<Result<Vec<_>, _>>()?;
        Ok(entries.into_iter().map(|(_, tally)| tally.0).collect())
    }

    fn count(&mut self, counter: Counter) -> anyhow::Result<u64> {
        Ok(self.0.counters()?[counter as usize])
    }

    fn stamps(&mut self, address: Address) -> anyhow::Result<Stamps> {
        let map = self.0.hash::<[u8; 16], pod::Stamps>("LEASED")?;
        Ok(map.get(&address.mapped(), 0)?.0)
    }
}

fn address(ip: Ipv4Addr) -> anyhow::Result<Address> {
    Address::from_ip(ip.into()).with_context(|| format!("{ip} can't be claimed"))
}

#[test]
fn a_known_claim_is_counted_and_not_told() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let claim = Arp::request(mac(1), X, G).frame();
    assert_eq!(kernel.hear(&claim)?.len(), 1);
    for _ in 0..9 {
        assert_eq!(kernel.hear(&claim)?, []);
    }
    let [tally] = kernel.tallies()?[..] else {
        anyhow::bail!("not one entry");
    };
    assert_eq!(
        (tally.frames, tally.kinds),
        (10, Evidence::ArpRequest.bit())
    );
    assert!(tally.first_seen <= tally.last_seen && tally.last_strong == tally.last_seen);

    // A kind that is new is told of, once.
    let announcement = Arp::announcement(mac(1), X).frame();
    assert_eq!(kernel.hear(&announcement)?.len(), 1);
    assert_eq!(kernel.hear(&announcement)?, []);
    Ok(())
}

#[test]
fn every_change_of_speaker_is_told_with_who_spoke_before() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let [a, b] = [1, 2].map(|n| Arp::announcement(mac(n), X).frame());
    let first = kernel.hear(&a)?[0];
    assert_eq!(first.previous.at, 0);
    let mut before = first;
    for frame in [&b, &a, &b] {
        let [event] = kernel.hear(frame)?[..] else {
            anyhow::bail!("not one event");
        };
        assert_eq!(event.previous.mac, before.mac);
        assert_eq!(event.previous.at, before.at);
        assert_eq!(event.previous.evidence, Evidence::ArpAnnouncement as u8);
        assert!(event.at > before.at && event.mac != before.mac);
        before = event;
    }
    // The same station elsewhere is a change too, but nobody else spoke.
    let [moved] = kernel.hear(&frames::tagged(&b, &[(DOT1Q, 100)]))?[..] else {
        anyhow::bail!("not one event");
    };
    assert_eq!((moved.vlan, moved.previous.at), (100, 0));
    Ok(())
}

#[test]
fn who_repeats_itself_within_a_jiffy_is_counted_and_hides_no_return() -> anyhow::Result<()> {
    const ROUNDS: u32 = 500;
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    // The same station at two places, and another: each turn is a change of speaker.
    let a = Arp::announcement(mac(1), X).frame();
    let turns = [
        a.clone(),
        frames::tagged(&a, &[(DOT1Q, 100)]),
        Arp::announcement(mac(2), X).frame(),
    ];
    for round in 0..ROUNDS {
        for frame in &turns {
            let told = kernel.hear(frame)?.len();
            assert_eq!(told, 1, "round {round}");
            for _ in 0..4 {
                assert_eq!(kernel.hear(frame)?, []);
            }
        }
    }
    assert_eq!(kernel.count(Counter::EventsLimited)?, 0);
    let frames: Vec<u32> = kernel.tallies()?.iter().map(|tally| tally.frames).collect();
    assert_eq!(frames, [5 * ROUNDS; 3]);
    Ok(())
}

#[test]
fn a_weak_answer_contests_nobody() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let target = "fd00::5".parse()?;
    let strong = Nd::advertisement(mac(1), target, frames::flags::OVERRIDE).frame();
    let weak = Nd::advertisement(mac(2), target, 0).frame();
    kernel.hear(&strong)?;
    let [event] = kernel.hear(&weak)?[..] else {
        anyhow::bail!("not one event");
    };
    assert_eq!(event.previous.mac, mac(1));
    // It is not the last speaker now: the other one goes on without being told of.
    assert_eq!(kernel.hear(&weak)?, []);
    assert_eq!(kernel.hear(&strong)?, []);
    let weak = kernel
        .tallies()?
        .into_iter()
        .find(|tally| tally.last_strong == 0);
    assert_eq!(weak.map(|tally| tally.frames), Some(2));
    Ok(())
}

#[test]
fn a_probe_is_told_again_after_a_second() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    kernel.hear(&Arp::announcement(mac(1), X).frame())?;
    let probe = Arp::probe(mac(2), X).frame();
    let [event] = kernel.hear(&probe)?[..] else {
        anyhow::bail!("not one event");
    };
    assert_eq!(event.previous.mac, mac(1));
    assert_eq!(kernel.hear(&probe)?, []);
    thread::sleep(Duration::from_millis(1_050));
    assert_eq!(kernel.hear(&probe)?.len(), 1);
    Ok(())
}

#[test]
fn what_has_a_nonce_is_told_each_time_for_its_echo_to_be_known() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let (source, target) = ("fd00::5".parse()?, "fd00::1".parse()?);
    for n in 1..4 {
        let probe = Nd::dad(mac(1), source).nonce([n; 6]).frame();
        let [event] = kernel.hear(&probe)?[..] else {
            anyhow::bail!("not one event");
        };
        assert_eq!(event.nonce, [n; 6]);
    }
    assert_eq!(kernel.tallies()?.len(), 1);
    // Nobody's claim is made of what may be an echo.
    for n in [1, 2] {
        let solicitation = Nd::solicitation(mac(n), source, target).nonce([7; 6]);
        let [event] = kernel.hear(&solicitation.frame())?[..] else {
            anyhow::bail!("not one event");
        };
        assert_eq!((event.mac, event.nonce), (mac(n), [7; 6]));
        assert_eq!(event.previous.at, 0);
    }
    assert_eq!(kernel.tallies()?.len(), 1);
    Ok(())
}

#[test]
fn what_follows_a_solicitation_with_a_nonce_may_be_a_return() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let (source, target) = ("fd00::5".parse()?, "fd00::1".parse()?);
    let word = Nd::advertisement(mac(1), source, flags::OVERRIDE).frame();
    let nonce = |n: u8| Nd::solicitation(mac(n.into()), source, target).nonce([n; 6]);
    assert_eq!(kernel.hear(&word)?.len(), 1);
    assert_eq!(kernel.hear(&word)?, []);
    for _ in 0..2 {
        let [event] = kernel.hear(&nonce(2).frame())?[..] else {
            anyhow::bail!("not one event");
        };
        assert_eq!((event.mac, event.previous.mac), (mac(2), mac(1)));
        for told in [1, 1, 1, 0] {
            assert_eq!(kernel.hear(&word)?.len(), told);
        }
    }
    // By who spoke last, nobody else spoke.
    assert_eq!(kernel.hear(&nonce(1).frame())?.len(), 1);
    assert_eq!(kernel.hear(&word)?, []);
    // It is in no tally.
    let frames: Vec<u32> = kernel.tallies()?.iter().map(|tally| tally.frames).collect();
    assert_eq!(frames, [11]);
    Ok(())
}

#[test]
fn an_answer_to_all_is_told_with_its_asker() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let reply = |n| Arp {
        ether_dst: frames::BROADCAST,
        ..Arp::reply(mac(n), X, mac(9), G)
    };
    let first = kernel.hear(&reply(1).frame())?;
    let second = kernel.hear(&reply(2).frame())?;
    let told = [&first[0].to, &second[0].to, &second[0].previous.to];
    assert_eq!(told, [&mac(9); 3]);
    Ok(())
}

#[test]
fn an_answer_to_a_probe_is_told_though_its_speaker_is_known() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let [request, reply] = [
        Arp::request(mac(1), X, G).frame(),
        Arp::reply(mac(1), X, mac(2), Ipv4Addr::UNSPECIFIED).frame(),
    ];
    for frame in [&request, &reply] {
        assert_eq!(kernel.hear(frame)?.len(), 1);
        assert_eq!(kernel.hear(frame)?, []);
    }
    // A keep-alive to one station asks nobody.
    let probe = Arp::probe(mac(2), X);
    let unicast = Arp {
        ether_dst: mac(1),
        ..probe.clone()
    };
    assert_eq!(kernel.hear(&unicast.frame())?.len(), 1);
    assert_eq!(kernel.hear(&reply)?, []);
    thread::sleep(Duration::from_millis(1_050));
    assert_eq!(kernel.hear(&probe.frame())?.len(), 1);
    // What the owner says first need not be the answer.
    for (frame, told) in [(&request, 1), (&reply, 1), (&reply, 1), (&reply, 0)] {
        assert_eq!(kernel.hear(frame)?.len(), told);
    }
    let tallies = kernel.tallies()?;
    let frames = tallies.iter().filter(|tally| tally.last_strong != 0);
    assert_eq!(frames.map(|tally| tally.frames).max(), Some(9));
    Ok(())
}

#[test]
fn a_frame_from_another_than_its_sender_is_told_once() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let own = Arp::announcement(mac(1), X);
    let forwarded = Arp {
        ether_src: mac(2),
        ..own.clone()
    };
    for frame in [own.frame(), forwarded.frame()] {
        let [event] = kernel.hear(&frame)?[..] else {
            anyhow::bail!("not one event");
        };
        assert_eq!(event.ether_src, frame[6..12]);
        assert_eq!(kernel.hear(&frame)?, []);
    }
    Ok(())
}

#[test]
fn a_lease_has_its_signs_of_life_stamped() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let leased = address(X)?;
    kernel.0.lease(leased)?;
    assert_eq!(kernel.stamps(leased)?, Stamps::default());
    kernel.hear(&Arp::probe(mac(2), X).frame())?;
    let stamps = kernel.stamps(leased)?;
    assert!(stamps.probe > 0 && stamps.assertion == 0 && stamps.packet == 0);
    kernel.hear(&frames::tagged(
        &Arp::request(mac(1), X, G).frame(),
        &[(DOT1Q, 7)],
    ))?;
    assert!(kernel.stamps(leased)?.assertion >= stamps.probe);
    Ok(())
}

#[test]
fn a_port_over_its_share_enters_nothing_but_is_not_deaf() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    kernel.0.lease(address(X)?)?;
    kernel.hear(&Arp::announcement(mac(1), G).frame())?;
    kernel.0.port(PortBudget::new(2, 0))?;
    for n in 10..20 {
        let forged = Ipv4Addr::new(10, 0, 1, n);
        let told = kernel
            .hear(&Arp::announcement(mac(9), forged).frame())?
            .len();
        assert_eq!(told, usize::from(n < 12), "{forged}");
    }
    assert_eq!(kernel.tallies()?.len(), 3);
    assert_eq!(kernel.count(Counter::SightingsOverShare)?, 8);
    // What is known changes hands, what is leased is claimed: both are told.
    let [stolen] = kernel.hear(&Arp::announcement(mac(9), G).frame())?[..] else {
        anyhow::bail!("not one event");
    };
    assert_eq!(stolen.previous.mac, mac(1));
    assert_eq!(kernel.hear(&Arp::announcement(mac(9), X).frame())?.len(), 1);
    assert_eq!(kernel.tallies()?.len(), 3);
    Ok(())
}

#[test]
fn a_storm_of_new_addresses_is_held_back_and_a_contest_is_not() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    kernel.hear(&Arp::announcement(mac(1), X).frame())?;
    let start = kernel.count(Counter::EventsSent)?;
    let mut told = 0;
    for n in 0..12_000_u16 {
        let [c, d] = n.to_be_bytes();
        let forged = Ipv4Addr::new(10, 1, c, d);
        told += kernel
            .hear(&Arp::announcement(mac(9), forged).frame())?
            .len() as u64;
    }
    let held = kernel.count(Counter::EventsLimited)?;
    assert!(
        told >= PortBudget::EVENT_BURST && held > 0,
        "{told} told, {held} held back"
    );
    assert_eq!(told, kernel.count(Counter::EventsSent)? - start);
    assert_eq!(told + held, 12_000);
    assert_eq!(kernel.hear(&Arp::announcement(mac(2), X).frame())?.len(), 1);
    Ok(())
}

#[test]
fn a_port_that_the_agent_did_not_name_is_not_told_of() -> anyhow::Result<()> {
    let Some(mut kernel) = Kernel::load()? else {
        return Ok(());
    };
    let leased = address(X)?;
    kernel.0.lease(leased)?;
    kernel
        .0
        .hash::<u32, pod::PortBudget>("PORTS")?
        .remove(&tests::testrun::IFINDEX)?;
    assert_eq!(kernel.hear(&Arp::announcement(mac(1), X).frame())?, []);
    assert_eq!(kernel.tallies()?, []);
    assert!(kernel.stamps(leased)?.assertion > 0);
    Ok(())
}
