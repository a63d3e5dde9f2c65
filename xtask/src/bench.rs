//! `cargo xtask bench`: the figures that the project promises, measured on this machine.
//!
//! Everything that is measured is built as for release; docs/performance.md has the method.

use std::{env, process::Command};

use crate::{machine, setup};

/// `cargo xtask bench`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// What is written to stdout: a table, or one document; progress goes to stderr
    #[arg(long, short, value_parser = ["table", "json"], default_value = "table")]
    output: String,
    /// Measure these figures only
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Build it and run it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::laboratory()?;
    machine::build(&[
        "--release",
        "--package",
        "ipam-agent",
        "--package",
        "tests",
        "--bins",
    ])?;
    machine::run(
        Command::new(machine::built_for_release("bench"))
            .args(["--output", &args.output])
            // What makes the image that is measured.
            .env("IPAM_AGENT_XTASK", env::current_exe()?)
            .args(&args.names),
    )
}
