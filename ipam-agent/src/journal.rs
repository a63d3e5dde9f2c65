//! The truth about releases: an append-only file of JSON lines in the state directory.
//!
//! A release is written down before it is done (the intent, with all that is needed to undo
//! it) and again after (the effect), and so is putting a lease back. The intent is on disk
//! before the store is touched. A line that can't be read, because power was lost while it
//! was written, is passed over and counted, never a reason to stop.
//!
//! What is quarantined is nowhere else: it is read here at each start, so no damage to the
//! database forgets it.

mod cache;
mod fence;
mod read;
mod record;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    engine::{
        caches::Removal,
        plan::{Asker, Release},
    },
    fault,
    state::make_directory,
    store::FileOwner,
};
pub use cache::{CACHE_LIMIT, CacheEffect, CacheIntent, CacheResult};
pub use fence::{FenceEffect, FenceIntent, FenceResult, raised};
pub use read::{Entry, History, PutBack, Step, history, history_of};
pub use record::{
    Content, Coverage, Effect, EffectResult, Evidence, Grant, HolderRecord, Intent, Phase, Record,
    SCHEMA, Taken, Unanswered, Undo, UndoResult, Undone, When,
};

/// The journal's file in the state directory.
pub const FILE: &str = "journal.jsonl";

/// The journal can't be read or written. Nothing is released meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the journal {}", .path.display())]
pub struct JournalError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The journal, open for writing. One process at a time, by the state's lock.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    boot_id: String,
    /// The number of the next record that gets a new one.
    next: u64,
    /// Up to where the file is known to be whole.
    length: u64,
    /// The last line has no end: a new one must not be joined to it.
    torn: bool,
    /// The stores of what it lacks the end of, though a look at them may tell.
    open_stores: BTreeSet<String>,
}

impl Journal {
    /// Opens or makes the journal in the state directory. Reads all of it.
    pub fn open(directory: &Path, boot_id: &str) -> Result<Self, JournalError> {
        let path = directory.join(FILE);
        let failed = |doing| {
            let path = path.clone();
            move |source| JournalError {
                doing,
                path,
                source,
            }
        };
        make_directory(directory).map_err(failed("make a directory for"))?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("keep"))?;
        let length = file.metadata().map_err(failed("examine"))?.len();
        let torn = is_torn(&file, length).map_err(failed("read"))?;
        let mut journal = Self {
            file,
            path: path.clone(),
            boot_id: boot_id.to_owned(),
            next: 1,
            length,
            torn,
            open_stores: BTreeSet::new(),
        };
        let (mut highest, mut lines) = (0, 0);
        journal.scan(|line| {
            lines += 1;
            let number = line.ok().and_then(|record| record.id.parse().ok());
            highest = highest.max(number.unwrap_or(0));
        })?;
        // Behind lines that can't be read there may have been higher ones.
        journal.next = highest.max(lines) + 1;
        Ok(journal)
    }

    /// Writes down what is about to be released, all or nothing, on disk when it returns.
    /// Gives each release's id, by which its effect is written down and it can be undone.
    pub fn append_intents<'a>(
        &mut self,
        when: When,
        asker: Asker,
        by: Option<&str>,
        releases: impl IntoIterator<Item = (&'a Release, Option<FileOwner>)>,
    ) -> Result<Vec<String>, JournalError> {
        let intent =
            |(release, file)| Phase::Intent(Box::new(Intent::new(asker, by, release, file)));
        self.begin(when, releases.into_iter().map(intent))
    }

    /// The same of fences.
    pub fn append_fences(
        &mut self,
        when: When,
        fences: impl IntoIterator<Item = FenceIntent>,
    ) -> Result<Vec<String>, JournalError> {
        self.begin(when, fences.into_iter().map(Phase::Fence))
    }

    /// The same of removals from CNI's caches.
    pub fn append_cleanings<'a>(
        &mut self,
        when: When,
        removals: impl IntoIterator<Item = &'a Removal>,
    ) -> Result<Vec<String>, JournalError> {
        let intent = |removal| Phase::Clean(CacheIntent::new(removal));
        self.begin(when, removals.into_iter().map(intent))
    }

    fn begin(
        &mut self,
        when: When,
        phases: impl Iterator<Item = Phase>,
    ) -> Result<Vec<String>, JournalError> {
        let first = self.next;
        let records: Vec<Record> = (first..)
            .zip(phases)
            .map(|(number, phase)| self.record(&format!("{number:08}"), when, phase))
            .collect();
        self.append_durably(&records)?;
        self.next = first + records.len() as u64;
        Ok(records.into_iter().map(|record| record.id).collect())
    }

    /// Writes down what became of intents. On disk only after [`Journal::sync`] or the next
    /// intents: should it be lost, the next start finds out by looking.
    pub fn append_effects(
        &mut self,
        when: When,
        effects: impl IntoIterator<Item = (String, Effect)>,
    ) -> Result<(), JournalError> {
        let effects = effects.into_iter();
        let records: Vec<Record> = effects
            .map(|(id, effect)| self.record(&id, when, Phase::Effect(effect)))
            .collect();
        self.append(&records)?;
        fault::reach("effects-written");
        Ok(())
    }

    /// Writes down that a lease is about to be put back, on disk when it returns.
    pub fn append_undo(&mut self, when: When, id: &str, undo: Undo) -> Result<(), JournalError> {
        self.append_durably(&[self.record(id, when, Phase::Undo(undo))])
    }

    /// Writes down what became of that, on disk when it returns.
    pub fn append_undone(
        &mut self,
        when: When,
        id: &str,
        undone: Undone,
    ) -> Result<(), JournalError> {
        self.append(&[self.record(id, when, Phase::Undone(undone))])?;
        fault::reach("undone-written");
        self.sync()
    }

    /// Writes down that a quarantined address has a new lease. Should it be lost, the
    /// address is watched for longer than need be.
    pub fn append_taken(&mut self, when: When, id: &str, taken: Taken) -> Result<(), JournalError> {
        self.append(&[self.record(id, when, Phase::Taken(taken))])
    }

    /// The same of a fence.
    pub fn append_fence_effect(
        &mut self,
        when: When,
        id: &str,
        effect: FenceEffect,
    ) -> Result<(), JournalError> {
        self.append(&[self.record(id, when, Phase::FenceEffect(effect))])
    }

    /// The same of a removal from a cache.
    pub fn append_cleaned(
        &mut self,
        when: When,
        id: &str,
        effect: CacheEffect,
    ) -> Result<(), JournalError> {
        self.append(&[self.record(id, when, Phase::Cleaned(effect))])
    }

    /// Has everything appended so far on disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file
            .sync_data()
            .map_err(|source| self.failed("write", source))
    }

    /// The stores by which more can be found out of what is [unfinished](Self::unfinished).
    pub fn open_stores(&self) -> &BTreeSet<String> {
        &self.open_stores
    }

    /// Something of these stores is left unfinished.
    pub fn leave_open(&mut self, stores: impl IntoIterator<Item = String>) {
        self.open_stores.extend(stores);
    }

    /// All that could be found out was written down, but for what is of these stores.
    pub fn settled(&mut self, left: BTreeSet<String>) {
        self.open_stores = left;
    }

    /// What was under way when the agent or the host went down: the releases, and the
    /// leases to be put back, of which the journal doesn't say how they ended. The oldest
    /// first.
    pub fn unfinished(&self) -> Result<Vec<Entry>, JournalError> {
        // Twice, so that only what is unfinished is ever held.
        let (mut releases, mut undos) = (BTreeSet::new(), BTreeSet::new());
        self.scan(|line| {
            if let Ok(Record { id, phase, .. }) = line {
                match phase {
                    Phase::Intent(_) => drop(releases.insert(id)),
                    Phase::Effect(_) => drop(releases.remove(&id)),
                    Phase::Undo(_) => drop(undos.insert(id)),
                    Phase::Undone(_) => drop(undos.remove(&id)),
                    Phase::Taken(_)
                    | Phase::Fence(_)
                    | Phase::FenceEffect(_)
                    | Phase::Clean(_)
                    | Phase::Cleaned(_) => {}
                }
            }
        })?;
        if releases.is_empty() && undos.is_empty() {
            return Ok(Vec::new());
        }
        let open = |entry: &Entry| releases.contains(&entry.id) || undos.contains(&entry.id);
        self.entries(usize::MAX, open)
    }

    /// The release of this id, and what became of it.
    pub fn entry(&self, id: &str) -> Result<Option<Entry>, JournalError> {
        Ok(self.entries(1, |entry| entry.id == id)?.pop())
    }

    /// The newest `limit` releases of this boot that are wanted, the oldest of them first.
    pub fn of_this_boot(
        &self,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, JournalError> {
        self.entries(limit, |entry| {
            entry.boot_id == self.boot_id && wanted(entry)
        })
    }

    /// The newest of the wanted releases, the oldest of them first.
    fn entries(
        &self,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, JournalError> {
        let read = File::open(&self.path).and_then(|file| read::newest(file, limit, wanted));
        let history = read.map_err(|source| self.failed("read", source))?;
        Ok(history.entries.into_iter().rev().collect())
    }

    /// The fences of which the same is true.
    pub fn unfinished_fences(&self) -> Result<BTreeMap<String, FenceIntent>, JournalError> {
        let mut open = BTreeMap::new();
        self.scan(|line| match line {
            Ok(Record {
                id,
                phase: Phase::Fence(intent),
                ..
            }) => drop(open.insert(id, intent)),
            Ok(Record {
                id,
                phase: Phase::FenceEffect(_),
                ..
            }) => drop(open.remove(&id)),
            Ok(_) | Err(_) => {}
        })?;
        Ok(open)
    }

    /// The removals from caches of which the same is true.
    pub fn unfinished_cleanings(&self) -> Result<BTreeMap<String, CacheIntent>, JournalError> {
        let mut open = BTreeMap::new();
        self.scan(|line| match line {
            Ok(Record {
                id,
                phase: Phase::Clean(intent),
                ..
            }) => drop(open.insert(id, intent)),
            Ok(Record {
                id,
                phase: Phase::Cleaned(_),
                ..
            }) => drop(open.remove(&id)),
            Ok(_) | Err(_) => {}
        })?;
        Ok(open)
    }

    fn scan(&self, each: impl FnMut(Result<Record, u64>)) -> Result<(), JournalError> {
        let read = File::open(&self.path).and_then(|file| read::scan(file, each));
        read.map_err(|source| self.failed("read", source))
    }

    fn record(&self, id: &str, when: When, phase: Phase) -> Record {
        Record {
            schema: SCHEMA.into(),
            id: id.to_owned(),
            when,
            boot_id: self.boot_id.clone(),
            phase,
        }
    }

    /// All or nothing, on disk when it returns.
    fn append_durably(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.look_at_the_end()?;
        let (before, torn) = (self.length, self.torn);
        fault::reach("intent-unwritten");
        self.append(records)?;
        fault::reach("intent-written");
        if let Err(error) = self.sync() {
            // What isn't surely on disk was never said.
            if self.file.set_len(before).is_ok() {
                (self.length, self.torn) = (before, torn);
            }
            return Err(error);
        }
        self.in_place()
            .map_err(|source| self.failed("keep", source))?;
        fault::reach("intent-synced");
        Ok(())
    }

    /// Whether its path still leads to it: what is written into a file that was removed is
    /// on no disk once the agent ends.
    fn in_place(&self) -> io::Result<()> {
        let opened = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => Err(io::Error::other(
                "it was removed or replaced while the agent runs: restart the agent",
            )),
        }
    }

    /// Somebody may have cut it off, or written to it: what comes next must not be joined to
    /// half a line, nor be taken for what isn't whole.
    fn look_at_the_end(&mut self) -> Result<(), JournalError> {
        let failed = |source| self.failed("examine", source);
        let length = self.file.metadata().map_err(failed)?.len();
        if length != self.length {
            let torn = is_torn(&self.file, length).map_err(failed)?;
            tracing::warn!(
                "{} is {length} bytes long and was {} when the agent last wrote to it: what \
                 somebody else cuts off can't be undone, and isn't watched after a restart",
                self.path.display(),
                self.length
            );
            (self.length, self.torn) = (length, torn);
        }
        Ok(())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.look_at_the_end()?;
        let mut lines = Vec::new();
        if self.torn {
            lines.push(b'\n');
        }
        for record in records {
            let begin = lines.len();
            let written = serde_json::to_writer(&mut lines, record);
            written.map_err(|error| self.failed("write", error.into()))?;
            lines.push(b'\n');
            // What nobody can read any more is neither undone nor watched.
            if read::record(&lines[begin..]).is_none() {
                return Err(self.failed("write", unreadable(record, lines.len() - begin)));
            }
        }
        match self.file.write_all(&lines) {
            Ok(()) => {
                self.length += lines.len() as u64;
                self.torn = false;
                Ok(())
            }
            Err(source) => {
                // Half of it must not stay: what is half written was never said.
                self.torn |= self.file.set_len(self.length).is_err();
                Err(self.failed("write", source))
            }
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

fn unreadable(record: &Record, length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "record {} of {length} bytes could not be read back: its number or a name in it is \
             too long",
            record.id
        ),
    )
}

/// Whether a file of this length ends within a line.
fn is_torn(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if let Some(place) = length.checked_sub(1) {
        file.read_exact_at(&mut last, place)?;
    }
    Ok(last != [b'\n'])
}
