//! host-local's own lock, and the one way into a network's directory to change it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::stat::{major, minor};

use super::directory::{Directory, LOCK, shown};
use crate::{engine::lease::StoreName, fault, store::ReleaseError};

/// How often the lock is tried, [`PAUSE`] apart. ADD and DEL hold it for milliseconds.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// A network's directory, which nobody else of those who take the lock changes meanwhile.
pub struct Locked {
    /// The directory.
    pub directory: Directory,
    _lock: File,
}

impl Locked {
    /// Opens the directory at `path` and takes its lock. Blocks, at most some seconds.
    pub fn new(path: &Path, store: &StoreName) -> Result<Self, ReleaseError> {
        let directory = match Directory::open(path.to_owned()) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(replaced(path)),
            Err(source) => return Err(failed("open", path)(source)),
        };
        let file_system = directory
            .network_file_system()
            .map_err(failed("examine", path))?;
        if let Some(reason) = unwritable(file_system) {
            return Err(ReleaseError::ReadOnly {
                store: store.clone(),
                reason,
            });
        }
        let lock = acquire(&directory)?;
        let locked = Self {
            directory,
            _lock: lock,
        };
        locked.in_place()?;
        fault::reach("locked");
        Ok(locked)
    }

    /// Whether the path still leads to this directory. Who writes here without the lock (a
    /// person, mostly) is caught as late as can be.
    pub fn in_place(&self) -> Result<(), ReleaseError> {
        let path = self.directory.path();
        match self.directory.is_in_place() {
            Ok(true) => Ok(()),
            Ok(false) => Err(replaced(path)),
            Err(source) => Err(failed("examine", path)(source)),
        }
    }
}

/// Has the directory at `path` on disk as it is.
pub fn flush(path: PathBuf) -> Result<(), ReleaseError> {
    let flushed = Directory::open(path.clone()).and_then(|directory| directory.flush());
    flushed.map_err(|source| ReleaseError::NotDurable { path, source })
}

/// Why a network on this file system is only looked at.
pub fn unwritable(network_file_system: Option<&str>) -> Option<String> {
    network_file_system.map(|name| format!("it is on {name}, a network file system: observed only"))
}

/// host-local's lock of this directory, held until dropped.
fn acquire(directory: &Directory) -> Result<File, ReleaseError> {
    let path = directory.path().join(shown(LOCK));
    let mut holder = None;
    for _ in 0..TRIES {
        let lock = match directory.open_lock() {
            Ok(lock) => lock,
            // Nothing can be made in a directory that was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(replaced(directory.path()));
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
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => holder = holder_of(&lock).or(holder),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        thread::sleep(PAUSE);
    }
    Err(ReleaseError::Locked {
        holder: holder.unwrap_or_else(|| {
            let path = path.display();
            format!("a process that `fuser {path}` names")
        }),
        path,
        seconds: (PAUSE * TRIES).as_secs(),
    })
}

/// Who holds a lock, as the kernel tells it (proc_locks(5)); nobody that this process may
/// see: `None`.
fn holder_of(lock: &File) -> Option<String> {
    let file = lock.metadata().ok()?;
    let (major, minor, inode) = (major(file.dev()), minor(file.dev()), file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = holder_in(&locks, &format!("{major:02x}:{minor:02x}:{inode}"))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (process {pid})", name.trim()))
}

/// The process that holds the flock(2) of this file; those that wait have an arrow.
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, _, _) = (words.next()?, words.next()?, words.next()?);
        let (pid, on) = (words.next()?, words.next()?);
        (kind == "FLOCK" && on == file).then(|| pid.parse().ok())?
    })
}

fn replaced(path: &Path) -> ReleaseError {
    ReleaseError::Replaced {
        path: path.to_owned(),
    }
}

/// An error of the file system.
pub fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ReleaseError + 'a {
    move |source| ReleaseError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_told_from_those_who_wait_and_from_other_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 10 08:01:131 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 20 08:01:132 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 30 08:01:131 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 40 08:01:131 0 EOF\n\
                     4: FLOCK\n";
        assert_eq!(holder_in(locks, "08:01:131"), Some(40));
        assert_eq!(holder_in(locks, "08:01:13"), None);
        assert_eq!(holder_in("", "08:01:131"), None);
    }

    #[test]
    fn a_lock_that_is_held_is_held_by_somebody_with_a_name() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = Directory::open(base.path().to_owned()).expect("open");
        let lock = directory.open_lock().expect("made");
        lock.lock().expect("locked");
        let own = format!("(process {})", std::process::id());
        let holder = holder_of(&directory.open_lock().expect("opened"));
        assert!(
            holder.as_ref().is_some_and(|name| name.ends_with(&own)),
            "{holder:?}"
        );
    }
}
