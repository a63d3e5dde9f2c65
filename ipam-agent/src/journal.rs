//! The truth about releases: an append-only file of JSON lines in the state directory.
//!
//! A release is written down before it is done (the intent, with all that is needed to undo
//! it) and again after (the effect). The intent is on disk before the store is touched. A
//! line that can't be read, because power was lost while it was written, is passed over and
//! counted, never a reason to stop.

mod fence;
mod read;
mod record;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{
    engine::plan::{Asker, Release},
    state::make_directory,
};
pub use fence::{FenceEffect, FenceIntent, FenceResult};
pub use read::{Entry, History, history, history_of};
pub use record::{
    Content, Coverage, Effect, EffectResult, Evidence, Grant, HolderRecord, Intent, Phase, Record,
    SCHEMA, Unanswered,
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
        let mut file = OpenOptions::new()
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
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::Start(length - 1))
                .and_then(|_| file.read_exact(&mut last))
                .map_err(failed("read"))?;
        }
        let mut journal = Self {
            file,
            path: path.clone(),
            boot_id: boot_id.to_owned(),
            next: 1,
            length,
            torn: last != [b'\n'],
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

    /// Writes down what is about to be done, all or nothing, on disk when it returns. Gives
    /// each release's id, by which its effect is written down and it can be undone.
    pub fn append_intents<'a>(
        &mut self,
        at: jiff::Timestamp,
        asker: Asker,
        releases: impl IntoIterator<Item = &'a Release>,
    ) -> Result<Vec<String>, JournalError> {
        let intent = |release| Phase::Intent(Box::new(Intent::new(asker, release)));
        self.begin(at, releases.into_iter().map(intent))
    }

    /// The same of fences.
    pub fn append_fences(
        &mut self,
        at: jiff::Timestamp,
        fences: impl IntoIterator<Item = FenceIntent>,
    ) -> Result<Vec<String>, JournalError> {
        self.begin(at, fences.into_iter().map(Phase::Fence))
    }

    fn begin(
        &mut self,
        at: jiff::Timestamp,
        phases: impl Iterator<Item = Phase>,
    ) -> Result<Vec<String>, JournalError> {
        let first = self.next;
        let records: Vec<Record> = (first..)
            .zip(phases)
            .map(|(number, phase)| self.record(format!("{number:08}"), at, phase))
            .collect();
        let before = self.length;
        self.append(&records)?;
        self.next = first + records.len() as u64;
        if let Err(error) = self.sync() {
            // What isn't surely on disk was never said.
            if self.file.set_len(before).is_ok() {
                self.length = before;
            }
            return Err(error);
        }
        Ok(records.into_iter().map(|record| record.id).collect())
    }

    /// Writes down what became of an intent. On disk only after [`Journal::sync`]: should it
    /// be lost, the next start finds out by looking.
    pub fn append_effect(
        &mut self,
        at: jiff::Timestamp,
        id: &str,
        effect: Effect,
    ) -> Result<(), JournalError> {
        let record = self.record(id.to_owned(), at, Phase::Effect(effect));
        self.append(&[record])
    }

    /// The same of a fence.
    pub fn append_fence_effect(
        &mut self,
        at: jiff::Timestamp,
        id: &str,
        effect: FenceEffect,
    ) -> Result<(), JournalError> {
        let record = self.record(id.to_owned(), at, Phase::FenceEffect(effect));
        self.append(&[record])
    }

    /// Has everything appended so far on disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file
            .sync_data()
            .map_err(|source| self.failed("write", source))
    }

    /// The intents whose effect isn't known, by id: what was under way when the agent or the
    /// host went down.
    pub fn unfinished(&self) -> Result<BTreeMap<String, Intent>, JournalError> {
        // Twice, so that only what is unfinished is ever held.
        let mut open = BTreeSet::new();
        self.scan(|line| match line {
            Ok(Record {
                id,
                phase: Phase::Intent(_),
                ..
            }) => drop(open.insert(id)),
            Ok(Record {
                id,
                phase: Phase::Effect(_),
                ..
            }) => drop(open.remove(&id)),
            Ok(_) | Err(_) => {}
        })?;
        let mut unfinished = BTreeMap::new();
        if !open.is_empty() {
            self.scan(|line| match line {
                Ok(Record {
                    id,
                    phase: Phase::Intent(intent),
                    ..
                }) if open.contains(&id) => {
                    unfinished.insert(id, *intent);
                }
                _ => {}
            })?;
        }
        Ok(unfinished)
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

    fn scan(&self, each: impl FnMut(Result<Record, u64>)) -> Result<(), JournalError> {
        let read = File::open(&self.path).and_then(|file| read::scan(file, each));
        read.map_err(|source| self.failed("read", source))
    }

    fn record(&self, id: String, at: jiff::Timestamp, phase: Phase) -> Record {
        Record {
            schema: SCHEMA.into(),
            id,
            at,
            boot_id: self.boot_id.clone(),
            phase,
        }
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        if self.torn {
            lines.push(b'\n');
        }
        for record in records {
            let written = serde_json::to_writer(&mut lines, record);
            written.map_err(|error| self.failed("write", error.into()))?;
            lines.push(b'\n');
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
