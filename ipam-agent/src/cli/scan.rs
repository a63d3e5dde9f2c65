//! `ipam-agent scan`

use std::time::Duration;

use clap::Args;

use super::shared::{ConfigArgs, OutputArgs};
use crate::{
    config::{Config, ConfigError, Overrides},
    report::Format,
    store::source::Source,
};

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
    /// How long to look
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = look)]
    duration: Duration,
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
    /// The configuration, how long to look, and how to write what was found.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration.
    pub fn plan(self) -> Result<(Config, Duration, Format), ConfigError> {
        let config = Config::load(Overrides {
            interfaces: self.interfaces,
            leases: self.leases,
            ..self.config.overrides()
        })?;
        Ok((config, self.duration, self.output.output))
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
