//! Conflicts first, each with all that a person needs to act; then the rest in short.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;

use super::{Csv, Document, Maybe, blindness, joined, segments};
use crate::report::{
    document::{
        ClaimRecord, ConflictRecord, ConflictState, EventRecord, LeaseCounts, LeaseName, Report,
        Severity,
    },
    page::{
        Align::{Left, Right},
        Cell, Page, Style, Table, abridged, count,
    },
};

/// More conflicts than this are listed one a line.
const TOLD_IN_FULL: usize = 8;
/// On a screen no more than this are listed at all; into a pipe all are.
const LISTED: usize = 40;
/// So many kinds and segments are counted apart.
const COUNTED: usize = 12;
/// How wide a vendor's name may be; the JSON has all of it.
const VENDOR_WIDTH: usize = 20;
/// So many events are shown; the JSON has all.
const EVENTS_SHOWN: usize = 20;

impl Document for Report {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        headline(page, self);
        if self.conflicts.len() <= TOLD_IN_FULL {
            for conflict in &self.conflicts {
                page.blank();
                in_full(page, conflict);
            }
        } else {
            page.blank();
            by_kind_and_segment(page, &self.conflicts);
            page.blank();
            in_short(page, &self.conflicts);
            // Of a capture there is nobody to ask.
            if self.captures.is_empty() {
                let hint = "`ipam-agent explain ADDRESS` tells one in full.";
                page.text(0, Style::Dim, hint);
            }
        }
        events(page, &self.events);
        blindness(page, &self.blind);
        page.blank();
        segments::in_one_line(page, &self.segments);
        leases(page, self.leases);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"id",
            &"kind",
            &"severity",
            &"state",
            &"address",
            &"segment",
            &"vlan",
            &"outer_vlan",
            &"first_seen",
            &"last_seen",
            &"changes",
            &"macs",
            &"interfaces",
            &"stores",
            &"holders",
            &"reason",
        ]);
        for conflict in &self.conflicts {
            let claims = || conflict.claims.iter();
            let leases = || conflict.leases.iter();
            csv.row([
                &conflict.id,
                &conflict.kind,
                &conflict.severity,
                &conflict.state,
                &conflict.address,
                &conflict.segment.name,
                &Maybe(conflict.segment.vlan),
                &Maybe(conflict.segment.outer_vlan),
                &conflict.first_seen,
                &conflict.last_seen,
                &conflict.changes,
                &joined(claims().map(|claim| claim.mac), " "),
                &joined(claims().filter_map(|claim| claim.interface.as_deref()), " "),
                &joined(leases().map(|lease| &lease.store), " "),
                &joined(leases().map(|lease| &lease.holder), " "),
                &conflict.reason,
            ]);
        }
    }
}

fn headline(page: &mut Page, report: &Report) {
    let of = |state| move |conflict: &&ConflictRecord| conflict.state == state;
    let active: Vec<_> = { report.conflicts.iter() }
        .filter(of(ConflictState::Active))
        .collect();
    let resolved = report.conflicts.len() - active.len();
    let active_style = if active.is_empty() {
        Style::Good
    } else {
        Style::Bad
    };
    let text = match (active.len(), resolved) {
        (0, 0) if report.blind.is_empty() => "No conflicts.".to_owned(),
        (0, 0) => "No conflicts where the agent could look.".to_owned(),
        (0, resolved) => format!("No conflicts now; {resolved} resolved."),
        (number, resolved) => {
            let conflicts = count(number, "conflict");
            let severities = Severity::ALL.iter().filter_map(|severity| {
                let of = active.iter().filter(|known| known.severity == *severity);
                let number = of.count();
                (number > 0).then(|| format!("{number} {severity}"))
            });
            let severities = joined(severities, ", ");
            let more = match resolved {
                0 => String::new(),
                _ => format!("; {resolved} resolved"),
            };
            match active.as_slice() {
                [one] => format!("{conflicts}, {}{more}.", one.severity),
                _ => format!("{conflicts}: {severities}{more}."),
            }
        }
    };
    page.text(0, active_style, &text);
}

/// How many there are of which kind where, the most first.
fn by_kind_and_segment(page: &mut Page, conflicts: &[ConflictRecord]) {
    let mut counts = BTreeMap::<_, [usize; 2]>::new();
    for conflict in conflicts {
        let counts = counts.entry((conflict.kind, &conflict.segment));
        let resolved = usize::from(conflict.state == ConflictState::Resolved);
        counts.or_default()[resolved] += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, counts)| Reverse(counts));
    let mut table = Table::new([
        ("KIND", Left),
        ("ACTIVE", Right),
        ("RESOLVED", Right),
        ("SEGMENT", Left),
    ]);
    let hidden = counts.len().saturating_sub(COUNTED);
    for ((kind, segment), [active, resolved]) in counts.into_iter().take(COUNTED) {
        table.row([
            kind.name().into(),
            active.to_string().into(),
            resolved.to_string().into(),
            segment.to_string().into(),
        ]);
    }
    page.table(0, table);
    if hidden > 0 {
        page.text(0, Style::Dim, &format!("and {hidden} more like these"));
    }
}

fn severity_style(conflict: &ConflictRecord) -> Style {
    match (conflict.state, conflict.severity) {
        (ConflictState::Resolved, _) => Style::Dim,
        (ConflictState::Active, Severity::Critical) => Style::Bad,
        (ConflictState::Active, Severity::Warning) => Style::Warning,
        (ConflictState::Active, Severity::Info) => Style::Bold,
    }
}

fn standing(conflict: &ConflictRecord) -> &'static str {
    match conflict.state {
        ConflictState::Active => conflict.severity.name(),
        ConflictState::Resolved => conflict.state.name(),
    }
}

fn in_full(page: &mut Page, conflict: &ConflictRecord) {
    headline_of(page, 0, conflict);
    page.text(2, Style::Plain, &conflict.reason);
    claims(page, 2, &conflict.claims);
    for lease in &conflict.leases {
        page.text(2, Style::Plain, &leased(lease));
    }
    facts(page, 2, conflict);
}

pub(super) fn headline_of(page: &mut Page, indent: usize, conflict: &ConflictRecord) {
    let style = severity_style(conflict);
    let address = conflict.address.to_string();
    page.line(
        indent,
        [
            Cell::new(style, standing(conflict).to_uppercase()),
            Cell::new(Style::Bold, conflict.kind.name()),
            Cell::new(Style::Bold, address),
            conflict.segment.to_string().into(),
        ],
    );
}

/// Since when, how often, until when, and under which id.
pub(super) fn facts(page: &mut Page, indent: usize, conflict: &ConflictRecord) {
    let mut facts = vec![format!("since {}", page.ago(conflict.first_seen))];
    if conflict.changes > 0 {
        facts.push(format!("changed hands {}", times(conflict.changes)));
    }
    if conflict.flapping {
        facts.push("flapping".to_owned());
    }
    if let Some(at) = conflict.resolved_at {
        facts.push(format!("resolved {}", page.ago(at)));
    }
    facts.push(format!("id {}", conflict.id));
    page.text(indent, Style::Dim, &joined(facts, ", "));
}

fn times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{number} times"),
    }
}

/// Who claims an address. Where there is no room for both, vendors matter more than numbers.
pub(super) fn claims(page: &mut Page, indent: usize, claims: &[ClaimRecord]) {
    if claims.is_empty() {
        return;
    }
    let vendors = claims.iter().any(|claim| claim.vendor.is_some());
    let frames = page.is_wide() || !vendors;
    let mut columns = vec![("MAC", Left)];
    columns.extend(vendors.then_some(("VENDOR", Left)));
    columns.extend([
        ("INTERFACE", Left),
        ("FIRST SEEN", Left),
        ("LAST SEEN", Left),
    ]);
    columns.extend(frames.then_some(("FRAMES", Right)));
    columns.push(("EVIDENCE", Left));
    let mut table = Table::new(columns);
    for claim in claims {
        let mut cells = vec![Cell::from(claim.mac.to_string())];
        cells.extend(vendors.then(|| vendor(claim, VENDOR_WIDTH).into()));
        cells.extend([
            claim.behind().into(),
            page.ago(claim.first_seen).into(),
            page.ago(claim.last_seen).into(),
        ]);
        cells.extend(frames.then(|| claim.frames.to_string().into()));
        cells.push(joined(&claim.evidence, ", ").into());
        table.row(cells);
    }
    page.table(indent, table);
}

/// The vendor in so many columns; empty of one that isn't known.
pub(super) fn vendor(claim: &ClaimRecord, width: usize) -> String {
    abridged(claim.vendor.as_deref().unwrap_or_default(), width)
}

fn leased(lease: &LeaseName) -> String {
    let LeaseName {
        store,
        holder,
        state,
        ..
    } = lease;
    format!("leased to {holder} by {store}, {state}")
}

/// One a line, as they are sorted: the worst and the newest first.
pub(super) fn in_short(page: &mut Page, conflicts: &[ConflictRecord]) {
    let shown = match page.is_screen() {
        true => conflicts.len().min(LISTED),
        false => conflicts.len(),
    };
    let mut table = Table::new([
        ("SEVERITY", Left),
        ("KIND", Left),
        ("ADDRESS", Left),
        ("SEGMENT", Left),
        ("LAST SEEN", Left),
        ("WHO", Left),
    ]);
    for conflict in &conflicts[..shown] {
        let who = conflict.claims.iter().map(|claim| match &claim.interface {
            None if !claim.this_host => claim.mac.to_string(),
            _ => format!("{} ({})", claim.mac, claim.behind()),
        });
        table.row([
            Cell::new(severity_style(conflict), standing(conflict)),
            conflict.kind.name().into(),
            conflict.address.to_string().into(),
            conflict.segment.to_string().into(),
            page.ago(conflict.last_seen).into(),
            joined(who, ", ").into(),
        ]);
    }
    page.table(0, table);
    page.blank();
    let hidden = conflicts.len() - shown;
    if hidden > 0 {
        let hint = format!("{hidden} more, no worse than these: `--output csv` lists all.");
        page.text(0, Style::Bold, &hint);
    }
}

fn events(page: &mut Page, events: &[EventRecord]) {
    if events.is_empty() {
        return;
    }
    page.blank();
    page.text(0, Style::Bold, "Events that are no conflict");
    let hidden = events.len().saturating_sub(EVENTS_SHOWN);
    if hidden > 0 {
        let text = format!("{hidden} earlier ones: --output json");
        page.text(2, Style::Dim, &text);
    }
    let mut table = Table::new([
        ("WHEN", Left),
        ("KIND", Left),
        ("ADDRESS", Left),
        ("WHAT", Left),
    ]);
    for event in &events[hidden..] {
        table.row([
            page.ago(event.at).into(),
            Cell::new(event_style(event), event.kind.name()),
            event.address.to_string().into(),
            event.reason.as_str().into(),
        ]);
    }
    page.table(2, table);
}

fn event_style(event: &EventRecord) -> Style {
    match event.severity {
        Severity::Critical => Style::Bad,
        Severity::Warning => Style::Warning,
        Severity::Info => Style::Plain,
    }
}

pub(super) fn leases(page: &mut Page, counts: LeaseCounts) {
    let states = counts.iter().filter(|&(_, number)| number > 0);
    let states = states.map(|(state, number)| format!("{number} {state}"));
    let text = match counts.total() {
        0 => "Leases: none.".to_owned(),
        _ => format!("Leases: {}.", joined(states, ", ")),
    };
    page.text(0, Style::Plain, &text);
}
