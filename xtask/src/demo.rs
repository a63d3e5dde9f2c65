//! `cargo xtask demo`: the main job, shown on a throw-away host.

use std::process::{Command, ExitCode};

use crate::{machine, setup};

/// What is passed on to the demo.
#[derive(clap::Args)]
pub struct Args {
    /// What is written to stdout: the story, or its figures (the story then goes to stderr)
    #[arg(long, short, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Build the agent and the demo, and run it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Err(error) = setup::laboratory() {
        // The demo shows what it can without.
        eprintln!("demo: {error:#}");
    }
    machine::build(&["--workspace", "--bins"])?;
    let status = Command::new(machine::built("demo"))
        .args(["--output", &args.output])
        .status()?;
    Ok(machine::exit_code(status))
}
