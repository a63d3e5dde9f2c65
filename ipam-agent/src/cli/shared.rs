//! Arguments that many commands take.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use super::{CliError, Io};
use crate::{
    config::{Config, Overrides, SOCKET},
    error::{hint, in_full},
    report::{Format, clean},
    serve::Client,
    store::source::Source,
};

/// How results are written.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// How results are written
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Which configuration counts.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file [default: /etc/ipam-agent/config.yaml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's socket [default: as configured, /run/ipam-agent/agent.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl ConfigArgs {
    /// What they override.
    pub fn overrides(self) -> Overrides {
        Overrides {
            file: self.config,
            socket: self.socket,
            ..Overrides::default()
        }
    }

    /// A client of the daemon that they name. Who names the socket needs no configuration; and a
    /// mistake in a file that nobody named keeps nobody from a daemon that goes on without it.
    pub fn client(self, io: &mut Io<'_>) -> Result<Client, CliError> {
        if let (None, Some(socket)) = (&self.config, &self.socket) {
            return Ok(Client::new(socket));
        }
        let named = self.config.is_some();
        match Config::load(self.overrides()) {
            Ok(config) => Ok(Client::new(config.socket)),
            Err(error) if named => Err(error.into()),
            Err(error) => {
                io.tell(&format!(
                    "ipam-agent: {}\nthe daemon is asked on {SOCKET} all the same: --socket names \
                     another\n",
                    clean(&in_full(&error))
                ))?;
                Ok(Client::new(SOCKET))
            }
        }
    }
}

/// Leases read directly, without the daemon.
#[derive(Debug, Default, Args)]
pub struct SourceArgs {
    /// Read leases here, without the daemon: host-local[:DIR] or file:PATH
    #[arg(long, value_name = "SOURCE")]
    pub leases: Vec<Source>,
}

/// An address that somebody typed.
pub fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse();
    address.map_err(|_| "should be one address, such as 10.52.0.86 or fd00:52::5c".to_owned())
}

/// Has what is logged written to stderr, from this level on unless `RUST_LOG` says
/// otherwise.
pub fn log_to_stderr(level: &str) {
    use std::io::{IsTerminal as _, stderr};
    use tracing_subscriber::{filter::Targets, prelude::*};

    let wanted = std::env::var("RUST_LOG").ok();
    let wanted = wanted.as_deref().filter(|wanted| !wanted.is_empty());
    let filter: Option<Targets> = wanted.and_then(|wanted| wanted.parse().ok());
    let filter = filter.unwrap_or_else(|| level.parse().unwrap_or_default());
    let color = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .with_ansi(color)
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}

/// Who types this behind sudo, for the journal. Which user it is the daemon sees itself.
pub fn person() -> Option<String> {
    let behind = std::env::var("SUDO_USER").ok();
    behind.filter(|name| !name.is_empty())
}

/// Says on standard error that nothing bears the name that was asked for: a slip of the pen
/// must not look like an empty answer.
pub fn warn_unknown<'a>(
    io: &mut Io<'_>,
    nothing: &str,
    asked: Option<&str>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), CliError> {
    match asked {
        Some(asked) if !known.clone().any(|known| known == asked) => {
            let hint = hint(asked, known);
            io.tell(&format!("{nothing} {}{hint}\n", clean(asked)))
        }
        _ => Ok(()),
    }
}
