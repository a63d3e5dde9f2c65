//! `ipam-agent reclaim pause` and `resume`

use clap::Args;

use crate::{
    cli::{
        CliError, Io, Status,
        shared::{ConfigArgs, OutputArgs, person},
    },
    report::document::{PauseRequest, Pausing},
};

/// Stop unattended releases, until `reclaim resume`; a restart doesn't end it. What a person
/// confirms with `reclaim apply` is released all the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim pause

Exit status: 0 paused, 2 an error, 3 no daemon to pause.")]
pub struct PauseArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

/// Let unattended releases go on, as the stores' modes allow them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim resume

Exit status: 0 they go on, 2 an error, 3 no daemon to do so.")]
pub struct ResumeArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl PauseArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let request = PauseRequest { by: person() };
        let client = self.daemon.client(io)?;
        let pausing = client.post("/api/v1/reclaim/pause", &request).await;
        show(io, pausing.map_err(CliError::judging)?, &self.output)
    }
}

impl ResumeArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let request = PauseRequest { by: person() };
        let client = self.daemon.client(io)?;
        let pausing = client.post("/api/v1/reclaim/resume", &request).await;
        show(io, pausing.map_err(CliError::judging)?, &self.output)
    }
}

fn show(io: &mut Io<'_>, pausing: Pausing, output: &OutputArgs) -> Result<Status, CliError> {
    io.show(&pausing, output.output)?;
    match pausing.problem {
        None => Ok(Status::Nothing),
        Some(problem) => Err(CliError::Pause(problem)),
    }
}
