//! Whatever way frames reach the engine, the verdicts are the same.

use std::collections::BTreeSet;

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
