//! `ipam-agent reclaim plan|apply|pause|resume|undo|history`

mod apply;
mod history;
mod pause;
mod plan;
mod undo;

use clap::Subcommand;

use super::{CliError, Io, Status};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam-agent reclaim plan          what would be given back, and what is kept, why
  ipam-agent reclaim apply         gives it back; asks first
  ipam-agent reclaim history       what was given back, and by its id:
  ipam-agent reclaim undo 00000001";

/// Give back leases that nobody uses any more.
#[derive(Debug, Subcommand)]
pub enum ReclaimCommand {
    /// What would be released now, and what is kept, why, and when it could go
    Plan(plan::PlanArgs),
    /// Release what is proven stale; asks first
    Apply(apply::ApplyArgs),
    /// Stop unattended releases
    Pause(pause::PauseArgs),
    /// Let unattended releases go on
    Resume(pause::ResumeArgs),
    /// Put a released lease back, if nobody took its address meanwhile
    Undo(undo::UndoArgs),
    /// What was released, the newest first
    History(history::HistoryArgs),
}

impl ReclaimCommand {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        match self {
            Self::Plan(args) => args.run(io).await,
            Self::Apply(args) => args.run(io).await,
            Self::Pause(args) => args.run(io).await,
            Self::Resume(args) => args.run(io).await,
            Self::Undo(args) => args.run(io).await,
            Self::History(args) => args.run(io),
        }
    }
}
