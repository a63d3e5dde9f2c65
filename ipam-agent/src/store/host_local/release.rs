//! Taking one lease out of a network's directory: compare and swap under host-local's own
//! lock. Unlinks one file or does nothing.

use std::{
    ffi::{CStr, CString},
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ipam_common::Address;

use super::{
    directory::{Directory, Entry, LOCK, shown},
    read::parse_name,
    record::LIMIT,
};
use crate::{
    engine::{
        lease::{Lease, StoreName},
        plan::Release,
    },
    store::{Recheck, ReleaseError},
};

/// How often the lock is tried, [`PAUSE`] apart. ADD and DEL hold it for milliseconds.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Releases one lease of the network whose directory is `path`.
pub fn release(
    path: PathBuf,
    release: &Release,
    recheck: &mut Recheck<'_>,
) -> Result<(), ReleaseError> {
    let mut recheck = || recheck(release).map_err(ReleaseError::Blocked);
    remove(path, release.lease(), &mut recheck)
}

/// Opens a network's directory to write in it.
pub(super) fn open(path: &Path, store: &StoreName) -> Result<Directory, ReleaseError> {
    let directory = match Directory::open(path.to_owned()) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ReleaseError::Replaced {
                path: path.to_owned(),
            });
        }
        Err(source) => return Err(failed("open", path)(source)),
    };
    let file_system = directory
        .network_file_system()
        .map_err(failed("examine", path))?;
    match unwritable(file_system) {
        Some(reason) => Err(ReleaseError::ReadOnly {
            store: store.clone(),
            reason,
        }),
        None => Ok(directory),
    }
}

/// Removes one record, if it is exactly what was read and `recheck` has nothing against it.
pub(super) fn remove(
    path: PathBuf,
    lease: &Lease,
    recheck: &mut dyn FnMut() -> Result<(), ReleaseError>,
) -> Result<(), ReleaseError> {
    let directory = open(&path, &lease.store)?;
    let lock = acquire(&directory)?;
    let in_place = || match directory.is_in_place() {
        Ok(true) => Ok(()),
        Ok(false) => Err(ReleaseError::Replaced { path: path.clone() }),
        Err(source) => Err(failed("examine", &path)(source)),
    };
    in_place()?;
    let name = find(&directory, lease)?;
    recheck()?;
    // Who writes here without the lock (a person, mostly) is caught as late as can be.
    in_place()?;
    compare(&directory, &name, lease)?;
    let file = path.join(shown(&name));
    directory.unlink(&name).map_err(failed("unlink", &file))?;
    drop(lock);
    directory
        .flush()
        .map_err(|source| ReleaseError::NotDurable { path, source })
}

/// Why a network on this file system is only looked at.
pub fn unwritable(network_file_system: Option<&str>) -> Option<String> {
    network_file_system.map(|name| format!("it is on {name}, a network file system: observed only"))
}

/// host-local's lock of this directory, held until dropped.
pub(super) fn acquire(directory: &Directory) -> Result<File, ReleaseError> {
    let path = directory.path().join(shown(LOCK));
    for _ in 0..TRIES {
        let lock = match directory.open_lock() {
            Ok(lock) => lock,
            // Nothing can be made in a directory that was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReleaseError::Replaced {
                    path: directory.path().to_owned(),
                });
            }
            Err(source) => return Err(failed("open", &path)(source)),
        };
        // flock(2) on Linux, as host-local's own.
        match lock.try_lock() {
            Ok(())
                if directory
                    .is_the_lock(&lock)
                    .map_err(failed("examine", &path))? =>
            {
                return Ok(lock);
            }
            Ok(()) | Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
    }
    let seconds = (PAUSE * TRIES).as_secs();
    Err(ReleaseError::Locked { path, seconds })
}

/// The name under which exactly this lease stands. host-local writes the canonical form;
/// any other spelling of the address is looked for only if that isn't it.
fn find(directory: &Directory, lease: &Lease) -> Result<CString, ReleaseError> {
    // An address in text form holds no NUL byte.
    let canonical = CString::new(lease.address.to_string()).unwrap_or_default();
    let verdict = compare(directory, &canonical, lease);
    if verdict.is_ok() {
        return Ok(canonical);
    }
    let names = directory
        .names()
        .map_err(failed("list", directory.path()))?;
    let spelled = names.into_iter().map(|(name, _)| name).filter(|name| {
        *name != canonical && parse_name(name).and_then(Address::from_ip) == Some(lease.address)
    });
    for name in spelled {
        if compare(directory, &name, lease).is_ok() {
            return Ok(name);
        }
    }
    verdict.map(|()| canonical)
}

/// Whether what stands under `name` is in full what was judged.
fn compare(directory: &Directory, name: &CStr, lease: &Lease) -> Result<(), ReleaseError> {
    let changed = |what| ReleaseError::Changed {
        store: lease.store.clone(),
        address: lease.address,
        what,
    };
    let path = || directory.path().join(shown(name));
    match directory
        .entry(name)
        .map_err(|source| failed("read", &path())(source))?
    {
        None => Err(changed("it is gone")),
        Some(Entry::Link | Entry::Other) => Err(changed("it is no file any more")),
        Some(Entry::File(found)) if found.content.len() > LIMIT => {
            Err(changed("it is larger than host-local writes a lease"))
        }
        Some(Entry::File(found)) if found.content != lease.generation.content => {
            Err(changed("it was granted to another"))
        }
        Some(Entry::File(found)) if found != lease.generation => {
            Err(changed("it was granted anew"))
        }
        Some(Entry::File(_)) => Ok(()),
    }
}

pub(super) fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> ReleaseError + 'a {
    move |source| ReleaseError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
