//! `cargo xtask test`: every test there is.

use std::process::Command;

use crate::{ebpf, kernels, machine, setup};

/// The kernels that all tests are run on, besides the machine's own.
const KERNELS: &[&str] = &["6.1"];

/// Which tests.
#[derive(clap::Args)]
pub struct Args {
    /// Only the suite of these kernels, each under qemu with the agent inside: 6.1
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kernels: Vec<String>,
}

/// Run them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    machine::build(&["--workspace", "--bins"])?;
    if args.kernels.is_empty() {
        machine::run(Command::new("cargo").args(["test", "--workspace", "--quiet"]))?;
        ebpf::check_kept()?;
    }
    let kernels = match args.kernels.as_slice() {
        [] => KERNELS.iter().map(|&name| name.to_owned()).collect(),
        asked => asked.to_vec(),
    };
    kernels::run(&kernels)
}
