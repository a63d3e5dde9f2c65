//! Whatever way frames reach the engine, the verdicts are the same.

use std::collections::BTreeSet;

use ipam_agent::engine::{
    input::{Input, Seen},
    time::Timestamp,
};
use ipam_common::{
    Address, Evidence, Mac, Sighting,
    sighting::{SightingKey, Tags, Tally},
};
use proptest::prelude::*;
use tests::scenario::{Family, Telling, World};

/// Who says what, where: times in tenths of a second, with pauses in between.
fn exchanges() -> impl Strategy<Value = String> {
    let speaker = prop::sample::select(vec![("vA", "A"), ("vB", "B"), ("vC", "C"), ("up", "R")]);
    let saying = prop::sample::select(vec!["ANN", "REQ"]);
    let address = prop::sample::select(vec!["X", "Y"]);
    let pause = prop_oneof![4 => 1u32..12, 1 => 12u32..60];
    let scene = (pause, speaker, saying, address);
    (prop::collection::vec(scene, 1..14), any::<bool>()).prop_map(|(scenes, leased)| {
        let mut script = String::from(if leased { "pool\nlease X A\n" } else { "" });
        let mut at = 0;
        for (pause, (port, mac), saying, address) in scenes {
            at += pause;
            let target = if saying == "REQ" { " G" } else { "" };
            let (whole, tenth) = (at / 10, at % 10);
            script += &format!("{whole}.{tenth} {port} {saying} {mac} {address}{target}\n");
        }
        script += &format!("{} end\n", at / 10 + 10);
        script
    })
}

/// A seen event: machine `n` announces X, in milliseconds.
fn announced(n: u8, at: u64) -> Seen {
    let mac = Mac::new([2, 0, 0, 0, 0, n]).expect("unicast");
    let address = Address::from_ip([10, 0, 0, 5].into()).expect("claimable");
    Seen {
        again: false,
        at: Timestamp(at * 1_000_000),
        ifindex: n.into(),
        sighting: Sighting {
            address,
            mac,
            evidence: Evidence::ArpAnnouncement,
            asked: None,
            tags: Tags::default(),
            ether_src: mac.bytes(),
            to: [0xff; 6],
            nonce: None,
        },
    }
}

/// What the kernel's table says of one who announced at these times.
fn tallied(n: u8, times: &[u64]) -> (SightingKey, Tally) {
    let first = announced(n, times[0]);
    let mut tally = Tally::first(&first.sighting, first.at.0);
    for &at in &times[1..] {
        tally.add(&first.sighting, announced(n, at).at.0);
    }
    let key = SightingKey {
        ifindex: first.ifindex,
        outer_vlan: 0,
        vlan: 0,
        address: first.sighting.address.mapped(),
        mac: first.sighting.mac.bytes(),
        probe: 0,
        reserved: 0,
    };
    (key, tally)
}

#[test]
fn a_first_word_whose_event_was_lost_is_in_the_table() {
    // A at 2.0, B at 2.01, A again at 2.02.
    let table = || vec![tallied(1, &[2_000, 2_020]), tallied(2, &[2_010])];
    for events in [vec![], vec![(2, 2_010), (1, 2_020)]] {
        let mut world = World::play(Family::V4, Telling::Events, "").expect("a world");
        for &(n, at) in &events {
            let seen = announced(n, at);
            world
                .engine
                .handle(Input::Seen(seen), Timestamp(seen.at.0 + 1_000_000));
        }
        let later = Timestamp(4_000_000_000);
        world.engine.handle(Input::Snapshot(table()), later);
        assert_eq!(world.conflicts().len(), 1, "{events:?}");
    }
}

#[test]
fn what_is_told_when_a_contest_is_over_counts_by_its_time() {
    let mut world = World::play(Family::V4, Telling::Events, "").expect("a world");
    let mut told = |n, at, now: u64| {
        world.advance(Timestamp(now * 1_000_000));
        let seen = Input::Seen(announced(n, at));
        world.engine.handle(seen, Timestamp(now * 1_000_000));
        let conflicts = world.engine.conflicts();
        conflicts.filter(|case| case.conflict.is_active()).count()
    };
    for (n, at) in [(1, 1_000), (2, 5_000), (1, 9_000), (1, 121_000)] {
        told(n, at, at);
    }
    // The second was quiet for two minutes at 125 s; what it said just before is told late.
    assert_eq!(told(1, 125_050, 125_050), 0);
    assert_eq!(told(2, 124_990, 125_060), 1);
}

#[test]
fn a_defence_that_is_told_before_the_probe_is_an_answer() {
    let script = "lease X A
         0 vA ANN A X
         5.1 vB PROBE B X
         5.101 vA ANN A X
         7.1 vB PROBE B X
         7.101 vA ANN A X
         9 end";
    for family in [Family::V4, Family::V6] {
        for telling in [Telling::Events, Telling::Backwards] {
            let world = World::play(family, telling, script).expect("a world");
            assert_eq!(world.told(), "5.101 probe-collision X B A\n", "{telling:?}");
        }
    }
}

#[test]
fn two_answers_that_are_told_before_the_probe_are_two_answers() {
    for (family, script) in [
        (
            Family::V4,
            "0 vC PROBE C X
             0.0003 vA REP A X C -
             0.0006 vB REP B X C -",
        ),
        (
            Family::V6,
            "0 vC PROBE C X
             0.0003 vA ANN A X
             0.0006 vB ANN B X",
        ),
    ] {
        for (telling, at) in [(Telling::Events, "0.0006"), (Telling::Backwards, "1")] {
            let world = World::play(family, telling, script).expect("a world");
            let expected = format!(
                "{at} #1 duplicate-address X Critical A B since 0.0006\n\
                 0.0003 probe-collision X C A\n"
            );
            assert_eq!(world.told(), expected, "{family:?} {telling:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What two CPUs tell in the wrong order is judged as what was told in order. What only
    /// the table tells, of each claimant the first and the last word, may be too little to
    /// prove a contest; it proves none that there wasn't.
    #[test]
    fn how_it_is_told_does_not_matter(script in exchanges(), v6 in any::<bool>()) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let told = |telling| {
            let world = World::play(family, telling, &script);
            world.map(|world| world.conflicts()).map_err(|e| TestCaseError::fail(format!("{e:#}")))
        };
        let events = told(Telling::Events)?;
        prop_assert_eq!(&told(Telling::Backwards)?, &events, "backwards:\n{}", script);
        let addresses = |conflicts: &BTreeSet<_>| -> BTreeSet<_> {
            conflicts.iter().map(|(address, _)| *address).collect()
        };
        let snapshots = told(Telling::Snapshots)?;
        prop_assert!(
            addresses(&snapshots).is_subset(&addresses(&events)),
            "snapshots invent: {:?}\n{}",
            snapshots,
            script
        );
    }
}
