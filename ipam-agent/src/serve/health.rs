//! Whether the daemon is alive, and whether it does its work, in words.

use std::{fmt::Write as _, time::Duration};

/// How the daemon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// For how long it has run.
    pub up: Duration,
    /// How many interfaces are watched.
    pub watched: usize,
    /// Since the last pass over the leases; `None`: there was none yet.
    pub pass_age: Option<Duration>,
    /// What keeps it from being ready, each with its mend where there is one.
    pub problems: Vec<String>,
    /// What is wrong and doesn't: too short, or not the daemon's to mend.
    pub notes: Vec<String>,
}

impl Health {
    /// Whether it is attached, has read the stores, and judges.
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty()
    }

    /// The body of `/healthz`.
    pub fn alive(&self) -> String {
        format!("alive: the loop answers; {}\n", self.course())
    }

    /// The body of `/readyz`.
    pub fn ready(&self) -> String {
        let mut text = match self.is_ready() {
            true => format!("ready: {}\n", self.course()),
            false => format!("not ready; {}\n", self.course()),
        };
        for problem in &self.problems {
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "- {problem}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    fn course(&self) -> String {
        let pass = match self.pass_age {
            Some(age) => format!("the last pass over the leases was {} s ago", age.as_secs()),
            None => String::from("no pass over the leases yet"),
        };
        let (up, watched) = (self.up.as_secs(), self.watched);
        format!("up for {up} s, {watched} interfaces watched, {pass}")
    }
}
