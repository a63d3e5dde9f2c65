//! Whether the daemon is ready, without being swayed by every veth that comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Daemon;
use crate::{
    driver::clock,
    engine::{coverage::Unwatched, time::Timestamp},
    serve::health::Health,
};

/// Once it was ready, what is wrong has to last for so long to count: a port is attached to
/// in milliseconds, a store that is being written is read again at once.
const GRACE: Duration = Duration::from_secs(30);
/// Without a pass for so many intervals, and so long, the daemon doesn't judge.
const MISSED_PASSES: u32 = 10;
const LONGEST_PASS: Duration = Duration::from_secs(300);

/// What is wrong, and since when.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    since: BTreeMap<String, Timestamp>,
    was_ready: bool,
}

impl Readiness {
    /// This is wrong now, each named by what it is about.
    fn look<'a>(&mut self, wrong: impl Iterator<Item = &'a str>, now: Timestamp) {
        let wrong: BTreeSet<&str> = wrong.collect();
        self.since.retain(|what, _| wrong.contains(what.as_str()));
        for what in wrong {
            if !self.since.contains_key(what) {
                self.since.insert(what.to_owned(), now);
            }
        }
        self.was_ready |= self.since.is_empty();
    }

    /// Whether this has been wrong for long enough to count.
    fn counts(&self, what: &str, now: Timestamp) -> bool {
        let since = self.since.get(what).copied().unwrap_or(now);
        !self.was_ready || now.since(since) >= GRACE
    }
}

impl Daemon {
    /// Looks at what is wrong now.
    pub(super) fn look_at_health(&mut self) {
        let now = clock::now();
        let (wrong, _) = self.wrong(now);
        self.readiness.look(names(&wrong), now);
    }

    pub(super) fn health(&mut self) -> Health {
        let now = clock::now();
        let (wrong, dark) = self.wrong(now);
        self.readiness.look(names(&wrong), now);
        let (counting, passing): (Vec<_>, Vec<_>) =
            { wrong.into_iter() }.partition(|(name, _)| self.readiness.counts(name, now));
        let engine = &self.observer.engine;
        let passing = passing.into_iter().map(|(_, what)| what);
        let missing = self.observer.missing().count();
        let down = engine.last_pass().down.iter();
        let down =
            down.map(|(source, why)| format!("nothing is released: {}: {why}", source.name()));
        Health {
            up: now.since(self.metering.started),
            watched: self.observer.wanted().len().saturating_sub(missing),
            pass_age: engine.last_pass().at.map(|at| now.since(at)),
            problems: counting.into_iter().map(|(_, what)| what).collect(),
            notes: { passing.chain(self.state_problem.clone()) }
                .chain(down)
                .chain(self.reloading.problem().map(str::to_owned))
                .chain(dark)
                .take(MOST_NOTES)
                .collect(),
        }
    }

    /// What is wrong: its name, and it in words; and apart from that which segments only lack a
    /// carrier.
    fn wrong(&self, now: Timestamp) -> (Vec<(String, String)>, Vec<String>) {
        let mut wrong = Vec::new();
        for (port, why) in self.observer.missing() {
            let why = if why.is_empty() {
                "not attached yet"
            } else {
                why
            };
            wrong.push((
                format!("port {port}"),
                format!("{port} isn't watched: {why}"),
            ));
        }
        for (store, why) in self.observer.engine.leases().unread() {
            wrong.push(match store {
                Some(name) => (
                    format!("store {name}"),
                    format!("{name} can't be read: {why}"),
                ),
                None => (
                    format!("source {why}"),
                    format!("leases can't be read: {why}"),
                ),
            });
        }
        let latest = LONGEST_PASS.max(self.metering.pass_interval * MISSED_PASSES);
        match self.observer.engine.last_pass().at {
            None => wrong.push((
                String::from("pass"),
                String::from("no pass over the leases was completed yet"),
            )),
            Some(at) if now.since(at) > latest => wrong.push((
                String::from("pass"),
                format!(
                    "no pass over the leases was completed for {} s: a store or a container \
                     runtime hangs; restart the agent if it goes on",
                    now.since(at).as_secs()
                ),
            )),
            Some(_) => {}
        }
        let (blind, dark) = self.unwatched(now);
        wrong.extend(blind.into_iter().map(|told| (told.clone(), told)));
        wrong.truncate(MOST_NOTES);
        (wrong, dark)
    }

    /// The segments that aren't watched whole, but for those of a port that is told of as
    /// missing; and apart from them those that only lack a carrier. That keeps leases, and makes
    /// no host unready: nobody is there to be heard.
    fn unwatched(&self, now: Timestamp) -> (Vec<String>, Vec<String>) {
        let (mut blind, mut dark) = (Vec::new(), Vec::new());
        let engine = &self.observer.engine;
        for segment in engine.known_segments().into_iter().take(MOST_SEGMENTS) {
            if blind.len() >= MOST_NOTES {
                break;
            }
            let Err(why) = engine.covered_since(&segment, now) else {
                continue;
            };
            let told = match &why {
                Unwatched::Dark { .. } => &mut dark,
                Unwatched::Blind { port, .. }
                    if self
                        .observer
                        .missing()
                        .any(|(missing, _)| *missing == **port) =>
                {
                    continue;
                }
                Unwatched::Blind { .. } | Unwatched::LinksUnknown => &mut blind,
            };
            told.push(format!("{segment} is not wholly watched: {why}"));
        }
        (blind, dark)
    }
}

fn names(wrong: &[(String, String)]) -> impl Iterator<Item = &str> {
    wrong.iter().map(|(name, _)| name.as_str())
}

/// How much is told at once.
const MOST_NOTES: usize = 32;
/// How many segments are looked at: VLANs of one name are many.
const MOST_SEGMENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    #[test]
    fn at_the_start_everything_counts_later_only_what_lasts() {
        let mut readiness = Readiness::default();
        readiness.look(["pass"].into_iter(), at(1));
        assert!(readiness.counts("pass", at(1)), "not ready yet");
        readiness.look([].into_iter(), at(2));
        readiness.look(["port veth1"].into_iter(), at(10));
        assert!(!readiness.counts("port veth1", at(39)));
        readiness.look(["port veth1", "port veth2"].into_iter(), at(39));
        assert!(readiness.counts("port veth1", at(40)));
        assert!(!readiness.counts("port veth2", at(41)));
        readiness.look(["port veth2"].into_iter(), at(42));
        readiness.look(["port veth1"].into_iter(), at(43));
        assert!(!readiness.counts("port veth1", at(44)), "it had been well");
    }
}
