//! What was passed over while reading, counted: bounded, however much there is of it.

use std::{collections::BTreeMap, fmt, path::Path};

/// How many places are told apart; what is noted of more is only counted.
const PLACES: usize = 64;

/// What was passed over and where: one entry a place and kind, with the first example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    entries: BTreeMap<(String, Note), (u64, String)>,
    dropped: u64,
}

/// What kind of thing was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The directory does not exist, which is how it is before its first use.
    NoDirectoryYet,
    /// A file in a network's directory whose name is no address.
    NotAnAddress,
    /// An address that no machine can have.
    NotClaimable,
    /// A symbolic link named like a lease.
    SymbolicLink,
    /// A directory, pipe, socket or device named like a lease.
    NotAFile,
    /// A lease larger than host-local writes one. It is listed, never released.
    Oversized,
    /// A directory whose name can't be a network's.
    NetworkName,
    /// A file that could not be read.
    Unreadable,
    /// A file without content.
    Empty,
    /// A file larger than is read.
    TooLarge,
    /// A file that isn't what it should be.
    Damaged,
    /// More files than are read.
    TooMany,
}

impl Note {
    /// Whether it stands where a lease would, so that its address is handed to nobody.
    pub const fn keeps_its_address(self) -> bool {
        matches!(self, Self::SymbolicLink | Self::NotAFile | Self::Oversized)
    }

    const fn words(self) -> &'static str {
        match self {
            Self::NoDirectoryYet => "no such directory yet",
            Self::NotAnAddress => "name is no address",
            Self::NotClaimable => "address that no machine can have",
            Self::SymbolicLink => "symbolic link, not followed",
            Self::NotAFile => "named like a lease, but no file",
            Self::Oversized => "larger than host-local writes a lease, never released",
            Self::NetworkName => "not a network's name",
            Self::Unreadable => "could not be read",
            Self::Empty => "empty",
            Self::TooLarge => "too large to be read",
            Self::Damaged => "damaged",
            Self::TooMany => "more files than are read",
        }
    }
}

impl Notes {
    /// Adds one, met at `place` (a directory, mostly), with what met it.
    pub fn add(&mut self, place: &Path, note: Note, example: impl fmt::Display) {
        let key = (place.display().to_string(), note);
        if let Some((count, _)) = self.entries.get_mut(&key) {
            *count += 1;
        } else if self.entries.len() < PLACES {
            let mut example = example.to_string();
            if example.len() > 200 {
                example = example.chars().take(200).collect();
            }
            self.entries.insert(key, (1, example));
        } else {
            self.dropped += 1;
        }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: Self) {
        for (key, (count, example)) in other.entries {
            if let Some((mine, _)) = self.entries.get_mut(&key) {
                *mine += count;
            } else if self.entries.len() < PLACES {
                self.entries.insert(key, (count, example));
            } else {
                self.dropped += count;
            }
        }
        self.dropped += other.dropped;
    }

    /// How often `note` was met, anywhere.
    pub fn count(&self, note: Note) -> u64 {
        let of_kind = self.entries.iter().filter(|((_, kind), _)| *kind == note);
        of_kind.map(|(_, (count, _))| count).sum()
    }

    /// Whether nothing was passed over.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One line a place and kind.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let entries = self.lines_of(|_| true);
        let dropped = (self.dropped > 0).then(|| format!("and {} more", self.dropped));
        entries.chain(dropped)
    }

    /// The same of some kinds.
    pub fn lines_of<'a>(
        &'a self,
        kinds: impl Fn(Note) -> bool + 'a,
    ) -> impl Iterator<Item = String> + 'a {
        let entries = self.entries.iter();
        let entries = entries.filter(move |((_, note), _)| kinds(*note));
        entries.map(|((place, note), (count, example))| {
            let words = note.words();
            match (count, example.is_empty()) {
                (_, true) => format!("{place}: {words}"),
                (1, false) => format!("{place}: {words}: {example}"),
                (_, false) => format!("{place}: {words}: {count}, the first: {example}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_stay_few_however_much_is_noted() {
        let mut notes = Notes::default();
        for directory in 0..1000 {
            for name in 0..10 {
                let place = format!("/leases/{directory}");
                notes.add(Path::new(&place), Note::NotAnAddress, format!("x{name}"));
            }
        }
        assert_eq!(notes.lines().count(), PLACES + 1);
        assert_eq!(
            notes.lines().next().as_deref(),
            Some("/leases/0: name is no address: 10, the first: x0")
        );
        assert_eq!(notes.lines().last().as_deref(), Some("and 9360 more"));
    }
}
