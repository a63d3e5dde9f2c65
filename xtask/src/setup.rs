//! `cargo xtask setup`: what building the eBPF object and running the tests need, beyond
//! Rust itself.
//!
//! Writes to the cache directory, and installs Debian packages where it is root. It leaves
//! the Rust toolchain alone, but for rustup's own `component add`. What is there already
//! is not touched, so that a second run takes no time.

mod debian;
mod helm;
mod kubernetes;
mod plugins;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    apt::{Apt, package_in},
    machine::{self, BPF_LINKER, RUST},
    release::Arch,
};

/// What the laboratories of the demo and the tests run.
const LABORATORY: [&str; 14] = [
    "arpwatch",
    "busybox-static",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "fish",
    "groff-base",
    "iproute2",
    "jq",
    "man-db",
    "mandoc",
    "runc",
    "tmux",
    "zsh",
];
/// What the comparison runs beside arpwatch; starts no daemon when it is installed.
const COMPARISON: [&str; 1] = ["tshark"];
/// What looks at the status page; the font is for machines that have none.
const BROWSER: [&str; 3] = ["chromium", "chromium-driver", "fonts-dejavu-core"];
/// What boots other kernels.
const KERNELS: [&str; 8] = [
    "busybox-static",
    "cpio",
    "debootstrap",
    "e2fsprogs",
    "kmod",
    "qemu-system-x86",
    "xz-utils",
    "zstd",
];

/// What writes bills of materials.
const CYCLONEDX: &str = "0.5.9";

/// The Debian suite that carries rust-src of the compiler's version.
const RUST_SRC_SUITE: &str = "trixie-backports";

/// Install what is missing. Everything is tried; what failed is told at the end.
pub fn run() -> anyhow::Result<()> {
    let mut failed = 0;
    let parts = [
        ("rust-src", rust_src as fn() -> anyhow::Result<Done>),
        ("bpf-linker", bpf_linker),
        ("Debian packages for laboratories", laboratory_packages),
        ("Debian packages for the status page", || packages(&BROWSER)),
        ("Debian packages for kernels", || packages(&KERNELS)),
        ("a Debian that systemd runs", debian::install),
        ("CNI plugins of other suites", plugins::install),
        ("Prometheus", prometheus),
        ("Helm", helm::install),
        ("Kubernetes", kubernetes::install),
    ];
    for (what, install) in parts {
        match install() {
            Ok(Done::Before) => eprintln!("{what}: there"),
            Ok(Done::Now) => eprintln!("{what}: installed"),
            Err(error) => {
                eprintln!("{what}: {error:#}");
                failed += 1;
            }
        }
    }
    if failed != 0 {
        bail!(
            "{failed} of {} are missing; `cargo xtask setup` goes on where it stopped",
            parts.len()
        );
    }
    Ok(())
}

enum Done {
    Before,
    Now,
}

/// The sources of `core`, for `-Zbuild-std`.
fn rust_src() -> anyhow::Result<Done> {
    if machine::rust_src()?.is_some() {
        return Ok(Done::Before);
    }
    eprintln!("rust-src: asking rustup for the component");
    let rustup = Command::new("rustup")
        .args(["component", "add", "rust-src", "--toolchain", RUST])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if rustup.is_ok_and(|status| status.success()) && machine::rust_src()?.is_some() {
        return Ok(Done::Now);
    }
    eprintln!("rust-src: rustup can't; asking Debian's {RUST_SRC_SUITE} for the package");
    debian_rust_src().with_context(|| {
        format!(
            "neither rustup nor Debian gives rust-src {RUST}; with a network, \
             `rustup component add rust-src --toolchain {RUST}`"
        )
    })?;
    Ok(Done::Now)
}

/// Debian's package, unpacked.
fn debian_rust_src() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let apt = Apt::new(work.path(), RUST_SRC_SUITE)?;
    let wanted = format!("{RUST}+");
    let versions = apt.versions("rust-src")?;
    let version = versions
        .iter()
        .find(|version| version.starts_with(&wanted))
        .with_context(|| format!("{RUST_SRC_SUITE} has no rust-src {RUST}"))?;
    let package = apt.download(&format!("rust-src={version}"))?;
    let unpacked = machine::unpacked_rust_src()?;
    unpack(&package, &unpacked)?;
    if machine::rust_src()?.is_none() {
        bail!("{} has no core in it", package.display());
    }
    Ok(())
}

/// Unpacks a package beside `place` and moves it there whole: an interrupted run leaves
/// nothing.
fn unpack(package: &Path, place: &Path) -> anyhow::Result<()> {
    let cache = machine::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("can't make {}", cache.display()))?;
    let beside = tempfile::tempdir_in(&cache)?;
    machine::run(
        Command::new("dpkg")
            .arg("-x")
            .args([package, beside.path()]),
    )?;
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(beside.keep(), place)?;
    Ok(())
}

/// The linker of the eBPF object, with rustc's own LLVM.
fn bpf_linker() -> anyhow::Result<Done> {
    let bin = machine::bpf_linker()?;
    if bin.join("bpf-linker").is_file() {
        return Ok(Done::Before);
    }
    let root = bin.parent().context("a directory has a parent")?;
    eprintln!("bpf-linker: building {BPF_LINKER}, which takes a minute or two");
    machine::run(
        Command::new("cargo")
            .args(["install", "--quiet", "--locked", "bpf-linker"])
            .args(["--version", BPF_LINKER])
            .arg("--root")
            .arg(root)
            .current_dir(machine::root()),
    )
    .context("it comes from the registry of crates: is there a network?")?;
    Ok(Done::Now)
}

/// Helm alone.
pub fn helm() -> anyhow::Result<()> {
    helm::install().map(drop)
}

/// What writes bills of materials; only who releases needs it.
pub fn cyclonedx() -> anyhow::Result<PathBuf> {
    let root = machine::cache()?.join(format!("cargo-cyclonedx-{CYCLONEDX}"));
    let tool = root.join("bin/cargo-cyclonedx");
    if !tool.is_file() {
        eprintln!("cargo-cyclonedx: building {CYCLONEDX}, which takes a minute or two");
        machine::run(
            Command::new("cargo")
                .args(["install", "--quiet", "--locked", "cargo-cyclonedx"])
                .args(["--version", CYCLONEDX])
                .arg("--root")
                .arg(&root)
                .current_dir(machine::root()),
        )
        .context("it comes from the registry of crates: is there a network?")?;
    }
    Ok(tool)
}

/// What links programs for another architecture; only who releases needs it.
pub fn cross(arch: Arch) -> anyhow::Result<()> {
    packages(match arch {
        Arch::Amd64 => &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
        Arch::Arm64 => &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
    })
    .map(drop)
}

/// What runs them. Installed, it would do so for every program of this machine.
pub fn emulator(arch: Arch) -> anyhow::Result<PathBuf> {
    let place = machine::cache()?.join("qemu-user-static");
    unpacked("qemu-user-static", &place)?;
    Ok(place.join(match arch {
        Arch::Amd64 => "usr/bin/qemu-x86_64-static",
        Arch::Arm64 => "usr/bin/qemu-aarch64-static",
    }))
}

/// Install what the laboratories need, for who only wants to see the demo.
pub fn laboratory() -> anyhow::Result<()> {
    laboratory_packages().map(drop)
}

/// Install what the comparison runs, and give back the directories to look for it in. What
/// would start a daemon on this machine's interfaces is unpacked in the cache only.
pub fn comparison() -> anyhow::Result<Vec<PathBuf>> {
    laboratory_packages()?;
    packages(&COMPARISON)?;
    let arpalert = machine::cache()?.join("arpalert");
    unpacked("arpalert", &arpalert)?;
    Ok(vec![arpalert.join("usr/sbin"), PathBuf::from("/usr/sbin")])
}

/// The real one and its promtool, which the tests of metrics and rules run. Installed, it
/// would scrape this machine for good.
fn prometheus() -> anyhow::Result<Done> {
    unpacked("prometheus", &machine::prometheus()?)
}

/// A Debian package, unpacked in `place` without what it would start.
fn unpacked(name: &str, place: &Path) -> anyhow::Result<Done> {
    if place.is_dir() {
        return Ok(Done::Before);
    }
    let work = tempfile::tempdir()?;
    let download = || {
        machine::run(
            Command::new("apt-get")
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download", name])
                .current_dir(work.path())
                .stdout(Stdio::null()),
        )
    };
    // As for those that are installed.
    if download().is_err() {
        machine::run(Command::new("apt-get").args(["-qq", "update"]))
            .context("apt can't reach its mirror: is there a network?")?;
        download()?;
    }
    unpack(&package_in(work.path())?, place)?;
    Ok(Done::Now)
}

fn laboratory_packages() -> anyhow::Result<Done> {
    packages(&LABORATORY)
}

/// Debian packages.
fn packages(wanted: &[&'static str]) -> anyhow::Result<Done> {
    let missing = missing_packages(wanted)?;
    if missing.is_empty() {
        return Ok(Done::Before);
    }
    let by_hand = format!(
        "apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    if machine::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("only root can install them: `sudo {by_hand}`");
    }
    eprintln!("Debian packages: {by_hand}");
    let install = || {
        machine::run(
            Command::new("apt-get")
                .args(["-qq", "install", "-y", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(Stdio::null()),
        )
    };
    // Lists may be missing or too old; refresh them only then.
    if install().is_err() {
        machine::run(Command::new("apt-get").args(["-qq", "update"]))
            .context("apt can't reach its mirror: is there a network?")?;
        install()?;
    }
    Ok(Done::Now)
}

/// Those that dpkg doesn't have installed.
fn missing_packages(wanted: &[&'static str]) -> anyhow::Result<Vec<&'static str>> {
    // Exits with 1 where it knows nothing of one of them, and tells of the others.
    let known = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev}${Package}\n"])
        .args(wanted)
        .stderr(Stdio::null())
        .output()
        .with_context(|| {
            format!(
                "no dpkg: install what your system calls {}",
                wanted.join(", ")
            )
        })?;
    let known = String::from_utf8(known.stdout)?;
    Ok(wanted
        .iter()
        .copied()
        .filter(|package| {
            !known.lines().any(|line| {
                line.strip_prefix("ii")
                    .is_some_and(|name| name.trim() == *package)
            })
        })
        .collect())
}
