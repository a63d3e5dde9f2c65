//! That a person paused unattended releases: a file in the state directory, so that neither
//! a restart nor the loss of the database ends it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

/// The file.
pub const FILE: &str = "paused.json";
/// What it is written as before it is whole.
const UNFINISHED: &str = "paused.json.new";

/// A pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when, by the wall clock; `None`: the file doesn't say.
    pub at: Option<jiff::Timestamp>,
    /// By whom, as told by the command; `None`: the file doesn't say.
    pub by: Option<String>,
}

impl Paused {
    /// Whether the state directory says that releases are paused. A file that can't be
    /// understood says so, too: there is one.
    ///
    /// # Errors
    /// Nobody can tell whether there is one.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(FILE)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it down, whole and on disk when it returns.
    ///
    /// # Errors
    /// A restart would end the pause.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let unfinished = directory.join(UNFINISHED);
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(unfinished, directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }

    /// Ends the pause that is written down.
    ///
    /// # Errors
    /// It still is.
    pub fn end(directory: &Path) -> io::Result<()> {
        match fs::remove_file(directory.join(FILE)) {
            Ok(()) => File::open(directory)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// For people: who, since when, and the mend.
    pub fn sentence(&self) -> String {
        let by = self.by.as_deref().unwrap_or("a person");
        let since = match self.at {
            Some(at) => format!("since {}", at.strftime("%Y-%m-%d %H:%M:%SZ")),
            None => "nobody knows since when".to_owned(),
        };
        format!("paused by {by} {since}; `ipam-agent reclaim resume` ends it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_until_it_is_ended_and_a_damaged_one_too() {
        let base = tempfile::tempdir().expect("a directory");
        let read = || Paused::read(base.path()).expect("read");
        assert_eq!(read(), None);
        let paused = Paused {
            at: Some("2026-11-23T12:00:00Z".parse().expect("a time")),
            by: Some("ada".to_owned()),
        };
        paused.write(base.path()).expect("written");
        assert_eq!(read(), Some(paused.clone()));
        assert_eq!(
            paused.sentence(),
            "paused by ada since 2026-11-23 12:00:00Z; `ipam-agent reclaim resume` ends it"
        );
        for damage in ["", "\0\0\0", "{", "[1]"] {
            fs::write(base.path().join(FILE), damage).expect("damaged");
            assert_eq!(read(), Some(Paused::default()), "{damage:?}");
        }
        Paused::end(base.path()).expect("ended");
        assert_eq!(read(), None);
        Paused::end(base.path()).expect("ended already");
    }
}
