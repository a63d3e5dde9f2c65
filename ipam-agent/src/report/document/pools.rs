//! What stores hand out, how full it is, and what is at each address.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EventRecord, LeaseCounts, LeaseState, PausedRecord, SegmentName, schema};
use crate::engine::lease::Mode;

schema!(PoolsSchema, "ipam-agent/pools/v1");
schema!(EventsSchema, "ipam-agent/events/v1");

/// What happened that is no conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventList {
    /// Which document this is.
    pub schema: EventsSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// The last 4096, in order of time.
    pub events: Vec<EventRecord>,
}

/// What every store hands out, and how full it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pools {
    /// Which document this is.
    pub schema: PoolsSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Which stores could not be read, and why; empty if all could.
    pub blind: Vec<String>,
    /// Who paused unattended releases, and when; null: they go on.
    pub paused: Option<PausedRecord>,
    /// By name.
    pub stores: Vec<StoreRecord>,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreRecord {
    /// Its name: kind and network.
    pub store: String,
    /// What the daemon does unasked with its leases.
    pub mode: Mode,
    /// Why it could not be read the last time; null if it could.
    pub failed: Option<String>,
    /// Why it can't be written; null if it can.
    pub read_only: Option<String>,
    /// Its pools, in the store's order; then, if there are any, the leases outside of all.
    pub pools: Vec<PoolRecord>,
}

/// One pool, and what is at its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRecord {
    /// The prefix; null: leases of the store that are in none of its pools.
    pub prefix: Option<String>,
    /// The first address handed out, where that is not the prefix's.
    pub first: Option<IpAddr>,
    /// The last, where that is not the prefix's.
    pub last: Option<IpAddr>,
    /// The gateway, which is nobody's lease.
    pub gateway: Option<IpAddr>,
    /// The wire; null if nobody knows, or nobody can watch it.
    pub segment: Option<SegmentName>,
    /// How many addresses the store may hand out of it; null where that is more than 2⁵³.
    pub addresses: Option<u64>,
    /// How many of them no lease, no fence and no quarantine is for; null as above.
    pub free: Option<u64>,
    /// Its leases, by state.
    pub leases: LeaseCounts,
    /// How many of its addresses an active conflict is about.
    pub contested: u64,
    /// Its addresses, 256 a row at most, by address. A row without anything but free
    /// addresses is left out. So is, where 65,536 addresses or more are handed out, one
    /// without a lease or a conflict.
    pub rows: Vec<PoolRow>,
    /// How many more rows there would be: 4096 of a pool are told.
    pub rows_left_out: u64,
}

/// Up to 256 addresses in a row that share all but their last eight bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRow {
    /// The first of them.
    pub first: IpAddr,
    /// One letter an address, and after it, unless it is one, how many in a row are so:
    /// `xa3.252`. `.` free, `a` active, `q` quiet, `s` stale, `r` released and quarantined,
    /// `f` fenced, `u` unknown, `x` not the store's to hand out. A capital, or `!` for a free
    /// one: an active conflict is about it.
    #[schemars(regex(pattern = r"^([.!aqsrfuxAQSRFUX]([2-9]|[1-9][0-9]{1,2})?)+$"))]
    pub cells: String,
}

/// What is at one address of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolCell {
    /// What is there.
    pub kind: CellKind,
    /// Whether an active conflict is about it.
    pub contested: bool,
}

/// What an address of a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CellKind {
    /// Nobody's, and to be had.
    Free,
    /// Not the store's to hand out.
    Excluded,
    /// Leased, fenced, or quarantined.
    Leased(LeaseState),
}

impl CellKind {
    /// Every kind that a row can have.
    pub const ALL: [Self; 8] = [
        Self::Leased(LeaseState::Active),
        Self::Leased(LeaseState::Quiet),
        Self::Leased(LeaseState::Stale),
        Self::Leased(LeaseState::Quarantined),
        Self::Leased(LeaseState::Fenced),
        Self::Leased(LeaseState::Unknown),
        Self::Excluded,
        Self::Free,
    ];

    /// Its letter in a row.
    pub const fn letter(self) -> char {
        match self {
            Self::Free => '.',
            Self::Excluded => 'x',
            Self::Leased(state) => match state {
                LeaseState::Active => 'a',
                LeaseState::Quiet => 'q',
                LeaseState::Stale => 's',
                LeaseState::Quarantined | LeaseState::Released => 'r',
                LeaseState::Fenced => 'f',
                LeaseState::Unknown => 'u',
            },
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Excluded => "excluded",
            Self::Leased(state) => state.name(),
        }
    }
}

impl PoolCell {
    fn letter(self) -> char {
        match (self.contested, self.kind.letter()) {
            (true, '.') => '!',
            (true, letter) => letter.to_ascii_uppercase(),
            (false, letter) => letter,
        }
    }

    fn of(letter: char) -> Option<Self> {
        let plain = if letter == '!' { '.' } else { letter };
        let plain = plain.to_ascii_lowercase();
        let mut kinds = CellKind::ALL.into_iter();
        Some(Self {
            kind: kinds.find(|kind| kind.letter() == plain)?,
            contested: plain != letter,
        })
    }
}

impl PoolRow {
    /// The row of these cells.
    pub fn new(first: IpAddr, cells: &[PoolCell]) -> Self {
        let mut text = String::new();
        for same in cells.chunk_by(|one, next| one == next) {
            text.extend(same.first().map(|cell| cell.letter()));
            if same.len() > 1 {
                text.push_str(&same.len().to_string());
            }
        }
        Self { first, cells: text }
    }

    /// Its cells, from the first on: 256 at most, whatever the text says.
    pub fn cells(&self) -> impl Iterator<Item = PoolCell> {
        let mut rest = self.cells.as_str();
        let runs = std::iter::from_fn(move || {
            let letter = rest.chars().next()?;
            rest = &rest[letter.len_utf8()..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let count = rest[..digits].parse().unwrap_or(1);
            rest = &rest[digits..];
            Some(std::iter::repeat_n(PoolCell::of(letter)?, count))
        });
        runs.flatten().take(256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_text_comes_back_as_its_cells() {
        let mut cells = vec![
            PoolCell {
                kind: CellKind::Free,
                contested: false,
            };
            256
        ];
        for (at, kind) in CellKind::ALL.into_iter().enumerate() {
            cells[10 + at].kind = kind;
            cells[100 + at] = PoolCell {
                kind,
                contested: true,
            };
        }
        let row = PoolRow::new([10, 0, 0, 0].into(), &cells);
        assert_eq!(row.cells, ".10aqsrfux.83AQSRFUX!.148");
        assert_eq!(row.cells().collect::<Vec<_>>(), cells);
    }

    #[test]
    fn a_strangers_text_is_no_trap() {
        for text in ["a99999999999999999999", "a4294967296", "é3", "a-1", "7", ""] {
            let row = PoolRow {
                first: [10, 0, 0, 0].into(),
                cells: text.to_owned(),
            };
            assert!(row.cells().count() <= 256, "{text}");
        }
    }
}
