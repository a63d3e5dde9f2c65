//! The image: what is in it, and that a real containerd takes and runs it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    containerd::{Node, in_lab},
    daemon::agent,
};

use super::{file, output, release};

const NAME: &str = "ghcr.io/ipam-agent/ipam-agent:0.1.0";

/// The image, unpacked.
struct Layout(tempfile::TempDir);

impl Layout {
    fn open() -> Result<Self> {
        Self::of(&file(&release().first, "-image.tar")?)
    }

    fn of(archive: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut tar = Command::new("tar");
        output(tar.arg("-C").arg(directory.path()).arg("-xf").arg(archive))?;
        Ok(Self(directory))
    }

    fn json(&self, path: &str) -> Result<Value> {
        let text = fs::read(self.0.path().join(path)).with_context(|| path.to_owned())?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// What a descriptor describes, checked by its size and digest.
    fn blob(&self, descriptor: &Value) -> Result<String> {
        let digest = descriptor["digest"].as_str().context("a digest")?;
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let file = self.0.path().join(&path);
        ensure!(descriptor["size"] == fs::metadata(&file)?.len());
        let sum = output(Command::new("sha256sum").arg(&file))?;
        ensure!(
            Some(&sum[..64]) == digest.strip_prefix("sha256:"),
            "{digest}"
        );
        Ok(path)
    }

    /// What it has for which platform.
    fn index(&self) -> Result<Value> {
        let outer = self.json("index.json")?;
        self.json(&self.blob(&outer["manifests"][0])?)
    }

    /// The descriptor of the one image in it.
    fn manifest(&self) -> Result<(Value, Value)> {
        let index = self.index()?;
        let manifest = self.json(&self.blob(&index["manifests"][0])?)?;
        let config = self.json(&self.blob(&manifest["config"])?)?;
        Ok((manifest, config))
    }
}

#[test]
fn it_says_what_it_is_and_is_ended_by_handing_over() -> Result<()> {
    let layout = Layout::open()?;
    let (manifest, config) = layout.manifest()?;
    let labels = &config["config"]["Labels"];
    assert_eq!(manifest["annotations"], *labels);
    for (label, value) in [
        ("title", "ipam-agent"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("licenses", "Apache-2.0 OR MIT"),
        ("created", "2026-09-21T14:13:20Z"),
    ] {
        assert_eq!(labels[format!("org.opencontainers.image.{label}")], value);
    }
    assert_eq!(config["config"]["StopSignal"], "SIGUSR2");
    assert_eq!(config["os"], "linux");
    Ok(())
}

#[test]
fn there_is_nothing_in_it_but_the_agent() -> Result<()> {
    let layout = Layout::open()?;
    let (manifest, _) = layout.manifest()?;
    let layers = manifest["layers"].as_array().context("layers")?;
    assert_eq!(layers.len(), 1);
    let layer = layout.0.path().join(layout.blob(&layers[0])?);
    let listed = output(Command::new("tar").arg("-tzf").arg(layer))?;
    // The tests' binary is linked dynamically, a release's isn't.
    let is_library = |name: &&str| name.contains("lib") && name.contains(".so");
    let files: BTreeSet<_> = listed
        .lines()
        .filter(|name| !name.ends_with('/') && !is_library(name))
        .collect();
    let expected = [
        "etc/group",
        "etc/passwd",
        "usr/bin/ipam-agent",
        "usr/share/licenses/ipam-agent/LICENSE-APACHE",
        "usr/share/licenses/ipam-agent/LICENSE-MIT",
    ];
    assert_eq!(files, BTreeSet::from(expected));
    Ok(())
}

#[test]
fn a_real_containerd_runs_it() {
    in_lab(|lab| {
        let node = Node::boot(lab)?;
        let archive = file(&release().first, "-image.tar")?;
        let archive = archive.to_str().context("a path")?;
        ctr(
            &node,
            &["images", "import", "--snapshotter", "native", archive],
        )?;
        let listed = ctr(&node, &["images", "list"])?;
        let line = listed.lines().find(|line| line.starts_with(NAME));
        let line = line.with_context(|| listed.clone())?;
        let platform = match std::env::consts::ARCH {
            "aarch64" => "linux/arm64",
            _ => "linux/amd64",
        };
        ensure!(line.contains(platform), "{line}");

        let version = run(&node, "version", &["--version"])?;
        ensure!(version == agent(&["--version"])?.out, "{version}");
        // It is no host's root: what is missing is told, and how to mend it.
        let doctor = run(&node, "doctor", &["doctor", "--output", "json"])?;
        let doctor: Value = serde_json::from_str(&doctor)?;
        let checks = doctor["checks"].as_array().context("checks")?;
        let capabilities = checks.iter().find(|check| check["name"] == "capabilities");
        let capabilities = capabilities.context("a check of capabilities")?;
        ensure!(capabilities["status"] == "fail", "{capabilities}");
        Ok(())
    });
}

/// What the agent prints in a container, as a user of the image starts it.
fn run(node: &Node, id: &str, args: &[&str]) -> Result<String> {
    let ctr = [
        "ctr",
        "--address",
        tests::containerd::SOCKET,
        "--namespace",
        "k8s.io",
    ];
    let container = [
        "run",
        "--rm",
        "--snapshotter",
        "native",
        "--net-host",
        NAME,
        id,
    ];
    let mut command = node.inside(ctr[0])?;
    command.args(&ctr[1..]).args(container);
    command.arg("/usr/bin/ipam-agent").args(args);
    let output = command.output()?;
    ensure!(
        matches!(output.status.code(), Some(0..=3)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ctr(node: &Node, args: &[&str]) -> Result<String> {
    let ctr = [
        "ctr",
        "--address",
        tests::containerd::SOCKET,
        "--namespace",
        "k8s.io",
    ];
    node.run(&[&ctr, args].concat())
}

#[test]
fn one_image_is_for_every_architecture() -> Result<()> {
    let work = tempfile::tempdir()?;
    let (arm64, amd64) = (work.path().join("arm64"), work.path().join("amd64"));
    for (program, machine) in [(&arm64, ELF_AARCH64), (&amd64, ELF_X86_64)] {
        fs::write(program, elf(machine))?;
    }
    let pack = |image: &Path, programs: [&Path; 2]| -> Result<std::process::Output> {
        let mut xtask = Command::new(tests::daemon::beside("xtask")?);
        xtask.arg("image").arg("--output").arg(image);
        for program in programs {
            xtask.arg("--binary").arg(program);
        }
        Ok(xtask.env("SOURCE_DATE_EPOCH", "1").output()?)
    };
    let image = work.path().join("image.tar");
    let made = pack(&image, [&arm64, &amd64])?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let layout = Layout::of(&image)?;
    let index = layout.index()?;
    let manifests = index["manifests"].as_array().context("manifests")?;
    ensure!(manifests.len() == 2, "{index:#}");
    for (descriptor, arch) in manifests.iter().zip(["amd64", "arm64"]) {
        ensure!(descriptor["platform"] == json!({ "architecture": arch, "os": "linux" }));
        let manifest = layout.json(&layout.blob(descriptor)?)?;
        let config = layout.json(&layout.blob(&manifest["config"])?)?;
        ensure!(config["architecture"] == arch, "{config:#}");
        layout.blob(&manifest["layers"][0])?;
    }

    let twice = pack(&image, [&arm64, &arm64])?;
    ensure!(!twice.status.success());
    let said = String::from_utf8_lossy(&twice.stderr);
    ensure!(
        said.contains("two binaries are for one architecture"),
        "{said}"
    );
    Ok(())
}

/// What elf.h calls EM_X86_64 and EM_AARCH64.
const ELF_X86_64: u16 = 62;
const ELF_AARCH64: u16 = 183;

/// The least that is a static program for this machine (elf(5)): its header, and no segments.
fn elf(machine: u16) -> Vec<u8> {
    let mut header = vec![0; 64];
    // Of 64 bits, little-endian, of version 1.
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    // An executable, of version 1; how long this header is, and each of segments.
    header[16] = 2;
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header[20] = 1;
    header[52] = 64;
    header[54] = 56;
    header
}

#[test]
fn what_is_no_program_is_refused() -> Result<()> {
    let work = tempfile::tempdir()?;
    let image = work.path().join("image.tar");
    let made = Command::new(tests::daemon::beside("xtask")?)
        .args(["image", "--binary", "/etc/passwd", "--output"])
        .arg(&image)
        .env("SOURCE_DATE_EPOCH", "1")
        .output()?;
    assert!(!made.status.success());
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(said.contains("/etc/passwd is no program"), "{said}");
    assert!(!Path::new(&image).exists());
    Ok(())
}
