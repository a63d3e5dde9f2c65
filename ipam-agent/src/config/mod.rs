//! The configuration: the file and the flags, read once and validated before anything
//! starts. What the rest of the agent gets can't be contradictory any more.

mod raw;
mod validate;

use std::{
    fmt,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use globset::GlobSet;
use ipnet::IpNet;

use crate::{
    engine::{
        Windows,
        lease::{Mode, Pool},
        owner::Owners,
        reclaim::ReclaimSettings,
    },
    regular,
    store::source::Source,
    text,
};

/// The lease file that is read when a store of kind `file` names none.
pub const LEASE_FILE: &str = "/etc/ipam-agent/leases.yaml";
/// Where the configuration is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/ipam-agent/config.yaml";
/// How long a configuration may be, in bytes.
const LIMIT: u64 = 1 << 20;
/// The daemon's socket when nobody says.
pub const SOCKET: &str = "/run/ipam-agent/agent.sock";

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; none if there is no file and all is default.
    pub file: Option<PathBuf>,
    /// Which interfaces are watched.
    pub interfaces: Interfaces,
    /// Whose leases are compared with what is seen.
    pub stores: Vec<StoreConfig>,
    /// Who is asked whether an address has a holder.
    pub holders: Holders,
    /// What is looked at.
    pub observe: Observe,
    /// Machines with several MACs, and claims that contest nobody.
    pub owners: Owners,
    /// Addresses that are never released.
    pub keep: Vec<IpNet>,
    /// For how long things last before they are told, or are over.
    pub windows: Windows,
    /// What a release needs.
    pub reclaim: Reclaim,
    /// Where the agent keeps what must survive a reboot.
    pub state_dir: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Where metrics, health and the read-only API are served; nowhere, if there is none.
    pub listen: Vec<SocketAddr>,
    /// What metrics tell.
    pub metrics: Metrics,
}

/// What metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How many conflicts are told of by address and MAC at most.
    pub max_conflict_info: usize,
    /// Whether they are on addresses other than loopback too.
    pub expose_conflict_info: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            max_conflict_info: 100,
            expose_conflict_info: false,
        }
    }
}

/// Which interfaces are watched, by name.
#[derive(Clone, Debug)]
pub struct Interfaces {
    /// The patterns as written.
    pub include: Vec<String>,
    /// The patterns as written.
    pub exclude: Vec<String>,
    included: GlobSet,
    excluded: GlobSet,
}

impl Interfaces {
    /// Whether the interface of this name is watched.
    pub fn wants(&self, name: &str) -> bool {
        self.included.is_match(name) && !self.excluded.is_match(name)
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.include.join(", "))?;
        match self.exclude.as_slice() {
            [] => Ok(()),
            exclude => write!(f, " without {}", exclude.join(", ")),
        }
    }
}

/// One lease store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// What it is, and where.
    pub source: Source,
    /// What the daemon does with its leases unasked.
    pub reclaim: Mode,
    /// Whether addresses that are used without a lease are reserved in it.
    pub fence: bool,
    /// What it hands out, and on which wire; overrides what is found on the host.
    pub pools: Vec<Pool>,
}

/// Who is asked whether an address has a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// The container runtime.
    pub cri: Cri,
    /// The addresses behind every host veth.
    pub netns: bool,
}

/// How the container runtime is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cri {
    /// Every known socket that exists.
    Auto,
    /// There is none on this host.
    Off,
    /// This socket.
    Socket(PathBuf),
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Whether IP packets from leased addresses count as life.
    pub data_plane: bool,
    /// Segments, by name or `NAME.VLAN`, whose contested addresses' claimants are asked.
    pub confirm: Vec<String>,
}

/// What a release needs. [`Reclaim::default`] is what the documentation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaim {
    /// How long a lease must have been seen unchanged and silent.
    pub gate: Duration,
    /// The same of a lease whose record is damaged.
    pub damaged_gate: Duration,
    /// The same when a person asks.
    pub asked_gate: Duration,
    /// The same of a damaged one when a person asks.
    pub asked_damaged_gate: Duration,
    /// The same of a lease that the agent recorded in an earlier boot, from when every
    /// source of holders has answered.
    pub reboot_gate: Duration,
    /// From one pass to the next, if nothing is due sooner.
    pub pass_interval: Duration,
    /// How many leases are released unattended in that time at most.
    pub max_per_pass: usize,
    /// How many percent of a pool are, at most.
    pub max_percent: u8,
    /// Whether dead entries of CNI's caches are removed unasked, whatever the modes of stores.
    pub clean_caches: bool,
    /// Whether the floors are lifted: for laboratories and tests.
    pub lab: bool,
}

impl Default for Reclaim {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            gate: minutes(15),
            damaged_gate: minutes(30),
            asked_gate: minutes(5),
            asked_damaged_gate: minutes(15),
            reboot_gate: minutes(1),
            pass_interval: minutes(1),
            max_per_pass: 64,
            max_percent: 10,
            clean_caches: false,
            lab: false,
        }
    }
}

/// What the command line says of the configuration; it overrides the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The file; unlike the default one it must exist.
    pub file: Option<PathBuf>,
    /// In place of `interfaces.include`, if any.
    pub interfaces: Vec<String>,
    /// In place of `stores`, if any; nothing is released from them unasked.
    pub leases: Vec<Source>,
    /// In place of `state_dir`.
    pub state_dir: Option<PathBuf>,
    /// In place of `socket`.
    pub socket: Option<PathBuf>,
    /// In place of `listen`, if any.
    pub listen: Vec<String>,
}

impl Config {
    /// Reads the file, if there is one, puts the flags over it and validates the whole.
    ///
    /// # Errors
    /// The file can't be read or understood, or a value is wrong or contradicts another.
    pub fn load(overrides: Overrides) -> Result<Self, ConfigError> {
        let (path, asked_for) = match overrides.file.clone() {
            Some(path) => (path, true),
            None => (DEFAULT_FILE.into(), false),
        };
        match read(&path) {
            Ok(bytes) => match text::read(&bytes) {
                Ok(text) => Self::parse(&path, text, overrides),
                Err((line, message)) => Err(ConfigError::Syntax {
                    file: path,
                    line,
                    message,
                }),
            },
            Err(source) if source.kind() == io::ErrorKind::NotFound && !asked_for => {
                validate::config(None, raw::Config::default(), overrides)
            }
            Err(source) => Err(ConfigError::Unreadable { file: path, source }),
        }
    }

    /// The defaults, with these sources of leases and no others: for captures, which the
    /// configuration of this host says nothing of.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn without_file(leases: Vec<Source>) -> Result<Self, ConfigError> {
        let none = leases.is_empty();
        let overrides = Overrides {
            leases,
            ..Overrides::default()
        };
        let mut config = validate::config(None, raw::Config::default(), overrides)?;
        if none {
            config.stores.clear();
        }
        Ok(config)
    }

    /// [`Config::load`] of a file that is read already.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &Path, text: &str, overrides: Overrides) -> Result<Self, ConfigError> {
        let raw = raw::parse(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
        validate::config(Some(file), raw, overrides)
    }

    /// What the engine is told of releases.
    pub fn reclaim_settings(&self) -> ReclaimSettings {
        let reclaim = &self.reclaim;
        ReclaimSettings {
            gate: reclaim.gate,
            damaged_gate: reclaim.damaged_gate,
            asked_gate: reclaim.asked_gate,
            asked_damaged_gate: reclaim.asked_damaged_gate,
            reboot_gate: reclaim.reboot_gate,
            pass_interval: reclaim.pass_interval,
            max_per_pass: reclaim.max_per_pass,
            max_percent: reclaim.max_percent,
            keep: self.keep.clone(),
            data_plane: self.observe.data_plane,
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = regular::open(path)?;
    if file.take(LIMIT + 1).read_to_end(&mut bytes)? as u64 > LIMIT {
        let why = format!("it is longer than {} MiB", LIMIT >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// JSON Schema of the file, for `docs/schema/` and editors.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(raw::Config)
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no YAML, or has a key or a type that it should not have.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A value is wrong, or contradicts another.
    #[error("{origin}: {key}: {value}: {right}")]
    Value {
        /// Where it was said.
        origin: Origin,
        /// Of which key or flag.
        key: String,
        /// The value.
        value: String,
        /// What would be right.
        right: String,
    },
}

impl ConfigError {
    fn syntax(file: &Path, text: &str, error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let line = error.location().map_or(1, |location| location.line());
        let message = crate::error::yaml(error);
        let index = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        let written = text.lines().nth(index).unwrap_or_default().trim();
        Self::Syntax {
            file: file.to_owned(),
            line,
            message: format!("{message}, in `{}`", text::quote(written)),
        }
    }
}

/// Where something was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
    },
    /// On the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Flag => f.write_str("command line"),
        }
    }
}

#[cfg(test)]
mod tests;
