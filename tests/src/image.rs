//! Container images, packed without a registry, as `docker save` does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{daemon, lab};

/// An image to be.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its name, with a tag.
    pub name: &'a str,
    /// What it runs.
    pub entrypoint: &'a [&'a str],
    /// The signal that stops it; none: SIGTERM.
    pub stop_signal: Option<&'a str>,
}

impl Image<'_> {
    /// Packs these files, each with its place in the image; the archive is in `work`.
    pub fn pack(&self, work: &Path, files: &[(PathBuf, PathBuf)]) -> Result<PathBuf> {
        let root = work.join("root");
        for (file, place) in files {
            let place = root.join(place.strip_prefix("/").unwrap_or(place));
            fs::create_dir_all(place.parent().context("a file has a directory")?)?;
            fs::copy(file, &place).with_context(|| format!("no {}", file.display()))?;
        }
        let at = |name: &str| work.join(name);
        tar(&at("layer.tar"), &root, &["."])?;
        let digest = lab::run("sha256sum", &[&at("layer.tar").display().to_string()])?;
        let digest = digest.split(' ').next().unwrap_or_default();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut run = json!({ "Entrypoint": self.entrypoint });
        if let Some(signal) = self.stop_signal {
            run["StopSignal"] = json!(signal);
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "config": run,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        fs::write(at("config.json"), config.to_string())?;
        let manifest = json!([
            { "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }
        ]);
        fs::write(at("manifest.json"), manifest.to_string())?;
        let image = at("image.tar");
        tar(&image, work, &["manifest.json", "config.json", "layer.tar"])?;
        Ok(image)
    }
}

/// The agent as it was built for the tests, at this place, and the libraries that it is
/// linked with: what is in an image of it.
pub fn agent(place: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let binary = daemon::binary()?;
    let linked = lab::run("ldd", &[&binary.display().to_string()])?;
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`; the loader has its path alone.
    let libraries = linked
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let mut files: Vec<_> = libraries
        .map(|library| (PathBuf::from(library), PathBuf::from(library)))
        .collect();
    files.push((binary, PathBuf::from(place)));
    Ok(files)
}

fn tar(archive: &Path, directory: &Path, files: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(directory).arg("-cf").arg(archive);
    ensure!(tar.args(files).status()?.success(), "can't pack {files:?}");
    Ok(())
}
