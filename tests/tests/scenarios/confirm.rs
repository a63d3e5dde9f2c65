//! Claimants that are asked.

use tests::scenario::{Family, vlans};

use crate::{tells, tells_in};

#[test]
fn both_answer() {
    tells(
        "0 vA ANN A X
         30 vB ANN B X
         30.2 answers X A B
         200 end",
        "30.2 #1 duplicate-address X Critical A B since 30
         150.2 #1 over X Critical A B since 30",
    );
}

#[test]
fn one_answers_alone() {
    tells(
        "0 vA ANN A X
         30 vB ANN B X
         30.2 answers X B
         200 end",
        "30 address-moved X A B",
    );
}

#[test]
fn a_warning_becomes_critical() {
    tells(
        "lease X A
         0 vA ANN A X
         5 vB ANN B X
         5.2 vA ANN A X
         5.4 answers X A B",
        "5 #1 lease-mismatch X Warning B since 5
         5.2 #1 duplicate-address X Warning A B since 5
         5.4 #1 duplicate-address X Critical A B since 5",
    );
}

#[test]
fn they_are_asked_once_a_minute() {
    let world = tells_in(
        Family::V4,
        "lease X A
         0 vA ANN A X
         5,15,25,35,45,55,66 vB ANN B X",
        "5 #1 lease-mismatch X Warning B since 5",
    );
    assert_eq!(world.asked.len(), 2);
    let macs = |question: &ipam_agent::engine::confirm::Question| {
        let claimants = question.claimants.iter();
        claimants.map(|claimant| claimant.mac).collect::<Vec<_>>()
    };
    assert_eq!(macs(&world.asked[0]).len(), 2);
}

#[test]
fn nobody_is_asked_of_what_one_machine_says() {
    let world = tells_in(
        Family::V4,
        "owner A B
         0 vA ANN A X
         1 vB ANN B X
         2 vC ANN C Y",
        "",
    );
    assert_eq!(world.asked, []);
}

#[test]
fn a_frame_to_a_trunk_is_tagged_and_one_to_an_access_port_is_not() {
    let world = tells_in(Family::V4, vlans::MOVED, "3 address-moved X.100 A B");
    let tags: Vec<u16> = world.asked[0]
        .claimants
        .iter()
        .map(|c| c.tags.vlan)
        .collect();
    assert_eq!(tags, [0, 100]);
}
