//! What the project asks of a developer's machine, one subcommand per task.
//!
//! Tasks print what they do to stderr and results to stdout. They may write to `target/`,
//! to the cache directory, and to the files that they say they make.

mod bench;
mod ebpf;
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
    /// Measure what is promised
    Bench(bench::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Setup => setup::run(),
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Bench(args) => bench::run(&args),
    }
}
