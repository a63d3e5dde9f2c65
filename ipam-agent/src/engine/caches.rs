//! Dead entries of CNI's caches: files that a power cut left empty or cut off, so that the
//! DEL of their container fails for ever, or frees nothing. Which of them may be removed,
//! and what keeps the others.
//!
//! A cache has no address and no wire, so of a lease's proof there remains: nobody holds the
//! container, by a source that knows containers by their ids; the agent has seen the entry
//! unchanged for the gate of damaged leases, within which every ADD is finished; and two
//! passes agree.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use super::{
    Engine,
    evidence::Source,
    input::Command,
    lease::{Damage, Generation},
    plan::{Blocker, Reason},
    reclaim::{PassFacts, ReclaimSettings, of},
    time::Timestamp,
};

/// A cache's entry that can't be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEntry {
    /// The file.
    pub path: Arc<Path>,
    /// What is wrong with it.
    pub damage: Damage,
    /// What its removal takes, or why it is never removed.
    pub subject: Result<Subject, &'static str>,
}

/// Whose an entry is, and which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The container's id, by the file's name.
    pub container: Arc<str>,
    /// The file as it was read.
    pub generation: Generation,
}

/// One removal: an entry exactly as it was judged, and the proof. Only [`Engine`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    path: Arc<Path>,
    damage: Damage,
    subject: Subject,
    gate: Duration,
    unchanged_for: Duration,
    sources: Vec<&'static str>,
}

impl Removal {
    /// The file.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// What is wrong with it.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Whose it is, and what must still be there.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// For how long it had to be seen unchanged.
    pub fn gate(&self) -> Duration {
        self.gate
    }

    /// For how long the agent has seen it unchanged.
    pub fn unchanged_for(&self) -> Duration {
        self.unchanged_for
    }

    /// The sources that were asked and know no holder.
    pub fn sources(&self) -> &[&'static str] {
        &self.sources
    }

    /// A removal without the proof, for tests of what carries it out.
    #[cfg(test)]
    pub(crate) fn for_test(entry: DeadEntry) -> Option<Self> {
        Some(Self {
            path: entry.path,
            damage: entry.damage,
            subject: entry.subject.ok()?,
            gate: Duration::from_secs(1800),
            unchanged_for: Duration::from_secs(1860),
            sources: vec!["cri"],
        })
    }
}

/// What became of one removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// Which.
    pub removal: Removal,
    /// Done, or why not.
    pub result: Result<(), NotRemoved>,
}

/// Why an entry is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRemoved {
    /// Something was found at the last moment.
    Kept(Blocker),
    /// The cache or the journal failed; in words.
    Failed(String),
}

/// The dead entries that are known, by path.
#[derive(Debug, Default)]
pub(super) struct Caches {
    known: BTreeMap<Arc<Path>, Known>,
    /// Some are being removed.
    removing: bool,
}

#[derive(Debug)]
struct Known {
    entry: DeadEntry,
    /// Since when it has been seen as it is, or since it was last tried to be removed.
    since: Timestamp,
    /// How many passes in a row found nothing against its removal.
    passes: u8,
}

impl Engine {
    /// The caches were read; what isn't named is not dead, or not there.
    pub(super) fn dead_entries(&mut self, found: Vec<DeadEntry>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.caches.known);
        let known = found.into_iter().map(|entry| {
            let same = before.remove(&entry.path);
            let same = same.filter(|known| known.entry == entry);
            let known = |entry: DeadEntry| Known {
                entry,
                since: now,
                passes: 0,
            };
            (
                Arc::clone(&entry.path),
                same.unwrap_or_else(|| known(entry)),
            )
        });
        self.caches.known = known.collect();
    }

    /// Counts the passes that agree, and has removed what is due.
    pub(super) fn clean_caches(&mut self, now: Timestamp) {
        let (pass, settings) = (&self.pass, &self.settings.reclaim);
        for known in self.caches.known.values_mut() {
            let clear = known.blockers(pass, settings, now).is_empty();
            known.passes = if clear {
                known.passes.saturating_add(1)
            } else {
                0
            };
        }
        if self.caches.removing {
            return;
        }
        let due = self.caches.known.values();
        let due = due.filter(|known| known.passes >= 2);
        let due = due.filter_map(|known| {
            Some(Removal {
                path: Arc::clone(&known.entry.path),
                damage: known.entry.damage,
                subject: known.entry.subject.clone().ok()?,
                gate: settings.damaged_gate,
                unchanged_for: now.since(known.since),
                sources: pass.sources.iter().map(|source| source.name()).collect(),
            })
        });
        let due: Vec<Removal> = due.take(settings.max_per_pass).collect();
        if !due.is_empty() {
            self.caches.removing = true;
            self.commands.push_back(Command::Clean(due));
        }
    }

    /// What became of removals. What stays waits for as long as at first.
    pub(super) fn cleaned(&mut self, cleaned: &[Cleaned], now: Timestamp) {
        self.caches.removing = false;
        for Cleaned { removal, result } in cleaned {
            match (self.caches.known.get_mut(&removal.path), result) {
                (None, _) => {}
                (Some(_), Ok(())) => drop(self.caches.known.remove(&removal.path)),
                (Some(known), Err(_)) => (known.since, known.passes) = (now, 0),
            }
        }
    }

    /// The dead entries, by path, each with what stands against its removal; nothing does if
    /// it is about to go.
    pub fn dead_caches(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (&DeadEntry, Vec<Blocker>)> + use<'_> {
        let (pass, settings) = (&self.pass, &self.settings.reclaim);
        let mut due = 0;
        self.caches.known.values().map(move |known| {
            let mut blockers = known.blockers(pass, settings, now);
            let next = pass.at.map(|at| at + settings.pass_interval);
            let mut block = |reason, detail: String, until| {
                blockers.push(Blocker {
                    reason,
                    detail,
                    until,
                });
            };
            if known.entry.subject.is_ok() && known.passes < 2 {
                block(
                    Reason::SecondPass,
                    format!("{} of 2 passes agree", known.passes),
                    next.filter(|_| known.passes == 1),
                );
            } else if known.passes >= 2 {
                due += 1;
                if due > settings.max_per_pass {
                    let most = settings.max_per_pass;
                    let detail = format!("a pass removes no more than {most} entries");
                    block(Reason::Budget, detail, next);
                }
            }
            (&known.entry, blockers)
        })
    }
}

impl Known {
    /// What stands against its removal, but for the count of passes.
    fn blockers(
        &self,
        pass: &PassFacts,
        settings: &ReclaimSettings,
        now: Timestamp,
    ) -> Vec<Blocker> {
        let subject = match &self.entry.subject {
            Ok(subject) => subject,
            Err(why) => return vec![Blocker::new(Reason::Kept, *why)],
        };
        let mut blockers = Vec::new();
        let mut block = |reason, detail: String| blockers.push(Blocker::new(reason, detail));
        if let Some(paused) = &pass.paused {
            block(Reason::Mode, paused.clone());
        }
        if let Some(why) = &pass.state {
            block(Reason::StateNotPersistent, why.clone());
        }
        let asked = pass.sources.contains(&Source::Cri)
            || pass.down.iter().any(|(source, _)| *source == Source::Cri);
        if pass.at.is_none() {
            let why = "no source of holders was asked yet";
            block(Reason::SourceDown, why.into());
        } else if !asked {
            block(Reason::SourceDown, NOBODY_KNOWS_IDS.into());
        }
        for (source, why) in &pass.down {
            block(Reason::SourceDown, format!("{}: {why}", source.name()));
        }
        blockers.extend(pass.sandboxes.doubt(settings.damaged_gate, now));
        blockers.extend(pass.sandboxes.holder_of(&subject.container, now));
        let unchanged = now.since(self.since);
        if unchanged < settings.damaged_gate {
            blockers.push(Blocker {
                reason: Reason::Age,
                detail: format!(
                    "seen unchanged for {}",
                    of(unchanged, settings.damaged_gate)
                ),
                until: Some(self.since + settings.damaged_gate),
            });
        }
        blockers
    }
}

/// Why nothing is removed without a container runtime to ask.
pub const NOBODY_KNOWS_IDS: &str =
    "holders.cri is off, and no other source knows containers by their ids";

#[cfg(test)]
mod tests;
