//! How long a daemon's start takes on a full host: from the call that starts the program to
//! its word that it watches 250 veths.

use anyhow::{Context, Result, ensure};

use super::{
    Figure, in_lab, median,
    wire::{BRIDGE, Watched, pods},
};

const VETHS: usize = 250;
const STARTS: usize = 5;

/// `start_250_veths_s`.
pub fn figures() -> Result<Vec<Figure>> {
    let starts = in_lab(|lab| {
        pods(lab, VETHS)?;
        let starts = (0..STARTS).map(|_| {
            let watched = Watched::start(&lab.disk().join("agent"))?;
            let segments = watched.daemon.query("segments", &[])?;
            let bridge = segments["segments"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|segment| segment["name"] == BRIDGE)
                .context("the daemon doesn't know the bridge")?;
            let ports = bridge["interfaces"].as_array().map_or(0, Vec::len);
            ensure!(
                ports == VETHS && bridge["complete"] == true,
                "it watches {ports} veths, and not the whole bridge"
            );
            let seconds = watched.start.as_secs_f64();
            eprintln!("  {seconds:.3} s");
            watched.stop()?;
            Ok(seconds)
        });
        starts.collect::<Result<Vec<_>>>()
    })?;
    Ok(vec![Figure {
        name: "start_250_veths_s",
        value: median(starts),
        unit: "s",
        target: Some(1.0),
        least: None,
        baseline: None,
    }])
}
