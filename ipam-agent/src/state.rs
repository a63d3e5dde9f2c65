//! What the agent remembers of each lease across its own restarts and the host's: when, and
//! in which boot, it first saw it as it is; and which container runtimes it heard in this boot.
//!
//! A database in the state directory (0700), which may be thrown away at any time: what it
//! no longer holds is merely not known of an earlier boot, so its loss delays releases and
//! never causes one. One process writes.

mod database;
mod pause;
mod persistence;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipam_common::{
    Address,
    sighting::{SightingKey, Tally},
};
use nix::unistd::geteuid;

use crate::{
    engine::{
        holders::HeardSocket,
        lease::{Generation, StoreName},
        time::Timestamp,
    },
    journal,
};
use database::Store;
pub use pause::Paused;
pub use persistence::{NotPersistent, persistence};

/// When and where the agent first saw a lease as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Whose lease it is.
    pub store: StoreName,
    /// Of which address.
    pub address: Address,
    /// Which grant.
    pub generation: Generation,
    /// The boot in which the agent first saw it (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: Arc<str>,
    /// When, on that boot's CLOCK_BOOTTIME.
    pub first_seen: Timestamp,
    /// When, by the wall clock. For people.
    pub at: jiff::Timestamp,
}

/// The state can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{} is in use by another ipam-agent{}; one host has one daemon, and one daemon its own state_dir",
        .directory.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The state directory.
        directory: PathBuf,
        /// The process, if it said.
        pid: Option<u32>,
    },
}

/// What could not be read from or written to the state directory. Releases wait meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The directory or its lock.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error("cannot write {}", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
}

/// The lock's file in the state directory.
const LOCK: &str = "lock";

/// How many claims are kept over a restart.
const MAX_CLAIMS: usize = 65_536;

type Key = (StoreName, Address);

/// The agent's memory. Dropped, it gives the state directory free.
pub struct State {
    directory: PathBuf,
    lock: Option<File>,
    /// The database, while it can be used.
    store: Option<Store>,
    loaded: Vec<Remembered>,
    /// What isn't on disk yet, `None` to be forgotten.
    pending: BTreeMap<Key, Option<Remembered>>,
    /// The same of runtimes, and the boot in which they were heard.
    pending_heard: Option<(Arc<str>, Vec<HeardSocket>)>,
    /// The boots of the leases that were on disk when the database was opened.
    boots: BTreeSet<Arc<str>>,
    /// A database was damaged, and with it what it knew.
    lost: bool,
    problem: Option<PersistError>,
    warnings: Vec<String>,
}

impl State {
    /// Opens the state in `directory`, which is made if need be. Only another process that
    /// has it is an error; whatever else is wrong is [`State::problem`]'s, tried again at
    /// each [`State::retry`].
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let mut state = Self {
            directory: directory.to_owned(),
            lock: None,
            store: None,
            loaded: Vec::new(),
            pending: BTreeMap::new(),
            pending_heard: None,
            boots: BTreeSet::new(),
            lost: false,
            problem: None,
            warnings: Vec::new(),
        };
        state.reopen()?;
        Ok(state)
    }

    /// What was on disk when the database was opened, once. Nothing more comes unless it could
    /// be opened only later, by [`State::retry`]; what is older than what was remembered
    /// meanwhile then counts.
    pub fn load(&mut self) -> Vec<Remembered> {
        std::mem::take(&mut self.loaded)
    }

    /// Why what is remembered now would not survive, if it would not.
    pub fn problem(&self) -> Option<&PersistError> {
        self.problem.as_ref()
    }

    /// What went wrong and was mended since this was asked last, for the log.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Remembers and forgets, on disk when it returns without a [`State::problem`]. What
    /// could not be written is kept and written with the next call. A lease in both is
    /// remembered.
    pub fn remember(
        &mut self,
        remember: &[Remembered],
        forget: &[(StoreName, Address)],
    ) -> Result<(), StateError> {
        for key in forget {
            self.pending.insert(key.clone(), None);
        }
        for lease in remember {
            self.pending
                .insert((lease.store.clone(), lease.address), Some(lease.clone()));
        }
        self.retry()
    }

    /// Remembers what was heard of every container runtime in a boot, as [`State::remember`]
    /// does; what was heard of them before in the same boot stays true.
    pub fn remember_heard(
        &mut self,
        boot: &str,
        heard: Vec<HeardSocket>,
    ) -> Result<(), StateError> {
        self.pending_heard = Some((boot.into(), heard));
        self.retry()
    }

    /// What was heard of container runtimes in this boot; `None`: it can't be read or was lost,
    /// or an agent ran in this boot that wrote down leases and none of it.
    pub fn heard(&self, boot: &str) -> Option<Vec<HeardSocket>> {
        let heard = self.store.as_ref()?.runtimes(boot).ok()?;
        let is_known = !heard.is_empty() || !(self.lost || self.boots.contains(boot));
        is_known.then_some(heard)
    }

    /// Opens what could not be opened, and writes what could not be written.
    pub fn retry(&mut self) -> Result<(), StateError> {
        if self.store.is_none() {
            self.reopen()?;
        }
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        if self.pending.is_empty() && self.pending_heard.is_none() {
            return Ok(());
        }
        match store.write(&self.pending, self.pending_heard.as_ref()) {
            Ok(()) => {
                self.pending.clear();
                self.pending_heard = None;
                self.problem = None;
            }
            Err(source) => {
                // After a failed write the database serves nothing any more: open it anew.
                self.store = None;
                self.problem = Some(PersistError::Database {
                    path: self.directory.join(database::FILE),
                    source: Box::new(source),
                });
            }
        }
        Ok(())
    }

    /// The claims that an earlier run heard in this boot. They are a help and nothing that
    /// a release rests on: what can't be read is none.
    pub fn claims(&self, boot: &str) -> Vec<(SightingKey, Tally)> {
        let claims = self.store.as_ref().map(|store| store.claims(boot));
        claims.and_then(Result::ok).unwrap_or_default()
    }

    /// Keeps claims for the next run in this boot, the latest [`MAX_CLAIMS`] of them.
    ///
    /// # Errors
    /// They could not be written.
    pub fn keep_claims(
        &mut self,
        boot: &str,
        mut claims: Vec<(SightingKey, Tally)>,
    ) -> Result<(), PersistError> {
        claims.sort_unstable_by_key(|(key, tally)| (std::cmp::Reverse(tally.last_seen), *key));
        claims.truncate(MAX_CLAIMS);
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        store
            .write_claims(boot, &claims)
            .map_err(|source| PersistError::Database {
                path: self.directory.join(database::FILE),
                source: Box::new(source),
            })
    }

    fn reopen(&mut self) -> Result<(), StateError> {
        match self.try_open() {
            Ok((store, loaded)) => {
                for row in &loaded {
                    let key = (row.store.clone(), row.address);
                    let newer = self.pending.get(&key).and_then(Option::as_ref);
                    if newer.is_some_and(|newer| newer.generation == row.generation) {
                        self.pending.remove(&key);
                    }
                }
                self.boots = loaded.iter().map(|row| Arc::clone(&row.boot_id)).collect();
                self.store = Some(store);
                self.loaded = loaded;
                self.problem = None;
            }
            Err(Failure::InUse(error)) => return Err(error),
            Err(Failure::Persist(error)) => self.problem = Some(error),
        }
        Ok(())
    }

    fn try_open(&mut self) -> Result<(Store, Vec<Remembered>), Failure> {
        if self.lock.is_none() {
            self.lock = Some(self.acquire()?);
        }
        self.open_database()
    }

    /// The lock of the state directory, which this process then holds until it ends.
    fn acquire(&self) -> Result<File, Failure> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| {
                Failure::Persist(PersistError::Io {
                    doing,
                    path,
                    source,
                })
            }
        };
        make_directory(&self.directory).map_err(failed("make", &self.directory))?;
        let path = self.directory.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::InUse(StateError::InUse {
                    directory: self.directory.clone(),
                    pid: owner(&mut lock),
                }));
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        // For the message of whoever comes second; on a full disk it does without.
        let _ = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(lock)
    }

    fn open_database(&mut self) -> Result<(Store, Vec<Remembered>), Failure> {
        let path = self.directory.join(database::FILE);
        let failed = |source| {
            Failure::Persist(PersistError::Database {
                path: path.clone(),
                source: Box::new(source),
            })
        };
        let damage = match Store::open(&path) {
            Ok(opened) => return Ok(opened),
            Err(database::OpenError::Failed(source)) => return Err(failed(source)),
            Err(database::OpenError::Damaged(damage)) => damage,
        };
        let aside = (0u32..)
            .map(|n| {
                self.directory
                    .join(format!("{}.damaged-{n}", database::FILE))
            })
            .find(|aside| !aside.exists())
            .unwrap_or_else(|| path.clone());
        fs::rename(&path, &aside).map_err(|source| {
            Failure::Persist(PersistError::Io {
                doing: "move aside the damaged",
                path: path.clone(),
                source,
            })
        })?;
        self.lost = true;
        self.warnings.push(format!(
            "the state database was damaged ({damage}); it is kept as {}, and a new one begun: \
             no lease is known of an earlier boot until the next",
            aside.display()
        ));
        match Store::open(&path) {
            Ok(opened) => Ok(opened),
            Err(database::OpenError::Failed(source)) => Err(failed(source)),
            Err(database::OpenError::Damaged(damage)) => {
                Err(failed(redb::Error::Corrupted(damage)))
            }
        }
    }
}

enum Failure {
    InUse(StateError),
    Persist(PersistError),
}

/// Makes the state directory, for nobody else to look into. One that is there and has nothing but
/// the agent's files becomes so, whoever made it; another is left as it is: others use it, too.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if is_open_to_others(path) && is_ours_alone(path)? {
        // Where the file system refuses, `doctor` says that others may look into it.
        let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    }
    Ok(())
}

fn is_open_to_others(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.mode() & 0o077 != 0)
}

/// Whether others than its owner may look into the directory, and will: the agent makes one of
/// its own private when it starts.
pub fn stays_open_to_others(directory: &Path) -> bool {
    is_open_to_others(directory) && !is_ours_alone(directory).is_ok_and(|ours| ours)
}

fn is_ours_alone(directory: &Path) -> io::Result<bool> {
    let found = fs::metadata(directory)?;
    // A sticky one, such as /tmp, is everybody's even while it is empty.
    if found.uid() != geteuid().as_raw() || found.mode() & libc::S_ISVTX != 0 {
        return Ok(false);
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !is_ours(&name) && !name.starts_with(journal::FILE) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a file of this name in the state directory is the agent's memory: the database,
/// one that was moved aside, the lock, a pause.
pub fn is_ours(name: &str) -> bool {
    name == LOCK || name.starts_with(pause::FILE) || name.starts_with(database::FILE)
}

/// Whether a process has the state in `directory` open.
pub fn is_in_use(directory: &Path) -> bool {
    let held = |lock: File| matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
    File::open(directory.join(LOCK)).is_ok_and(held)
}

/// The process id that the lock's owner wrote into it.
fn owner(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
