//! The bill of materials of a binary: CycloneDX, by cargo-cyclonedx.

use std::{fs, process::Command};

use anyhow::Context as _;

use crate::{
    machine,
    release::{self, Arch},
    setup,
};

/// What the binary for this architecture is made of. Nothing random is in it.
pub fn make(arch: Arch) -> anyhow::Result<Vec<u8>> {
    let tool = setup::cyclonedx()?;
    let name = format!("ipam-agent-{}", arch.name());
    machine::run(
        Command::new(tool)
            .current_dir(machine::root())
            .args(["cyclonedx", "--manifest-path", "ipam-agent/Cargo.toml"])
            .args([
                "--format",
                "json",
                "--spec-version",
                "1.5",
                "--no-build-deps",
            ])
            .args(["--target", arch.target(), "--override-filename", &name])
            .arg("--quiet")
            .env("SOURCE_DATE_EPOCH", release::epoch()?.to_string()),
    )?;
    // It writes beside each manifest of the workspace that the binary is made of.
    let mut sbom = Vec::new();
    for member in ["ipam-common", "ipam-agent"] {
        let file = machine::root().join(member).join(format!("{name}.json"));
        sbom = fs::read(&file).with_context(|| format!("no {}", file.display()))?;
        fs::remove_file(&file)?;
    }
    Ok(sbom)
}
