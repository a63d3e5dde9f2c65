//! What is wrong: the worst first, each with all that a person needs to act.

use maud::{Markup, html};

use super::words::{Level, address, badge, named, said, state, time};
use crate::report::document::{
    ClaimRecord, ConflictKind, ConflictRecord, ConflictState, LeaseName, Report,
};

/// So many are there to see; the rest is a click away.
const OPEN: usize = 40;

pub(super) fn section(report: &Report) -> Markup {
    let (active, over): (Vec<&ConflictRecord>, Vec<_>) =
        { report.conflicts.iter() }.partition(|conflict| conflict.state == ConflictState::Active);
    let (first, rest) = active.split_at(active.len().min(OPEN));
    let untold = report.summary.conflicts - report.conflicts.len() as u64;
    html! {
        section #conflicts data-parts aria-labelledby="conflicts-h" {
            h2 #conflicts-h { "Conflicts" }
            @if active.is_empty() {
                p #conflicts-none .calm { "None." }
            } @else {
                (by_kind(report))
            }
            ol #conflicts-first .conflicts data-parts { @for one in first { (conflict(one)) } }
            @if !rest.is_empty() {
                details #conflicts-more {
                    summary { (rest.len()) " more" }
                    ol.conflicts { @for one in rest { (conflict(one)) } }
                }
            }
            @if !over.is_empty() {
                details #conflicts-over {
                    summary { (over.len()) " resolved in the last hour" }
                    ol.conflicts { @for one in over { (conflict(one)) } }
                }
            }
            @if untold > 0 {
                p #conflicts-untold .calm { "and " (untold) " more: " code { "ipam-agent report" } " has them all." }
            }
        }
    }
}

fn by_kind(report: &Report) -> Markup {
    html! {
        ul #conflicts-kinds .kinds {
            @for (kind, count) in &report.summary.by_kind { li { b { (count) } " " (kind) } }
        }
    }
}

/// One conflict.
pub(super) fn conflict(conflict: &ConflictRecord) -> Markup {
    let is_over = conflict.state == ConflictState::Resolved;
    let level = Level::from(conflict.severity);
    html! {
        li.conflict #{ "c-" (conflict.id) } data-level=(if is_over { "over" } else { level.class() }) {
            div.line {
                @if is_over { span.badge { "resolved" } } @else { (badge(level, conflict.severity.name())) }
                (address(conflict.address))
                span.kind title=(meaning(conflict.kind)) { (conflict.kind) }
                span.where { (named(&conflict.segment.to_string())) }
                @if conflict.flapping { span.badge { "flapping" } }
                span.since { "since " (time(conflict.first_seen)) }
                @if let Some(at) = conflict.resolved_at { span.since { "until " (time(at)) } }
            }
            p.reason { (said(&conflict.reason)) }
            (claims(&conflict.claims))
            @for lease in &conflict.leases { (leased(lease)) }
        }
    }
}

const fn meaning(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::DuplicateAddress => "Two machines use one address at once",
        ConflictKind::DuplicateMac => "One MAC is in two places at once",
        ConflictKind::LeaseMismatch => "Somebody else than its leaseholder uses the address",
        ConflictKind::UnleasedAddress => "The address is used and nobody leased it",
        ConflictKind::DuplicateLease => "The address was given to two holders",
        ConflictKind::ReservedAddress => "The address is set apart for somebody else",
    }
}

/// Who says that an address is theirs.
pub(super) fn claims(claims: &[ClaimRecord]) -> Markup {
    html! {
        @if !claims.is_empty() {
            table.claims {
                thead { tr {
                    th scope="col" { "Machine" } th scope="col" { "Made by" } th scope="col" { "Behind" }
                    th scope="col" { "First heard" } th scope="col" { "Last heard" }
                    th.number scope="col" { "Frames" } th scope="col" { "By" }
                } }
                tbody {
                    @for claim in claims.iter().take(32) {
                        tr {
                            th scope="row" { code { (claim.mac) } }
                            td data-is="Made by" { (claim.vendor.as_deref().map_or("–".into(), named)) }
                            td data-is="Behind" { (named(claim.behind())) }
                            td data-is="First heard" { (time(claim.first_seen)) }
                            td data-is="Last heard" { (time(claim.last_seen)) }
                            td.number data-is="Frames" { (claim.frames) }
                            td data-is="By" { @for (i, by) in claim.evidence.iter().enumerate() { @if i > 0 { ", " } (by) } }
                        }
                    }
                }
            }
            @if claims.len() > 32 { p.calm { "and " (claims.len() - 32) " more machines" } }
        }
    }
}

fn leased(lease: &LeaseName) -> Markup {
    html! {
        p.leased {
            (named(&lease.store)) " leased it to " b { (named(&lease.holder.to_string())) } " "
            (state(lease.state))
        }
    }
}
