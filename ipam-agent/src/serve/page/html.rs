//! The page's HTML, from the documents that everybody gets. Times are written in full, UTC:
//! the script makes "3 min ago" of them, and a page that says the same has the same bytes.

mod conflicts;
mod lists;
mod pools;
mod story;
mod words;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use self::words::{Level, list, named, time};
use super::tag;
use crate::report::{
    count,
    document::{ConflictState, History, Pools, Report, Severity},
};

pub(super) use self::{
    pools::{block_page, drawn, pool_page, version_of},
    story::story_page,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every page has around its content.
fn page(title: &str, icon: Option<Level>, bar: Markup, main: Markup) -> Markup {
    let title = named(title);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href="/icon.svg";
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
                noscript { meta http-equiv="refresh" content="30"; }
            }
            body data-version=(VERSION) data-level=[icon.map(Level::class)] {
                a.skip href="#main" { "Skip to what matters" }
                header.bar { (bar) }
                main #main tabindex="-1" { (main) }
                (footer())
            }
        }
    }
}

fn footer() -> Markup {
    html! {
        footer {
            p {
                "This page only reads. What changes something is a command: "
                code { "ipam-agent reclaim plan" } ", then " code { "ipam-agent reclaim apply" } "."
            }
            p {
                "The same for programs: "
                @for (index, name) in ["report", "pools", "segments", "leases", "addresses", "history", "events"].iter().enumerate() {
                    @if index > 0 { " · " }
                    a href={ "/api/v1/" (name) } { (name) }
                }
            }
        }
    }
}

/// Around a page about one thing.
fn small_page(title: &str, host: &str, made: Timestamp, main: Markup) -> Markup {
    let bar = html! {
        a.home href="/" { "← " (named(host)) }
        span.asof { "as of " (time(made)) }
    };
    page(title, None, bar, main)
}

/// Instead of what can't be shown.
pub fn problem_page(problem: &str) -> Markup {
    let bar = html! { a.home href="/" { "← ipam-agent" } };
    let main = html! { section.problem { h1 { "Nothing to see" } p { (words::said(problem)) } } };
    page("ipam-agent", None, bar, main)
}

/// All of the status page but what is new each second.
pub fn overview_page(report: &Report, main: Markup) -> Markup {
    let standing = Standing::of(report);
    let bar = html! {
        span.home { b { (named(&report.host)) } " · ipam-agent " (VERSION) }
        span.asof {
            span #live hidden { "live · " }
            "as of " span #asof { (time(report.generated_at)) }
        }
        p #silent role="alert" hidden {}
    };
    let title = format!("{} – {} – ipam-agent", standing.short, report.host);
    page(&title, Some(standing.level), bar, main)
}

/// What the status page says.
pub fn overview(
    report: &Report,
    pools: &Pools,
    history: Result<&History, &String>,
    since: Timestamp,
) -> Markup {
    html! {
        (head(report, pools, since))
        (conflicts::section(report))
        (pools::section(pools, report.leases))
        (lists::segments(&report.segments))
        (lists::releases(history, report.generated_at))
        (lists::events(&report.events))
    }
}

/// Whether all is well, in a sentence.
struct Standing {
    level: Level,
    /// For the window's title.
    short: String,
    sentence: String,
}

impl Standing {
    fn of(report: &Report) -> Self {
        let active = report.summary.active;
        let lasting = { report.conflicts.iter() }.filter(|c| c.state == ConflictState::Active);
        let worst = lasting.map(|conflict| conflict.severity).min();
        let watched = report.segments.iter().filter(|s| s.complete).count();
        let segments = report.segments.len();
        let watching = match (watched, segments) {
            (_, 0) => "no segment is watched".to_owned(),
            (1, 1) => "the one segment is watched".to_owned(),
            (watched, all) if watched == all => format!("all {all} segments are watched"),
            (watched, all) => format!("{watched} of {all} segments are watched whole"),
        };
        let is_blind = !report.blind.is_empty() || segments == 0 || watched < segments;
        let (level, short, what) = match (active, worst) {
            (0, _) | (_, None) if is_blind => (
                Level::Warning,
                "not all is seen".to_owned(),
                "Nothing contested where the agent could look",
            ),
            (0, _) | (_, None) => (Level::Good, "all is well".to_owned(), "Nothing contested"),
            (active, Some(severity)) => {
                let conflicts = usize::try_from(active).unwrap_or(usize::MAX);
                let short = count(conflicts, "conflict");
                let level = match severity {
                    Severity::Critical => Level::Critical,
                    Severity::Warning => Level::Warning,
                    Severity::Info if is_blind => Level::Warning,
                    Severity::Info => Level::Info,
                };
                (level, short, "")
            }
        };
        let sentence = match what {
            "" => {
                let worst = worst.map_or("", Severity::name);
                let how = if active == 1 { "" } else { "the worst " };
                format!("{short}, {how}{worst}; {watching}")
            }
            what => format!("{what}, {watching}"),
        };
        Self {
            level,
            short,
            sentence,
        }
    }
}

fn head(report: &Report, pools: &Pools, since: Timestamp) -> Markup {
    let standing = Standing::of(report);
    let leases = report.leases.total();
    html! {
        section #standing data-level=(standing.level.class()) {
            h1 role="status" {
                span.sign aria-hidden="true" { (standing.level.sign()) }
                span { (standing.sentence) "." }
            }
            @if !report.blind.is_empty() {
                div.blind {
                    h2 { "The agent does not see everything" }
                    (list(&report.blind, 20))
                }
            }
            @if let Some(paused) = &pools.paused {
                p.note {
                    b { "Unattended releases are paused" }
                    @if let Some(by) = &paused.by { " by " (named(by)) }
                    @if let Some(at) = paused.at { ", since " (time(at)) }
                    "."
                }
            }
            dl.facts {
                div { dt { "Daemon" } dd { "ipam-agent " (VERSION) } }
                div { dt { "Host" } dd { (named(&report.host)) } }
                div { dt { "Running since" } dd { (time(since)) } }
                div { dt { "Leases" } dd { (leases) } }
            }
            nav aria-label="Parts of this page" {
                a href="#conflicts" { "Conflicts " b { (report.summary.active) } }
                a href="#pools" { "Pools " b { (pools.stores.iter().map(|s| s.pools.len()).sum::<usize>()) } }
                a href="#segments" { "Segments " b { (report.segments.len()) } }
                a href="#releases" { "Releases" }
                a href="#events" { "Events " b { (report.events.len()) } }
            }
        }
    }
}
