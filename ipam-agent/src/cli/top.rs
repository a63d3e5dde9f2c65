//! `ipam-agent top`: a live view in a terminal.
//!
//! [`model`] is what is shown and what keys do, [`view`] how it looks; both are pure.
//! [`terminal`] has the screen, the keys, the clock and the daemon.

mod model;
mod rows;
mod terminal;
mod view;

#[cfg(test)]
mod tests;

use clap::Args;

use super::{CliError, Io, Status, progress::waiting, shared::ConfigArgs};
use crate::{
    report::{
        Format,
        document::{Leases, Overview, Pools, Report},
    },
    serve::{Client, ClientError},
};

/// A live view of segments, pools, conflicts and releases, by the running daemon's word.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent top
  ipam-agent top --output table
  ipam-agent top --output json | jq '.pools'

Keys: Tab and the arrows move, Enter opens what is selected (a conflict's or a lease's
story, a segment's addresses, a pool's leases), Esc goes back, / filters, ? tells of all
keys, q ends it. When the daemon goes away the last view stays until it is back.

Exit status: 0 it was ended, 2 an error.")]
pub struct TopArgs {
    /// One look, written as this, in place of the live view
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl TopArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let client = self.daemon.client(io)?;
        match self.output {
            Some(format) => {
                let (overview, _) = waiting("asking the daemon", None, look(&client)).await?;
                io.show(&overview, format)?;
            }
            None => terminal::run(client, io.view).await?,
        }
        Ok(Status::Nothing)
    }
}

/// One look at the daemon.
async fn look(client: &Client) -> Result<(Overview, Leases), ClientError> {
    let report: Report = client.get("/api/v1/report").await?;
    let leases: Leases = client.get("/api/v1/leases").await?;
    let pools: Pools = client.get("/api/v1/pools").await?;
    Ok((Overview::new(report, &leases, pools), leases))
}
