//! Pools as maps: each address a cell, each cell the way to its story.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    small_page,
    words::{Level, badge, class, named, said, sign, swatch},
};
use crate::{
    engine::lease::Mode,
    report::{
        compose::{ip, number},
        document::{
            CellKind, LeaseCounts, LeaseState, PoolCell, PoolRecord, PoolRow, Pools, StoreRecord,
        },
    },
};

/// So many cells are on the status page itself; other maps are a click away without the script.
const CELLS: usize = 4096;
/// So many blocks of 256 addresses a map shows whole.
const BLOCKS: u128 = 256;
/// So many pools of a store are told.
const POOLS: usize = 200;

pub(super) fn section(pools: &Pools, leases: LeaseCounts) -> Markup {
    let mut cells = CELLS;
    html! {
        section #pools data-parts aria-labelledby="pools-h" {
            h2 #pools-h { "Pools" }
            p #pools-legend .legend {
                @for kind in CellKind::ALL { span { (swatch(kind, false)) " " (meaning(kind)) } }
                span { (swatch(CellKind::Free, true)) " in a conflict" }
            }
            @if pools.stores.is_empty() {
                @if pools.blind.is_empty() {
                    p #pools-none .calm { "No store of leases is configured or found." }
                }
                @for why in &pools.blind {
                    p #(id("pu", &[why])) { (badge(Level::Warning, "not read")) " " (said(why)) }
                }
            }
            @if leases.stale > 0 {
                p #pools-stale .note {
                    b { (leases.stale) " proven stale. " }
                    code { "ipam-agent reclaim plan" } " shows them, "
                    code { "ipam-agent reclaim apply" } " gives them back."
                }
            }
            @for store in &pools.stores { (store_of(store, &mut cells)) }
        }
    }
}

const fn meaning(kind: CellKind) -> &'static str {
    match kind {
        CellKind::Free => "free",
        CellKind::Excluded => "not to be leased",
        CellKind::Leased(state) => match state {
            LeaseState::Active => "active: in use",
            LeaseState::Quiet => "quiet: not heard, not proven unused",
            LeaseState::Stale => "stale: proven unused",
            LeaseState::Quarantined | LeaseState::Released => "released, watched for a day",
            LeaseState::Fenced => "fenced: used without a lease",
            LeaseState::Unknown => "unknown: the agent can't tell",
        },
    }
}

fn store_of(store: &StoreRecord, cells: &mut usize) -> Markup {
    let more = store.pools.len().saturating_sub(POOLS);
    html! {
        section.store #(id("s", &[&store.store])) data-parts {
            h3 #(id("sh", &[&store.store])) {
                (named(&store.store)) " " span.mode { (mode(store.mode)) }
            }
            @if let Some(why) = &store.failed {
                p #(id("sf", &[&store.store])) { (badge(Level::Warning, "not read")) " " (said(why)) }
            }
            @if let Some(why) = store.read_only.as_ref().filter(|_| store.mode != Mode::Observe) {
                p #(id("sr", &[&store.store])) { (badge(Level::Warning, "can't be written")) " " (said(why)) }
            }
            @if store.pools.is_empty() {
                p.calm #(id("sn", &[&store.store])) { "It has no leases, and nothing says what it hands out." }
            }
            @for pool in store.pools.iter().take(POOLS) { (pool_of(store, pool, cells)) }
            @if more > 0 { p.calm #(id("sm", &[&store.store])) { "and " (more) " pools more" } }
        }
    }
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observed: released only when asked",
        Mode::AfterReboot => "released after a reboot",
        Mode::Continuous => "released continuously",
    }
}

fn pool_of(store: &StoreRecord, pool: &PoolRecord, cells: &mut usize) -> Markup {
    let name = title(pool);
    let rows = drawn(pool);
    html! {
        article.pool #(id("p", &[&store.store, &name])) {
            h4 {
                code { (name) }
                @if let Some(segment) = &pool.segment { span.where { (named(&segment.to_string())) } }
                span.where { (range(pool)) }
            }
            (counts(pool))
            @match rows.as_slice() {
                [] => p.calm { "Nothing is leased in it." },
                [row] if take(cells, row.cells().count()) => (map_of(row)),
                _ => {
                    div.tiles data-map={ "/map?" (query(store, pool, None)) } data-pool={ "/pool?" (query(store, pool, None)) }
                        data-name=(name) data-v=(version_of(pool)) {}
                    p.calm { a.small href={ "/pool?" (query(store, pool, None)) } { "As a table" } }
                }
            }
            @if pool.rows_left_out > 0 { p.calm { "and " (pool.rows_left_out) " blocks with leases that are not drawn" } }
        }
    }
}

/// Takes so many off what is left, if there are as many.
fn take(left: &mut usize, count: usize) -> bool {
    let rest = left.checked_sub(count);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

fn title(pool: &PoolRecord) -> String {
    match &pool.prefix {
        Some(prefix) => named(prefix).into_owned(),
        None => String::from("outside of its pools"),
    }
}

fn range(pool: &PoolRecord) -> Markup {
    html! {
        @if pool.first.is_some() || pool.last.is_some() {
            "hands out "
            @if let Some(first) = pool.first { (first) }
            " to "
            @if let Some(last) = pool.last { (last) } @else { "its end" }
            " "
        }
        @if let Some(gateway) = pool.gateway { "gateway " (gateway) }
    }
}

/// How full it is, in numbers and as a bar.
fn counts(pool: &PoolRecord) -> Markup {
    let (mut at, all) = (
        0,
        pool.addresses.unwrap_or(0).max(pool.leases.total()).max(1),
    );
    let wide = |count: u64| (u128::from(count) * 1000).div_ceil(all.into());
    let parts: Vec<_> = { pool.leases.iter() }
        .filter(|&(_, count)| count > 0)
        .map(|(state, count)| {
            let from = at;
            at += wide(count);
            (CellKind::Leased(state), count, from, wide(count))
        })
        .collect();
    html! {
        svg.share viewBox="0 0 1000 8" preserveAspectRatio="none" aria-hidden="true" {
            @for (kind, _, from, wide) in &parts {
                rect.(class(*kind)) x=(from) y="0" width=(wide) height="8" {}
            }
        }
        ul.counts {
            @for (kind, count, ..) in &parts { li { (swatch(*kind, false)) " " b { (count) } " " (kind.name()) } }
            @if pool.contested > 0 {
                li { (swatch(CellKind::Free, true)) " " b { (pool.contested) } " in a conflict" }
            }
            @match (pool.free, pool.addresses) {
                (Some(free), Some(all)) if all > 0 => {
                    li { (swatch(CellKind::Free, false)) " " b { (free) } " of " (all) " free" }
                }
                (None, _) => li { (swatch(CellKind::Free, false)) " the rest is free" },
                _ => {}
            }
        }
    }
}

/// Up to 256 cells.
fn map_of(row: &PoolRow) -> Markup {
    let v6 = row.first.is_ipv6();
    let first = number(row.first);
    let label = format!("{}, {} addresses", row.first, row.cells().count());
    html! {
        div.map role="group" aria-label=(label) {
            @for (at, PoolCell { kind, contested }) in (first..).zip(row.cells()) {
                @let address = ip(at, v6);
                a.c.(class(kind)).hot[contested] href={ "/address/" (address) }
                    aria-label={ (address) " " (kind.name()) (if contested { ", in a conflict" } else { "" }) }
                    { (sign(kind, contested)) }
            }
        }
    }
}

/// A pool, 256 addresses a line; a small one, its map.
pub fn pool_page(host: &str, made: Timestamp, store: &StoreRecord, pool: &PoolRecord) -> Markup {
    let rows = drawn(pool);
    let name = title(pool);
    let main = html! {
        section.pool {
            h1 { code { (name) } " of " (named(&store.store)) }
            (counts(pool))
            @if let [row] = rows.as_slice() {
                (map_of(row))
            } @else {
                table.wide.blocks {
                    thead { tr {
                        th scope="col" { "Block" }
                        @for kind in CellKind::ALL { th.number scope="col" { (kind.name()) } }
                        th.number scope="col" { "in a conflict" }
                    } }
                    tbody { @for row in &rows { (block_line(store, pool, row)) } }
                }
                @if pool.rows_left_out > 0 { p.calm { "and " (pool.rows_left_out) " more" } }
            }
        }
    };
    small_page(&name, host, made, main)
}

fn block_line(store: &StoreRecord, pool: &PoolRecord, row: &PoolRow) -> Markup {
    let cells: Vec<PoolCell> = row.cells().collect();
    let of = |kind| cells.iter().filter(|cell| cell.kind == kind).count();
    let contested = cells.iter().filter(|cell| cell.contested).count();
    html! {
        tr {
            th scope="row" { a href={ "/pool?" (query(store, pool, Some(row.first))) } { (row.first) } }
            @for kind in CellKind::ALL {
                td.number data-is=(kind.name()) { @match of(kind) { 0 => "", some => (some) } }
            }
            td.number data-is="in a conflict" { @if contested > 0 { b { (contested) } } }
        }
    }
}

/// The cells of the block that holds this address.
pub fn block_page(
    host: &str,
    made: Timestamp,
    store: &StoreRecord,
    pool: &PoolRecord,
    block: IpAddr,
) -> Markup {
    let holds = |row: &PoolRow| {
        row.first.is_ipv4() == block.is_ipv4() && number(row.first) >> 8 == number(block) >> 8
    };
    let row = drawn(pool).into_iter().find(holds);
    let name = row.as_ref().map_or(block, |row| row.first).to_string();
    let main = html! {
        section.pool {
            h1 { code { (name) } " of " (named(&store.store)) }
            @match row {
                Some(row) => (map_of(&row)),
                None => p.calm { "Nothing is leased in it." },
            }
            p { a.small href={ "/pool?" (query(store, pool, None)) } { "All of " (title(pool)) } }
        }
    };
    small_page(&name, host, made, main)
}

/// The rows of its map: all, where they are not too many, else those with something in them.
pub fn drawn(pool: &PoolRecord) -> Vec<PoolRow> {
    let prefix: Option<IpNet> = pool.prefix.as_ref().and_then(|prefix| prefix.parse().ok());
    let Some(prefix) = prefix else {
        return pool.rows.clone();
    };
    let v6 = prefix.addr().is_ipv6();
    let (start, end) = (number(prefix.network()), number(prefix.broadcast()));
    let first = pool.first.map_or(start, number).min(first_of(pool, start));
    let last = pool.last.map_or(end, number).max(last_of(pool, start));
    if (last >> 8) - (first >> 8).min(last >> 8) >= BLOCKS {
        return pool.rows.clone();
    }
    let mut known = pool.rows.iter().peekable();
    let rows = (first >> 8..=last >> 8).map(|row| {
        let from = (row << 8).max(start);
        if let Some(row) = known.next_if(|known| number(known.first) == from) {
            return row.clone();
        }
        let free = PoolCell {
            kind: CellKind::Free,
            contested: false,
        };
        let to = (row << 8 | 0xff).min(end);
        let cells: Vec<_> = (from..=to).map(|_| free).collect();
        PoolRow::new(ip(from, v6), &cells)
    });
    rows.collect()
}

/// Leases may be outside of what is handed out.
fn first_of(pool: &PoolRecord, none: u128) -> u128 {
    pool.rows
        .first()
        .map_or(pool.first.map_or(none, number), |row| number(row.first))
}

fn last_of(pool: &PoolRecord, none: u128) -> u128 {
    pool.rows.last().map_or(none, |row| number(row.first))
}

/// What tells a pool's map from what it was.
pub fn version_of(pool: &PoolRecord) -> String {
    let rows = pool.rows.iter();
    let rows: Vec<_> = rows.map(|row| (row.first, &row.cells)).collect();
    super::tag(&(&pool.first, &pool.last, rows))
}

fn query(store: &StoreRecord, pool: &PoolRecord, block: Option<IpAddr>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("store", &store.store);
    if let Some(prefix) = &pool.prefix {
        query.append_pair("prefix", prefix);
    }
    if let Some(block) = block {
        query.append_pair("block", &block.to_string());
    }
    query.finish()
}

/// An element's name, which the script finds it by again.
fn id(of: &str, parts: &[&str]) -> String {
    format!("{of}-{}", super::tag(&parts).trim_matches('"'))
}
