//! Whether the daemon is ready, without being swayed by every veth that comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Daemon;
use crate::{
    driver::clock,
    engine::{
        segment::{PortKind, Segment, Topology},
        time::Timestamp,
    },
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
        let wrong = self.wrong(clock::now());
        let names = wrong.iter().map(|(name, _)| name.as_str());
        self.readiness.look(names, clock::now());
    }

    pub(super) fn health(&mut self) -> Health {
        self.look_at_health();
        let now = clock::now();
        let (counting, passing): (Vec<_>, Vec<_>) =
            { self.wrong(now).into_iter() }.partition(|(name, _)| self.readiness.counts(name, now));
        let engine = &self.observer.engine;
        let passing = passing.into_iter().map(|(_, what)| what);
        let missing = self.observer.missing().count();
        Health {
            up: now.since(self.metering.started),
            watched: self.observer.wanted().len().saturating_sub(missing),
            pass_age: engine.last_pass().at.map(|at| now.since(at)),
            problems: counting.into_iter().map(|(_, what)| what).collect(),
            notes: { passing.chain(self.reloading.problem().map(str::to_owned)) }
                .chain(self.unlit(now))
                .take(MOST_NOTES)
                .collect(),
        }
    }

    /// What is wrong: its name, and it in words.
    fn wrong(&self, now: Timestamp) -> Vec<(String, String)> {
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
        let engine = &self.observer.engine;
        for segment in engine.segments() {
            // A port that isn't attached to is told of already, in the same words.
            if let Err(why) = engine.covered_since(&segment, now)
                && !is_unlit(engine.topology(), &segment)
                && !wrong.iter().any(|(_, told)| *told == why)
            {
                let told = format!("{segment} is not wholly watched: {why}");
                wrong.push((told.clone(), told));
            }
        }
        wrong.truncate(MOST_NOTES);
        wrong
    }

    /// What keeps segments from being watched whole and is nothing that the agent could have.
    fn unlit(&self, now: Timestamp) -> impl Iterator<Item = String> {
        let engine = &self.observer.engine;
        let segments = engine.segments().into_iter();
        segments
            .filter(|segment| is_unlit(engine.topology(), segment))
            .filter_map(move |segment| {
                let why = engine.covered_since(&segment, now).err()?;
                Some(format!("{segment} is not wholly watched: {why}"))
            })
    }
}

/// How much is told at once.
const MOST_NOTES: usize = 32;

/// Whether a port of the segment has no carrier, as an unused bond or a loose cable, and none is
/// left out. That keeps leases, and makes no host unready: nobody is there to be heard.
fn is_unlit(topology: &Topology, segment: &Segment) -> bool {
    let all_wanted = topology.ports_of(segment).all(|(_, port)| port.wanted);
    let mut ports = topology.ports_of(segment);
    all_wanted && ports.any(|(_, port)| port.kind != PortKind::Veth && !(port.up && port.carrier))
}

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
