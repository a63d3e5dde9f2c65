//! `ipam-agent reclaim history`

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cli::{CliError, Io, Status, shared::OutputArgs},
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
    /// The configuration file [default: /etc/ipam-agent/config.yaml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl HistoryArgs {
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let config = Config::load(Overrides {
            state_dir: self.state_dir,
            file: self.config,
            ..Overrides::default()
        })?;
        let missing = |path: &Path| {
            let found = fs::metadata(path);
            found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        // Elsewhere there may be one that tells of releases.
        if missing(&config.state_dir) {
            return Err(CliError::NoState(config.state_dir));
        }
        let history = journal::history(&config.state_dir, SHOWN)?;
        let file = config.state_dir.join(journal::FILE);
        if missing(&file) {
            io.tell(&format!("there is no journal yet, {}\n", file.display()))?;
        }
        let history = compose::history(history, clock::wall_time(), host_name());
        io.show(&history, self.output.output)?;
        Ok(Status::Nothing)
    }
}
