//! `ipam-agent reclaim plan`

use clap::Args;

use crate::{
    cli::{
        CliError, Io, Status,
        progress::waiting,
        shared::{ConfigArgs, OutputArgs},
    },
    report::document::Plan,
};

/// What would be released now, and what is kept, why, and when it could go. Changes
/// nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim plan
  ipam-agent reclaim plan --output json | jq '.releases[].address'

Exit status: 0 nothing would be released, 1 something, 2 an error, 3 it could not look.")]
pub struct PlanArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl PlanArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let client = self.daemon.client(io)?;
        let plan = waiting("two passes over the leases", None, client.plan()).await;
        let plan: Plan = plan.map_err(CliError::judging)?;
        io.show(&plan, self.output.output)?;
        Ok(Status::of(!plan.releases.is_empty(), !plan.complete))
    }
}
