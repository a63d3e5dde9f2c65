//! What of ours outlives the agent: its maps and, where the kernel has such links, the
//! program's place on each port, pinned in the BPF file system. The agent that comes next
//! takes them over, and nothing was missed in between.
//!
//! The kernel forgets them with the boot; [`remove_pins`] and a clean stop do before.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use ipam_common::sighting::LAYOUT;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

/// Where the BPF file system is mounted, by everybody's convention.
const FILE_SYSTEM: &str = "/sys/fs/bpf";
/// Our directory in it.
const NAME: &str = "ipam-agent";
/// The thread's network namespace.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The maps, by their names in the object.
const MAPS: [&str; 7] = [
    "LEASED",
    "SIGHTINGS",
    "SPEAKERS",
    "PORTS",
    "WATCHES",
    "EVENTS",
    "COUNTERS",
];

/// Why nothing can be pinned.
#[derive(Debug, Error)]
pub enum PinsError {
    /// No such file system.
    #[error(
        "no BPF file system is mounted at {FILE_SYSTEM}: `mount -t bpf bpf {FILE_SYSTEM}`, in a \
         container a hostPath volume"
    )]
    NoFileSystem,
    /// An agent of this host has it.
    #[error(
        "another ipam-agent watches this host: it has {}; one host has one daemon",
        .directory.display()
    )]
    InUse {
        /// Its directory.
        directory: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of the pins of this network namespace; one agent at a time has it.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// Locked.
    _handle: File,
}

impl Pins {
    /// Takes the directory, which is made if need be. What agents left that know the maps
    /// otherwise is removed.
    ///
    /// # Errors
    ///
    /// Nothing can be pinned, or another agent has it.
    pub fn take() -> Result<Self, PinsError> {
        let parent = pins_place()?;
        let namespace = namespace()?;
        let own = format!("{LAYOUT}-{namespace}");
        let directory = parent.join(&own);
        let failed = |doing| {
            let path = directory.clone();
            move |source| PinsError::Io {
                doing,
                path,
                source,
            }
        };
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        let handle = loop {
            make.create(&directory).map_err(failed("make"))?;
            let handle = lock(&directory)?;
            // An agent that ended in between may have taken it away.
            if fs::metadata(&directory).is_ok_and(|there| {
                let held = handle.metadata();
                held.is_ok_and(|held| held.ino() == there.ino())
            }) {
                break handle;
            }
        };
        for other in directories(&parent, namespace)? {
            if other != directory {
                let _lock = lock(&other)?;
                clear(&other)?;
            }
        }
        Ok(Self {
            directory,
            _handle: handle,
        })
    }

    /// The maps and where they are pinned.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        MAPS.iter().map(|&name| (name, self.directory.join(name)))
    }

    /// Where the link on a port is pinned.
    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.directory.join(format!("link-{ifindex}"))
    }

    /// Removes all of them: what they held ends with the last descriptor of it.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn remove(&self) -> Result<(), PinsError> {
        clear(&self.directory)?;
        // Only when empty: another network namespace may have its own there.
        let _ = self.directory.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// Removes what agents that are no more left pinned in this network namespace; whether
/// there was anything.
///
/// # Errors
///
/// An agent still has it, or the file system refuses.
pub fn remove_pins() -> Result<bool, PinsError> {
    let parent = match pins_place() {
        Err(PinsError::NoFileSystem) => return Ok(false),
        parent => parent?,
    };
    let mut removed = false;
    for directory in directories(&parent, namespace()?)? {
        let _lock = lock(&directory)?;
        clear(&directory)?;
        removed = true;
    }
    let _ = fs::remove_dir(parent);
    Ok(removed)
}

/// Where the agents of this host pin, each network namespace's apart.
///
/// # Errors
///
/// There is no such file system.
pub fn pins_place() -> Result<PathBuf, PinsError> {
    let mounted = statfs(FILE_SYSTEM).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if !mounted {
        return Err(PinsError::NoFileSystem);
    }
    Ok(Path::new(FILE_SYSTEM).join(NAME))
}

/// The number by which the kernel tells network namespaces apart.
fn namespace() -> Result<u64, PinsError> {
    let found = fs::metadata(NAMESPACE).map_err(|source| PinsError::Io {
        doing: "examine",
        path: NAMESPACE.into(),
        source,
    })?;
    Ok(found.ino())
}

/// The directories of this network namespace, of whatever layout.
fn directories(parent: &Path, namespace: u64) -> Result<Vec<PathBuf>, PinsError> {
    let failed = |source| PinsError::Io {
        doing: "list",
        path: parent.to_owned(),
        source,
    };
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name
            .split_once('-')
            .is_some_and(|(_, of)| *of == *namespace.to_string())
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn lock(directory: &Path) -> Result<File, PinsError> {
    let failed = |source| PinsError::Io {
        doing: "lock",
        path: directory.to_owned(),
        source,
    };
    let handle = File::open(directory).map_err(failed)?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => Err(PinsError::InUse {
            directory: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn clear(directory: &Path) -> Result<(), PinsError> {
    fs::remove_dir_all(directory).map_err(|source| PinsError::Io {
        doing: "remove",
        path: directory.to_owned(),
        source,
    })
}
