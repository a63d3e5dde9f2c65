//! What other detectors find, the agent finds too: `cargo xtask compare` without its storm.
//!
//! Incidents with a known truth on a real wire, at which the agent, arpwatch and whatever
//! else is installed look at the same time.

use anyhow::ensure;
use tests::{
    compare::{self, Outcome, detectors::Detector},
    lab, skip,
};

#[test]
fn the_agent_misses_nothing_that_others_find_and_invents_nothing() {
    if let Err(why) = Detector::Arpwatch.available() {
        skip::skip(&why);
        return;
    }
    lab::in_lab(|lab| {
        let comparison = compare::run(lab, false)?;
        let table = compare::table::markdown(&comparison);
        let only_by_others = comparison.only_by_others();
        ensure!(only_by_others.is_empty(), "{only_by_others:#?}\n{table}");
        let invented = comparison.ours(Outcome::Invented);
        ensure!(invented.is_empty(), "{invented:#?}\n{table}");
        // Else there was nothing to compare with.
        let arpwatch = &comparison.detectors[Detector::Arpwatch.name()];
        ensure!(arpwatch.found > 0, "{table}");
        Ok(())
    });
}
