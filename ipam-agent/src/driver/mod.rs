//! The loop that drives the engine on a live host: hands it what happens, with the time,
//! and does what it says. It decides nothing itself.

mod alone;
pub mod clock;
mod daemon;
mod down;
mod gather;
mod observer;
pub mod offline;
mod release;
mod replay;
mod scan;
pub mod stores;
mod sweep;

use std::path::PathBuf;

use crate::{
    config::Config,
    engine::Settings,
    serve::{BindError, ListenError},
    source::{
        links::LinksError,
        live::{LoadError, PinsError},
    },
    state::StateError,
    store::watch::WatchError,
};

pub use self::{
    alone::NotAlone,
    daemon::run,
    replay::{ReplayError, ReplayOptions, Replayed, replay},
    scan::scan,
};

/// Why the agent can't look at the wire, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The eBPF program.
    #[error("can't observe")]
    Load(#[from] LoadError),
    /// Another agent is at work.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The same, though nothing is pinned.
    #[error(transparent)]
    NotAlone(#[from] NotAlone),
    /// A look was to be taken beside it.
    #[error("{0}: name its socket, with --socket or --config, to ask it")]
    Beside(NotAlone),
    /// The host's links.
    #[error("can't follow the host's links")]
    Links(#[from] LinksError),
    /// The patterns of interfaces.
    #[error("can't use the patterns of interfaces: {0}")]
    Interfaces(String),
    /// The daemon's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The daemon's socket.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// Where it is asked over TCP.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The watch on the stores.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The ring buffer.
    #[error("can't wait for the eBPF program's events")]
    Events(#[source] std::io::Error),
    /// Signals.
    #[error("can't wait for signals")]
    Signals(#[source] std::io::Error),
    /// The boot id.
    #[error("can't read {}: without it boots can't be told apart", path.display())]
    Boot {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where Linux tells this boot from every other.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn boot_id() -> Result<String, DriverError> {
    let id = std::fs::read_to_string(BOOT_ID).map_err(|source| DriverError::Boot {
        path: BOOT_ID.into(),
        source,
    })?;
    Ok(id.trim().to_owned())
}

/// The host's name.
pub fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| String::from("localhost"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// What the engine is told of the configuration.
pub(crate) fn settings(config: &Config, boot: &str) -> Settings {
    Settings {
        boot: boot.into(),
        owners: config.owners.clone(),
        confirm: config
            .observe
            .confirm
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        windows: config.windows,
        reclaim: config.reclaim_settings(),
    }
}
