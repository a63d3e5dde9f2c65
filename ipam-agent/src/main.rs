//! The command line's entry; all it does is in [`ipam_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ipam_agent::cli::main()
}
