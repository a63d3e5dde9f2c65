//! Whole worlds: whatever machines do, duplicates are told of and nothing is invented.
//!
//! `PROPTEST_CASES=100000 cargo test -p tests --test simulation` looks for longer; what it
//! finds is made small, printed as a script, and kept beside this file.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tests::{
    scenario::{Telling, World},
    sim::{self, Plan},
};

/// The kinds of conflict that were told of, by the address's name.
fn kinds(told: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in told.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, id, kind, address, ..] = words[..]
            && id.starts_with('#')
            && kind != "over"
        {
            kinds.entry(address.into()).or_default().insert(kind.into());
        }
    }
    kinds
}

fn played(plan: &Plan, telling: Telling, script: &str) -> Result<World, TestCaseError> {
    World::play(plan.family, telling, script)
        .map_err(|error| TestCaseError::fail(format!("{error:#}\n{script}")))
}

proptest! {
    #![proptest_config(ProptestConfig {
        // As many as `PROPTEST_CASES` says.
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            ProptestConfig::default().cases
        } else {
            512
        },
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::WithSource("regressions"),
        )),
        ..ProptestConfig::default()
    })]

    /// What is true is told, and nothing else.
    #[test]
    fn what_is_true_is_told_and_nothing_else(plan in sim::plans()) {
        let world = plan.unfold();
        let told = played(&plan, Telling::Events, &world.script)?;
        let kinds = kinds(told.told());
        for (address, truth) in &world.truth {
            let told_of = kinds.get(address).cloned().unwrap_or_default();
            let told_of: BTreeSet<&str> = told_of.iter().map(String::as_str).collect();
            prop_assert!(
                truth.must.iter().all(|kind| told_of.contains(kind)),
                "missed {:?} of {address}, told {told_of:?}\n{}\n{}",
                truth.must, told.told(), world.script,
            );
            prop_assert!(
                told_of.iter().all(|kind| truth.may.contains(kind)),
                "invented {told_of:?} of {address}\n{}\n{}",
                told.told(), world.script,
            );
        }
        let known: BTreeSet<&String> = world.truth.keys().collect();
        prop_assert!(
            kinds.keys().all(|address| known.contains(address)),
            "invented {:?}\n{}", kinds, world.script
        );
        for (_, _, entry) in told.engine.entries() {
            prop_assert!(entry.claims.len() <= 16);
        }
        // The same again is the same again.
        let again = played(&plan, Telling::Events, &world.script)?;
        prop_assert_eq!(again.told(), told.told());
        // What two CPUs tell in the wrong order is judged as if it had come in order.
        let backwards = played(&plan, Telling::Backwards, &world.script)?;
        let duplicates = |told: &str| -> BTreeSet<String> {
            let kinds = self::kinds(told).into_iter();
            let contested = kinds.filter(|(_, kinds)| kinds.contains("duplicate-address"));
            contested.map(|(address, _)| address).collect()
        };
        prop_assert_eq!(
            duplicates(backwards.told()), duplicates(told.told()),
            "told backwards it is judged otherwise\n{}", world.script
        );
    }
}
