//! The file system of a small Debian host, of this machine's own suite: what is built here runs
//! there. The Debian package is tried on it.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use super::Done;
use crate::{apt, machine};

/// Beside what every Debian has.
const PACKAGES: &str = "containernetworking-plugins,iproute2,procps,systemd,systemd-sysv";

/// Makes it in the cache, if it isn't there.
pub fn install() -> anyhow::Result<Done> {
    let place = machine::debian()?;
    if place.is_dir() {
        return Ok(Done::Before);
    }
    eprintln!("a Debian that systemd runs: debootstrap, a minute or so");
    let cache = machine::cache()?;
    let work = tempfile::tempdir_in(&cache)?;
    let root = work.path().join("root");
    machine::run(
        Command::new("debootstrap")
            .args(["--variant=minbase", "--include", PACKAGES])
            .arg(suite()?)
            .arg(&root)
            .arg(apt::mirror()?)
            .stdout(Stdio::null()),
    )
    .context("it takes root and a network")?;
    // Their packages are installed, their archives are not needed any more.
    fs::remove_dir_all(root.join("var/cache/apt/archives"))?;
    fs::rename(root, place)?;
    Ok(Done::Now)
}

/// The suite of Debian that this machine has.
fn suite() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("can't read /etc/os-release")?;
    let mut lines = release.lines();
    let suite = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(suite
        .context("/etc/os-release has no VERSION_CODENAME: this machine is no Debian")?
        .to_owned())
}
