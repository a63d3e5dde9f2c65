//! One address: what the agent makes of it, what it knows now, and what happened.

use jiff::Timestamp;

use super::{Csv, Document, blindness, joined, leases, report};
use crate::report::{
    document::{Explain, Held, HolderAnswer, Life, PoolRole, SetApartRecord},
    page::{Align::Left, Cell, Page, Style, Table, date},
};

impl Document for Explain {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        page.line(0, [Cell::new(Style::Bold, self.address.to_string())]);
        page.text(2, Style::Plain, &self.verdict);
        for of in &self.set_apart {
            let SetApartRecord { store, pool, role } = of;
            let what = match role {
                PoolRole::Gateway => "the gateway of",
                PoolRole::Excluded => "excluded from",
                PoolRole::Network => "the network's own address of",
                PoolRole::Broadcast => "the broadcast address of",
            };
            page.text(
                2,
                Style::Plain,
                &format!("{what} {pool}, a pool of {store}"),
            );
        }
        if !self.conflicts.is_empty() {
            section(page, "Conflicts");
        }
        for conflict in &self.conflicts {
            report::headline_of(page, 2, conflict);
            if conflict.reason != self.verdict {
                page.text(4, Style::Plain, &conflict.reason);
            }
            report::facts(page, 4, conflict);
        }
        section(page, "Who says it is theirs");
        match &self.this_host {
            Some(link) => page.text(2, Style::Plain, &format!("this host, on {link}")),
            None if self.claims.is_empty() => page.text(2, Style::Plain, "nobody was heard"),
            None => {}
        }
        for segment in self.claims.chunk_by(|a, b| a.segment == b.segment) {
            let [first, ..] = segment else { continue };
            page.text(2, Style::Plain, &first.segment.to_string());
            let claims: Vec<_> = segment.iter().map(|claim| claim.claim.clone()).collect();
            report::claims(page, 4, &claims);
        }
        section(page, "Leases");
        if self.leases.is_empty() {
            page.text(2, Style::Plain, "none");
        }
        for lease in &self.leases {
            leases::in_full(page, lease);
        }
        if !self.holders.is_empty() {
            section(page, "Who holds it");
            holders(page, &self.holders);
        }
        life(page, self.life);
        if !self.story.is_empty() {
            section(page, "What happened");
            let mut table = Table::new([("WHEN", Left), ("", Left), ("WHAT", Left)]);
            for told in &self.story {
                let what = told.what.as_str().into();
                table.row([date(told.at).into(), page.ago(told.at).into(), what]);
            }
            page.table(2, table);
        }
        blindness(page, &self.blind);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([&"at", &"what"]);
        for told in &self.story {
            csv.row([&told.at, &told.what]);
        }
    }
}

fn holders(page: &mut Page, holders: &[HolderAnswer]) {
    let mut table = Table::new([("SOURCE", Left), ("ANSWER", Left), ("DETAIL", Left)]);
    for holder in holders {
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

fn life(page: &mut Page, life: Life) {
    let signs = [
        (life.assertion, "assertion of it"),
        (life.probe, "probe for it"),
        (life.packet, "IP packet from it"),
    ];
    let signs: Vec<String> = signs
        .into_iter()
        .filter_map(|(at, what)| Some(format!("{what} {}", page.ago(at?))))
        .collect();
    if !signs.is_empty() {
        section(page, "Last signs of life");
        page.text(2, Style::Plain, &joined(signs, ", "));
    }
}

fn section(page: &mut Page, heading: &str) {
    page.blank();
    page.text(0, Style::Bold, heading);
}
