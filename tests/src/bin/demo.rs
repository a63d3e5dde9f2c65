//! The main job, shown on a throw-away host: duplicates found, leaked leases given back,
//! live ones kept. `cargo xtask demo` builds and runs it.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tests::demo;

/// Shows the main job on a throw-away host.
#[derive(Parser)]
struct Args {
    /// What is written to stdout: the story, or its figures (the story then goes to stderr)
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let json = Args::parse().output == Output::Json;
    let figures = demo::run(json)?;
    if json {
        println!("{}", serde_json::to_string(&figures)?);
    }
    Ok(if figures.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
