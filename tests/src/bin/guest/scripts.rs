//! The scripts of the scenarios that take a bridge that filters VLANs.

use anyhow::{Result, ensure};
use tests::{
    lab::Lab,
    scenario::{
        Family,
        live::{Played, expected, play_all},
        vlans,
    },
};

use crate::host::PATIENCE;

/// Each is told on veths as the engine alone tells it, for both protocols.
pub fn with_vlans(_: &mut Lab) -> Result<()> {
    let families = vec![Family::V4, Family::V6];
    let played = [vlans::ACROSS, vlans::APART, vlans::MOVED].map(|script| {
        let told: Result<Vec<_>> = families.iter().map(|&of| expected(of, script)).collect();
        Ok(Played {
            families: families.clone(),
            script: script.to_owned(),
            expected: told?.concat(),
        })
    });
    let played: Result<Vec<_>> = played.into_iter().collect();
    let results = play_all(played?, PATIENCE).into_iter();
    let failed: Vec<String> = results
        .filter_map(|result| Some(format!("{:#}", result.err()?)))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}
