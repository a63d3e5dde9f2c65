//! Reading the journal, line by line and in bounded memory, with or without a daemon.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::IpAddr,
    path::Path,
};

use super::{
    FILE, JournalError,
    cache::{CacheEffect, CacheIntent},
    fence::{FenceEffect, FenceIntent},
    record::{
        Effect, EffectResult, Intent, Phase, Record, SCHEMA, Taken, Undo, UndoResult, Undone, When,
    },
};

/// The longest line that is read, in bytes. A record holds at most 4 KiB of a lease or
/// [`super::CACHE_LIMIT`] of a cache's entry, six times that when all of it is escaped.
const LINE_LIMIT: usize = 64 * 1024;
/// The highest number of a record. No agent comes near it: what is above it is damage, after
/// which nothing could be counted on.
pub(super) const LAST_NUMBER: u64 = 1_000_000_000_000;

/// A release and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// When it was to be done.
    pub when: When,
    /// In which boot.
    pub boot_id: String,
    /// What was to be done, and why.
    pub intent: Intent,
    /// What became of it, and when that was written; `None`: not known (yet).
    pub effect: Option<(When, Effect)>,
    /// The last time that it was to be put back.
    pub put_back: Option<PutBack>,
    /// The new lease that ended its quarantine.
    pub taken: Option<(When, Taken)>,
}

/// That a released lease was to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutBack {
    /// When, and why; `None`: its line can't be read.
    pub undo: Option<(When, Undo)>,
    /// What became of it; `None`: not known (yet).
    pub undone: Option<(When, Undone)>,
}

impl Entry {
    /// Whether the lease is gone by our hand, and was not put back.
    pub fn is_released(&self) -> bool {
        let effect = self.effect.as_ref();
        effect.is_some_and(|(_, effect)| effect.result == EffectResult::Released)
            && !self.is_put_back()
    }

    /// Whether the lease was put back.
    pub fn is_put_back(&self) -> bool {
        let undone = self.put_back.as_ref().and_then(|put| put.undone.as_ref());
        undone.is_some_and(|(_, undone)| undone.result == UndoResult::PutBack)
    }

    /// Learns what a later line says of it.
    fn note(&mut self, when: When, phase: Phase) {
        match phase {
            Phase::Intent(_)
            | Phase::Fence(_)
            | Phase::FenceEffect(_)
            | Phase::Clean(_)
            | Phase::Cleaned(_) => {}
            Phase::Effect(effect) => self.effect = Some((when, effect)),
            Phase::Undo(undo) => {
                self.put_back = Some(PutBack {
                    undo: Some((when, undo)),
                    undone: None,
                });
            }
            Phase::Undone(undone) => {
                self.put_back.get_or_insert_default().undone = Some((when, undone));
            }
            Phase::Taken(taken) => self.taken = Some((when, taken)),
        }
    }
}

/// Something else that was to be done, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<I, E> {
    /// Its id.
    pub id: String,
    /// When it was to be done.
    pub when: When,
    /// In which boot.
    pub boot_id: String,
    /// What, and why.
    pub intent: I,
    /// What became of it, and when that was written; `None`: not known (yet).
    pub effect: Option<(When, E)>,
}

/// What the journal tells, the newest of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The releases, newest first.
    pub entries: Vec<Entry>,
    /// The fences that were raised and lowered, newest first.
    pub fences: Vec<Step<FenceIntent, FenceEffect>>,
    /// The removals from CNI's caches, newest first.
    pub caches: Vec<Step<CacheIntent, CacheEffect>>,
    /// How many lines could not be read.
    pub damaged: u64,
    /// The first of them, from 1.
    pub first_damaged: Option<u64>,
}

/// The newest `limit` releases of the journal in this state directory, and as many of whatever
/// else it tells of. No journal: none.
pub fn history(directory: &Path, limit: usize) -> Result<History, JournalError> {
    let (mut fences, mut caches) = (Newest::new(limit), Newest::new(limit));
    let mut history = in_directory(directory, |file| {
        newest_and(
            file,
            limit,
            |_| true,
            |record| {
                let Record {
                    id,
                    when,
                    boot_id,
                    phase,
                    ..
                } = record;
                match phase {
                    Phase::Fence(intent) => fences.push(step(id, when, boot_id, intent)),
                    Phase::FenceEffect(effect) => note(&mut fences, &id, when, effect),
                    Phase::Clean(intent) => caches.push(step(id, when, boot_id, intent)),
                    Phase::Cleaned(effect) => note(&mut caches, &id, when, effect),
                    _ => {}
                }
            },
        )
    })?;
    (history.fences, history.caches) = (fences.newest_first(), caches.newest_first());
    Ok(history)
}

/// The newest `limit` releases of one address.
pub fn history_of(
    directory: &Path,
    address: IpAddr,
    limit: usize,
) -> Result<History, JournalError> {
    let wanted = |entry: &Entry| entry.intent.address == address;
    in_directory(directory, |file| newest(file, limit, wanted))
}

fn in_directory(
    directory: &Path,
    read: impl FnOnce(File) -> io::Result<History>,
) -> Result<History, JournalError> {
    let path = directory.join(FILE);
    let read = match File::open(&path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => Err(error),
    };
    read.map_err(|source| JournalError {
        doing: "read",
        path,
        source,
    })
}

/// The newest `limit` of the releases that are wanted, as their intents tell them.
pub(super) fn newest(
    file: File,
    limit: usize,
    wanted: impl Fn(&Entry) -> bool,
) -> io::Result<History> {
    newest_and(file, limit, wanted, |_| {})
}

/// The same, with all that is about no release given to `others`.
fn newest_and(
    file: File,
    limit: usize,
    wanted: impl Fn(&Entry) -> bool,
    mut others: impl FnMut(Record),
) -> io::Result<History> {
    let mut history = History::default();
    let mut releases = Newest::new(limit);
    scan(file, |line| match line {
        Ok(Record {
            id,
            when,
            boot_id,
            phase: Phase::Intent(intent),
            ..
        }) => {
            let entry = Entry {
                id,
                when,
                boot_id,
                intent: *intent,
                effect: None,
                put_back: None,
                taken: None,
            };
            if wanted(&entry) {
                releases.push(entry);
            }
        }
        Ok(record) => match releases.get(&record.id) {
            Some(entry) => entry.note(record.when, record.phase),
            None => others(record),
        },
        Err(number) => {
            history.damaged += 1;
            history.first_damaged.get_or_insert(number);
        }
    })?;
    history.entries = releases.newest_first();
    Ok(history)
}

fn step<I, E>(id: String, when: When, boot_id: String, intent: I) -> Step<I, E> {
    Step {
        id,
        when,
        boot_id,
        intent,
        effect: None,
    }
}

fn note<I, E>(steps: &mut Newest<Step<I, E>>, id: &str, when: When, effect: E) {
    if let Some(step) = steps.get(id) {
        step.effect = Some((when, effect));
    }
}

/// What has an id in the journal.
trait Identified {
    fn id(&self) -> &str;
}

impl Identified for Entry {
    fn id(&self) -> &str {
        &self.id
    }
}

impl<I, E> Identified for Step<I, E> {
    fn id(&self) -> &str {
        &self.id
    }
}

/// The newest so many of one kind, found by their ids.
struct Newest<T> {
    limit: usize,
    kept: VecDeque<T>,
    /// How many were dropped at the front, and where each id's is, counted with them.
    dropped: usize,
    places: HashMap<String, usize>,
}

impl<T: Identified> Newest<T> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: VecDeque::new(),
            dropped: 0,
            places: HashMap::new(),
        }
    }

    fn push(&mut self, new: T) {
        if self.kept.len() == self.limit {
            let Some(oldest) = self.kept.pop_front() else {
                return;
            };
            self.places.remove(oldest.id());
            self.dropped += 1;
        }
        let place = self.dropped + self.kept.len();
        self.places.insert(new.id().to_owned(), place);
        self.kept.push_back(new);
    }

    fn get(&mut self, id: &str) -> Option<&mut T> {
        let place = self.places.get(id)? - self.dropped;
        self.kept.get_mut(place)
    }

    fn newest_first(self) -> Vec<T> {
        self.kept.into_iter().rev().collect()
    }
}

/// A line's record, if it is one that the agent writes and reads back.
pub(super) fn record(line: &[u8]) -> Option<Record> {
    let record: Record = serde_json::from_slice(line).ok()?;
    let number: u64 = record.id.parse().ok()?;
    let read = line.len() <= LINE_LIMIT && number <= LAST_NUMBER && record.schema == SCHEMA;
    read.then_some(record)
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
        let ended = line.last() == Some(&b'\n');
        // Of the last line a power cut may have taken no more than its end.
        let whole = ended || line.len() < LINE_LIMIT;
        if !ended {
            skip_line(&mut reader)?;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = record(&line).filter(|_| whole);
        each(record.ok_or(number));
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
