//! The main job from end to end: once with an agent that was there before the power cut,
//! once with one that is installed after it; without root, on a capture.

mod after;
mod before;
mod capture;
mod host;
mod story;

use std::{path::PathBuf, thread};

use anyhow::{Context, Result};
use serde::Serialize;

pub use self::story::Story;
use crate::{
    lab::{self, Lab},
    runtime,
};

/// What the demo came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// `ipam-agent/demo/v1`.
    pub schema: &'static str,
    /// Two machines on one address.
    pub duplicates: Duplicates,
    /// Leases that nobody uses any more.
    pub leaked: Leaked,
    /// Leases that somebody uses.
    pub live: Live,
    /// How long it took.
    pub seconds: f64,
}

/// Two machines on one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Duplicates {
    /// How many there were.
    pub planted: usize,
    /// How many of them were reported.
    pub found: usize,
    /// How many were reported that were none.
    pub invented: usize,
}

/// Leases that nobody uses any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Leaked {
    /// How many there were.
    pub planted: usize,
    /// How many of them were given back.
    pub released: usize,
}

/// Leases that somebody uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Live {
    /// How many there were.
    pub total: usize,
    /// How many of them were given back all the same.
    pub released: usize,
}

impl Figures {
    /// Whether nothing is missing, invented or wrongly released.
    pub fn is_right(&self) -> bool {
        let Duplicates {
            planted,
            found,
            invented,
        } = self.duplicates;
        planted == found
            && invented == 0
            && self.leaked.planted == self.leaked.released
            && self.live.released == 0
    }

    fn add(&mut self, other: &Self) {
        self.duplicates.planted += other.duplicates.planted;
        self.duplicates.found += other.duplicates.found;
        self.duplicates.invented += other.duplicates.invented;
        self.leaked.planted += other.leaked.planted;
        self.leaked.released += other.leaked.released;
        self.live.total += other.live.total;
        self.live.released += other.live.released;
    }
}

/// Tells the story, to stderr where stdout is for figures, and gives back the figures.
pub fn run(aside: bool) -> Result<Figures> {
    let story = Story::new(aside);
    let mut figures = Figures {
        schema: "ipam-agent/demo/v1",
        ..Figures::default()
    };
    match lab::available().and_then(|()| runtime::available()) {
        Ok(()) => {
            figures.add(&on_a_host(&story, "before", before::tell)?);
            figures.add(&on_a_host(&story, "after", after::tell)?);
        }
        Err(why) => {
            story.say(&format!(
                "no throw-away host can be made here: {why}. The same on a recorded capture:"
            ));
            figures.add(&capture::tell(&story)?);
        }
    }
    figures.seconds = (story.seconds() * 10.0).round() / 10.0;
    conclude(&story, &figures);
    Ok(figures)
}

fn conclude(story: &Story, figures: &Figures) {
    story.chapter("What it came to");
    let Duplicates {
        planted,
        found,
        invented,
    } = figures.duplicates;
    story.say(&format!(
        "duplicates: {planted} planted, {found} found, {invented} invented"
    ));
    if figures.live.total > 0 {
        story.say(&format!(
            "leaked leases: {} left behind, {} given back",
            figures.leaked.planted, figures.leaked.released
        ));
        story.say(&format!(
            "live leases: {}, of which {} were touched",
            figures.live.total, figures.live.released
        ));
    }
    story.say(if figures.is_right() {
        "all as it should be"
    } else {
        "NOT as it should be"
    });
}

type Tale = fn(&Story, &mut Lab) -> Result<Figures>;

/// Tells a tale on a host of its own. The machine is left as it was: the host goes with
/// its thread, its disk with the directory.
fn on_a_host(story: &Story, name: &str, tale: Tale) -> Result<Figures> {
    let disk = tempfile::Builder::new()
        .prefix(&format!("ipam-agent-demo-{name}-"))
        .tempdir_in(disks()?)?;
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            let mut lab = Lab::enter(disk.path())?;
            tale(story, &mut lab)
        });
        host.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where the hosts' disks are kept: beside the programs, not in a directory for temporary
/// files, which may be in memory and would not survive a power cut.
fn disks() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.parent()
        .map(std::path::Path::to_owned)
        .context("this program is in no directory")
}
