//! `cargo xtask compare`: the agent beside other detectors, on the same frames.
//!
//! Everything is built as for release; docs/comparison.md has the method.

use std::{
    env,
    process::{Command, ExitCode},
};

use crate::{machine, setup};

/// `cargo xtask compare`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// What is written to stdout: the table, or one document (the table then goes to stderr)
    #[arg(long, short, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

/// Build it and run it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut path = setup::comparison()?;
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    machine::build(&[
        "--release",
        "--package",
        "ipam-agent",
        "--package",
        "tests",
        "--bins",
    ])?;
    let status = Command::new(machine::built_for_release("compare"))
        .args(["--output", &args.output])
        .env("PATH", env::join_paths(path)?)
        .status()?;
    Ok(machine::exit_code(status))
}
