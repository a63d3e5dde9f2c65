//! What the project asks of a developer's machine, one subcommand per task.
//!
//! Tasks print what they do to stderr and results to stdout. They may write to `target/`,
//! to the cache directory, and to the files that they say they make.

mod apt;
mod archive;
mod bench;
mod compare;
mod deb;
mod demo;
mod dist;
mod ebpf;
mod extras;
mod fuzz;
mod image;
mod kernels;
mod machine;
mod manifests;
mod picture;
mod release;
mod sbom;
mod setup;
mod test;
mod vendors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, build, test, fuzz, demo and bench"
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the main job on a throw-away host
    Demo(demo::Args),
    /// Run every test there is
    Test(test::Args),
    /// Measure what is promised
    Bench(bench::Args),
    /// Run the agent beside other detectors
    Compare(compare::Args),
    /// Feed what takes untrusted bytes with more of them
    Fuzz(fuzz::Args),
    /// Install what building the eBPF object and running the tests need
    Setup,
    /// Rebuild the eBPF object that the repository keeps
    Ebpf(ebpf::Args),
    /// Make the container image, without a daemon
    Image(image::Args),
    /// Make all that a release consists of
    Dist(dist::Args),
    /// Make the plain manifests of the chart anew
    Manifests(manifests::Args),
    /// Renew the picture of the dashboard with real data
    Picture,
    /// Renew the list of vendors that the repository keeps
    Vendors,
}

fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().task {
        Task::Compare(args) => return compare::run(&args),
        Task::Demo(args) => return demo::run(&args),
        Task::Test(args) => test::run(&args)?,
        Task::Bench(args) => bench::run(&args)?,
        Task::Fuzz(args) => fuzz::run(&args)?,
        Task::Setup => setup::run()?,
        Task::Ebpf(args) => ebpf::run(&args)?,
        Task::Image(args) => image::run(&args)?,
        Task::Dist(args) => dist::run(&args)?,
        Task::Manifests(args) => manifests::run(&args)?,
        Task::Picture => picture::run()?,
        Task::Vendors => vendors::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
