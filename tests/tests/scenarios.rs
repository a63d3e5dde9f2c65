//! What is a conflict, and what is not, scenario by scenario: frames go through the real
//! parser and the real engine; time is the script's. The same scripts are then replayed as
//! captures, and played on real veths (`live`).

#[path = "scenarios/confirm.rs"]
mod confirm;
#[path = "scenarios/exempt.rs"]
mod exempt;
#[path = "scenarios/history.rs"]
mod history;
#[path = "scenarios/leases.rs"]
mod leases;
#[path = "scenarios/live.rs"]
mod live;
#[path = "scenarios/probes.rs"]
mod probes;
#[path = "scenarios/reserved.rs"]
mod reserved;
#[path = "scenarios/short.rs"]
mod short;
#[path = "scenarios/stations.rs"]
mod stations;
#[path = "scenarios/telling.rs"]
mod telling;

use std::net::Ipv4Addr;

use ipam_agent::engine::time::Timestamp;
use ipam_common::Evidence;
use tests::{
    frames::{self, Arp},
    scenario::{Family, Telling, World, play, vlans},
};

/// Plays a script in one family and compares all that was told.
#[track_caller]
fn tells_in(family: Family, script: &str, expected: &str) -> World {
    let world = play(family, script).unwrap_or_else(|error| panic!("{error:#}"));
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    let expected: Vec<&str> = expected
        .into_iter()
        .filter(|line| !line.is_empty())
        .collect();
    let told: Vec<&str> = world.told().lines().collect();
    assert_eq!(told, expected, "{family:?}");
    World::same_as_capture(family, script).unwrap_or_else(|error| panic!("{error:#}"));
    live::collect(family, script);
    world
}

/// The same in IPv4 and in IPv6.
#[track_caller]
fn tells(script: &str, expected: &str) {
    for family in [Family::V4, Family::V6] {
        tells_in(family, script, expected);
    }
}

#[test]
fn two_pods_of_one_bridge() {
    tells(
        "lease X A
         0 vA ANN A X
         5 vB ANN B X
         5.3 vA ANN A X",
        "5 #1 lease-mismatch X Warning B since 5
         5.3 #1 duplicate-address X Warning A B since 5",
    );
}

#[test]
fn a_stranger_beyond_the_uplink() {
    tells(
        "lease X A
         0 vA REQ A X G
         12 up REQ B X G
         12.2 up REP B X R G
         20 vA REQ A X G",
        "12 #1 lease-mismatch X Warning B since 12
         20 #1 duplicate-address X Warning A B since 12",
    );
}

#[test]
fn a_holder_who_answers_after_a_minute_is_alive() {
    tells(
        "lease X A
         0 vA ANN A X
         12 up ANN B X
         72 vA ANN A X",
        "12 #1 lease-mismatch X Warning B since 12
         72 #1 duplicate-address X Warning A B since 12",
    );
}

#[test]
fn a_probe_that_is_answered_claims_nothing() {
    let world = tells_in(
        Family::V4,
        "lease X A
         0 vB PROBE B X
         0.0003 vA REP A X B -
         1.4 vB PROBE B X
         1.4003 vA REP A X B -
         2.8 vB PROBE B X
         2.8003 vA REP A X B -",
        "0.0003 probe-collision X B A",
    );
    let claims = world
        .engine
        .entries()
        .map(|(_, _, entry)| entry.claims.len());
    assert_eq!(claims.collect::<Vec<_>>(), [1], "A's, and none for 0.0.0.0");
}

#[test]
fn a_prober_who_takes_the_address_all_the_same() {
    tells_in(
        Family::V4,
        "lease X A
         0 vB PROBE B X
         0.0003 vA REP A X B -
         3.0 vB ANN B X
         3.4 vA ANN A X
         5.0 vB ANN B X
         13.5 vA REQ A X G",
        "3 #1 lease-mismatch X Warning B since 3
         3.4 #1 duplicate-address X Warning A B since 3
         5 #1 duplicate-address X Critical A B since 3",
    );
}

#[test]
fn flapping_is_one_conflict() {
    for family in [Family::V4, Family::V6] {
        let world = tells_in(
            family,
            "0,8,19,31,45 vA ANN A X
             4,13,24,36,52 vB ANN B X",
            "8 #1 duplicate-address X Warning A B since 4
             13 #1 duplicate-address X Critical A B since 4",
        );
        let changes = world.engine.conflicts().map(|case| case.changes);
        assert_eq!(changes.collect::<Vec<_>>(), [9]);
    }
}

#[test]
fn a_squatted_gateway_is_critical() {
    tells(
        "pool gateway G
         0 up REP R G A X
         9.0 vD REP D G A X
         9.5 vD REP D G B Y
         10.0 up REQ R G X",
        "10 #1 duplicate-address G Critical D R since 9",
    );
}

#[test]
fn a_silent_pod_keeps_its_claim() {
    tells(
        "lease X A
         0,30,60 up REQ B X G",
        "0 #1 lease-mismatch X Warning B since 0",
    );
}

#[test]
fn a_squatter_in_a_pool() {
    tells(
        "pool
         0,2 vB ANN B Y
         10 end",
        "5 #1 unleased-address Y Warning B since 0",
    );
}

#[test]
fn a_lease_that_is_seen_late_is_no_squat() {
    tells(
        "pool
         0 vB ANN B Y
         3 grant Y B
         10 end",
        "",
    );
}

#[test]
fn a_squat_is_over_when_the_squatter_is_leased_the_address() {
    tells(
        "pool
         0 vB ANN B Y
         20 grant Y B",
        "5 #1 unleased-address Y Warning B since 0
         20 #1 over Y Warning B since 0",
    );
}

#[test]
fn an_access_port_and_a_tagged_uplink_are_one_segment() {
    tells(
        vlans::ACROSS,
        "3.5 #1 duplicate-address X.100 Warning A B since 3",
    );
}

#[test]
fn probing_before_use_is_orderly() {
    tells_in(
        Family::V4,
        "lease X B
         0,1.5,3 vB PROBE B X
         5.1,7.1 vB ANN B X",
        "",
    );
}

#[test]
fn a_switch_that_keeps_an_entry_alive() {
    let world = tells_in(
        Family::V4,
        "0 vA ANN A X
         10,40 up UPROBE S X A
         10.0002,40.0002 vA REP A X S -",
        "",
    );
    let claims: Vec<_> = world.engine.entries().map(|(_, _, entry)| entry).collect();
    let [entry] = claims[..] else {
        panic!("one address: {claims:?}");
    };
    assert_eq!(entry.claims.len(), 1, "S claims nothing");
    assert_eq!(entry.claims[0].frames, 3, "X is alive");
}

#[test]
fn a_pod_made_anew() {
    tells(
        "0 vA ANN A X
         10 link vA gone
         15 vB ANN B X
         25 vB REQ B X G
         200 end",
        "15 address-moved X A B",
    );
}

#[test]
fn a_failover_of_keepalived() {
    tells(
        "0 up ANN R1 V
         60,60.1,60.2 up ANN R2 V
         65 up ANN R1 W
         70,130 up ANN R2 V
         400 end",
        "60 address-moved V R1 R2",
    );
}

#[test]
fn a_late_failback_is_a_second_move() {
    tells(
        "0 up ANN R1 V
         60 up ANN R2 V
         180 up ANN R1 V
         400 end",
        "60 address-moved V R1 R2
         180 address-moved V R2 R1",
    );
}

#[test]
fn a_failover_of_metallb() {
    tells(
        "0 up ANN N1 V
         0 up GREP N1 V
         30,31.1 up ANN N2 V
         30,31.1 up GREP N2 V
         400 end",
        "30 address-moved V N1 N2",
    );
}

#[test]
fn a_bond_with_several_macs() {
    let frames = "
         0,10 up REP M1 N A X
         5,15 up REP M2 N B Y";
    tells(&format!("owner M1 M2 {frames}"), "");
    tells(
        frames,
        "10 #1 duplicate-address N Warning M1 M2 since 5
         15 #1 duplicate-address N Critical M1 M2 since 5",
    );
}

#[test]
fn a_router_that_answers_for_others() {
    let frames = "
         0 vC REQ C W X
         0.0005 vA REP A X C W
         0.8 up REP R X C W";
    tells(&format!("exempt R X {frames}"), "");
    tells(frames, "0.8 #1 duplicate-address X Critical A R since 0.8");
}

#[test]
fn an_anycast_gateway_of_two_switches() {
    tells(
        "0 up REP R G A X
         0.0001 vF REP R G A X",
        "",
    );
}

#[test]
fn two_vlans_of_one_trunk() {
    tells(vlans::APART_UNFILTERED, "");
    tells(vlans::APART, "");
}

#[test]
fn optimistic_dad_ends_in_use() {
    let world = tells_in(
        Family::V6,
        "0 vB PROBE B T
         1 vB WEAK B T",
        "",
    );
    let claims: Vec<_> = world
        .engine
        .entries()
        .flat_map(|(_, _, entry)| &entry.claims)
        .collect();
    let [claim] = claims[..] else {
        panic!("one claim: {claims:?}");
    };
    let kinds: Vec<_> = claim.evidence().collect();
    // How it came to have it is part of its claim; `::` claims nothing.
    assert_eq!(kinds, [Evidence::WeakAdvertisement, Evidence::DadProbe]);
}

#[test]
fn dad_that_is_answered_claims_nothing() {
    tells_in(
        Family::V6,
        "0 vA ANN A T
         5 vB PROBE B T
         5.0004 vA ANN A T",
        "5.0004 probe-collision T B A",
    );
}

#[test]
fn two_who_advertise() {
    tells_in(
        Family::V6,
        "0 vA ANN A T
         3 vB ANN B T
         3.2 vA ANN A T
         6 vB ANN B T",
        "3.2 #1 duplicate-address T Warning A B since 3
         6 #1 duplicate-address T Critical A B since 3",
    );
}

#[test]
fn what_comes_through_a_router_is_not_believed() {
    let world = tells_in(
        Family::V6,
        "0 vA ANN A T
         1 up FAR B T
         2 vA ANN A T",
        "",
    );
    assert_eq!(world.refused.get("hop-limit"), Some(&1));
}

#[test]
fn what_does_not_override_contests_nobody() {
    tells_in(
        Family::V6,
        "0,2,4 vA WEAK A T
         1,3,5 vB WEAK B T",
        "",
    );
}

#[test]
fn malformed_arp_is_counted_and_enters_nothing() {
    let good = Arp::announcement(frames::mac(1), Ipv4Addr::new(10, 0, 0, 5));
    let with = |change: &dyn Fn(&mut Arp)| {
        let mut arp = good.clone();
        change(&mut arp);
        arp.frame()
    };
    let mut world = World::new(Family::V4);
    world.hear("vA", &good.frame()[..14 + 20]).expect("a port");
    for bad in [
        with(&|arp| arp.lengths = [8, 4]),
        with(&|arp| arp.lengths = [6, 16]),
        with(&|arp| arp.operation = 9),
        with(&|arp| arp.operation = 4),
    ] {
        world.hear("vA", &bad).expect("a port");
    }
    let refused: Vec<_> = world
        .refused
        .iter()
        .map(|(&why, &count)| (why, count))
        .collect();
    assert_eq!(refused, [("lengths", 2), ("opcode", 2), ("truncated", 1)]);
    assert_eq!(world.engine.entries().count(), 0);
}

#[test]
fn a_grant_does_not_make_a_squatter_right() {
    tells(
        "pool
         0,30 up REQ B Y G
         60 grant Y A
         90 up REQ B Y G",
        "5 #1 unleased-address Y Warning B since 0
         60 #1 lease-mismatch Y Critical B since 0",
    );
}

#[test]
fn a_router_that_preempts_at_once() {
    let frames = "
         0 up ANN R1 V
         60 up ANN R2 V
         64,70,100,130,160,179,181 up ANN R1 V
         400 end";
    tells(
        frames,
        "64 #1 duplicate-address V Warning R1 R2 since 60
         180 #1 over V Warning R1 R2 since 60",
    );
    tells(&format!("owner R1 R2 {frames}"), "");
}

#[test]
fn an_address_that_leaves_this_host_moved() {
    tells(
        "own V
         10 up ANN N2 V
         10.2 disown V
         60 end",
        "11 address-moved V H N2",
    );
}

#[test]
fn an_address_that_stays_on_this_host_is_contested() {
    tells(
        "own V
         10 up ANN N2 V
         60 end",
        "11 #1 duplicate-address V Critical H N2 since 10",
    );
}

#[test]
fn a_holder_who_spoke_before_the_stranger_came_back_is_no_rival_yet() {
    tells(
        "lease X A
         0 up ANN B X
         950 vA ANN A X
         1000,1001 up ANN B X
         1030 vA ANN A X",
        "0 #1 lease-mismatch X Warning B since 0
         120 #1 over X Warning B since 0
         1000 #1 lease-mismatch X Warning B since 0
         1030 #1 duplicate-address X Warning A B since 0
         950 address-moved X B A",
    );
}

#[test]
fn a_mismatch_is_over_when_the_lease_is() {
    tells(
        "lease X A
         0 up ANN B X
         10 revoke X
         60 end",
        "0 #1 lease-mismatch X Warning B since 0
         10 #1 over X Warning B since 0",
    );
}

#[test]
fn a_conflict_comes_back_under_its_id() {
    tells(
        "lease X A
         0 up ANN B X
         1000 up ANN B X
         1200 end",
        "0 #1 lease-mismatch X Warning B since 0
         120 #1 over X Warning B since 0
         1000 #1 lease-mismatch X Warning B since 0
         1120 #1 over X Warning B since 0",
    );
}

#[test]
fn how_long_quiet_is_can_be_said() {
    tells(
        "quiet 30
         lease X A
         0 up ANN B X
         10 vA ANN A X
         100 end",
        "0 #1 lease-mismatch X Warning B since 0
         10 #1 duplicate-address X Warning A B since 0
         30 #1 over X Warning A B since 0",
    );
}

#[test]
fn a_port_that_is_gone_ends_nothing_at_once() {
    tells(
        "0,4 vA ANN A X
         2 vB ANN B X
         5 link vB gone
         100 vA ANN A X
         200 end",
        "4 #1 duplicate-address X Warning A B since 2
         122 #1 over X Warning A B since 2",
    );
}

/// Whoever makes up tags makes up segments: so many are told apart, the rest is counted.
#[test]
fn segments_that_are_made_up_are_bounded_and_counted() {
    let mut world = World::play(Family::V4, Telling::Events, "").expect("a world");
    let second = |n: u64| Timestamp(n * 1_000_000_000);
    world.advance(second(1));
    let frame = Arp::announcement(frames::mac(1), Ipv4Addr::new(10, 0, 0, 5)).frame();
    for outer in 1..=17 {
        for vlan in 1..=4094 {
            let tagged = frames::tagged(&frame, &[(frames::DOT1AD, outer), (frames::DOT1Q, vlan)]);
            world.hear("vA", &tagged).expect("a port");
        }
    }
    assert_eq!(world.engine.segments().len(), 65_536 + 1);
    assert_eq!(world.engine.counts().unsegmented, 17 * 4094 - 65_536);
    // Who was there before is judged on.
    let tagged = |mac| {
        let frame = Arp::announcement(mac, Ipv4Addr::new(10, 0, 0, 5)).frame();
        frames::tagged(&frame, &[(frames::DOT1AD, 1), (frames::DOT1Q, 1)])
    };
    world.advance(second(2));
    world.hear("vB", &tagged(frames::mac(2))).expect("a port");
    world.advance(second(3));
    world.hear("vA", &tagged(frames::mac(1))).expect("a port");
    assert_eq!(world.engine.conflicts().count(), 1);
}
