//! What metrics are made of: numbers by names, of bounded size whatever the network does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipam_common::{Address, Mac};
use ipnet::IpNet;

pub use super::census::PoolCount;
use super::{
    Engine,
    conflict::{Conflict, Kind, Severity},
    lease::StoreName,
    plan::Reason,
    segment::Segment,
    time::Timestamp,
};

/// How many segments are told apart, by name; the rest is one.
pub const MAX_SEGMENTS: usize = 256;
/// How many pools are told apart; the rest is one.
pub const MAX_POOLS: usize = 256;
/// How many segments are asked since when they are watched: VLANs of one name are many.
const MAX_COVERAGE: usize = 1024;
/// How many MACs of one conflict are named.
const MAX_MACS: usize = 8;

/// The name of all that is not told apart.
pub const OTHER: &str = "other";

/// Numbers as they are now; of leases, as they were at the last pass or change.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// By the segment's name: all its VLANs together.
    pub segments: BTreeMap<Arc<str>, SegmentGauges>,
    /// How many names of segments are in [`OTHER`].
    pub segments_left_out: u64,
    /// By store and prefix; `None`: in none of the store's pools.
    pub pools: BTreeMap<(StoreName, Option<IpNet>), PoolCount>,
    /// How many pools are in [`OTHER`].
    pub pools_left_out: u64,
    /// Leases kept from being released unasked.
    pub blocked: BTreeMap<(StoreName, Reason), u64>,
    /// Active conflicts.
    pub severities: BTreeMap<(Kind, Severity), u64>,
    /// The worst and oldest conflicts.
    pub conflicts: Vec<ConflictGauge>,
    /// How many active ones are not among them.
    pub conflicts_left_out: u64,
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentGauges {
    /// How many addresses were heard.
    pub observed: u64,
    /// For how long it has been watched without a gap: of its VLANs, the shortest. `None`:
    /// nothing of it is to be watched.
    pub covered: Option<Duration>,
    /// Active conflicts.
    pub conflicts: BTreeMap<Kind, u64>,
}

/// One active conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictGauge {
    /// What is wrong.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub segment: Segment,
    /// The address.
    pub address: Address,
    /// Whose; of many, some.
    pub macs: Vec<Mac>,
}

impl Engine {
    /// The numbers, with at most `most` conflicts by address.
    pub fn gauges(&self, most: usize, now: Timestamp) -> Gauges {
        let mut gauges = Gauges::default();
        let mut segments: BTreeMap<Arc<str>, SegmentGauges> = BTreeMap::new();
        let watched = self.topology.segments();
        for (at, segment) in watched.iter().enumerate() {
            let of = segments.entry(Arc::clone(&segment.name)).or_default();
            if at < MAX_COVERAGE {
                let since = self.covered_since(segment, now);
                let covered = since.map_or(Duration::ZERO, |since| now.since(since));
                of.covered = Some(of.covered.map_or(covered, |other| other.min(covered)));
            }
        }
        let mut heard: Vec<u64> = Vec::new();
        let mut conflicts: Vec<(&Segment, Address, &Conflict)> = Vec::new();
        for ((id, address), entry) in self.table.iter() {
            let index = id.index();
            if index >= heard.len() {
                heard.resize(index + 1, 0);
            }
            heard[index] += 1;
            let contest = entry.contest.as_deref();
            if let Some(conflict) = contest.and_then(|contest| contest.conflict.as_ref()) {
                conflicts.push((self.table.segment(id), address, conflict));
            }
        }
        for (segment, id) in self.table.segments() {
            let of = segments.entry(Arc::clone(&segment.name)).or_default();
            of.observed += heard.get(id.index()).copied().unwrap_or(0);
        }
        let tracks = self.stations.tracks();
        conflicts.extend(tracks.filter_map(|(id, track)| {
            let conflict = track.conflict.as_ref()?;
            Some((self.table.segment(id.0), track.address, conflict))
        }));
        conflicts.extend(self.twice.iter());
        conflicts.retain(|(_, _, conflict)| conflict.is_active());
        for (segment, _, conflict) in &conflicts {
            let kind = conflict.verdict.kind();
            let of = segments.entry(Arc::clone(&segment.name)).or_default();
            *of.conflicts.entry(kind).or_default() += 1;
            let severity = (kind, conflict.severity);
            *gauges.severities.entry(severity).or_default() += 1;
        }
        gauges.conflicts_left_out = conflicts.len().saturating_sub(most) as u64;
        // The worst first, then the oldest: those that are told of stay the same ones.
        let order = |&(segment, address, conflict): &(&Segment, Address, &Conflict)| {
            let severity = std::cmp::Reverse(conflict.severity);
            (severity, conflict.first_seen, address, segment.clone())
        };
        if conflicts.len() > most && most > 0 {
            conflicts.select_nth_unstable_by_key(most - 1, order);
        }
        conflicts.truncate(most);
        conflicts.sort_by_key(order);
        let told = conflicts.into_iter().map(|(segment, address, conflict)| {
            let macs = conflict.verdict.macs().iter().take(MAX_MACS);
            ConflictGauge {
                kind: conflict.verdict.kind(),
                severity: conflict.severity,
                segment: segment.clone(),
                address,
                macs: macs.copied().collect(),
            }
        });
        gauges.conflicts = told.collect();
        (gauges.segments, gauges.segments_left_out) = bounded_segments(segments);
        self.leases_into(&mut gauges);
        gauges
    }

    fn leases_into(&self, gauges: &mut Gauges) {
        for (store, pools) in &self.census.pools {
            for (prefix, count) in pools {
                let mut key = (store.clone(), *prefix);
                if gauges.pools.len() >= MAX_POOLS {
                    gauges.pools_left_out += 1;
                    key = (StoreName(OTHER.into()), None);
                }
                gauges.pools.entry(key).or_default().merge(count);
            }
        }
        for (at, (store, reasons)) in self.census.blocked.iter().enumerate() {
            let store = match at < MAX_POOLS {
                true => store.clone(),
                false => StoreName(OTHER.into()),
            };
            for (reason, count) in reasons {
                let key = (store.clone(), *reason);
                *gauges.blocked.entry(key).or_default() += count;
            }
        }
    }
}

/// The first so many, those that are to be watched before others; the rest as one.
fn bounded_segments(
    segments: BTreeMap<Arc<str>, SegmentGauges>,
) -> (BTreeMap<Arc<str>, SegmentGauges>, u64) {
    if segments.len() <= MAX_SEGMENTS {
        return (segments, 0);
    }
    let mut bounded = BTreeMap::new();
    let mut rest = SegmentGauges::default();
    let mut left_out = 0;
    let (watched, heard): (Vec<_>, Vec<_>) =
        { segments.into_iter() }.partition(|(_, segment)| segment.covered.is_some());
    for (name, segment) in watched.into_iter().chain(heard) {
        if bounded.len() < MAX_SEGMENTS {
            bounded.insert(name, segment);
            continue;
        }
        left_out += 1;
        rest.observed += segment.observed;
        rest.covered = [rest.covered, segment.covered].into_iter().flatten().min();
        for (kind, count) in segment.conflicts {
            *rest.conflicts.entry(kind).or_default() += count;
        }
    }
    bounded.insert(OTHER.into(), rest);
    (bounded, left_out)
}
