//! What the project asks of a developer's machine, one subcommand per task.
//!
//! Tasks print what they do to stderr and results to stdout. They may write to `target/`,
//! to the cache directory, and to the files that they say they make.

mod ebpf;
mod kernels;
mod machine;
mod setup;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, test, demo and bench")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building the eBPF object and running the tests need
    Setup,
    /// Rebuild the eBPF object that the repository keeps
    Ebpf(ebpf::Args),
    /// Run the tests
    Test {
        /// On these kernels, each under qemu with the agent inside: 6.1
        #[arg(long, value_name = "VERSION", value_delimiter = ',', required = true)]
        kernels: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Setup => setup::run(),
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Test { kernels } => kernels::run(&kernels),
    }
}
