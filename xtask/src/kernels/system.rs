//! A Debian host with systemd, and the project's package on it: installed, used, upgraded,
//! removed.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, bail};

use super::{Boot, Guest};
use crate::{deb, extras::Extras, machine};

/// Room for a Debian and its state; the file is sparse.
const DISK_BYTES: u64 = 2 << 30;

/// What runs the guest's program, once all that a host starts is started.
const UNIT: &str = "\
[Unit]
After=network.target

[Service]
Type=oneshot
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/guest package
ExecStopPost=/bin/systemctl poweroff --force --force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
";

/// Boots it; what is looked for is the guest's program's.
pub fn test(guest: &Guest<'_>) -> anyhow::Result<()> {
    let debian = machine::debian()?;
    if !debian.is_dir() {
        bail!("no {}: `cargo xtask setup` makes it", debian.display());
    }
    // On the same disk, for hard links.
    let stage = tempfile::tempdir_in(machine::cache()?)?;
    let root = stage.path().join("root");
    machine::run(Command::new("cp").arg("-al").args([&debian, &root]))?;
    furnish(&root, stage.path())?;
    let disk = stage.path().join("disk");
    fs::File::create(&disk)?.set_len(DISK_BYTES)?;
    machine::run(
        Command::new(&guest.programs.mkfs)
            .args(["-q", "-F", "-d"])
            .args([&root, &disk]),
    )?;
    let boot = Boot {
        part: Some("system"),
        disk: Some(&disk),
        cut: false,
    };
    guest.run("the Debian package under systemd", &boot)
}

/// Adds the package and what tries it. What is there already stays, as its files are those in
/// the cache.
fn furnish(root: &Path, stage: &Path) -> anyhow::Result<()> {
    let stripped = stage.join("ipam-agent");
    machine::run(
        Command::new("strip")
            .arg("-o")
            .args([&stripped, &machine::built("ipam-agent")]),
    )?;
    let package = deb::make(&stripped, &Extras::of(&stripped)?, stage)?;
    fs::copy(package, root.join("ipam-agent.deb"))?;
    fs::copy(machine::built("guest"), root.join("guest"))?;
    let units = root.join("etc/systemd/system");
    fs::write(units.join("guest.service"), UNIT)?;
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    symlink("../guest.service", wanted.join("guest.service")).context("the unit is there")
}
