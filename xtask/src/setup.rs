//! `cargo xtask setup`: what building the eBPF object and running the tests need, beyond
//! Rust itself.
//!
//! Writes to the cache directory, and installs Debian packages where it is root. It leaves
//! the Rust toolchain alone, but for rustup's own `component add`. What is there already
//! is not touched, so that a second run takes no time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::machine::{self, BPF_LINKER, RUST};

/// What the laboratories of the demo and the tests run.
const LABORATORY: [&str; 3] = ["arpwatch", "containernetworking-plugins", "iproute2"];
/// What the comparison runs beside arpwatch; starts no daemon when it is installed.
const COMPARISON: [&str; 1] = ["tshark"];
/// What boots other kernels.
const KERNELS: [&str; 6] = [
    "busybox-static",
    "cpio",
    "kmod",
    "qemu-system-x86",
    "xz-utils",
    "zstd",
];

/// The Debian suite that carries rust-src of the compiler's version.
const RUST_SRC_SUITE: &str = "trixie-backports";

/// Install what is missing. Everything is tried; what failed is told at the end.
pub fn run() -> anyhow::Result<()> {
    let mut failed = 0;
    for (what, install) in [
        ("rust-src", rust_src as fn() -> anyhow::Result<Done>),
        ("bpf-linker", bpf_linker),
        ("Debian packages for laboratories", laboratory_packages),
        ("Debian packages for kernels", || packages(&KERNELS)),
    ] {
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
        bail!("{failed} of 4 are missing; `cargo xtask setup` goes on where it stopped");
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

/// Debian's package, unpacked. The system's own apt isn't touched: it lends its mirror and
/// its keys.
fn debian_rust_src() -> anyhow::Result<()> {
    let mirror = mirror()?;
    let work = tempfile::tempdir()?;
    let apt = Apt::new(work.path(), &mirror)?;
    machine::run(apt.command("apt-get").arg("update").stdout(Stdio::null()))?;
    let versions = machine::output(apt.command("apt-cache").args(["madison", "rust-src"]))?;
    let version = versions
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| version.starts_with(&format!("{RUST}+")))
        .with_context(|| format!("{RUST_SRC_SUITE} at {mirror} has no rust-src {RUST}"))?;
    machine::run(
        apt.command("apt-get")
            .arg("download")
            .arg(format!("rust-src={version}"))
            .current_dir(work.path())
            .stdout(Stdio::null()),
    )?;
    let package = package_in(work.path())?;
    let unpacked = machine::unpacked_rust_src()?;
    unpack(&package, &unpacked)?;
    if machine::rust_src()?.is_none() {
        bail!("{} has no core in it", package.display());
    }
    Ok(())
}

/// What `apt-get download` left.
fn package_in(directory: &Path) -> anyhow::Result<PathBuf> {
    fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")
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

/// apt with sources, lists and state of its own.
struct Apt(Vec<String>);

impl Apt {
    fn new(directory: &Path, mirror: &str) -> anyhow::Result<Self> {
        let sources = directory.join("sources.list");
        let lists = directory.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(
            &sources,
            format!("deb [signed-by={keys}] {mirror} {RUST_SRC_SUITE} main\n"),
        )?;
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", lists.display()),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={}", directory.display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ];
        let mut arguments = vec!["-qq".to_owned()];
        for option in options {
            arguments.extend(["-o".to_owned(), option]);
        }
        Ok(Self(arguments))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.0);
        command
    }
}

/// The mirror that the system's apt uses for Debian itself.
fn mirror() -> anyhow::Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| debian_mirror(&text))
        .context("no Debian mirror in /etc/apt: this machine is no Debian, or has no apt sources")
}

/// The first mirror of a sources file, in either of apt's formats, whose path is Debian's.
fn debian_mirror(text: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
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
    if !arpalert.is_dir() {
        let work = tempfile::tempdir()?;
        machine::run(
            Command::new("apt-get")
                .args([
                    "-qq",
                    "-o",
                    "APT::Sandbox::User=root",
                    "download",
                    "arpalert",
                ])
                .current_dir(work.path())
                .stdout(Stdio::null()),
        )?;
        unpack(&package_in(work.path())?, &arpalert)?;
    }
    Ok(vec![arpalert.join("usr/sbin"), PathBuf::from("/usr/sbin")])
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

#[cfg(test)]
mod tests {
    use super::debian_mirror;

    #[test]
    fn the_mirror_is_debians_in_either_format() {
        let deb822 = "Types: deb\n# old\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        let list = "deb [signed-by=/k.gpg] https://other.example/apt stable main\n\
                    deb http://mirror.example/debian bookworm main\n";
        for text in [deb822, list] {
            assert_eq!(
                debian_mirror(text).as_deref(),
                Some("http://mirror.example/debian")
            );
        }
        assert_eq!(
            debian_mirror("deb https://other.example/apt stable main"),
            None
        );
    }
}
