//! `ipam-agent reclaim history`

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{
        CliError, Io, Status,
        shared::{ConfigArgs, OutputArgs},
    },
    config::{Config, Overrides},
    driver::{clock, host_name},
    journal,
    report::compose,
};

/// How many of each are shown; the journal has all.
const SHOWN: usize = 10_000;

/// What was released, fenced and removed from CNI's caches, the newest first: read from the journal, with or without a daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim history
  ipam-agent reclaim history --output csv")]
pub struct HistoryArgs {
    /// Where the journal is [default: as configured, /var/lib/ipam-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl HistoryArgs {
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let config = Config::load(Overrides {
            state_dir: self.state_dir,
            ..self.daemon.overrides()
        })?;
        let journal = journal::history(&config.state_dir, SHOWN)?;
        let history = compose::history(journal, clock::wall_time(), host_name());
        io.show(&history, self.output.output)?;
        Ok(Status::Nothing)
    }
}
