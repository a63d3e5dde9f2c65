//! The names by which people give sources of leases: `host-local`, `host-local:DIR`,
//! `file:PATH`.

use std::{fmt, path::PathBuf, str::FromStr};

use super::host_local;

/// A source of leases as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// host-local's directory: one sub-directory a network.
    HostLocal(PathBuf),
    /// A lease file.
    File(PathBuf),
}

/// The text names no source of leases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSourceError {
    /// A kind of store that this version can't read.
    #[error(
        "leases from {0} can't be read by this version; it reads host-local[:DIR] and file:PATH"
    )]
    NotSupported(&'static str),
    /// `file` or `file:`.
    #[error("a lease file needs its path: file:PATH")]
    NoPath,
    /// `host-local:` with nothing after it.
    #[error(
        "no directory after `host-local:`; for {}, leave the colon out",
        host_local::DIRECTORY
    )]
    NoDirectory,
    /// No kind of store.
    #[error("`{0}` is no source of leases; known are host-local[:DIR] and file:PATH")]
    Unknown(String),
}

/// Kinds of stores that exist and that this version does not read.
const NOT_SUPPORTED: [&str; 7] = [
    "kea",
    "dnsmasq",
    "isc",
    "whereabouts",
    "calico",
    "harvester-dhcp",
    "harvester-lb",
];

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostLocal(directory) => write!(f, "host-local:{}", directory.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, place) = match text.split_once(':') {
            Some((kind, place)) => (kind, Some(place)),
            None => (text, None),
        };
        match (kind, place) {
            ("host-local", None) => Ok(Self::HostLocal(host_local::DIRECTORY.into())),
            ("host-local", Some("")) => Err(ParseSourceError::NoDirectory),
            ("host-local", Some(directory)) => Ok(Self::HostLocal(directory.into())),
            ("file", None | Some("")) => Err(ParseSourceError::NoPath),
            ("file", Some(path)) => Ok(Self::File(path.into())),
            (kind, _) => match NOT_SUPPORTED.into_iter().find(|known| *known == kind) {
                Some(known) => Err(ParseSourceError::NotSupported(known)),
                None => Err(ParseSourceError::Unknown(text.to_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Source>();
        assert_eq!(
            read("host-local"),
            Ok(Source::HostLocal("/var/lib/cni/networks".into()))
        );
        assert_eq!(
            read("host-local:/a:b"),
            Ok(Source::HostLocal("/a:b".into()))
        );
        assert_eq!(
            read("file:leases.yaml"),
            Ok(Source::File("leases.yaml".into()))
        );
        assert_eq!(read("file:"), Err(ParseSourceError::NoPath));
        assert_eq!(read("host-local:"), Err(ParseSourceError::NoDirectory));
        assert_eq!(
            read("kea:/run/kea.csv"),
            Err(ParseSourceError::NotSupported("kea"))
        );
        assert_eq!(
            read("hostlocal"),
            Err(ParseSourceError::Unknown("hostlocal".into()))
        );
    }
}
