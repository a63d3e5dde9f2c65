//! What was before: when it counts, and when it is over.

use std::fmt::Write as _;

use tests::scenario::{Family, Telling, World};

use crate::tells;

#[test]
fn what_comes_back_after_the_memory_is_another_conflict() {
    tells(
        "0,2,5000,5020 vA ANN A X
         1,5015 vB ANN B X
         5200 end",
        "2 #1 duplicate-address X Warning A B since 1
         121 #1 over X Warning A B since 1
         5020 #2 duplicate-address X Warning A B since 5015
         5135 #2 over X Warning A B since 5015",
    );
}

#[test]
fn an_old_failover_is_no_part_of_todays_contest() {
    tells(
        "0,2000 vA ANN A X
         60,1000,2300 vB ANN B X
         2305 vA ANN A X",
        "2305 #1 duplicate-address X Warning A B since 2300
         60 address-moved X A B
         2000 address-moved X B A",
    );
}

#[test]
fn a_plain_return_after_old_failovers_is_a_warning() {
    // They speak all the time, so that nothing is ever forgotten.
    tells(
        "0,660,720,780,840,900,954,980 up ANN R1 V
         60,120,180,240,300,360,420,480,540,600,950,975 up ANN R2 V",
        "954 #1 duplicate-address V Warning R1 R2 since 950
         975 #1 duplicate-address V Critical R1 R2 since 950
         60 address-moved V R1 R2
         660 address-moved V R2 R1",
    );
    tells(
        "100,209 up ANN A V
         0,200 up ANN B V",
        "209 #1 duplicate-address V Warning A B since 200
         100 address-moved V B A",
    );
}

#[test]
fn a_contest_begins_with_the_one_who_came_last() {
    tells(
        "0 up ANN A V
         60,180,300,420,540,660,780,900,955 up ANN B V
         950 up ANN C V",
        "955 #1 duplicate-address V Warning B C since 950
         60 address-moved V A B",
    );
    // Of a tenure that nobody contested only the end is part of it.
    tells(
        "0,955 up ANN A V
         60,180,300,420,540,660,780,900,950 up ANN B V",
        "955 #1 duplicate-address V Warning A B since 950
         60 address-moved V A B",
    );
}

#[test]
fn what_comes_back_as_a_plain_return_is_a_warning() {
    tells(
        "0,8,2995,3002 vA ANN A X
         4,3000 vB ANN B X",
        "8 #1 duplicate-address X Warning A B since 4
         124 #1 over X Warning A B since 4
         3000 #1 duplicate-address X Warning A B since 4
         3002 #1 duplicate-address X Critical A B since 4",
    );
}

#[test]
fn a_plain_return_to_what_nobody_leased_is_a_warning() {
    tells(
        "pool
         0,190.5,280,370,404 vA ANN A Y
         90,180,400 vB ANN B Y",
        "5 #1 unleased-address Y Warning A since 0
         404 #1 duplicate-address Y Warning A B since 0",
    );
}

#[test]
fn who_returns_contests_all_who_followed() {
    tells(
        "0,3 vA ANN A X
         1 vB ANN B X
         2 vC ANN C X",
        "3 #1 duplicate-address X Warning A B C since 1",
    );
}

#[test]
fn a_move_before_a_conflict_is_no_part_of_it() {
    tells(
        "0 vA ANN A X
         5,21 vB ANN B X
         20 vC ANN C X",
        "21 #1 duplicate-address X Warning B C since 20
         5 address-moved X A B",
    );
    tells(
        "0 vA ANN A X
         3,8 vB ANN B X
         6 grant X C",
        "8 #1 lease-mismatch X Warning B since 8
         3 address-moved X A B",
    );
    // While nobody leased it, it is a squat whoever has it.
    tells(
        "pool
         0 vA ANN A X
         3 vB ANN B X
         10 end",
        "5 #1 unleased-address X Warning A B since 0",
    );
}

#[test]
fn what_is_said_as_a_contest_ends_goes_on_with_it() {
    tells(
        "quiet 10
         lease X A
         0,5,9 vB ANN B X
         1,11 vA ANN A X
         40 end",
        "0 #1 lease-mismatch X Warning B since 0
         1 #1 duplicate-address X Warning A B since 0
         11 #1 duplicate-address X Critical A B since 0
         19 #1 over X Critical A B since 0",
    );
}

/// Each second another MAC, which itself proves nothing; among them one that stays.
fn with_made_up_macs(seconds: u32, speaks: &[&str]) -> String {
    let mut lines: Vec<(f64, String)> = Vec::new();
    for (second, letter) in (0..seconds).zip(('N'..='Z').cycle()) {
        let mut line = String::new();
        let _ = write!(line, "{second} vB ANN {letter}{} X", second / 13);
        lines.push((second.into(), line));
    }
    for at in speaks {
        lines.push((at.parse().expect("a time"), format!("{at} vA ANN A X")));
    }
    lines.sort_by(|one, other| one.0.total_cmp(&other.0));
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    lines.join("\n")
}

#[test]
fn made_up_macs_are_moves() {
    let world = World::play(Family::V4, Telling::Events, &with_made_up_macs(40, &[]));
    assert!(world.expect("a world").conflicts().is_empty());
}

#[test]
fn made_up_macs_do_not_hide_who_was_there_before() {
    for family in [Family::V4, Family::V6] {
        let script = with_made_up_macs(40, &["0.5", "30.5"]);
        let world = World::play(family, Telling::Events, &script).expect("a world");
        assert_eq!(world.conflicts().len(), 1, "{}", world.told());
    }
}

#[test]
fn who_made_up_macs_is_not_named_without_end() {
    let every: Vec<String> = (0..100).map(|second| format!("{second}.5")).collect();
    let every: Vec<&str> = every.iter().map(String::as_str).collect();
    let script = with_made_up_macs(100, &every);
    let world = World::play(Family::V4, Telling::Events, &script).expect("a world");
    let named: Vec<usize> = world
        .engine
        .conflicts()
        .map(|case| case.conflict.verdict.macs().len())
        .collect();
    assert!(
        matches!(named[..], [named] if (2..=16).contains(&named)),
        "{named:?}"
    );
}

#[test]
fn turns_further_apart_than_quiet_are_a_contest_for_a_while() {
    tells(
        "0 vA ANN A X
         15 vB ANN B X
         30 vA ANN A X
         160 vB ANN B X
         300 end",
        "160 #1 duplicate-address X Critical A B since 15
         280 #1 over X Critical A B since 15",
    );
}

#[test]
fn who_is_forgotten_does_not_come_back() {
    tells(
        "0 up ANN R X
         90000 up ANN A X
         90005 up ANN R X
         90100 end",
        "90005 address-moved X A R",
    );
}
