//! One look at a host.

use jiff::Timestamp;

use super::{Csv, Document, Maybe, blindness, joined, report, segments};
use crate::report::{
    document::{ConflictState, Overview},
    page::{
        Align::{Left, Right},
        Page, Style, Table,
    },
};

impl Document for Overview {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        segments::in_one_line(page, &self.segments);
        page.blank();
        match self.conflicts.is_empty() {
            true => page.text(0, Style::Good, "No conflicts."),
            false => report::in_short(page, &self.conflicts),
        }
        page.blank();
        if self.pools.is_empty() {
            page.text(0, Style::Plain, "No leases.");
        } else {
            let mut table = Table::new([
                ("POOL", Left),
                ("PREFIX", Left),
                ("ADDRESSES", Right),
                ("FREE", Right),
                ("LEASES", Left),
            ]);
            for pool in &self.pools {
                let states = pool.leases.iter().filter(|&(_, number)| number > 0);
                let states = states.map(|(state, number)| format!("{number} {state}"));
                table.row([
                    pool.store.as_str().into(),
                    pool.prefix.as_deref().unwrap_or("in none").into(),
                    Maybe(pool.addresses).to_string().into(),
                    Maybe(pool.free).to_string().into(),
                    joined(states, ", ").into(),
                ]);
            }
            page.table(0, table);
        }
        page.blank();
        if self.releases.is_empty() {
            page.text(
                0,
                Style::Plain,
                "Nothing was given back in the last 24 hours.",
            );
        } else {
            let mut table = Table::new([
                ("GIVEN BACK", Left),
                ("ADDRESS", Left),
                ("POOL", Left),
                ("WHO HAD IT", Left),
                ("ID", Left),
            ]);
            for release in &self.releases {
                table.row([
                    page.ago(release.released_at).into(),
                    release.address.to_string().into(),
                    release.store.as_str().into(),
                    release.holder.to_string().into(),
                    release.id.as_str().into(),
                ]);
            }
            page.table(0, table);
        }
        for event in &self.released_but_alive {
            page.text(
                0,
                Style::Bad,
                &format!("RELEASED BUT ALIVE: {}", event.reason),
            );
        }
        blindness(page, &self.blind);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([&"what", &"name", &"address", &"state", &"at", &"detail"]);
        let none = Maybe::<u8>(None);
        for record in &self.segments {
            let state = match record.complete {
                true => "watched",
                false => "not-whole",
            };
            let interfaces = joined(&record.interfaces, " ");
            csv.row([
                &"segment",
                &record.segment,
                &none,
                &state,
                &Maybe(record.watched_since),
                &interfaces,
            ]);
        }
        for pool in &self.pools {
            let prefix = Maybe(pool.prefix.as_ref());
            csv.row([
                &"pool",
                &pool.store,
                &prefix,
                &"free",
                &none,
                &Maybe(pool.free),
            ]);
            for (state, number) in pool.leases.iter().filter(|&(_, number)| number > 0) {
                csv.row([&"pool", &pool.store, &prefix, &state, &none, &number]);
            }
        }
        for conflict in &self.conflicts {
            let state = match conflict.state {
                ConflictState::Active => conflict.severity.name(),
                ConflictState::Resolved => conflict.state.name(),
            };
            csv.row([
                &conflict.kind,
                &conflict.segment,
                &conflict.address,
                &state,
                &conflict.last_seen,
                &conflict.reason,
            ]);
        }
        for release in &self.releases {
            csv.row([
                &"release",
                &release.store,
                &release.address,
                &"quarantined",
                &release.released_at,
                &release.id,
            ]);
        }
        for event in &self.released_but_alive {
            csv.row([
                &event.kind,
                &event.segment,
                &event.address,
                &event.severity,
                &event.at,
                &event.reason,
            ]);
        }
    }
}
