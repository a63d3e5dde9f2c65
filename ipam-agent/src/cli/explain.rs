//! `ipam-agent explain`

use std::net::IpAddr;

use clap::Args;

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs},
};
use crate::report::document::Explain;

/// All that is known of one address: claims, leases, evidence, verdict, and what stands
/// against its release.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent explain 10.52.0.86
  ipam-agent explain fd00:52::5c --output json")]
pub struct ExplainArgs {
    /// Which address
    address: IpAddr,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl ExplainArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let path = format!("/api/v1/explain/{}", self.address);
        let explain: Explain = self.daemon.client()?.get(&path).await?;
        io.show(&explain, self.output.output)?;
        Ok(Status::Nothing)
    }
}
