//! Names, times and addresses as every part of the page writes them.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use maud::{Markup, html};

use crate::report::{
    clean,
    document::{LeaseState, Severity},
    page::date,
};

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Good,
    Info,
    Warning,
    Critical,
}

impl Level {
    pub const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The same for who sees no colours.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Info => "i",
            Self::Warning => "!",
            Self::Critical => "✕",
        }
    }
}

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Critical,
            Severity::Warning => Self::Warning,
            Severity::Info => Self::Info,
        }
    }
}

/// How long a name may be that somebody else made up.
const LONGEST: usize = 300;

/// A name or a sentence with what comes from the wire or from a lease: what hides or turns
/// text around is written out, and what never ends is cut off. Markup is maud's to escape.
pub(super) fn named(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", clean(&text[..end]))),
        None => clean(text),
    }
}

/// The same of a sentence, which may hold several names.
pub(super) fn said(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(10 * LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", clean(&text[..end]))),
        None => clean(text),
    }
}

pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (date(at)) } }
}

/// An address, and the way to its story.
pub(super) fn address(address: IpAddr) -> Markup {
    html! { a.address href={ "/address/" (address) } { (address) } }
}

pub(super) fn badge(level: Level, text: &str) -> Markup {
    html! {
        span.badge data-level=(level.class()) {
            span.sign aria-hidden="true" { (level.sign()) } (text)
        }
    }
}

/// A lease's state with its letter, as in the maps.
pub(super) fn state(state: LeaseState) -> Markup {
    let kind = crate::report::document::CellKind::Leased(state);
    html! {
        span.state { (swatch(kind, false)) " " (kind.name()) }
    }
}

/// One cell of a map, as the legend shows it.
pub(super) fn swatch(kind: crate::report::document::CellKind, contested: bool) -> Markup {
    html! {
        span.c.(class(kind)).hot[contested] aria-hidden="true" { (sign(kind, contested)) }
    }
}

/// The class of a kind of cell.
pub(super) const fn class(kind: crate::report::document::CellKind) -> &'static str {
    use crate::report::document::CellKind;
    match kind {
        CellKind::Free => "n",
        CellKind::Excluded => "x",
        CellKind::Leased(state) => match state {
            LeaseState::Active => "a",
            LeaseState::Quiet => "q",
            LeaseState::Stale => "s",
            LeaseState::Quarantined | LeaseState::Released => "r",
            LeaseState::Fenced => "f",
            LeaseState::Unknown => "u",
        },
    }
}

/// What is written into a cell.
pub(super) const fn sign(kind: crate::report::document::CellKind, contested: bool) -> &'static str {
    use crate::report::document::CellKind;
    if contested {
        return "!";
    }
    match kind {
        CellKind::Free => "·",
        CellKind::Excluded => "×",
        CellKind::Leased(state) => match state {
            LeaseState::Active => "A",
            LeaseState::Quiet => "Q",
            LeaseState::Stale => "S",
            LeaseState::Quarantined | LeaseState::Released => "R",
            LeaseState::Fenced => "F",
            LeaseState::Unknown => "?",
        },
    }
}

/// Sentences, so many at most.
pub(super) fn list(sentences: &[String], most: usize) -> Markup {
    let more = sentences.len().saturating_sub(most);
    html! {
        ul {
            @for sentence in sentences.iter().take(most) { li { (said(sentence)) } }
            @if more > 0 { li { "and " (more) " more" } }
        }
    }
}
