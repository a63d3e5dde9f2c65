//! Leases.

use jiff::Timestamp;

use super::{Csv, Document, Maybe, blindness, joined, report};
use crate::engine::lease::Damage;
use crate::report::{
    document::{HolderName, LeaseRecord, LeaseState, Leases},
    page::{Align::Left, Cell, Page, Style, Table},
};

impl Document for Leases {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        let mut table = Table::new([
            ("ADDRESS", Left),
            ("STATE", Left),
            ("HOLDER", Left),
            ("LAST HEARD", Left),
            ("WHY", Left),
        ]);
        let mut store = None;
        for record in &self.leases {
            if store.replace(&record.lease.store) != Some(&record.lease.store) {
                flush(page, &mut table);
                page.text(0, Style::Bold, &record.lease.store);
            }
            table.row([
                record.lease.address.to_string().into(),
                Cell::new(state_style(record.lease.state), record.lease.state.name()),
                record.lease.holder.to_string().into(),
                page.ago_or(record.last_heard, "never").into(),
                record.reason.as_str().into(),
            ]);
        }
        flush(page, &mut table);
        report::leases(
            page,
            self.leases
                .iter()
                .map(|record| record.lease.state)
                .collect(),
        );
        blindness(page, &self.blind);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"store",
            &"address",
            &"state",
            &"pod",
            &"container_id",
            &"interface",
            &"mac",
            &"host_interface",
            &"segment",
            &"vlan",
            &"damage",
            &"since",
            &"last_heard",
            &"blockers",
            &"reason",
        ]);
        for record in &self.leases {
            let holder = &record.lease.holder;
            let segment = record.segment.as_ref();
            let blockers = record.blockers.iter();
            csv.row([
                &record.lease.store,
                &record.lease.address,
                &record.lease.state,
                &Maybe(holder.pod.as_ref()),
                &Maybe(holder.container_id.as_ref()),
                &Maybe(holder.interface.as_ref()),
                &Maybe(holder.mac),
                &Maybe(holder.host_interface.as_ref()),
                &Maybe(segment.map(|segment| &segment.name)),
                &Maybe(segment.and_then(|segment| segment.vlan)),
                &Maybe(record.damage.map(Damage::name)),
                &Maybe(record.since),
                &Maybe(record.last_heard),
                &joined(blockers.map(|blocker| blocker.reason.name()), " "),
                &record.reason,
            ]);
        }
    }
}

/// Writes the rows gathered, and begins anew.
fn flush(page: &mut Page, table: &mut Table) {
    if !table.is_empty() {
        let rows = table.take();
        page.table(2, rows);
        page.blank();
    }
}

pub(super) fn state_style(state: LeaseState) -> Style {
    match state {
        LeaseState::Active => Style::Good,
        LeaseState::Stale => Style::Bad,
        LeaseState::Unknown => Style::Warning,
        LeaseState::Quiet | LeaseState::Quarantined | LeaseState::Released | LeaseState::Fenced => {
            Style::Plain
        }
    }
}

/// The holder, or what is left of it.
pub(super) fn was(record: &HolderName, damage: Option<Damage>) -> String {
    match damage {
        Some(damage) => format!("{record} ({} record)", damage.name()),
        None => record.to_string(),
    }
}

/// One lease and what stands against its release.
pub(super) fn in_full(page: &mut Page, record: &LeaseRecord) {
    let lease = &record.lease;
    page.line(
        2,
        [
            Cell::new(state_style(lease.state), lease.state.name()),
            lease.store.as_str().into(),
            was(&lease.holder, record.damage).into(),
        ],
    );
    page.text(4, Style::Plain, &record.reason);
    if record.blockers.is_empty() {
        return;
    }
    let mut table = Table::new([("KEPT BY", Left), ("UNTIL", Left), ("BECAUSE", Left)]);
    for blocker in &record.blockers {
        table.row([
            blocker.reason.name().into(),
            page.ago_or(blocker.ready_at, "it changes").into(),
            blocker.detail.as_str().into(),
        ]);
    }
    page.table(4, table);
}
