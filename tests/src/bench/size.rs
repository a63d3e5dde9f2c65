//! How much of a node's disk the agent takes: the program, and its image once it is unpacked.

use std::{env, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Figure;
use crate::{daemon, lab::run};

const MIB: f64 = (1 << 20) as f64;

/// `binary_mib` and `image_mib`.
pub fn figures() -> Result<Vec<Figure>> {
    let agent = daemon::binary()?;
    let of = |name, bytes: u64, target| Figure {
        name,
        value: bytes as f64 / MIB,
        unit: "MiB",
        target: Some(target),
        least: None,
        baseline: None,
    };
    Ok(vec![
        of("binary_mib", fs::metadata(&agent)?.len(), 15.0),
        of("image_mib", unpacked_image(&agent)?, 20.0),
    ])
}

/// The files of the image that is made of this program, in bytes.
fn unpacked_image(agent: &Path) -> Result<u64> {
    let xtask = env::var("IPAM_AGENT_XTASK");
    let xtask = xtask.context("who makes the image? run `cargo xtask bench`")?;
    let work = tempfile::tempdir()?;
    let place = |name: &str| work.path().join(name).display().to_string();
    let (archive, layout) = (place("image.tar"), place("layout"));
    let agent = agent.display().to_string();
    run(&xtask, &["image", "--binary", &agent, "--output", &archive])?;
    fs::create_dir(&layout)?;
    run("tar", &["-C", &layout, "-xf", &archive])?;
    // image-spec, image-layout.md: index.json names the index, that the manifest.
    let read = |path: &str| -> Result<Value> {
        let text = fs::read(Path::new(&layout).join(path)).with_context(|| path.to_owned())?;
        Ok(serde_json::from_slice(&text)?)
    };
    let index = read(&blob(&read("index.json")?["manifests"][0])?)?;
    let manifest = read(&blob(&index["manifests"][0])?)?;
    let mut bytes = 0;
    for layer in manifest["layers"].as_array().context("no layers")? {
        let files = place("files");
        fs::create_dir_all(&files)?;
        let layer = Path::new(&layout).join(blob(layer)?);
        run("tar", &["-C", &files, "-xf", &layer.display().to_string()])?;
        bytes += size(Path::new(&files))?;
        fs::remove_dir_all(&files)?;
    }
    ensure!(bytes > 0, "the image is empty");
    Ok(bytes)
}

/// Where an image layout has what a descriptor describes.
fn blob(descriptor: &Value) -> Result<String> {
    let digest = descriptor["digest"].as_str().context("no digest")?;
    Ok(format!("blobs/{}", digest.replace(':', "/")))
}

/// The files below a directory, in bytes.
fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => size(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(bytes)
}
