//! `ipam-agent reclaim undo`

use clap::Args;

use crate::{
    cli::{
        CliError, Io, Status,
        shared::{ConfigArgs, OutputArgs, person},
    },
    report::document::{UndoOutcome, UndoRequest, Undone},
};

/// Put a released lease back, byte by byte, if nobody has a new lease of its address.
///
/// The ids are those of `reclaim history`. What you put back is not released again unasked in
/// this boot.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim history
  ipam-agent reclaim undo 00000012

Exit status: 0 it is there again, 1 refused: the address has a new lease, or nothing is to be
put back, 2 an error, 3 no daemon to do it.")]
pub struct UndoArgs {
    /// Which release
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl UndoArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let request = UndoRequest {
            id: self.id,
            by: person(),
        };
        let client = self.daemon.client(io)?;
        let undone = client.post("/api/v1/reclaim/undo", &request).await;
        let undone: Undone = undone.map_err(CliError::judging)?;
        io.show(&undone, self.output.output)?;
        Ok(match undone.result {
            UndoOutcome::PutBack => Status::Nothing,
            UndoOutcome::Refused => Status::Something,
            UndoOutcome::Failed => return Err(CliError::NotPutBack(undone.id)),
        })
    }
}
