//! `cargo xtask bench`: the figures that the project promises, measured on this machine.
//!
//! Everything that is measured is built as for release; docs/performance.md has the method.

use std::process::Command;

use crate::machine;

/// `cargo xtask bench`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// `--output json` and the names of figures, as `cargo xtask bench -- --help` tells them
    #[arg(
        value_name = "ARG",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    args: Vec<String>,
}

/// Build it and run it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let target = machine::root().join("target");
    machine::run(
        Command::new("cargo")
            .current_dir(machine::root())
            .args(["build", "--quiet", "--release", "--bins"])
            .args(["--package", "ipam-agent", "--package", "tests"])
            .arg("--target-dir")
            .arg(&target),
    )?;
    machine::run(Command::new(target.join("release/bench")).args(&args.args))
}
