//! Where leases are read: `KIND[:PLACE]` on the command line, `kind` and `dir` or `path`
//! in the file.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where leases are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseSource {
    /// The host-local plugin's data directory, with one directory for each network.
    HostLocal(PathBuf),
    /// A file of leases in YAML, JSON or CSV.
    File(PathBuf),
}

impl LeaseSource {
    /// host-local's own default (containernetworking/plugins,
    /// plugins/ipam/host-local/backend/disk).
    pub const HOST_LOCAL_DIR: &'static str = "/var/lib/cni/networks";
    /// The lease file that is read when the configuration names none.
    pub const LEASE_FILE: &'static str = "/etc/ipam-agent/leases.yaml";
}

impl fmt::Display for LeaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostLocal(dir) => write!(f, "host-local:{}", dir.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// The text names no source of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseLeaseSourceError {
    /// No such kind.
    #[error("unknown kind; known are host-local[:DIR] and file:PATH")]
    Kind,
    /// A lease file has no default on the command line.
    #[error("the file is missing: file:PATH")]
    Path,
}

impl FromStr for LeaseSource {
    type Err = ParseLeaseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, place) = match text.split_once(':') {
            Some((kind, place)) => (kind, Some(place).filter(|place| !place.is_empty())),
            None => (text, None),
        };
        match kind {
            "host-local" => Ok(Self::HostLocal(
                place.unwrap_or(Self::HOST_LOCAL_DIR).into(),
            )),
            "file" => Ok(Self::File(place.ok_or(ParseLeaseSourceError::Path)?.into())),
            _ => Err(ParseLeaseSourceError::Kind),
        }
    }
}
