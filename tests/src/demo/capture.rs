//! The same without root: a capture of the first tale's wire, and the leases of then.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Duplicates, Figures, Story};
use crate::daemon;

/// The addresses that two pods share in the capture.
const PLANTED: [&str; 2] = ["10.88.0.2", "fd00:88::4"];

pub(super) fn tell(story: &Story) -> Result<Figures> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
    story.chapter("Twelve pods on a bridge, two of which take another's address");
    let replay = |output: &str| -> Result<String> {
        let run = Command::new(daemon::binary()?)
            .args(["replay", "--output", output, "--leases"])
            .arg(format!("file:{}", fixtures.join("leases.yaml").display()))
            .arg(fixtures.join("cni0.pcap"))
            .output()
            .context("can't run the agent")?;
        Ok(String::from_utf8_lossy(&run.stdout).into_owned())
    };
    story.show(
        "replay cni0.pcap --leases file:leases.yaml",
        &replay("table")?,
    );
    let report: Value = serde_json::from_str(&replay("json")?).context("replay printed no JSON")?;
    let conflicts = report["conflicts"].as_array().into_iter().flatten();
    let found: BTreeSet<&str> = conflicts
        .filter(|conflict| conflict["kind"] == "duplicate-address")
        .filter_map(|conflict| conflict["address"].as_str())
        .collect();
    let planted: BTreeSet<&str> = PLANTED.into();
    story.say("nothing is given back here: a capture has no leases to release");
    Ok(Figures {
        duplicates: Duplicates {
            planted: planted.len(),
            found: planted.intersection(&found).count(),
            invented: found.difference(&planted).count(),
        },
        ..Figures::default()
    })
}
