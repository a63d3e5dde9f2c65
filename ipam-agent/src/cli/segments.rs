//! `ipam-agent segments`

use clap::Args;

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs},
};
use crate::report::document::Segments;

/// What is watched, and since when without a gap.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent segments
  ipam-agent segments --output json")]
pub struct SegmentsArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl SegmentsArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let segments: Segments = self.daemon.client(io)?.get("/api/v1/segments").await?;
        io.show(&segments, self.output.output)?;
        Ok(Status::Nothing)
    }
}
