//! `cargo xtask compare` runs this: the agent beside other detectors.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tests::{compare, lab};

#[derive(Parser)]
#[command(
    name = "cargo xtask compare",
    about = "The agent beside other detectors, on the same frames"
)]
struct Args {
    /// What is written to stdout: the table, or one document (the table then goes to stderr)
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    lab::available().map_err(|why| anyhow::anyhow!(why))?;
    let comparison = lab::try_in_lab(|lab| compare::run(lab, true))?;
    let table = compare::table::markdown(&comparison);
    match args.output {
        Output::Table => print!("{table}"),
        Output::Json => {
            eprint!("{table}");
            println!("{}", serde_json::to_string(&comparison)?);
        }
    }
    Ok(match comparison.only_by_others().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
