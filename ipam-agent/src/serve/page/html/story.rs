//! All that is known of one address, as `explain` tells it.

use maud::{Markup, html};

use super::{
    conflicts::{claims, conflict},
    lists::event,
    small_page,
    words::{Level, badge, list, named, said, state, time},
};
use crate::report::document::{Explain, Held, HolderAnswer, LeaseRecord, Life};

/// So many things of a kind are told; `ipam-agent explain` tells all.
const MOST: usize = 100;

pub fn story_page(explain: &Explain) -> Markup {
    let name = explain.address.to_string();
    let main = html! {
        section.story {
            h1 { code { (name) } }
            p.verdict { (said(&explain.verdict)) "." }
            @if !explain.conflicts.is_empty() {
                h2 { "Conflicts" }
                ol.conflicts { @for one in explain.conflicts.iter().take(MOST) { (conflict(one)) } }
            }
            h2 { "Who says it is theirs" }
            @if explain.claims.is_empty() { p.calm { "Nobody was heard." } }
            @for segment in explain.claims.chunk_by(|a, b| a.segment == b.segment).take(MOST) {
                @if let [first, ..] = segment { p.where { (named(&first.segment.to_string())) } }
                @let said: Vec<_> = segment.iter().map(|claim| claim.claim.clone()).collect();
                (claims(&said))
            }
            h2 { "Leases" }
            @if explain.leases.is_empty() { p.calm { "None." } }
            @for record in explain.leases.iter().take(MOST) { (lease(record)) }
            (holders(&explain.holders))
            (life(explain.life))
            @if !explain.events.is_empty() {
                h2 { "Events" }
                ol.events { @for one in explain.events.iter().rev().take(MOST) { (event(one)) } }
            }
            @if !explain.story.is_empty() {
                h2 { "What happened" }
                ol.told {
                    @for told in explain.story.iter().rev().take(MOST) {
                        li { (time(told.at)) " " span { (said(&told.what)) } }
                    }
                }
            }
            @if !explain.blind.is_empty() {
                h2 { "What could not be read" }
                (list(&explain.blind, 20))
            }
        }
    };
    small_page(&name, &explain.host, explain.generated_at, main)
}

fn lease(record: &LeaseRecord) -> Markup {
    let holder = &record.lease.holder;
    html! {
        div.lease {
            p {
                (state(record.lease.state)) " " (named(&record.lease.store)) " leased it to "
                b { (named(&holder.to_string())) }
            }
            p { (said(&record.reason)) "." }
            dl.facts {
                @if let Some(segment) = &record.segment { div { dt { "Wire" } dd { (named(&segment.to_string())) } } }
                @if let Some(id) = &holder.container_id { div { dt { "Container" } dd { code { (named(id)) } } } }
                @if let Some(name) = &holder.interface { div { dt { "Its interface" } dd { (named(name)) } } }
                @if let Some(mac) = holder.mac { div { dt { "MAC" } dd { code { (mac) } } } }
                @if let Some(name) = &holder.host_interface { div { dt { "Behind" } dd { (named(name)) } } }
                @if let Some(damage) = record.damage { div { dt { "Damage" } dd { (damage.name()) } } }
                @if let Some(since) = record.since { div { dt { "Unchanged since" } dd { (time(since)) } } }
                @if let Some(heard) = record.last_heard { div { dt { "Last sign of life" } dd { (time(heard)) } } }
                @if let Some(quarantine) = &record.quarantine {
                    div { dt { "Given back" } dd { (time(quarantine.released_at)) } }
                    div { dt { "Watched until" } dd { (time(quarantine.until)) } }
                }
            }
            @if !record.blockers.is_empty() {
                p { "What stands against its release:" }
                ul.blockers {
                    @for blocker in &record.blockers {
                        li {
                            span.kind { (blocker.reason.name()) } " " (said(&blocker.detail))
                            @if let Some(at) = blocker.ready_at { ", until " (time(at)) }
                        }
                    }
                }
            }
        }
    }
}

fn holders(holders: &[HolderAnswer]) -> Markup {
    html! {
        @if !holders.is_empty() {
            h2 { "Who holds it" }
            ul.holders {
                @for holder in holders {
                    @let (level, answer) = match holder.answer {
                        Held::Yes => (Level::Good, "held"),
                        Held::No => (Level::Info, "not held"),
                        Held::Unknown => (Level::Warning, "no answer"),
                    };
                    li {
                        (badge(level, answer)) " " (named(&holder.source))
                        @if let Some(detail) = &holder.detail { ": " (said(detail)) }
                    }
                }
            }
        }
    }
}

fn life(life: Life) -> Markup {
    let signs = [
        (life.assertion, "Asserted"),
        (life.probe, "Probed for"),
        (life.packet, "An IP packet came from it"),
    ];
    html! {
        @if signs.iter().any(|(at, _)| at.is_some()) {
            h2 { "Last signs of life" }
            dl.facts {
                @for (at, what) in signs {
                    @if let Some(at) = at { div { dt { (what) } dd { (time(at)) } } }
                }
            }
        }
    }
}
