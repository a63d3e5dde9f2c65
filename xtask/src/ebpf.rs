//! `cargo xtask ebpf`: the eBPF object, rebuilt from its sources, byte for byte.
//!
//! The sources that are hashed are copied to a stage and built there, so the object can't
//! depend on a file that its hash doesn't cover. Nor does it depend on where the
//! repository, cargo, rustc and rust-src live: paths are remapped, and what cargo makes of
//! paths to tell crates apart, which ends in symbol names, is taken out by a wrapper.

mod strip;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::machine;

/// `cargo xtask ebpf`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Rebuild it elsewhere and compare: fails if the kept object isn't its source's
    #[arg(long)]
    check: bool,
    /// Build one that logs every sighting, for debugging, to this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    log: Option<PathBuf>,
}

const OBJECT: &str = "ipam-ebpf/object/ipam-ebpf.o";
/// Lines as `sha256sum` writes them, of the object and its sources.
const HASHES: &str = "ipam-ebpf/object/ipam-ebpf.sha256";

const SOURCES: [&str; 5] = [
    "ipam-common/Cargo.toml",
    "ipam-common/src",
    "ipam-ebpf/Cargo.lock",
    "ipam-ebpf/Cargo.toml",
    "ipam-ebpf/src",
];

const STAGE: &str = r#"
[workspace]
resolver = "3"
members = ["ipam-common", "ipam-ebpf"]

[profile.release]
opt-level = 3
lto = true
codegen-units = 1
panic = "abort"
# BTF is made from it.
debug = "full"
"#;

/// Stands before rustc: for the BPF target a crate's name alone tells it from others.
const WRAPPER: &str = r#"#!/bin/sh
case " $* " in
*" bpfel-unknown-none "*)
    for argument; do
        shift
        case $argument in
        metadata=*) set -- "$@" metadata=ipam-agent ;;
        *) set -- "$@" "$argument" ;;
        esac
    done
    ;;
esac
exec "$@"
"#;

/// Build it, or check it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let object = build(args.log.is_some())?;
    if let Some(file) = &args.log {
        return fs::write(file, object).with_context(|| format!("can't write {}", file.display()));
    }
    let hashes = hashes(&object)?;
    if args.check {
        return check(&object, &hashes);
    }
    write(OBJECT, &object)?;
    write(HASHES, hashes.as_bytes())?;
    eprintln!("{OBJECT}: {} bytes", object.len());
    Ok(())
}

/// Whether the kept object is its sources': rebuilt and compared.
pub fn check_kept() -> anyhow::Result<()> {
    run(&Args {
        check: true,
        log: None,
    })
}

fn check(object: &[u8], hashes: &str) -> anyhow::Result<()> {
    let mend = "build it anew with `cargo xtask ebpf` and commit both files";
    if read(OBJECT)? != object {
        bail!("{OBJECT} is not what its sources build: {mend}");
    }
    if read(HASHES)? != hashes.as_bytes() {
        bail!("{HASHES} doesn't match the object and its sources: {mend}");
    }
    eprintln!("{OBJECT} is its sources'");
    Ok(())
}

fn build(log: bool) -> anyhow::Result<Vec<u8>> {
    let version = machine::output(Command::new("rustc").arg("--version"))?;
    if version.split(' ').nth(1) != Some(machine::RUST) {
        bail!(
            "the object is built with rustc {}, this is {}: `rustup toolchain install {}`",
            machine::RUST,
            version.trim(),
            machine::RUST
        );
    }
    let setup = "`cargo xtask setup` installs it";
    let rust_src = machine::rust_src()?
        .with_context(|| format!("no rust-src for rustc {}: {setup}", machine::RUST))?;
    let linker = machine::bpf_linker()?;
    if !linker.join("bpf-linker").is_file() {
        bail!("no bpf-linker {}: {setup}", machine::BPF_LINKER);
    }

    let stage = stage()?;
    let target = root_join("target/ebpf")?;
    let mut path = vec![linker];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&stage)
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", "ipam-ebpf", "--target", "bpfel-unknown-none"])
        .arg("-Zbuild-std=core")
        .arg("--target-dir")
        .arg(&target)
        .env("PATH", env::join_paths(path)?)
        // -Zbuild-std on a stable compiler, with sources that may lie outside of it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", &rust_src)
        .env("RUSTC_WRAPPER", stage.join("rustc-wrapper"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&stage, &rust_src)?)
        .env_remove("RUSTFLAGS");
    if log {
        cargo.args(["--features", "ipam-ebpf/log"]);
    }
    machine::run(&mut cargo)?;
    let built = target.join("bpfel-unknown-none/release/ipam-ebpf");
    let object = fs::read(&built).with_context(|| format!("can't read {}", built.display()))?;
    strip::debug_sections(&object)
}

/// BTF, and no path of this machine.
fn rustflags(stage: &Path, rust_src: &Path) -> anyhow::Result<String> {
    let mut flags = vec![
        "-Clink-arg=--btf".to_owned(),
        // Else every small memset becomes a call of a loop.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
    ];
    flags.extend(machine::remapping(rust_src, stage)?);
    Ok(flags.join("\x1f"))
}

/// Copy the sources to an empty directory.
fn stage() -> anyhow::Result<PathBuf> {
    let stage = root_join("target/ebpf-stage")?;
    fs::remove_dir_all(&stage)?;
    for source in sources()? {
        let to = stage.join(&source);
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        let from = machine::root().join(&source);
        fs::copy(&from, &to).with_context(|| format!("can't copy {}", from.display()))?;
    }
    let wrapper = stage.join("rustc-wrapper");
    fs::write(&wrapper, WRAPPER)?;
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755))?;
    fs::write(stage.join("Cargo.toml"), STAGE)?;
    fs::rename(stage.join("ipam-ebpf/Cargo.lock"), stage.join("Cargo.lock"))?;
    Ok(stage)
}

/// Every source file, sorted, relative to the repository.
fn sources() -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut open: Vec<String> = SOURCES.map(str::to_owned).into();
    while let Some(path) = open.pop() {
        let here = machine::root().join(&path);
        if here.is_dir() {
            for entry in fs::read_dir(&here)? {
                let name = entry?.file_name();
                open.push(format!("{path}/{}", name.display()));
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn hashes(object: &[u8]) -> anyhow::Result<String> {
    let mut lines = line(object, OBJECT);
    for source in sources()? {
        lines += &line(&read(&source)?, &source);
    }
    Ok(lines)
}

fn line(bytes: &[u8], name: &str) -> String {
    format!("{:x}  {name}\n", Sha256::digest(bytes))
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(machine::root().join(path)).with_context(|| format!("can't read {path}"))
}

fn write(path: &str, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(machine::root().join(path), bytes).with_context(|| format!("can't write {path}"))
}

/// A directory of the repository, made if need be, as the compiler will name it.
fn root_join(path: &str) -> anyhow::Result<PathBuf> {
    let directory = machine::root().join(path);
    fs::create_dir_all(&directory)
        .with_context(|| format!("can't make {}", directory.display()))?;
    Ok(directory.canonicalize()?)
}
