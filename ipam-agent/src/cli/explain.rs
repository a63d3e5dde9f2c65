//! `ipam-agent explain`

use std::net::IpAddr;

use clap::Args;
use ipam_common::Address;

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs, SourceArgs, address},
};
use crate::{config::Config, driver::offline, report::document::Explain};

/// All that is known of one address: claims, leases, evidence, verdict, and what stands
/// against its release.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent explain 10.52.0.86
  ipam-agent explain fd00:52::5c --output json
  ipam-agent explain 10.52.0.86 --leases host-local")]
pub struct ExplainArgs {
    /// Which address
    #[arg(value_parser = address)]
    address: IpAddr,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl ExplainArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let explain: Explain = if self.sources.leases.is_empty() {
            let path = format!("/api/v1/explain/{}", self.address);
            self.daemon.client(io)?.get(&path).await?
        } else {
            let address = Address::from_ip(self.address);
            let address = address.ok_or(CliError::NotClaimable(self.address))?;
            offline::explain(&Config::without_file(self.sources.leases)?, address)?
        };
        io.show(&explain, self.output.output)?;
        Ok(Status::Nothing)
    }
}
