//! Reading the journal, line by line and in bounded memory, with or without a daemon.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::IpAddr,
    path::Path,
};

use serde::Serialize;

use super::{
    FILE, JournalError,
    record::{Effect, Intent, Phase, Record, SCHEMA},
};

/// The longest line that is read, in bytes. A record holds at most 4 KiB of a lease, six
/// times that when all of it is escaped.
const LINE_LIMIT: usize = 64 * 1024;

/// A release and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// When it was to be done.
    pub at: jiff::Timestamp,
    /// In which boot.
    pub boot_id: String,
    /// What was to be done, and why.
    #[serde(flatten)]
    pub intent: Intent,
    /// What became of it; `None`: not known (yet).
    pub effect: Option<Effect>,
}

/// The newest releases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// How many lines could not be read.
    pub damaged: u64,
    /// The first of them, from 1.
    pub first_damaged: Option<u64>,
}

/// The newest `limit` releases of the journal in this state directory. No journal: none.
pub fn history(directory: &Path, limit: usize) -> Result<History, JournalError> {
    newest(directory, limit, |_| true)
}

/// The newest `limit` releases of one address.
pub fn history_of(
    directory: &Path,
    address: IpAddr,
    limit: usize,
) -> Result<History, JournalError> {
    newest(directory, limit, |intent| intent.address == address)
}

fn newest(
    directory: &Path,
    limit: usize,
    wanted: impl Fn(&Intent) -> bool,
) -> Result<History, JournalError> {
    let path = directory.join(FILE);
    let failed = |source| JournalError {
        doing: "read",
        path: path.clone(),
        source,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut history = History::default();
    let mut newest: VecDeque<Entry> = VecDeque::new();
    // How many entries were dropped at the front, and where each id's is, counted with them.
    let (mut dropped, mut places) = (0, HashMap::new());
    let read = scan(file, |line| match line {
        Ok(Record {
            id,
            at,
            boot_id,
            phase: Phase::Intent(intent),
            ..
        }) if wanted(&intent) => {
            if newest.len() == limit {
                if let Some(oldest) = newest.pop_front() {
                    places.remove(&oldest.id);
                    dropped += 1;
                } else {
                    return;
                }
            }
            places.insert(id.clone(), dropped + newest.len());
            newest.push_back(Entry {
                id,
                at,
                boot_id,
                intent: *intent,
                effect: None,
            });
        }
        Ok(Record {
            id,
            phase: Phase::Effect(effect),
            ..
        }) => {
            let place = places.get(&id).map(|place| place - dropped);
            if let Some(entry) = place.and_then(|place| newest.get_mut(place)) {
                entry.effect = Some(effect);
            }
        }
        Ok(_) => {}
        Err(number) => {
            history.damaged += 1;
            history.first_damaged.get_or_insert(number);
        }
    });
    read.map_err(failed)?;
    history.entries = newest.into_iter().rev().collect();
    Ok(history)
}

/// Gives each line's record or, for one that can't be read, its number.
pub(super) fn scan(file: File, mut each: impl FnMut(Result<Record, u64>)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(LINE_LIMIT, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader
            .by_ref()
            .take(LINE_LIMIT as u64)
            .read_until(b'\n', &mut line)?
            == 0
        {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        if !whole {
            skip_line(&mut reader)?;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = serde_json::from_slice::<Record>(&line).ok();
        each(
            record
                .filter(|record| whole && record.schema == SCHEMA)
                .ok_or(number),
        );
    }
    Ok(())
}

/// Reads on to the line's end.
fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (length, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(length);
        if ended {
            return Ok(());
        }
    }
}
