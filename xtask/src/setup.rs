//! `cargo xtask setup`: what building the eBPF object and running the tests need, installed.
//!
//! Debian packages go to the system; all else goes to the cache. What is there already is
//! left alone, so that a second run is quick.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::machine::{self, BPF_LINKER, RUST};

/// What the laboratories of the demo and the tests run.
const LABORATORY: &[&str] = &["containernetworking-plugins", "iproute2", "util-linux"];
/// What boots other kernels.
const KERNELS: &[&str] = &[
    "busybox-static",
    "cpio",
    "kmod",
    "qemu-system-x86",
    "xz-utils",
];

/// Debian's suite that has `rust-src` of the compiler's version.
const RUST_SRC_SUITE: &str = "trixie-backports";

/// Install all of it.
pub fn run() -> anyhow::Result<()> {
    let mut packages = LABORATORY.to_vec();
    packages.extend(KERNELS);
    debian_packages(&packages)?;
    rust_src()?;
    bpf_linker()
}

/// Install what the laboratories need, for who only wants to see the demo.
pub fn laboratory() -> anyhow::Result<()> {
    debian_packages(LABORATORY)
}

fn debian_packages(wanted: &[&str]) -> anyhow::Result<()> {
    let missing = missing_packages(wanted)?;
    if missing.is_empty() {
        say(&format!("Debian packages: there ({})", wanted.join(" ")));
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root() {
        bail!("missing: {names}; as root: apt-get install --no-install-recommends {names}");
    }
    say(&format!("installing Debian packages: {names}"));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // stdout is for the task's results.
            .stdout(Stdio::from(std::io::stderr()));
        machine::run(&mut command)
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt(&["update"])
        .and_then(|()| apt(&install))
        .with_context(|| format!("can't install {names}: install them by hand, then run this again"))
}

fn missing_packages<'a>(wanted: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .stderr(Stdio::null())
        .output();
    let Ok(query) = query else {
        bail!(
            "this is no Debian: install what its packages {} have, by hand",
            wanted.join(" ")
        );
    };
    let installed = String::from_utf8_lossy(&query.stdout).into_owned();
    let is_missing = |package: &&str| {
        let line = format!("{package} installed");
        !installed.lines().any(|known| known == line)
    };
    Ok(wanted.iter().copied().filter(is_missing).collect())
}

fn rust_src() -> anyhow::Result<()> {
    if let Some(library) = machine::rust_src()? {
        say(&format!("rust-src {RUST}: there ({})", library.display()));
        return Ok(());
    }
    say(&format!("installing rust-src {RUST}"));
    let component = Command::new("rustup")
        .args(["component", "add", "rust-src", "--toolchain", RUST])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if component.is_ok_and(|status| status.success()) && machine::rust_src()?.is_some() {
        return Ok(());
    }
    say(&format!(
        "rustup can't: trying Debian's package of {RUST_SRC_SUITE}"
    ));
    debian_rust_src().with_context(|| {
        format!(
            "no rust-src of {RUST}: go online and run `rustup component add rust-src --toolchain \
             {RUST}`. Only `cargo xtask ebpf` needs it"
        )
    })
}

/// Fetch Debian's rust-src through an apt configuration of its own, from the mirror that
/// the system's configuration names, and unpack it. The system's apt is not touched.
fn debian_rust_src() -> anyhow::Result<()> {
    let place = machine::unpacked_rust_src()?;
    let apt = tempfile::tempdir()?;
    let at = |name: &str| apt.path().join(name);
    for directory in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(at(directory))?;
    }
    let mirror = debian_mirror()?;
    fs::write(
        at("sources.list"),
        format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {RUST_SRC_SUITE} main\n"),
    )?;
    let get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-qq").current_dir(apt.path());
        let options = [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", PathBuf::from("/dev/null")),
            ("Dir::Cache::archives", at("archives")),
            ("Dir::Cache::pkgcache", PathBuf::new()),
            ("Dir::Cache::srcpkgcache", PathBuf::new()),
            ("APT::Sandbox::User", PathBuf::from("root")),
        ];
        for (key, value) in options {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command.args(args).stdout(Stdio::from(std::io::stderr()));
        machine::run(&mut command)
    };
    get(&["update"])?;
    // Debian's revisions come and go; the version of the sources is what counts.
    get(&["download", &format!("rust-src={RUST}*")])?;
    let package = fs::read_dir(apt.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get downloaded no package")?;
    let unpacked = place.with_extension("part");
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked)?;
    machine::run(Command::new("dpkg").arg("-x").arg(package).arg(&unpacked))?;
    let _ = fs::remove_dir_all(&place);
    fs::rename(&unpacked, &place)?;
    machine::rust_src()?.context("the package holds no sources of core")?;
    Ok(())
}

/// The mirror that the system's own apt sources name, in either of their forms.
fn debian_mirror() -> anyhow::Result<String> {
    let directory = Path::new("/etc/apt/sources.list.d");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.push("/etc/apt/sources.list".into());
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let uri = match words.as_slice() {
                ["URIs:", uri, ..] => uri,
                ["deb", options @ .., uri, _, "main"] if options.len() <= 1 => uri,
                _ => continue,
            };
            if uri.trim_end_matches('/').ends_with("/debian") {
                return Ok((*uri).to_owned());
            }
        }
    }
    bail!("no Debian mirror in /etc/apt/sources.list or {}", directory.display())
}

fn bpf_linker() -> anyhow::Result<()> {
    let directory = machine::bpf_linker()?;
    if directory.join("bpf-linker").is_file() {
        say(&format!("bpf-linker {BPF_LINKER}: there ({})", directory.display()));
        return Ok(());
    }
    say(&format!("building bpf-linker {BPF_LINKER} (some minutes)"));
    let root = directory.parent().context("a directory has a parent")?;
    let install = Command::new("cargo")
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--quiet"])
        .arg("--root")
        .arg(root)
        .stdout(Stdio::from(std::io::stderr()))
        .status();
    match install {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "can't build bpf-linker: go online and run `cargo install bpf-linker --version \
             {BPF_LINKER} --locked --root {}`. Only `cargo xtask ebpf` needs it",
            root.display()
        ),
    }
}

/// Whether apt-get may install.
fn is_root() -> bool {
    machine::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn say(text: &str) {
    eprintln!("setup: {text}");
}
