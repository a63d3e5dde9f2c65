//! A distribution's kernel, unpacked in the cache: fetched once, by the system's own package
//! manager, from the system's own sources. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{Kernel, Programs};
use crate::machine;

/// A kernel on disk.
pub struct Unpacked {
    /// The compressed image.
    pub vmlinuz: PathBuf,
    /// What `lib/modules/RELEASE` is in.
    pub root: PathBuf,
    /// Its release, as `uname -r` says it.
    pub release: String,
}

/// The kernel in the cache; put there if it isn't.
pub fn unpacked(kernel: &Kernel, programs: &Programs) -> anyhow::Result<Unpacked> {
    let root = machine::cache()?.join("kernels").join(kernel.name);
    if !root.is_dir() {
        fetch(kernel, &root, programs)?;
    }
    let release = release(&root)?;
    Ok(Unpacked {
        vmlinuz: root.join("boot").join(format!("vmlinuz-{release}")),
        root,
        release,
    })
}

/// Fetches it beside its place and moves it there whole, so that what is in place is
/// complete.
fn fetch(kernel: &Kernel, root: &Path, programs: &Programs) -> anyhow::Result<()> {
    let package = newest(kernel)?;
    eprintln!("{package}: downloading, into {}", root.display());
    let parent = root.parent().context("the cache has a parent")?;
    fs::create_dir_all(parent)?;
    let stage = tempfile::tempdir_in(parent)?;
    machine::output(
        Command::new("apt-get")
            .current_dir(&stage)
            // Only root could become another user for it, who may not write here.
            .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
            .arg(&package),
    )?;
    let archive = only(stage.path())?;
    let files = stage.path().join("root");
    machine::run(Command::new("dpkg").arg("-x").arg(archive).arg(&files))?;
    machine::run(
        Command::new(&programs.depmod)
            .arg("-b")
            .arg(&files)
            .arg(release(&files)?),
    )?;
    fs::rename(&files, root).with_context(|| format!("can't move it to {}", root.display()))
}

/// The newest of its packages that apt knows.
fn newest(kernel: &Kernel) -> anyhow::Result<String> {
    let found = machine::output(
        Command::new("apt-cache")
            .args(["search", "--names-only"])
            .arg(kernel.packages),
    )?;
    found
        .lines()
        .filter_map(|line| line.split(' ').next())
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "apt knows no package {}: it is in {}; is that in the sources, and `apt-get \
                 update` done?",
                kernel.packages, kernel.suite
            )
        })
}

/// The numbers in a package's name, by which its versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn release(root: &Path) -> anyhow::Result<String> {
    let modules = only(&root.join("lib/modules"))?;
    let release = modules.file_name().and_then(|name| name.to_str());
    Ok(release.context("no kernel release")?.to_owned())
}

/// The one entry of a directory.
fn only(dir: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
    let entry = entries.next();
    Ok(entry
        .with_context(|| format!("{} is empty", dir.display()))??
        .path())
}
