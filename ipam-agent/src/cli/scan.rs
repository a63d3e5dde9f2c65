//! `ipam-agent scan`

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;

use super::{
    CliError, Io, Status,
    progress::waiting,
    shared::{ConfigArgs, OutputArgs, log_to_stderr},
};
use crate::{
    config::{Config, Overrides},
    driver,
    report::document::Report,
    serve::Client,
    store::source::Source,
};

/// How long is looked when nobody says.
const DURATION: Duration = Duration::from_secs(10);

/// One look at the live wire, then a report. With a daemon running it asks that one and
/// attaches nothing beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent scan
  ipam-agent scan --for 1m -i mgmt-bo
  ipam-agent scan --leases host-local --output json

Exit status: 0 nothing, 1 something, 2 an error, 3 it could not look.")]
pub struct ScanArgs {
    /// How long to look [default: 10s]
    #[arg(long = "for", value_name = "TIME", value_parser = look)]
    duration: Option<Duration>,
    /// Watch the interfaces of this name or pattern, in place of those configured
    #[arg(long = "interface", short, value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Read leases here, in place of the stores configured: host-local[:DIR] or file:PATH
    #[arg(long, value_name = "SOURCE")]
    leases: Vec<Source>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

impl ScanArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let unused = [
            ("--for", self.duration.is_some()),
            ("--interface", !self.interfaces.is_empty()),
            ("--leases", !self.leases.is_empty()),
        ];
        let duration = self.duration.unwrap_or(DURATION);
        let config = Config::load(Overrides {
            interfaces: self.interfaces,
            leases: self.leases,
            ..self.config.overrides()
        })?;
        log_to_stderr("warn");
        let client = Client::new(config.socket.clone());
        let (report, contested): (Report, _) = match client.get::<Report>("/api/v1/report").await {
            Ok(report) => {
                let unused = unused
                    .iter()
                    .filter(|(_, said)| *said)
                    .map(|(flag, _)| *flag);
                let unused: Vec<&str> = unused.collect();
                let unused = match unused.as_slice() {
                    [] => String::new(),
                    flags => format!("; not used: {}", flags.join(", ")),
                };
                io.tell(&format!(
                    "a daemon is running: this is what it knows{unused}\n"
                ))?;
                // What is over it remembers.
                let active = report.summary.active;
                (report, active)
            }
            Err(error) if error.is_blind() => {
                let seconds = duration.as_secs_f32();
                let what = format!("looking for {seconds} s");
                if !std::io::stderr().is_terminal() {
                    io.tell(&format!("{what} ...\n"))?;
                }
                let scan = driver::scan(&config, duration);
                let scanned = waiting(&what, Some(duration), scan).await;
                let report = scanned.map_err(CliError::NoLook)?;
                let seen = report.summary.conflicts;
                (report, seen)
            }
            Err(error) => return Err(error.into()),
        };
        io.show(&report, self.output.output)?;
        let found = contested > 0 || report.leases.stale > 0;
        Ok(Status::of(found, !report.blind.is_empty()))
    }
}

/// More than none, and an hour at most: who wants more wants the daemon.
fn look(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    let hour = Duration::from_secs(3600);
    duration
        .filter(|duration| !duration.is_zero() && *duration <= hour)
        .ok_or_else(|| "should be a time up to 1h, such as 10s or 5m".to_owned())
}
