//! `cargo xtask dist`: all that a release consists of, with its checksums.
//!
//! From the same binaries, the same bytes. The binaries themselves are built without a path of
//! this machine in them (`release`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    archive::{Archive, gzip},
    deb,
    extras::Extras,
    image::{self, Part},
    machine,
    release::{self, Arch},
    sbom,
};

/// What goes along as it is, by its name there.
const FILES: [(&str, &str); 4] = [
    (
        "ipam-agent-harvester-addon.yaml",
        "deploy/harvester/addon.yaml",
    ),
    ("ipam-agent-rules.yaml", "deploy/prometheus/rules.yaml"),
    (
        "ipam-agent-dashboard.json",
        "deploy/grafana/ipam-agent.json",
    ),
    ("kubectl-ipam", "deploy/kubectl/kubectl-ipam"),
];

/// `cargo xtask dist`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Pack this binary, of several for as many architectures, instead of building them all;
    /// without bills of materials. One of them must run here
    #[arg(long, value_name = "FILE")]
    binary: Vec<PathBuf>,
    /// Where to [default: target/dist/ipam-agent-VERSION]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Make it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let version = release::version();
    check_versions(version)?;
    let directory = match &args.output {
        Some(directory) => directory.clone(),
        None => release::directory()?.join(format!("ipam-agent-{version}")),
    };
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let parts = parts(&args.binary)?;
    let own = parts
        .iter()
        .find(|part| Arch::of(&part.binary).is_ok_and(|arch| Some(arch) == Arch::own()));
    let extras = Extras::of(&own.context("no binary for this machine")?.binary)?;
    let epoch = release::epoch()?;
    let put = |name: &str, content: &[u8]| {
        let file = directory.join(name);
        fs::write(&file, content).with_context(|| format!("can't write {}", file.display()))
    };

    for part in &parts {
        let arch = Arch::of(&part.binary)?.name();
        let name = format!("ipam-agent-{version}-linux-{arch}");
        put(
            &format!("{name}.tar.gz"),
            &gzip(&tarball(&name, part, &extras)?.tar(epoch)?)?,
        )?;
        if let Some(sbom) = &part.sbom {
            put(&format!("{name}.cdx.json"), sbom)?;
        }
        deb::make(&part.binary, &extras, &directory)?;
    }
    put(
        &image::file_name(),
        &image::make(&parts, &image::name(), epoch)?,
    )?;
    put(
        &format!("ipam-agent-{version}.tgz"),
        &gzip(&chart()?.tar(epoch)?)?,
    )?;
    for (name, file) in FILES {
        put(name, &read(file)?)?;
    }
    put("SHA256SUMS", sums(&directory)?.as_bytes())?;
    eprintln!("{}", directory.display());
    Ok(())
}

/// What is packed.
pub fn parts(binaries: &[PathBuf]) -> anyhow::Result<Vec<Part>> {
    if binaries.is_empty() {
        let built = Arch::ALL.into_iter().map(|arch| {
            let (binary, sbom) = (release::build(arch)?, Some(sbom::make(arch)?));
            Ok(Part { binary, sbom })
        });
        return built.collect();
    }
    let binaries = binaries.iter().cloned();
    Ok(binaries.map(|binary| Part { binary, sbom: None }).collect())
}

/// For hosts that have no package of ours.
fn tarball(name: &str, part: &Part, extras: &Extras) -> anyhow::Result<Archive> {
    let mut archive = Archive::default();
    let mut put =
        |path: &str, mode, content: Vec<u8>| archive.file(&format!("{name}/{path}"), mode, content);
    put("ipam-agent", 0o755, fs::read(&part.binary)?);
    put(
        "ipam-agent.service",
        0o644,
        read("deploy/systemd/ipam-agent.service")?,
    );
    put("config.yaml", 0o644, read("deploy/deb/config.yaml")?);
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        put(file, 0o644, read(file)?);
    }
    for (path, content) in extras.files() {
        put(path, 0o644, content.to_owned());
    }
    Ok(archive)
}

/// As `helm package` would, with links followed.
fn chart() -> anyhow::Result<Archive> {
    let top = machine::root().join("deploy/chart");
    let (mut archive, mut open) = (Archive::default(), vec![top.clone()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = format!("ipam-agent/{}", path.strip_prefix(&top)?.display());
            let content =
                fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
            archive.file(&name, 0o644, content);
        }
    }
    Ok(archive)
}

/// The version is the workspace's; what else names it must follow.
fn check_versions(version: &str) -> anyhow::Result<()> {
    for (file, line) in [
        ("deploy/chart/Chart.yaml", format!("version: {version}")),
        ("deploy/chart/Chart.yaml", format!("appVersion: {version}")),
        (
            "deploy/harvester/addon.yaml",
            format!("  version: {version}"),
        ),
    ] {
        let text = String::from_utf8(read(file)?)?;
        if !text.lines().any(|found| found == line) {
            bail!("{file} should say `{}`, as Cargo.toml does", line.trim());
        }
    }
    let changes = String::from_utf8(read("CHANGELOG.md")?)?;
    if !changes.contains(&format!("## [{version}]")) {
        bail!("CHANGELOG.md says nothing of {version}");
    }
    Ok(())
}

/// Lines as `sha256sum` writes them, of every file.
fn sums(directory: &Path) -> anyhow::Result<String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.insert(entry.file_name(), Sha256::digest(fs::read(entry.path())?));
    }
    let lines = files
        .iter()
        .map(|(name, sum)| format!("{sum:x}  {}\n", name.display()));
    Ok(lines.collect())
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(machine::root().join(path)).with_context(|| format!("can't read {path}"))
}
