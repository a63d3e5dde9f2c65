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
