//! `ipam-agent reclaim apply`

use clap::Args;

use crate::{
    cli::{
        CliError, Io, Status,
        progress::waiting,
        shared::{ConfigArgs, OutputArgs, person},
    },
    report::{
        Format,
        document::{Applied, AppliedSchema, ApplyRequest, ConfirmedRelease, Plan, ReleaseResult},
    },
};

/// Release what is proven stale: shows the plan, asks, and lets the daemon do it.
///
/// The daemon judges each lease again right before it touches it. What it would not release
/// then stays, with the reason.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim apply
  ipam-agent reclaim apply --yes --output json

Exit status: 0 all that was planned is done, 1 some is left, 2 an error, 3 it could not look.")]
pub struct ApplyArgs {
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl ApplyArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let client = self.daemon.client(io)?;
        let plan = waiting("two passes over the leases", None, client.plan()).await;
        let plan: Plan = plan.map_err(CliError::judging)?;
        let format = self.output.output;
        if !self.yes || format == Format::Table {
            io.preview(&plan)?;
        }
        if plan.releases.is_empty() {
            io.show(&nothing(&plan), format)?;
            return Ok(Status::of(false, !plan.complete));
        }
        if !self.yes && !io.confirm("\nRelease them?", "release them")? {
            io.show(&nothing(&plan), format)?;
            return Ok(Status::Something);
        }
        let confirmed = plan.releases.into_iter().map(|release| ConfirmedRelease {
            store: release.store,
            address: release.address,
        });
        let request = ApplyRequest {
            confirmed: confirmed.collect(),
            by: person(),
        };
        let what = format!("giving back {} leases", request.confirmed.len());
        let applied = waiting(&what, None, client.apply(&request)).await;
        let applied = applied.map_err(CliError::judging)?;
        io.show(&applied, format)?;
        let left = |result| result != ReleaseResult::Released;
        let left = applied.outcomes.iter().any(|outcome| left(outcome.result))
            || applied.outcomes.len() < request.confirmed.len();
        Ok(Status::of(left, false))
    }
}

/// The result of doing nothing.
fn nothing(plan: &Plan) -> Applied {
    Applied {
        schema: AppliedSchema::V1,
        generated_at: plan.generated_at,
        host: plan.host.clone(),
        blind: plan.blind.clone(),
        outcomes: Vec::new(),
    }
}
