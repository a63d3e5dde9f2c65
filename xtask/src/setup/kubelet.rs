//! The real kubelet, for the tests of who is first after a boot: it, or the agent.
//!
//! Debian has no binary of it, but the whole source of one Kubernetes, its dependencies
//! included, so that no other registry is needed; and in an older suite the Go that it was
//! written for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Done;
use crate::{
    apt::Apt,
    machine::{self, KUBELET},
};

/// Where the sources are.
const SOURCE_SUITE: &str = "bookworm";
/// Where the compiler is, and its packages.
const GO_SUITE: &str = "bullseye";
const GO: [&str; 2] = ["golang-1.15-go", "golang-1.15-src"];

/// Builds it in the cache, if it isn't there.
pub fn install() -> anyhow::Result<Done> {
    let kubelet = machine::kubelet()?;
    if kubelet.is_file() {
        return Ok(Done::Before);
    }
    let cache = machine::cache()?;
    fs::create_dir_all(&cache)?;
    // A gigabyte for some minutes: not in a `/tmp` that is memory.
    let work = tempfile::tempdir_in(&cache)?;
    eprintln!("kubelet: building {KUBELET}, which takes some minutes");
    let built = go(work.path())
        .and_then(|go| build(work.path(), &go))
        .with_context(|| {
            format!(
                "kubelet {KUBELET} is built of what Debian's {SOURCE_SUITE} and {GO_SUITE} have"
            )
        })?;
    fs::create_dir_all(kubelet.parent().context("a file has a directory")?)?;
    fs::rename(built, kubelet)?;
    Ok(Done::Now)
}

/// The compiler's directory.
fn go(work: &Path) -> anyhow::Result<PathBuf> {
    let root = work.join("go");
    for package in GO {
        let apt = work.join(package);
        fs::create_dir(&apt)?;
        let file = Apt::new(&apt, GO_SUITE)?.download(package)?;
        machine::run(Command::new("dpkg").arg("-x").args([&file, &root]))?;
    }
    Ok(root.join("usr/lib/go-1.15"))
}

/// Builds it, without C; the program.
fn build(work: &Path, go: &Path) -> anyhow::Result<PathBuf> {
    let apt = work.join("source");
    fs::create_dir(&apt)?;
    let archive = Apt::of_sources(&apt, SOURCE_SUITE)?.upstream_source("kubernetes")?;
    // As its own makefile does: in a GOPATH, not as a module.
    let gopath = work.join("gopath");
    let source = gopath.join("src/k8s.io/kubernetes");
    fs::create_dir_all(&source)?;
    machine::run(
        Command::new("tar")
            .args(["--extract", "--strip-components=1", "--directory"])
            .arg(&source)
            .arg("--file")
            .arg(archive),
    )?;
    let kubelet = work.join("kubelet");
    machine::run(
        Command::new(go.join("bin/go"))
            .args(["build", "-trimpath", "-ldflags", &stamps(), "-o"])
            .arg(&kubelet)
            .arg("k8s.io/kubernetes/cmd/kubelet")
            .current_dir(&source)
            .env("GOROOT", go)
            .env("GOPATH", gopath)
            .env("GOCACHE", work.join("gocache"))
            .env("GOFLAGS", "")
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0"),
    )?;
    Ok(kubelet)
}

/// Else its version is one that nobody can parse.
fn stamps() -> String {
    let mut numbers = KUBELET.split('.');
    let mut next = || numbers.next().unwrap_or_default();
    let (major, minor) = (next(), next());
    let stamps = [
        ("gitVersion", format!("v{KUBELET}")),
        ("gitMajor", major.to_owned()),
        ("gitMinor", minor.to_owned()),
        ("gitTreeState", "clean".to_owned()),
        ("gitCommit", "debian".to_owned()),
        ("buildDate", "1970-01-01T00:00:00Z".to_owned()),
    ];
    let mut flags = String::from("-s -w");
    for package in ["component-base/version", "client-go/pkg/version"] {
        for (name, value) in &stamps {
            let name = format!("k8s.io/kubernetes/vendor/k8s.io/{package}.{name}");
            flags.push_str(&format!(" -X {name}={value}"));
        }
    }
    flags
}
