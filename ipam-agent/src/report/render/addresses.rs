//! Who is on the wires.

use jiff::Timestamp;

use super::{Csv, Document, Maybe, joined, report};
use crate::report::{
    document::Addresses,
    page::{
        Align::{Left, Right},
        Page, Style, Table, count,
    },
};

/// How wide a vendor's name may be on a narrow screen, and on a wide one.
const VENDOR_WIDTH: [usize; 2] = [14, 24];

impl Document for Addresses {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        if self.addresses.is_empty() {
            page.text(0, Style::Plain, "Nobody was heard.");
            return;
        }
        let wide = page.is_wide();
        for segment in self.addresses.chunk_by(|a, b| a.segment == b.segment) {
            let [first, ..] = segment else { continue };
            page.blank();
            let heading = format!("{}, {}", first.segment, count(segment.len(), "address"));
            page.text(0, Style::Bold, &heading);
            let more = [("FIRST HEARD", Left), ("FRAMES", Right)];
            let more = more.into_iter().filter(|_| wide);
            let columns = [
                ("ADDRESS", Left),
                ("MAC", Left),
                ("VENDOR", Left),
                ("INTERFACE", Left),
                ("LAST HEARD", Left),
            ];
            let last = [("LEASED TO", Left)];
            let mut table = Table::new(columns.into_iter().chain(more).chain(last));
            for record in segment {
                let claim = &record.claim;
                let cells = [
                    record.address.to_string().into(),
                    claim.mac.to_string().into(),
                    report::vendor(claim, VENDOR_WIDTH[usize::from(wide)]).into(),
                    claim.behind().into(),
                    page.ago(claim.last_seen).into(),
                ];
                let more = [
                    page.ago(claim.first_seen).into(),
                    claim.frames.to_string().into(),
                ];
                let more = more.into_iter().filter(|_| wide);
                let holders = record.leases.iter().map(|lease| &lease.holder);
                let last = [joined(holders, ", ").into()];
                table.row(cells.into_iter().chain(more).chain(last));
            }
            page.table(2, table);
        }
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"address",
            &"mac",
            &"segment",
            &"vlan",
            &"outer_vlan",
            &"interface",
            &"first_seen",
            &"last_seen",
            &"frames",
            &"evidence",
            &"stores",
            &"holders",
            &"vendor",
        ]);
        for record in &self.addresses {
            csv.row([
                &record.address,
                &record.claim.mac,
                &record.segment.name,
                &Maybe(record.segment.vlan),
                &Maybe(record.segment.outer_vlan),
                &Maybe(record.claim.interface.as_ref()),
                &record.claim.first_seen,
                &record.claim.last_seen,
                &record.claim.frames,
                &joined(&record.claim.evidence, " "),
                &joined(record.leases.iter().map(|lease| &lease.store), " "),
                &joined(record.leases.iter().map(|lease| &lease.holder), " "),
                &Maybe(record.claim.vendor.as_ref()),
            ]);
        }
    }
}
