//! The Debian package, installed, removed and purged in a root of its own by the real dpkg,
//! and its unit before the real systemd.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ipam_agent::config::{Config, Overrides};
use tests::skip::{privileged, skip};

use super::{file, output, release};

/// How much a unit may be exposed, in tenths, as systemd-analyze counts: what it takes for
/// eBPF and the network is 2.9.
const EXPOSURE: u32 = 30;

/// A root with a shell and nothing else; maintainer scripts are run in it.
fn root() -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    for directory in ["bin", "var/lib/dpkg/updates", "var/lib/dpkg/info", "etc"] {
        fs::create_dir_all(root.path().join(directory))?;
    }
    fs::write(root.path().join("var/lib/dpkg/status"), "")?;
    fs::copy("/bin/busybox", root.path().join("bin/busybox"))?;
    for name in ["sh", "rm"] {
        symlink("busybox", root.path().join("bin").join(name))?;
    }
    Ok(root)
}

fn dpkg(root: &Path, args: &[&str]) -> Result<String> {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display()))
        .arg(format!("--log={}", root.join("dpkg.log").display()))
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    output(&mut dpkg)
}

#[test]
fn it_is_installed_removed_and_purged() -> Result<()> {
    if privileged("dpkg in a root of its own").is_none() {
        return Ok(());
    }
    if !Path::new("/bin/busybox").exists() {
        skip("there is no busybox: run `cargo xtask setup`");
        return Ok(());
    }
    let package = file(&release().first, ".deb")?;
    let package = package.to_str().context("a path")?;
    let root = root()?;
    let at = |path: &str| root.path().join(path);

    dpkg(root.path(), &["--install", package])?;
    let version = output(Command::new(at("usr/bin/ipam-agent")).arg("--version"))?;
    assert_eq!(
        version.trim(),
        concat!("ipam-agent ", env!("CARGO_PKG_VERSION"))
    );
    let mode =
        |path: &str| Ok::<_, anyhow::Error>(fs::metadata(at(path))?.permissions().mode() & 0o7777);
    assert_eq!(mode("usr/bin/ipam-agent")?, 0o755);
    assert_eq!(mode("usr/bin")?, 0o755);
    assert_eq!(mode("usr/lib/systemd/system/ipam-agent.service")?, 0o644);
    let config = at("etc/ipam-agent/config.yaml");
    let text = fs::read_to_string(&config)?;
    let parsed = Config::parse(&config, &text, Overrides::default())?;
    // As it comes, nothing is given back unasked.
    let default = Config::parse(&config, "", Overrides::default())?;
    assert_eq!(parsed.stores, default.stores);
    for path in [
        "usr/share/man/man8",
        "usr/share/bash-completion/completions",
    ] {
        assert!(at(path).is_dir(), "{path}");
    }

    // What an administrator wrote outlasts a new version, and the state a removal.
    fs::write(&config, "keep: [10.0.0.1]\n")?;
    fs::create_dir_all(at("var/lib/ipam-agent"))?;
    fs::write(at("var/lib/ipam-agent/journal.jsonl"), "")?;
    dpkg(root.path(), &["--force-confold", "--install", package])?;
    assert_eq!(fs::read_to_string(&config)?, "keep: [10.0.0.1]\n");
    dpkg(root.path(), &["--remove", "ipam-agent"])?;
    assert!(!at("usr/bin/ipam-agent").exists());
    assert!(config.exists() && at("var/lib/ipam-agent/journal.jsonl").exists());
    dpkg(root.path(), &["--purge", "ipam-agent"])?;
    assert!(!config.exists() && !at("var/lib/ipam-agent").exists());
    Ok(())
}

#[test]
fn systemd_understands_the_unit_and_finds_it_confined() -> Result<()> {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        skip("there is no systemd-analyze");
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    let package = file(&release().first, ".deb")?;
    output(Command::new("dpkg").arg("-x").arg(package).arg(root.path()))?;
    let units = root.path().join("usr/lib/systemd/system");
    for entry in fs::read_dir("/usr/lib/systemd/system")?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file
            && [".target", ".slice", ".mount"]
                .iter()
                .any(|end| name.ends_with(end))
        {
            fs::copy(entry.path(), units.join(&*name))?;
        }
    }
    // What the unit calls beside the agent is there on every Debian, as it is here.
    let bin = root.path().join("bin");
    fs::create_dir_all(&bin)?;
    for program in ["sh", "mkdir"] {
        fs::copy(Path::new("/bin").join(program), bin.join(program))?;
    }
    let analyze = |args: &[&str]| {
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .arg(args[0])
            .arg(format!("--root={}", root.path().display()));
        let output = analyze
            .args(&args[1..])
            .arg("ipam-agent.service")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}{complained}");
        Ok(said + &complained)
    };
    let complaints = analyze(&["verify", "--man=no"])?;
    let about_it = complaints
        .lines()
        .filter(|line| line.contains("ipam-agent"));
    assert_eq!(about_it.collect::<Vec<_>>(), [""; 0]);
    let threshold = format!("--threshold={EXPOSURE}");
    analyze(&["security", "--offline=true", &threshold])?;
    Ok(())
}
