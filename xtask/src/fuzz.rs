//! `cargo xtask fuzz`: libFuzzer over what takes untrusted bytes.
//!
//! What is fuzzed is in the tests' library, which the ordinary tests feed with the kept
//! corpora. New inputs go to `target/fuzz/corpus`, which later runs go on from; what fails
//! stays in `tests/fuzz/artifacts` and belongs into the kept corpus once it is mended.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::machine;

/// The runner of libFuzzer's programs.
const CARGO_FUZZ: &str = "0.13.2";

/// As `tests::fuzz` has them.
const TARGETS: [&str; 3] = ["frames", "captures", "leases"];

/// Which targets, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// This one only
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// For how long, each
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

/// Fuzz.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = cargo_fuzz()?;
    let targets = match &args.target {
        Some(target) => vec![target.as_str()],
        None => TARGETS.to_vec(),
    };
    for target in targets {
        let [new, kept] = [
            machine::target().join("fuzz/corpus").join(target),
            root().join("corpus").join(target),
        ];
        fs::create_dir_all(&new).with_context(|| format!("can't make {}", new.display()))?;
        machine::run(
            command(&program, "run")
                .arg(target)
                .args([&new, &kept])
                .arg("--")
                .arg(format!("-max_total_time={}", args.seconds))
                .args(["-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"]),
        )
        .with_context(|| format!("{target}: what failed is in tests/fuzz/artifacts"))?;
    }
    Ok(())
}

fn root() -> PathBuf {
    machine::root().join("tests/fuzz")
}

/// What is fuzzed has no unsafe code: libFuzzer's coverage is enough, without a sanitizer
/// and with the stable compiler, which is told to take the flags for it.
fn command(program: &Path, task: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["fuzz", task, "--sanitizer", "none", "--fuzz-dir"])
        .arg(root())
        .arg("--target-dir")
        .arg(machine::target().join("fuzz"))
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(root())
        .stdin(Stdio::null());
    command
}

/// Installs it if it isn't there.
fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    let root = machine::cache()?.join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.is_file() {
        eprintln!("cargo-fuzz: building {CARGO_FUZZ}, which takes a minute");
        machine::run(
            Command::new("cargo")
                .args(["install", "--quiet", "--locked", "cargo-fuzz"])
                .args(["--version", CARGO_FUZZ])
                .arg("--root")
                .arg(root),
        )
        .context("it comes from the registry of crates: is there a network?")?;
    }
    Ok(program)
}
