//! `cargo xtask image`: the OCI image, as an archive that `ctr images import`, `podman load`
//! and `skopeo copy oci-archive:` take. Made without a daemon, byte for byte the same from
//! the same binaries.
//!
//! In it are the binary and what tells of it, and nothing else: no shell, no C library, no
//! certificates, as the agent calls nobody.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    archive::{Archive, gzip},
    dist, machine,
    release::{self, Arch},
};

/// What it is called where it is published.
pub const REPOSITORY: &str = "ghcr.io/ipam-agent/ipam-agent";
/// A release's image takes less of a node's disk than this, in bytes.
const SIZE: usize = 20 << 20;
/// Where the binary is in it.
const BINARY: &str = "usr/bin/ipam-agent";

/// `cargo xtask image`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Make it of this binary, of several for as many architectures, instead of building
    /// them all; without a bill of materials
    #[arg(long, value_name = "FILE")]
    binary: Vec<PathBuf>,
    /// Where it is written to [default: ipam-agent-VERSION-image.tar in target/dist]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What it is called
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
}

/// One architecture's.
pub struct Part {
    /// The program.
    pub binary: PathBuf,
    /// What it was made of: CycloneDX, JSON.
    pub sbom: Option<Vec<u8>>,
}

/// Make it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let parts = dist::parts(&args.binary)?;
    let file = match &args.output {
        Some(file) => file.clone(),
        None => release::directory()?.join(file_name()),
    };
    let name = args.name.clone().unwrap_or_else(name);
    let image = make(&parts, &name, release::epoch()?)?;
    fs::write(&file, &image).with_context(|| format!("can't write {}", file.display()))?;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let size = image.len() as f64 / f64::from(1 << 20);
    eprintln!("{}: {name}, {size:.1} MiB", file.display());
    Ok(())
}

/// What it is called, when nobody says.
pub fn name() -> String {
    format!("{REPOSITORY}:{}", release::version())
}

/// The archive's name.
pub fn file_name() -> String {
    format!("ipam-agent-{}-image.tar", release::version())
}

/// The archive: an image layout with one index, of one manifest for each architecture.
pub fn make(parts: &[Part], name: &str, epoch: u64) -> anyhow::Result<Vec<u8>> {
    let Some((_, tag)) = name.rsplit_once(':') else {
        bail!("{name}: should be NAME:TAG");
    };
    let mut blobs = Blobs::default();
    let labels = labels(epoch)?;
    let mut manifests = Vec::new();
    for part in parts {
        let arch = Arch::of(&part.binary)?;
        let layer = layer(part)?.tar(epoch)?;
        // One with a bill of materials is a release's.
        if part.sbom.is_some() && layer.len() >= SIZE {
            let size = layer.len();
            bail!(
                "the image for {} has {size} bytes unpacked: {SIZE} are too many",
                arch.name()
            );
        }
        let config = json!({
            "created": time(epoch)?,
            "architecture": arch.name(),
            "os": "linux",
            "config": {
                "User": "0:0",
                "Env": ["PATH=/usr/bin"],
                "Entrypoint": [format!("/{BINARY}")],
                "Cmd": ["--help"],
                "Labels": labels,
                // Whoever ends the container wants the next one to go on where it was; what
                // then stays in the kernel, `ipam-agent uninstall` removes.
                "StopSignal": "SIGUSR2",
            },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
            "history": [{ "created": time(epoch)?, "created_by": "cargo xtask image" }],
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blobs.add("application/vnd.oci.image.config.v1+json", text(&config)?),
            "layers": [blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&layer)?)],
            "annotations": labels,
        });
        let mut manifest = blobs.add(
            "application/vnd.oci.image.manifest.v1+json",
            text(&manifest)?,
        );
        manifest["platform"] = json!({ "architecture": arch.name(), "os": "linux" });
        manifests.push((arch, manifest));
    }
    manifests.sort_by_key(|(arch, _)| *arch);
    if manifests.windows(2).any(|two| two[0].0 == two[1].0) {
        bail!("two binaries are for one architecture");
    }
    let manifests: Vec<Value> = manifests
        .into_iter()
        .map(|(_, manifest)| manifest)
        .collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
        "annotations": labels,
    });
    let mut index = blobs.add("application/vnd.oci.image.index.v1+json", text(&index)?);
    index["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    });
    let layout = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [index],
    });
    let mut archive = blobs.archive;
    archive.file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.file("index.json", 0o644, text(&layout)?);
    Ok(archive.tar(epoch)?)
}

/// The root file system.
fn layer(part: &Part) -> anyhow::Result<Archive> {
    let mut root = Archive::default();
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("can't read {}", path.display()));
    root.file(BINARY, 0o755, read(&part.binary)?);
    root.file("etc/passwd", 0o644, "root:x:0:0:root:/:/sbin/nologin\n");
    root.file("etc/group", 0o644, "root:x:0:\n");
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = read(&machine::root().join(licence))?;
        root.file(
            &format!("usr/share/licenses/ipam-agent/{licence}"),
            0o644,
            text,
        );
    }
    if let Some(sbom) = &part.sbom {
        root.file("usr/share/sbom/ipam-agent.cdx.json", 0o644, sbom.clone());
    }
    if let Some(loader) = release::interpreter(&part.binary)? {
        eprintln!(
            "{} is linked dynamically: its libraries, this machine's, go along",
            part.binary.display()
        );
        for library in libraries(&part.binary, &loader)? {
            let path = library.strip_prefix("/")?.display().to_string();
            root.file(&path, 0o755, read(&library)?);
        }
    }
    Ok(root)
}

/// What a program that is linked dynamically needs, by the names it knows it by.
fn libraries(binary: &Path, loader: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = machine::output(Command::new(loader).arg("--list").arg(binary))?;
    // `NAME => PATH (ADDRESS)`; the loader itself, and what the kernel gives, have no arrow.
    let paths = listed
        .lines()
        .filter_map(|line| line.split_once(" => ")?.1.split(' ').next());
    Ok(paths
        .map(PathBuf::from)
        .chain([loader.to_owned()])
        .collect())
}

/// What the image says of itself: labels, and annotations of each manifest
/// (image-spec, annotations.md).
fn labels(epoch: u64) -> anyhow::Result<Value> {
    let repository = env!("CARGO_PKG_REPOSITORY");
    let mut labels = json!({
        "org.opencontainers.image.title": "ipam-agent",
        "org.opencontainers.image.description":
            "Finds IP addresses that two machines use at once, and gives back leases that nobody uses any more",
        "org.opencontainers.image.version": release::version(),
        "org.opencontainers.image.created": time(epoch)?,
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        "org.opencontainers.image.url": repository,
        "org.opencontainers.image.source": repository,
        "org.opencontainers.image.documentation": format!("{repository}#readme"),
    });
    if let Some(revision) = release::revision() {
        labels["org.opencontainers.image.revision"] = revision.into();
    }
    Ok(labels)
}

fn time(epoch: u64) -> anyhow::Result<String> {
    Ok(jiff::Timestamp::from_second(i64::try_from(epoch)?)?.to_string())
}

fn text(value: &Value) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// What an image layout keeps by its digest.
#[derive(Default)]
struct Blobs {
    archive: Archive,
}

impl Blobs {
    /// Its descriptor.
    fn add(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let (digest, size) = (digest(&content), content.len());
        let path = format!("blobs/{}", digest.replace(':', "/"));
        self.archive.file(&path, 0o644, content);
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }
}
