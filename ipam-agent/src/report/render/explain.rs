//! The story of one address.

use jiff::Timestamp;

use super::{Csv, Document, joined, leases, report};
use crate::report::{
    document::{ConflictState, Explain, Held},
    page::{Align::Left, Cell, Page, Style, Table, date},
};

impl Document for Explain {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        page.line(0, [Cell::new(Style::Bold, self.address.to_string())]);
        page.text(2, Style::Plain, &self.verdict);
        if !self.conflicts.is_empty() {
            section(page, "Conflicts");
            for conflict in &self.conflicts {
                report::in_full(page, conflict);
            }
        }
        section(page, "Leases");
        if self.leases.is_empty() {
            page.text(2, Style::Plain, "none");
        }
        for lease in &self.leases {
            leases::in_full(page, lease);
        }
        section(page, "Who says it is theirs");
        if self.claims.is_empty() {
            page.text(2, Style::Plain, "nobody was heard");
        }
        for segment in self.claims.chunk_by(|a, b| a.segment == b.segment) {
            let [first, ..] = segment else { continue };
            page.text(2, Style::Plain, &first.segment.to_string());
            let claims: Vec<_> = segment.iter().map(|claim| claim.claim.clone()).collect();
            report::claims(page, 4, &claims);
        }
        if !self.holders.is_empty() {
            section(page, "Who holds it");
            let mut table = Table::new([("SOURCE", Left), ("ANSWER", Left), ("DETAIL", Left)]);
            for holder in &self.holders {
                let style = match holder.answer {
                    Held::Yes => Style::Good,
                    Held::No => Style::Plain,
                    Held::Unknown => Style::Warning,
                };
                table.row([
                    holder.source.as_str().into(),
                    Cell::new(style, holder.answer.name()),
                    holder.detail.as_deref().unwrap_or_default().into(),
                ]);
            }
            page.table(2, table);
        }
        let story = story(self);
        if !story.is_empty() {
            section(page, "What happened");
            let mut table = Table::new([("WHEN", Left), ("", Left), ("WHAT", Left)]);
            for (at, what) in story {
                table.row([date(at).into(), page.ago(at).into(), what.into()]);
            }
            page.table(2, table);
        }
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([&"at", &"what"]);
        for (at, what) in story(self) {
            csv.row([&at, &what]);
        }
    }
}

fn section(page: &mut Page, heading: &str) {
    page.blank();
    page.text(0, Style::Bold, heading);
}

/// All that has a time, in its order.
fn story(explain: &Explain) -> Vec<(Timestamp, String)> {
    let mut story = Vec::new();
    for lease in &explain.leases {
        if let Some(since) = lease.since {
            let was = leases::was(&lease.lease.holder, lease.damage);
            let what = format!(
                "the agent first saw the lease of {}: {was}",
                lease.lease.store
            );
            story.push((since, what));
        }
    }
    for claim in explain.claims.iter().map(|claim| &claim.claim) {
        let mac = claim.mac;
        let interface = claim.interface.as_deref().unwrap_or("a port that is gone");
        let evidence = joined(&claim.evidence, ", ");
        story.push((
            claim.first_seen,
            format!("{mac} first heard, on {interface}"),
        ));
        if claim.last_seen > claim.first_seen {
            let what = format!("{mac} last heard, {} frames: {evidence}", claim.frames);
            story.push((claim.last_seen, what));
        }
    }
    for conflict in &explain.conflicts {
        let mut before = None;
        for step in &conflict.history {
            let what = match (before, step.state) {
                (_, ConflictState::Resolved) => format!("{} resolved", step.kind),
                (None, ConflictState::Active) => format!("{}, {}", step.kind, step.severity),
                (Some(_), ConflictState::Active) => {
                    format!("becomes {}, {}", step.kind, step.severity)
                }
            };
            before = Some(step);
            story.push((step.at, what));
        }
    }
    for event in &explain.events {
        story.push((event.at, format!("{}: {}", event.kind, event.reason)));
    }
    let life = [
        (explain.life.assertion, "last assertion of it"),
        (explain.life.probe, "last probe for it"),
        (explain.life.packet, "last IP packet from it"),
    ];
    for (at, what) in life {
        story.extend(at.map(|at| (at, what.to_owned())));
    }
    story.sort_by_key(|(at, _)| *at);
    story
}
