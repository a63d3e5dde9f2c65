//! `cargo xtask picture`: renews the picture of the dashboard that the README shows.

use std::{fs, process::Command};

use anyhow::Context as _;

use crate::machine;

/// Where the picture is, from the repository's root.
const PICTURE: &str = "docs/pictures/dashboard.svg";

/// Play what happens on a host, and draw what Prometheus scraped of it.
pub fn run() -> anyhow::Result<()> {
    machine::build(&["--workspace", "--bins"])?;
    let svg = machine::output(&mut Command::new(machine::built("picture")))?;
    let file = machine::root().join(PICTURE);
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&file, svg).with_context(|| format!("can't write {}", file.display()))?;
    eprintln!("written to {PICTURE}");
    Ok(())
}
