//! From the engine's state to documents: names instead of numbers, wall time instead of
//! the engine's.

mod conflicts;
mod explain;
mod history;
mod leases;
mod plan;
mod pools;
mod story;
mod watch;

use std::sync::Arc;

use jiff::Timestamp as WallTime;

use super::document::{
    ConflictRecord, HolderName, LeaseCounts, Report, SegmentName, SegmentRecord, Segments, Summary,
};
use crate::engine::{Engine, lease::Holder, segment::Segment, time::Timestamp};

pub use self::{
    conflicts::sort_conflicts,
    history::{history, history_entry, holder_of},
    pools::{Charts, Overview, Survey, ip, number},
};

/// When the engine's clock began, in wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock<'a> {
    /// Nanoseconds since 1970.
    pub began: i128,
    /// Where the wall clock was set back: from when on the engine's is ahead of it by so many
    /// nanoseconds, in the order of time.
    pub set_back: &'a [(Timestamp, u64)],
    /// The first time there is: what was before has none of its own, and is told as of then.
    pub first: Timestamp,
}

impl WallClock<'_> {
    /// One that nobody set.
    pub const fn since(began: i128) -> Self {
        Self {
            began,
            set_back: &[],
            first: Timestamp(0),
        }
    }

    /// The wall time of an engine's time.
    pub fn at(self, at: Timestamp) -> WallTime {
        let at = at.max(self.first);
        let before = self.set_back.iter().rev().find(|(since, _)| *since <= at);
        let ahead = before.map_or(0, |&(_, ahead)| i128::from(ahead));
        let wall = self.began + i128::from(at.0) - ahead;
        WallTime::from_nanosecond(wall).unwrap_or(WallTime::MAX)
    }
}

/// Makes documents of the engine's state.
pub struct Composer<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Its clock.
    pub clock: WallClock<'a>,
    /// Now, on its clock.
    pub now: Timestamp,
    /// The host's name.
    pub host: &'a str,
    /// The kernel's boot id; `None` in a replay.
    pub boot: Option<&'a str>,
    /// Why the agent couldn't look at all, beyond what the engine knows.
    pub blind: &'a [String],
}

impl Composer<'_> {
    /// What is wrong.
    pub fn report(&self) -> Report {
        let mut conflicts: Vec<ConflictRecord> = self
            .engine
            .conflicts()
            .map(|case| self.conflict(case))
            .collect();
        sort_conflicts(&mut conflicts);
        self.report_of(Summary::of(&conflicts), conflicts, self.lease_counts())
    }

    fn report_of(
        &self,
        summary: Summary,
        conflicts: Vec<ConflictRecord>,
        leases: LeaseCounts,
    ) -> Report {
        Report {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            boot_id: self.boot.map(str::to_owned),
            blind: self.blind(),
            segments: self.segment_records(),
            summary,
            conflicts,
            events: self.events(|_| true),
            leases,
            captures: Vec::new(),
        }
    }

    /// What is watched.
    pub fn segments(&self) -> Segments {
        Segments {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            segments: self.segment_records(),
        }
    }

    fn segment_records(&self) -> Vec<SegmentRecord> {
        let topology = self.engine.topology();
        let counts = self.engine.counts();
        self.engine
            .segments()
            .iter()
            .map(|segment| {
                let since = self.engine.covered_since(segment, self.now);
                SegmentRecord {
                    segment: segment_name(segment),
                    complete: since.is_ok(),
                    watched_since: since.ok().map(|at| self.clock.at(at)),
                    lost: counts.lost.saturating_add(counts.unsegmented),
                    evicted: counts.evicted,
                    interfaces: {
                        let ports = topology.ports_of(segment);
                        let watched = ports.filter(|(_, port)| port.wanted);
                        let mut names: Vec<String> =
                            watched.map(|(_, port)| port.name.to_string()).collect();
                        names.sort();
                        names
                    },
                }
            })
            .collect()
    }

    /// Why the agent could not look everywhere.
    fn blind(&self) -> Vec<String> {
        let mut blind = self.blind.to_vec();
        for segment in self.engine.segments() {
            if let Err(why) = self.engine.covered_since(&segment, self.now) {
                blind.push(format!("{segment}: {why}"));
            }
        }
        blind.extend(self.stores_down());
        blind.dedup();
        blind
    }

    /// To whom a lease was given, with the pod's name from whoever knows it.
    fn holder_name(&self, holder: &Holder) -> HolderName {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let id = holder.container_id.as_deref();
        let sandboxes = &self.engine.last_pass().sandboxes;
        let pod = || {
            id.and_then(|id| sandboxes.pod(id))
                .map(|pod| pod.to_string())
        };
        HolderName {
            container_id: text(&holder.container_id),
            interface: text(&holder.interface),
            pod: text(&holder.pod).or_else(pod),
            mac: holder.mac.map(Into::into),
            host_interface: text(&holder.host_interface),
        }
    }

    fn stores_down(&self) -> Vec<String> {
        let unread = self.engine.leases().unread();
        let told = unread.map(|(store, why)| match store {
            Some(store) => format!("{store}: {why}"),
            None => why.to_owned(),
        });
        told.collect()
    }
}

fn segment_name(segment: &Segment) -> SegmentName {
    SegmentName {
        name: segment.name.to_string(),
        vlan: segment.vlan,
        outer_vlan: segment.outer_vlan,
    }
}

#[cfg(test)]
mod tests;
