//! What each panel lists, line by line.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::report::{
    ago, clean,
    document::{
        AddressRecord, ConflictRecord, ConflictState, LeaseRecord, LeaseState, Overview, PoolUse,
        RecentRelease, SegmentRecord, Severity,
    },
};

/// How much attention something wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Warning,
    Bad,
}

/// What Enter opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The story of an address.
    Story(IpAddr),
    /// Who is on a segment.
    Segment(String),
    /// The leases of a store.
    Store(String),
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The same as long as it is about the same thing.
    pub key: String,
    pub cells: Vec<String>,
    pub tone: Tone,
    pub target: Target,
}

impl Row {
    fn new(key: String, cells: Vec<String>, tone: Tone, target: Target) -> Self {
        let cells = cells.into_iter();
        let cells = cells.map(|cell| clean(&cell).into_owned());
        Self {
            key,
            cells: cells.collect(),
            tone,
            target,
        }
    }

    /// Whether it has the text in it, in whatever case.
    pub fn has(&self, lower_case: &str) -> bool {
        let mut cells = self.cells.iter();
        cells.any(|cell| cell.to_lowercase().contains(lower_case))
    }
}

/// The parts of the screen, in the order in which Tab goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Conflicts,
    Segments,
    Pools,
    Releases,
}

impl Panel {
    pub const ALL: [Self; 4] = [Self::Conflicts, Self::Segments, Self::Pools, Self::Releases];

    pub fn title(self) -> &'static str {
        match self {
            Self::Conflicts => "Conflicts",
            Self::Segments => "Segments",
            Self::Pools => "Pools",
            Self::Releases => "Given back in 24 h",
        }
    }

    /// The columns, each with the most that it may be wide; 0: what is left.
    pub fn columns(self) -> &'static [(&'static str, u16)] {
        match self {
            Self::Conflicts => &[
                ("SEVERITY", 8),
                ("KIND", 17),
                ("ADDRESS", 39),
                ("SEGMENT", 24),
                ("HEARD", 10),
                ("WHO", 0),
            ],
            Self::Segments => &[
                ("SEGMENT", 24),
                ("WATCHED SINCE", 20),
                ("PORTS", 6),
                ("LOST", 12),
                ("INTERFACES", 0),
            ],
            Self::Pools => &[
                ("POOL", 40),
                ("PREFIX", 24),
                ("FREE", 14),
                ("", 12),
                ("LEASES", 0),
            ],
            Self::Releases => &[
                ("WHEN", 20),
                ("ADDRESS", 39),
                ("WHO HAD IT", 40),
                ("ID", 12),
                ("POOL", 0),
            ],
        }
    }

    /// What is said in place of a list.
    pub fn empty(self) -> &'static str {
        match self {
            Self::Conflicts => "none",
            Self::Segments => "nothing is watched",
            Self::Pools => "no leases",
            Self::Releases => "nothing",
        }
    }

    /// How many lines it has.
    pub fn length(self, overview: &Overview) -> usize {
        match self {
            Self::Conflicts => overview.conflicts.len(),
            Self::Segments => overview.segments.len(),
            Self::Pools => overview.pools.len(),
            Self::Releases => overview.releases.len(),
        }
    }

    /// One of them.
    pub fn row(self, overview: &Overview, index: usize, now: Timestamp) -> Option<Row> {
        match self {
            Self::Conflicts => overview.conflicts.get(index).map(|it| conflict(it, now)),
            Self::Segments => overview.segments.get(index).map(|it| segment(it, now)),
            Self::Pools => overview.pools.get(index).map(pool),
            Self::Releases => overview.releases.get(index).map(|it| release(it, now)),
        }
    }
}

fn conflict(conflict: &ConflictRecord, now: Timestamp) -> Row {
    let (standing, tone) = match (conflict.state, conflict.severity) {
        (ConflictState::Resolved, _) => ("resolved", Tone::Dim),
        (_, Severity::Critical) => ("critical", Tone::Bad),
        (_, Severity::Warning) => ("warning", Tone::Warning),
        (_, Severity::Info) => ("info", Tone::Plain),
    };
    let who = conflict.claims.iter().map(|claim| match &claim.interface {
        Some(interface) => format!("{} ({interface})", claim.mac),
        None => claim.mac.to_string(),
    });
    let who: Vec<String> = who.collect();
    let cells = vec![
        standing.to_owned(),
        conflict.kind.name().to_owned(),
        conflict.address.to_string(),
        conflict.segment.to_string(),
        ago(now, conflict.last_seen),
        who.join(", "),
    ];
    let target = Target::Story(conflict.address);
    Row::new(conflict.id.clone(), cells, tone, target)
}

fn segment(record: &SegmentRecord, now: Timestamp) -> Row {
    let (since, tone) = match (record.watched_since, record.complete) {
        (Some(since), true) => (ago(now, since), Tone::Plain),
        (None, true) => ("not yet".to_owned(), Tone::Warning),
        (_, false) => ("not whole".to_owned(), Tone::Warning),
    };
    let name = record.segment.to_string();
    let cells = vec![
        name.clone(),
        since,
        record.interfaces.len().to_string(),
        record.lost.to_string(),
        record.interfaces.join(", "),
    ];
    Row::new(name.clone(), cells, tone, Target::Segment(name))
}

fn pool(pool: &PoolUse) -> Row {
    let states = pool.leases.iter().filter(|&(_, number)| number > 0);
    let states: Vec<String> = states
        .map(|(state, number)| format!("{number} {state}"))
        .collect();
    let tone = match (pool.free, pool.leases.stale) {
        (Some(0), _) => Tone::Bad,
        (_, 0) => Tone::Plain,
        _ => Tone::Warning,
    };
    let cells = vec![
        pool.store.clone(),
        pool.prefix.clone().unwrap_or_else(|| "in none".to_owned()),
        match (pool.free, pool.addresses) {
            (Some(free), Some(all)) => format!("{free} of {all}"),
            _ => String::new(),
        },
        bar(pool, 12),
        states.join(", "),
    ];
    let target = Target::Store(pool.store.clone());
    let key = format!("{} {}", pool.store, cells[1]);
    Row::new(key, cells, tone, target)
}

/// A pool's addresses as a bar: what lives, what is in doubt, what is stale, what is set
/// apart, what is free. Whatever there is of has a cell of its own.
fn bar(pool: &PoolUse, width: usize) -> String {
    let leases = pool.leases;
    let parts = [
        ('█', leases.active),
        ('▒', leases.quiet + leases.unknown),
        ('░', leases.stale),
        ('·', leases.quarantined + leases.released + leases.fenced),
        ('_', pool.free.unwrap_or(0)),
    ];
    let parts = parts.map(|(sign, number)| (sign, u128::from(number)));
    let total: u128 = parts.iter().map(|part| part.1).sum();
    let present = parts.iter().filter(|part| part.1 > 0).count();
    let spare = width.saturating_sub(present) as u128;
    let mut bar = String::new();
    let mut before = 0;
    for (sign, number) in parts.into_iter().filter(|part| part.1 > 0) {
        // Cells in proportion, so that all of them together fill it.
        let until = (before + number) * spare / total;
        let cells = 1 + until - before * spare / total;
        before += number;
        bar.extend((0..cells).map(|_| sign));
    }
    bar
}

fn release(release: &RecentRelease, now: Timestamp) -> Row {
    let cells = vec![
        ago(now, release.released_at),
        release.address.to_string(),
        release.holder.to_string(),
        release.id.clone(),
        release.store.clone(),
    ];
    let target = Target::Story(release.address);
    Row::new(release.id.clone(), cells, Tone::Plain, target)
}

/// The columns of a pool's leases.
pub(super) const LEASES: &[(&str, u16)] = &[
    ("ADDRESS", 39),
    ("STATE", 11),
    ("HEARD", 20),
    ("HOLDER", 40),
    ("WHY", 0),
];

pub(super) fn lease(record: &LeaseRecord, now: Timestamp) -> Row {
    let lease = &record.lease;
    let tone = match lease.state {
        LeaseState::Active => Tone::Good,
        LeaseState::Stale => Tone::Warning,
        LeaseState::Unknown | LeaseState::Released | LeaseState::Quarantined => Tone::Dim,
        LeaseState::Quiet | LeaseState::Fenced => Tone::Plain,
    };
    let heard = record.last_heard.map(|at| ago(now, at));
    let cells = vec![
        lease.address.to_string(),
        lease.state.name().to_owned(),
        heard.unwrap_or_else(|| "never".to_owned()),
        lease.holder.to_string(),
        record.reason.clone(),
    ];
    let target = Target::Story(lease.address);
    Row::new(lease.address.to_string(), cells, tone, target)
}

/// The columns of a segment's addresses.
pub(super) const ADDRESSES: &[(&str, u16)] = &[
    ("ADDRESS", 39),
    ("MAC", 17),
    ("INTERFACE", 15),
    ("HEARD", 20),
    ("LEASED TO", 0),
];

pub(super) fn address(record: &AddressRecord, now: Timestamp) -> Row {
    let leased = record.leases.first();
    let cells = vec![
        record.address.to_string(),
        record.claim.mac.to_string(),
        record.claim.interface.clone().unwrap_or_default(),
        ago(now, record.claim.last_seen),
        leased.map_or_else(|| "nobody".to_owned(), |lease| lease.holder.to_string()),
    ];
    let key = format!("{} {}", record.address, record.claim.mac);
    Row::new(key, cells, Tone::Plain, Target::Story(record.address))
}
