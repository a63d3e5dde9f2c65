//! Says that something changed where leases are kept, in under a second, and nothing of
//! what: whoever hears it reads again.
//!
//! Directories may be missing, come, go and be replaced: the directories above them are
//! watched, too, each for the one name that leads on.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, timeout_at};

/// A change is told once nothing more has happened for this long …
const QUIET: Duration = Duration::from_millis(100);
/// … or, where something always happens, after this long.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many directories are watched. The rest is left to the regular reading.
const LIMIT: usize = 4096;

/// Something to watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// A directory and the directories in it.
    Tree(PathBuf),
    /// The files of one directory.
    Directory(PathBuf),
    /// One file.
    File(PathBuf),
}

impl Root {
    fn absolute(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tree(path) => Self::Tree(std::path::absolute(path)?),
            Self::Directory(path) => Self::Directory(std::path::absolute(path)?),
            Self::File(path) => Self::File(std::path::absolute(path)?),
        })
    }
}

/// Nothing could be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch for changes (inotify); raise fs.inotify.max_user_instances if it is used up")]
pub struct WatchError(#[from] io::Error);

/// Watches any number of roots.
pub struct Watcher {
    events: EventStream<Vec<u8>>,
    roots: Vec<Root>,
    watches: HashMap<WatchDescriptor, Interest>,
    /// When the first change was seen that was not told yet.
    since: Option<Instant>,
    problem: Option<String>,
}

/// Which events of a directory count.
#[derive(Default)]
struct Interest {
    everything: bool,
    names: BTreeSet<OsString>,
}

impl Watcher {
    /// Watches `roots`. Needs a tokio runtime.
    pub fn new(roots: Vec<Root>) -> Result<Self, WatchError> {
        let mut roots = roots
            .into_iter()
            .map(Root::absolute)
            .collect::<io::Result<Vec<_>>>()?;
        roots.sort();
        roots.dedup();
        let mut watcher = Self {
            events: Inotify::init()?.into_event_stream(vec![0; 4096])?,
            roots,
            watches: HashMap::new(),
            since: None,
            problem: None,
        };
        watcher.arm();
        Ok(watcher)
    }

    /// Why some changes may be heard of late, if they may: a directory that can't be watched.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Waits for a change. What is read after it has returned is no older than the change.
    /// Nothing is lost if the future is dropped before.
    pub async fn changed(&mut self) -> Result<(), WatchError> {
        let since = loop {
            if let Some(since) = self.since {
                break since;
            }
            let event = self.next().await?;
            if self.counts(&event) {
                self.since = Some(Instant::now());
            }
        };
        let last = since + PATIENCE;
        while Instant::now() < last {
            let quiet = last.min(Instant::now() + QUIET);
            match timeout_at(quiet, self.next()).await {
                Ok(event) => drop(event?),
                Err(_) => break,
            }
        }
        self.since = None;
        self.arm();
        Ok(())
    }

    async fn next(&mut self) -> Result<EventOwned, WatchError> {
        match self.events.next().await {
            Some(event) => Ok(event?),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Whether an event is of what is watched for. Lost events are.
    fn counts(&self, event: &EventOwned) -> bool {
        let of_directory = EventMask::DELETE_SELF
            | EventMask::MOVE_SELF
            | EventMask::Q_OVERFLOW
            | EventMask::UNMOUNT;
        if event.mask.intersects(of_directory) {
            return true;
        }
        self.watches.get(&event.wd).is_some_and(|interest| {
            interest.everything
                || event
                    .name
                    .as_ref()
                    .is_some_and(|name| interest.names.contains(name))
        })
    }

    /// Watches what is there now, and no longer what isn't.
    fn arm(&mut self) {
        let mut wanted: HashMap<WatchDescriptor, Interest> = HashMap::new();
        self.problem = None;
        for root in self.roots.clone() {
            let (Root::Tree(path) | Root::Directory(path) | Root::File(path)) = &root;
            self.way_to(path, &mut wanted);
            if !matches!(root, Root::File(_)) {
                self.everything_in(path, &mut wanted);
            }
            if let Root::Tree(path) = &root {
                let entries = fs::read_dir(path).into_iter().flatten().flatten();
                for directory in entries
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir())
                {
                    self.everything_in(&directory, &mut wanted);
                }
            }
        }
        let stale = self
            .watches
            .keys()
            .filter(|watch| !wanted.contains_key(watch))
            .cloned();
        for watch in stale.collect::<Vec<_>>() {
            // Of a directory that is gone the kernel has removed it already.
            let _ = self.events.watches().remove(watch);
        }
        self.watches = wanted;
    }

    /// Watches every directory on the way to `path` for what leads on to it. From the top, so
    /// that what comes while this is under way is in a directory that is watched already.
    fn way_to(&mut self, path: &Path, wanted: &mut HashMap<WatchDescriptor, Interest>) {
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for (directory, next) in above.iter().zip(&above[1..]) {
            let (Some(watch), Some(name)) = (self.add(directory, wanted.len()), next.file_name())
            else {
                return;
            };
            wanted
                .entry(watch)
                .or_default()
                .names
                .insert(name.to_owned());
        }
    }

    fn everything_in(&mut self, path: &Path, wanted: &mut HashMap<WatchDescriptor, Interest>) {
        if let Some(watch) = self.add(path, wanted.len()) {
            wanted.entry(watch).or_default().everything = true;
        }
    }

    /// Watches one directory; `None` if there is none of that name.
    fn add(&mut self, path: &Path, watched: usize) -> Option<WatchDescriptor> {
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        if watched >= LIMIT {
            self.problem = Some(format!(
                "more than {LIMIT} directories: changes in the others show at the next regular reading"
            ));
            return None;
        }
        match self.events.watches().add(path, mask) {
            Ok(watch) => Some(watch),
            Err(error) => {
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) {
                    let mend = match error.raw_os_error() {
                        Some(libc::ENOSPC) => "; raise fs.inotify.max_user_watches",
                        _ => "",
                    };
                    self.problem = Some(format!("cannot watch {}: {error}{mend}", path.display()));
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
