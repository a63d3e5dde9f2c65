//! The command line's entry; all it does is in [`ipam_agent::cli`].

use std::process::ExitCode;

use clap::Parser;
use ipam_agent::{
    cli::{Cli, Io},
    error::in_full,
    report::clean,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    Io::with_stdio(|io| match cli.run(io) {
        Ok(status) => status.into(),
        Err(error) => {
            let text = format!("ipam-agent: {}\n", clean(&in_full(&error)));
            // If stderr is gone too, the exit status has to say it.
            let _ = io.tell(&text);
            error.exit_code()
        }
    })
}
