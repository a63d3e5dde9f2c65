//! `ipam-agent watch`

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs},
};
use crate::report::{
    Format,
    document::{Happening, WatchLine},
    watch_head, watch_line,
};

/// Conflicts and releases as they happen, one line each. Those conflicts that last come
/// first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent watch
  ipam-agent watch --output json | jq -c 'select(.what == \"opened\") | .conflict'

First come the conflicts that last, as `open`; after them JSON has a line `watching`. Then a
line for each that opens, changes its kind or severity, or is resolved, and for each lease
that is released. A reader that is 1,024 lines behind is told how many it `missed`. It ends
with the daemon, or with Ctrl-C.

Exit status: 0 it ended so, 2 an error.")]
pub struct WatchArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl WatchArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let format = self.output.output;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
        let mut watch = self.daemon.client(io)?.watch().await?;
        let mut read = io.put(&watch_head(format)?)?;
        while read {
            let line = tokio::select! {
                line = watch.next() => line?,
                _ = interrupt.recv() => break,
            };
            let Some(line) = line else { break };
            read = told(io, &line, format)?;
        }
        Ok(Status::Nothing)
    }
}

/// Whether anybody still reads.
fn told(io: &mut Io<'_>, line: &WatchLine, format: Format) -> Result<bool, CliError> {
    match line.what {
        Happening::Watching => io.tell("watching; Ctrl-C ends it\n")?,
        Happening::Stopping => io.tell("the daemon stopped\n")?,
        _ => {}
    }
    match watch_line(line, format, io.view)? {
        Some(text) => io.put(&text),
        None => Ok(true),
    }
}
