//! `ipam-agent doctor`

mod agent;
mod host;

use std::path::Path;

use clap::Args;
use tokio::task::spawn_blocking;

use super::{
    CliError, Io, Status,
    progress::waiting,
    shared::{ConfigArgs, OutputArgs},
};
use crate::{
    config::{Config, Overrides},
    driver::{clock, host_name},
    report::document::{Check, CheckStatus, Doctor, DoctorSchema},
};

/// What works on this host, what doesn't, and the mend.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent doctor
  ipam-agent doctor --config ./config.yaml --output json

Exit status: 0 it works, 1 something does not, 2 an error.")]
pub struct DoctorArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Looks at one thing. It changes nothing, and an error is what it found.
type Look = fn(&Config) -> Check;

/// In the order in which things are needed.
const LOOKS: &[Look] = &[
    host::kernel,
    host::btf,
    host::capabilities,
    host::attach_mode,
    host::interfaces,
    agent::stores,
    host::cni_caches,
    agent::container_runtime,
    agent::state,
    agent::continuity,
    agent::pause,
    agent::floors,
    agent::listen,
    agent::daemon,
];

impl DoctorArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let overrides = self.config.overrides();
        let (config, check) = match Config::load(overrides.clone()) {
            Ok(config) => {
                let check = agent::configuration(&config);
                (config, check)
            }
            Err(error) => {
                // The rest is looked at as if there were no file.
                let flags = Overrides {
                    file: None,
                    ..overrides
                };
                let mend = "mend it: the agent does not start with it";
                let detail = crate::error::in_full(&error);
                let check = fail("configuration", detail, mend);
                (Config::parse(Path::new("-"), "", flags)?, check)
            }
        };
        // They wait for others, each a few seconds at most.
        let looked = spawn_blocking(move || LOOKS.iter().map(|look| look(&config)).collect());
        let looks: Vec<Check> = waiting("looking at this host", None, looked)
            .await
            .map_err(|error| CliError::Runtime(error.into()))?;
        let doctor = Doctor {
            schema: DoctorSchema::V1,
            generated_at: clock::wall_time(),
            host: host_name(),
            checks: std::iter::once(check).chain(looks).collect(),
        };
        io.show(&doctor, self.output.output)?;
        let failed = |check: &Check| check.status == CheckStatus::Fail;
        Ok(Status::of(doctor.checks.iter().any(failed), false))
    }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        status: CheckStatus::Ok,
        detail: detail.into(),
        mend: None,
    }
}

fn warn(name: &str, detail: impl Into<String>, mend: &str) -> Check {
    Check {
        status: CheckStatus::Warn,
        ..fail(name, detail, mend)
    }
}

fn fail(name: &str, detail: impl Into<String>, mend: &str) -> Check {
    Check {
        name: name.to_owned(),
        status: CheckStatus::Fail,
        detail: detail.into(),
        mend: Some(mend.to_owned()),
    }
}
