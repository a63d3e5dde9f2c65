//! The commands: what they are called, what they take, and how they end. Results go to
//! stdout, everything else to stderr.

mod addresses;
mod check;
mod completions;
mod doctor;
mod explain;
mod io;
mod leases;
mod man;
mod progress;
mod reclaim;
mod replay;
mod report;
mod run;
mod scan;
mod segments;
mod shared;
mod top;
mod uninstall;
mod watch;

#[cfg(test)]
mod tests;

use std::{error::Error, iter, process::ExitCode};

use clap::{Parser, Subcommand};
use nix::unistd::geteuid;

pub use self::io::Io;
use crate::{
    config::ConfigError,
    driver::{DriverError, ReplayError, offline::OfflineError},
    error::in_full,
    journal::JournalError,
    netlink::NetlinkError,
    prober::ProbeError,
    report::{RenderError, clean},
    serve::ClientError,
    source::live::PinsError,
};

/// Finds IP addresses that two machines use at once, and gives back leases that nobody
/// uses any more.
#[derive(Debug, Parser)]
#[command(name = "ipam-agent", version, propagate_version = true)]
#[command(after_help = "\
Examples:
  ipam-agent doctor                  what works on this host, and what doesn't
  ipam-agent report                  conflicts that the running daemon knows
  ipam-agent explain 10.52.0.86      all that is known of one address
  ipam-agent reclaim plan            what could be given back, and what is kept, why

Exit status: 0 nothing found, 1 something found, 2 an error, 3 it could not look.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The daemon of one host: observe, judge, serve, give back
    Run(run::RunArgs),
    /// One look at the live wire, then a report; no daemon needed
    Scan(scan::ScanArgs),
    /// The same judgement over captures
    Replay(replay::ReplayArgs),
    /// Conflicts known to the running daemon
    Report(report::ReportArgs),
    /// Conflicts and releases as they happen, one line each
    Watch(watch::WatchArgs),
    /// A live view of segments, pools, conflicts and releases
    Top(top::TopArgs),
    /// Who is on this wire: address, MAC, port, lease, last heard
    Addresses(addresses::AddressesArgs),
    /// Every lease with its state and the reason for it
    Leases(leases::LeasesArgs),
    /// What is watched, and since when without a gap
    Segments(segments::SegmentsArgs),
    /// All that is known of one address
    Explain(explain::ExplainArgs),
    /// Give back leases that nobody uses any more
    #[command(subcommand, after_help = reclaim::EXAMPLES)]
    Reclaim(reclaim::ReclaimCommand),
    /// Is an address free? Asks on the wire, and claims nothing
    Check(check::CheckArgs),
    /// What works on this host, what doesn't, and the mend
    Doctor(doctor::DoctorArgs),
    /// Remove what the agent left on this host; leases are not touched
    Uninstall(uninstall::UninstallArgs),
    /// What a shell needs to complete commands and options
    Completions(completions::CompletionsArgs),
    /// The manual, for man(1)
    Man(man::ManArgs),
}

/// How a command ends that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing was found.
    Nothing,
    /// Something was found, or is left.
    Something,
    /// It could not look.
    Blind,
}

impl Status {
    /// Of a look that found `something`, or was `blind`. What was found was found, however
    /// little was seen.
    fn of(something: bool, blind: bool) -> Self {
        match (something, blind) {
            (true, _) => Self::Something,
            (false, true) => Self::Blind,
            (false, false) => Self::Nothing,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Nothing => Self::SUCCESS,
            Status::Something => Self::from(1),
            Status::Blind => Self::from(3),
        }
    }
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon gave no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon that would have had to look is not there.
    #[error(transparent)]
    Blind(ClientError),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is no agent's state to be read.
    #[error("there is no state directory {}: name the agent's with --state-dir, or its configuration with --config", .0.display())]
    NoState(std::path::PathBuf),
    /// The result can't be written down.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// stdout or stderr is broken, but not because its reader went away.
    #[error("cannot write the result")]
    Write(#[source] std::io::Error),
    /// A person must confirm, and there is none.
    #[error("nobody can be asked, as this is no terminal: say --yes to {0} without asking")]
    Unconfirmed(&'static str),
    /// What uses it must end first.
    #[error("a daemon is running with {}: stop it first", .0.display())]
    Running(std::path::PathBuf),
    /// Something of the agent's is still there.
    #[error("cannot remove {what}")]
    Remove {
        /// What.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// What was asked for is done in part, or not at all.
    #[error("{0}")]
    Pause(String),
    /// A lease could not be put back; why was told.
    #[error("{0} was not put back")]
    NotPutBack(String),
    /// A fence of the agent's is still there.
    #[error(transparent)]
    Fence(#[from] crate::store::ReleaseError),
    /// A fence of the agent's may still be there.
    #[error("{why}; the state in {} is kept, as it knows of them: run it again", .state.display())]
    Fences {
        /// Why.
        why: String,
        /// The state directory.
        state: std::path::PathBuf,
    },
    /// The daemon or the scan could not go on.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The wire could not be looked at.
    #[error(transparent)]
    NoLook(DriverError),
    /// The leases that were to be read without the daemon.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The wire could not be asked.
    #[error(transparent)]
    NotAsked(#[from] ProbeError),
    /// A capture could not be judged.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// An address that nobody can have.
    #[error("{0} is no address that a machine can have")]
    NotClaimable(std::net::IpAddr),
    /// The agent's filters.
    #[error("cannot remove the agent's filters")]
    Filters(#[from] NetlinkError),
    /// What is pinned can't be removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A live view needs somebody to look at it.
    #[error(
        "this is no terminal, and top is a live view: \
         `ipam-agent top --output json` prints one look at it, `ipam-agent watch` goes on"
    )]
    NoTerminal,
    /// The runtime could not be made.
    #[error("cannot start")]
    Runtime(#[source] std::io::Error),
}

impl CliError {
    /// 3: it could not look; 2: any other error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Blind(_) | Self::NoLook(_) | Self::NotAsked(_) => ExitCode::from(3),
            _ => ExitCode::from(2),
        }
    }

    /// For a command that judges: without a daemon it could not look.
    fn judging(error: ClientError) -> Self {
        match error.is_blind() {
            true => Self::Blind(error),
            false => Self::Client(error),
        }
    }
}

/// What the program does: runs the command that its arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    Io::with_stdio(|io| match cli.run(io) {
        Ok(status) => status.into(),
        Err(error) => {
            let mend = match is_denied(&error) && !geteuid().is_root() {
                true => ": run this as root",
                false => "",
            };
            let text = format!("ipam-agent: {}{mend}\n", clean(&in_full(&error)));
            // If stderr is gone too, the exit status has to say it.
            let _ = io.tell(&text);
            error.exit_code()
        }
    })
}

/// Whether what it needed was refused to this user.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    iter::successors(Some(error), |&error| error.source())
        .any(|error| error.downcast_ref().is_some_and(denied))
}

impl Cli {
    /// Does it.
    ///
    /// # Errors
    /// It can't; nothing was found out.
    pub fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Runtime)?;
        runtime.block_on(async {
            match self.command {
                Command::Run(args) => args.run().await,
                Command::Scan(args) => args.run(io).await,
                Command::Replay(args) => args.run(io),
                Command::Report(args) => args.run(io).await,
                Command::Watch(args) => args.run(io).await,
                Command::Top(args) => args.run(io).await,
                Command::Addresses(args) => args.run(io).await,
                Command::Leases(args) => args.run(io).await,
                Command::Segments(args) => args.run(io).await,
                Command::Explain(args) => args.run(io).await,
                Command::Reclaim(command) => command.run(io).await,
                Command::Check(args) => args.run(io).await,
                Command::Doctor(args) => args.run(io).await,
                Command::Uninstall(args) => args.run(io).await,
                Command::Completions(args) => args.run(io),
                Command::Man(args) => args.run(io),
            }
        })
    }
}
