//! `ipam-agent leases`

use clap::{Args, builder::PossibleValuesParser};

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs, SourceArgs, warn_unknown},
};
use crate::{
    config::Config,
    driver::offline,
    report::document::{LeaseState, Leases},
};

/// Every lease with its state and the reason for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent leases
  ipam-agent leases --state stale
  ipam-agent leases --store host-local:k8s-pod-network --output csv
  ipam-agent leases --leases host-local")]
pub struct LeasesArgs {
    /// Only this store, such as host-local:k8s-pod-network
    #[arg(long)]
    store: Option<String>,
    /// Only leases in this state
    #[arg(long, value_parser = PossibleValuesParser::new(LeaseState::ALL.iter().map(|state| state.name())))]
    state: Option<String>,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl LeasesArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let mut leases: Leases = if self.sources.leases.is_empty() {
            self.daemon.client(io)?.get("/api/v1/leases").await?
        } else {
            offline::leases(&Config::without_file(self.sources.leases)?)?
        };
        let known = leases.leases.iter().map(|record| &*record.lease.store);
        warn_unknown(io, "no lease is of a store", self.store.as_deref(), known)?;
        leases.leases.retain(|record| {
            let store = self.store.as_deref();
            let state = self.state.as_deref();
            store.is_none_or(|store| record.lease.store == store)
                && state.is_none_or(|state| record.lease.state.name() == state)
        });
        io.show(&leases, self.output.output)?;
        Ok(Status::Nothing)
    }
}
