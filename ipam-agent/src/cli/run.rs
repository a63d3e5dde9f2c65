//! `ipam-agent run`

use std::path::PathBuf;

use clap::Args;

use super::{
    CliError, Status,
    shared::{ConfigArgs, log_to_stderr},
};
use crate::{
    config::{Config, Overrides},
    driver,
    store::source::Source,
};

/// The daemon of one host: observes, judges, serves, reclaims. Flags override the file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent run
  ipam-agent run --config ./config.yaml --state-dir ./state --socket ./agent.sock
  ipam-agent run -i 'veth*' -i mgmt-bo --leases file:/etc/ipam-agent/leases.yaml

SIGHUP has it read its configuration again; what is wrong in it, or needs a restart, is
logged, and the old one goes on.
It ends with 0 on SIGTERM or SIGINT after a clean stop, and with 2 if it can't start.
SIGUSR2 has it hand over: it ends, and its eBPF program goes on for the agent that starts
next, so that an upgrade misses nothing; `ipam-agent uninstall` removes it otherwise.")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the agent keeps what must survive a reboot
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Watch the interfaces of this name or pattern, in place of those configured
    #[arg(long = "interface", short, value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Read leases here, in place of the stores configured; nothing is released from them
    /// unasked: host-local[:DIR] or file:PATH
    #[arg(long, value_name = "SOURCE")]
    leases: Vec<Source>,
    /// Serve metrics, health and the read-only API here, in place of where configured; `off`
    /// nowhere
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<String>,
}

impl RunArgs {
    pub(super) async fn run(self) -> Result<Status, CliError> {
        let overrides = Overrides {
            interfaces: self.interfaces,
            leases: self.leases,
            state_dir: self.state_dir,
            listen: self.listen,
            ..self.config.overrides()
        };
        let config = Config::load(overrides.clone())?;
        log_to_stderr("info");
        driver::run(&config, || Config::load(overrides.clone())).await?;
        Ok(Status::Nothing)
    }
}
