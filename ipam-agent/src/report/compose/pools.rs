//! What stores hand out, and how full it is.
//!
//! A look at every lease takes as long as a pass: a [`Survey`] is made a portion at a time,
//! and what it found is put into rows by whoever wants them, apart from the engine.

use std::{collections::BTreeMap, net::IpAddr};

use ipam_common::Address;
use jiff::Timestamp as WallTime;

use super::{Composer, leases::lease_state, segment_name};
use crate::{
    engine::{
        Engine,
        conflict::Kind,
        lease::{Mode, Pool, StoreName},
        scope::{Scope, ScopedPool},
        time::Timestamp,
    },
    report::document::{
        CellKind, EventList, LeaseCounts, LeaseState, PausedRecord, PoolCell, PoolRecord, PoolRow,
        Pools, Report, SegmentName, StoreRecord,
    },
};

/// How many addresses a portion looks at: one or two milliseconds' work.
const PORTION: usize = 2048;
/// Up to how many addresses all rows of a pool are looked at.
const WHOLE: u128 = 1 << 16;
/// How many rows of a pool are told.
const ROWS: usize = 4096;
/// What JSON's numbers hold for everybody.
const MOST: u128 = 1 << 53;

/// The state of every lease, as far as was looked.
#[derive(Debug)]
pub struct Survey {
    /// Every leased address at the beginning.
    addresses: Vec<Address>,
    next: usize,
    found: BTreeMap<StoreName, Vec<(Address, LeaseState)>>,
    counts: LeaseCounts,
}

impl Survey {
    /// Nothing is looked at yet.
    pub fn new(engine: &Engine) -> Self {
        Self {
            addresses: engine.leases().addresses().collect(),
            next: 0,
            found: BTreeMap::new(),
            counts: LeaseCounts::default(),
        }
    }

    /// Looks at a portion more. Whether that was the last.
    pub fn go_on(&mut self, engine: &Engine, now: Timestamp) -> bool {
        let planner = engine.planner(now);
        let until = self.addresses.len().min(self.next + PORTION);
        for address in &self.addresses[self.next..until] {
            for record in engine.leases().of(address) {
                let state = lease_state(planner.state(record));
                self.counts.add(state);
                let found = match self.found.get_mut(&record.lease.store) {
                    Some(found) => found,
                    None => self.found.entry(record.lease.store.clone()).or_default(),
                };
                found.push((*address, state));
            }
        }
        self.next = until;
        until == self.addresses.len()
    }

    /// With what the agent itself put there; all is known now.
    fn end(mut self, engine: &Engine) -> Self {
        for entry in engine.quarantine().iter() {
            self.counts.add(LeaseState::Quarantined);
            let found = self.found.entry(entry.lease.store.clone()).or_default();
            found.push((entry.lease.address, LeaseState::Quarantined));
        }
        for (name, store) in engine.leases().stores() {
            for fence in &store.fencing.fences {
                self.counts.add(LeaseState::Fenced);
                let found = self.found.entry(name.clone()).or_default();
                found.push((fence.address, LeaseState::Fenced));
            }
        }
        self
    }
}

/// What the status page shows, as far as the engine has to be asked.
#[derive(Debug)]
pub struct Overview {
    /// What is wrong: the worst conflicts alone, counted all.
    pub report: Report,
    /// What [`Pools`] are made of.
    pub charts: Charts,
}

/// What [`Pools`] are made of.
#[derive(Debug, Default)]
pub struct Charts {
    host: String,
    generated_at: WallTime,
    blind: Vec<String>,
    /// Who paused unattended releases: the engine has that in words only.
    pub paused: Option<PausedRecord>,
    stores: Vec<Chart>,
    contested: Vec<(Address, SegmentName)>,
}

#[derive(Debug)]
struct Chart {
    store: StoreName,
    mode: Mode,
    failed: Option<String>,
    read_only: Option<String>,
    pools: Vec<(Pool, Wire)>,
    found: Vec<(Address, LeaseState)>,
}

/// Which segments a pool's addresses may be heard in.
#[derive(Clone, Debug)]
enum Wire {
    Segment(SegmentName),
    Any,
    None,
}

impl Wire {
    fn of(pool: &ScopedPool) -> Self {
        match pool.scope() {
            Scope::Segment(segment) => Self::Segment(segment_name(segment)),
            Scope::Anywhere | Scope::Unknown => Self::Any,
            Scope::Nowhere(_) => Self::None,
        }
    }

    fn covers(&self, segment: &SegmentName) -> bool {
        match self {
            Self::Segment(own) => own == segment,
            Self::Any => true,
            Self::None => false,
        }
    }
}

impl Composer<'_> {
    /// What happened that is no conflict.
    pub fn event_list(&self) -> EventList {
        EventList {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            events: self.events(|_| true),
        }
    }

    /// What a survey that is done has found, and up to `limit` conflicts.
    pub fn overview(&self, survey: Survey, limit: usize) -> Overview {
        let Survey { found, counts, .. } = survey.end(self.engine);
        let cases: Vec<_> = self.engine.conflicts().collect();
        let active = cases.iter().filter(|case| case.conflict.is_active());
        let contested = active
            .filter(|case| case.conflict.verdict.kind() != Kind::DuplicateMac)
            .map(|case| (case.address, segment_name(case.segment)))
            .collect();
        Overview {
            report: self.worst(cases, limit, counts),
            charts: Charts {
                host: self.host.into(),
                generated_at: self.clock.at(self.now),
                blind: self.stores_down(),
                paused: None,
                stores: self.stores_charted(found),
                contested,
            },
        }
    }

    fn stores_charted(
        &self,
        mut found: BTreeMap<StoreName, Vec<(Address, LeaseState)>>,
    ) -> Vec<Chart> {
        let stores = self.engine.leases().stores().iter();
        stores
            .map(|(name, store)| Chart {
                store: name.clone(),
                mode: store.mode,
                failed: store.failed.clone(),
                read_only: store.writable.clone().err(),
                pools: { self.engine.pools() }
                    .filter(|scoped| scoped.store == *name)
                    .map(|scoped| (scoped.pool.clone(), Wire::of(scoped)))
                    .collect(),
                found: found.remove(name).unwrap_or_default(),
            })
            .collect()
    }
}

impl Charts {
    /// How full everything is: milliseconds' work for 100,000 leases, and none of the engine's.
    pub fn pools(&self) -> Pools {
        let record = |chart: &Chart| StoreRecord {
            store: chart.store.to_string(),
            mode: chart.mode,
            failed: chart.failed.clone(),
            read_only: chart.read_only.clone(),
            pools: chart.pool_records(&self.contested),
        };
        Pools {
            schema: Default::default(),
            generated_at: self.generated_at,
            host: self.host.clone(),
            blind: self.blind.clone(),
            paused: self.paused.clone(),
            stores: self.stores.iter().map(record).collect(),
        }
    }
}

impl Chart {
    fn pool_records(&self, contested: &[(Address, SegmentName)]) -> Vec<PoolRecord> {
        let mut leases: Vec<BTreeMap<u128, LeaseState>> = vec![BTreeMap::new(); self.pools.len()];
        let mut outside = [BTreeMap::new(), BTreeMap::new()];
        for &(address, state) in &self.found {
            let pools = || self.pools.iter().map(|(pool, _)| pool);
            let index = pools()
                .position(|pool| pool.manages(address))
                .or_else(|| pools().position(|pool| pool.prefix.contains(&address.ip())));
            let pool = index.and_then(|index| leases.get_mut(index));
            // Of two leases of one address, the one that says more: active before the rest.
            let pool = pool.unwrap_or(&mut outside[usize::from(!address.is_ipv4())]);
            let at = pool.entry(number(address.ip()));
            at.and_modify(|known| *known = state.min(*known))
                .or_insert(state);
        }
        let mut records: Vec<PoolRecord> = { self.pools.iter().zip(leases) }
            .map(|((pool, wire), leases)| pool_record(pool, wire, leases, contested))
            .collect();
        for (leases, v6) in outside.into_iter().zip([false, true]) {
            if !leases.is_empty() {
                records.push(outside_record(leases, v6));
            }
        }
        records
    }
}

fn pool_record(
    pool: &Pool,
    wire: &Wire,
    leases: BTreeMap<u128, LeaseState>,
    contested: &[(Address, SegmentName)],
) -> PoolRecord {
    let v6 = pool.prefix.max_prefix_len() == 128;
    let whole = (
        number(pool.prefix.network()),
        number(pool.prefix.broadcast()),
    );
    let range = pool.range.map_or(whole, |(first, last)| {
        (
            number(first.ip()).max(whole.0),
            number(last.ip()).min(whole.1),
        )
    });
    let contested = contested
        .iter()
        .filter(|(address, segment)| pool.prefix.contains(&address.ip()) && wire.covers(segment));
    let contested: BTreeMap<u128, ()> = contested
        .map(|(address, _)| (number(address.ip()), ()))
        .collect();
    let manages = |at| Address::from_ip(ip(at, v6)).is_some_and(|address| pool.manages(address));
    let cell = |at| PoolCell {
        kind: match leases.get(&at) {
            Some(&state) => CellKind::Leased(state),
            None if manages(at) => CellKind::Free,
            None => CellKind::Excluded,
        },
        contested: contested.contains_key(&at),
    };
    let mut numbers: Vec<u128> = leases
        .keys()
        .chain(contested.keys())
        .map(|at| at >> 8)
        .collect();
    if range.1.saturating_sub(range.0) < WHOLE {
        numbers.extend(range.0 >> 8..=range.1 >> 8);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut rows = Vec::new();
    let mut left_out = 0;
    for row in numbers {
        let (first, last) = ((row << 8).max(whole.0), (row << 8 | 0xff).min(whole.1));
        let cells: Vec<PoolCell> = (first..=last).map(cell).collect();
        let is_free = |cell: &PoolCell| cell.kind == CellKind::Free && !cell.contested;
        if cells.iter().all(is_free) {
            continue;
        }
        if rows.len() == ROWS {
            left_out += 1;
            continue;
        }
        rows.push(PoolRow::new(ip(first, v6), &cells));
    }
    let addresses = handed_out(pool, range);
    let taken = leases.keys().filter(|&&at| manages(at)).count();
    let known = |count: u128| u64::try_from(count).ok().filter(|_| addresses <= MOST);
    PoolRecord {
        prefix: Some(pool.prefix.to_string()),
        first: (range.0 != whole.0).then(|| ip(range.0, v6)),
        last: (range.1 != whole.1).then(|| ip(range.1, v6)),
        gateway: pool.gateway.map(Address::ip),
        segment: match wire {
            Wire::Segment(segment) => Some(segment.clone()),
            Wire::Any | Wire::None => None,
        },
        addresses: known(addresses),
        free: known(addresses.saturating_sub(taken as u128)),
        leases: leases.into_values().collect(),
        contested: contested.len() as u64,
        rows,
        rows_left_out: left_out,
    }
}

/// Leases, of one family, in none of their store's pools.
fn outside_record(leases: BTreeMap<u128, LeaseState>, v6: bool) -> PoolRecord {
    let mut rows: Vec<PoolRow> = Vec::new();
    let mut left_out = 0;
    let all: Vec<(u128, LeaseState)> = leases.into_iter().collect();
    for row in all.chunk_by(|(one, _), (next, _)| one >> 8 == next >> 8) {
        let Some(&(at, _)) = row.first() else {
            continue;
        };
        if rows.len() == ROWS {
            left_out += 1;
            continue;
        }
        let nothing = PoolCell {
            kind: CellKind::Excluded,
            contested: false,
        };
        let mut cells = vec![nothing; 256];
        for &(at, state) in row {
            cells[(at & 0xff) as usize].kind = CellKind::Leased(state);
        }
        rows.push(PoolRow::new(ip(at & !0xff, v6), &cells));
    }
    PoolRecord {
        prefix: None,
        first: None,
        last: None,
        gateway: None,
        segment: None,
        addresses: Some(0),
        free: Some(0),
        leases: all.into_iter().map(|(_, state)| state).collect(),
        contested: 0,
        rows,
        rows_left_out: left_out,
    }
}

/// How many addresses of a pool its store may give.
fn handed_out(pool: &Pool, (first, last): (u128, u128)) -> u128 {
    let one = |at: u128| (at, at);
    let mut apart: Vec<(u128, u128)> = { pool.exclude.iter() }
        .map(|(first, last)| (number(first.ip()), number(last.ip())))
        .collect();
    apart.extend(pool.gateway.map(|gateway| one(number(gateway.ip()))));
    if pool.prefix.max_prefix_len() == 32 && pool.prefix.prefix_len() < 31 {
        apart.push(one(number(pool.prefix.network())));
        apart.push(one(number(pool.prefix.broadcast())));
    }
    apart.sort_unstable();
    if last < first {
        return 0;
    }
    let mut count = (last - first).saturating_add(1);
    let mut told = first;
    for (from, to) in apart {
        let (from, to) = (from.max(told), to.min(last));
        if from <= to {
            count -= to - from + 1;
            told = to.saturating_add(1);
        }
    }
    count
}

/// An address as a number.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The address of a number.
pub fn ip(number: u128, v6: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if !v6 => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests;
