//! Segments, releases and events.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::words::{Level, address, badge, named, said, time};
use crate::{
    engine::plan::Asker,
    journal::UndoResult,
    report::{
        count,
        document::{EventRecord, History, HistoryEntry, ReleaseResult, SegmentRecord},
        page::span,
    },
};

/// So many are there to see; commands and the API have more.
const SHOWN: usize = 50;
/// So many ports are named.
const PORTS: usize = 12;

pub(super) fn segments(segments: &[SegmentRecord]) -> Markup {
    html! {
        section #segments aria-labelledby="segments-h" {
            h2 #segments-h { "Segments" }
            @if segments.is_empty() {
                p.calm { "None: no interface that is watched is up. " code { "ipam-agent doctor" } " says why." }
            } @else {
                table.wide {
                    thead { tr {
                        th scope="col" { "Segment" } th scope="col" { "Watched" } th scope="col" { "Ports" }
                        th.number scope="col" { "Sightings lost" } th.number scope="col" { "Forgotten" }
                    } }
                    tbody {
                        @for segment in segments.iter().take(500) {
                            tr {
                                th scope="row" { (named(&segment.segment.to_string())) }
                                td data-is="Watched" {
                                    @match segment.watched_since {
                                        Some(since) if segment.complete => {
                                            (badge(Level::Good, "whole")) " since " (time(since))
                                        }
                                        _ => (badge(Level::Warning, "not whole")),
                                    }
                                }
                                td data-is="Ports" { (ports(&segment.interfaces)) }
                                td.number data-is="Sightings lost" { (segment.lost) }
                                td.number data-is="Forgotten" { (segment.evicted) }
                            }
                        }
                    }
                }
                @if segments.len() > 500 { p.calm { "and " (segments.len() - 500) " more" } }
            }
        }
    }
}

fn ports(names: &[String]) -> Markup {
    let more = names.len().saturating_sub(PORTS);
    html! {
        @for (i, name) in names.iter().take(PORTS).enumerate() { @if i > 0 { " " } code { (named(name)) } }
        @if more > 0 { " and " (more) " more" }
        @if names.is_empty() { "–" }
    }
}

pub(super) fn releases(history: Result<&History, &String>, now: Timestamp) -> Markup {
    html! {
        section #releases aria-labelledby="releases-h" {
            h2 #releases-h { "Releases" }
            @match history {
                Err(why) => p { (badge(Level::Warning, "unknown")) " " (said(why)) },
                Ok(history) => {
                    @if history.damaged_lines > 0 {
                        p { (badge(Level::Warning, "damaged"))
                            " " (history.damaged_lines) " lines of the journal can't be read." }
                    }
                    @if history.entries.is_empty() {
                        p.calm { "None: no lease was given back yet." }
                    } @else {
                        p.calm { (lately(history, now)) }
                        ol.releases { @for entry in history.entries.iter().take(SHOWN) { (release(entry)) } }
                        @if history.entries.len() > SHOWN {
                            p.calm { "Older ones: " code { "ipam-agent reclaim history" } }
                        }
                    }
                }
            }
        }
    }
}

/// How many there were within a day, as far as the page knows.
fn lately(history: &History, now: Timestamp) -> String {
    let day = SignedDuration::from_hours(24);
    let entries = history.entries.iter();
    let lately = entries.filter(|entry| {
        entry.result == ReleaseResult::Released && now.duration_since(entry.at) < day
    });
    format!(
        "{} given back within a day.",
        count(lately.count(), "lease")
    )
}

fn release(entry: &HistoryEntry) -> Markup {
    let undone = { entry.undo.as_ref() }.and_then(|undo| undo.result);
    let (level, result) = match (entry.result, undone) {
        (_, Some(UndoResult::PutBack)) => (Level::Warning, "put back"),
        (ReleaseResult::Released, _) => (Level::Good, "released"),
        (ReleaseResult::Kept, _) => (Level::Info, "kept"),
        (ReleaseResult::Failed, _) => (Level::Warning, "failed"),
        (ReleaseResult::Unknown, _) => (Level::Warning, "unknown"),
    };
    let asker = match entry.asker {
        Asker::Person => match &entry.by {
            Some(by) => format!("asked by {}", named(by)),
            None => "asked by a person".to_owned(),
        },
        Asker::Daemon => "unasked".to_owned(),
    };
    let evidence = &entry.evidence;
    html! {
        li #{ "r-" (named(&entry.id)) } {
            div.line {
                (badge(level, result)) (address(entry.address))
                span.where { (named(&entry.store)) }
                span { "of " b { (named(&entry.holder.to_string())) } }
                span.since { (time(entry.at)) ", " (asker) ", release " code { (named(&entry.id)) } }
            }
            p.reason { (said(&entry.reason)) }
            p.calm {
                "Quiet for " (seconds(evidence.quiet_seconds))
                ", watched since " (time(evidence.watched_since))
                ", " (evidence.passes) " passes"
                @if let Some(probes) = evidence.unanswered_probes { ", " (probes) " probes unanswered" }
                "."
            }
            @if let Some(detail) = &entry.detail { p.calm { (said(detail)) } }
            @if let Some(undo) = &entry.undo {
                @if let Some(why) = undo.detail.as_ref().or(undo.reason.as_ref()) { p.calm { "Put back: " (said(why)) } }
            }
            @if let Some(taken) = &entry.taken {
                p.calm { "Leased anew " (time(taken.at)) " to " (named(&taken.holder.to_string())) "." }
            }
        }
    }
}

fn seconds(seconds: u64) -> String {
    span(i64::try_from(seconds).unwrap_or(i64::MAX))
}

pub(super) fn events(events: &[EventRecord]) -> Markup {
    html! {
        section #events aria-labelledby="events-h" {
            h2 #events-h { "Events" }
            @if events.is_empty() {
                p.calm { "None: no address moved, and nobody probed for what is another's." }
            } @else {
                ol.events { @for told in events.iter().rev().take(SHOWN) { (event(told)) } }
                @if events.len() > SHOWN {
                    p.calm { "and " (events.len() - SHOWN) " earlier ones: " a href="/api/v1/events" { "events" } }
                }
            }
        }
    }
}

/// One event.
pub(super) fn event(event: &EventRecord) -> Markup {
    html! {
        li {
            div.line {
                (badge(event.severity.into(), event.kind.name())) (address(event.address))
                span.where { (named(&event.segment.to_string())) }
                span.since { (time(event.at)) }
            }
            p.reason { (said(&event.reason)) }
        }
    }
}
