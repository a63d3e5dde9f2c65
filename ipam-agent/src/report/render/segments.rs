//! What is watched.

use jiff::Timestamp;

use super::{Csv, Document, Maybe, joined};
use crate::report::{
    document::{SegmentRecord, Segments},
    page::{
        Align::{Left, Right},
        Cell, Page, Style, Table, count,
    },
};

impl Document for Segments {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        if self.segments.is_empty() {
            page.text(0, Style::Warning, "No segment is watched.");
            return;
        }
        let mut table = Table::new([
            ("SEGMENT", Left),
            ("COVERED SINCE", Left),
            ("COMPLETE", Left),
            ("LOST", Right),
            ("EVICTED", Right),
            ("INTERFACES", Left),
        ]);
        for record in &self.segments {
            table.row([
                record.segment.to_string().into(),
                page.ago_or(record.watched_since, "not now").into(),
                match record.complete {
                    true => "yes".into(),
                    false => Cell::new(Style::Warning, "no"),
                },
                record.lost.to_string().into(),
                record.evicted.to_string().into(),
                joined(&record.interfaces, ", ").into(),
            ]);
        }
        page.table(0, table);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"segment",
            &"vlan",
            &"outer_vlan",
            &"watched_since",
            &"complete",
            &"lost",
            &"evicted",
            &"interfaces",
        ]);
        for record in &self.segments {
            csv.row([
                &record.segment.name,
                &Maybe(record.segment.vlan),
                &Maybe(record.segment.outer_vlan),
                &Maybe(record.watched_since),
                &record.complete,
                &record.lost,
                &record.evicted,
                &joined(&record.interfaces, " "),
            ]);
        }
    }
}

pub(super) fn in_one_line(page: &mut Page, segments: &[SegmentRecord]) {
    if segments.is_empty() {
        page.text(0, Style::Warning, "Watched: nothing.");
        return;
    }
    let interfaces = segments.iter().map(|record| record.interfaces.len()).sum();
    let open: Vec<_> = segments.iter().filter(|record| !record.complete).collect();
    let since = segments
        .iter()
        .filter_map(|record| record.watched_since)
        .max();
    let how = match since {
        _ if !open.is_empty() => {
            let names = joined(open.iter().map(|record| &record.segment), ", ");
            format!("not all of {names}")
        }
        Some(since) => format!("all of it since {}", page.ago(since)),
        None => "not long enough to say".to_owned(),
    };
    let text = format!(
        "Watched: {}, {}, {how}.",
        count(segments.len(), "segment"),
        count(interfaces, "interface"),
    );
    page.text(0, Style::Plain, &text);
    // Both are the host's, whichever segment tells of them.
    let most = |count: fn(&SegmentRecord) -> u64| segments.iter().map(count).max().unwrap_or(0);
    let lost = most(|record| record.lost);
    if lost > 0 {
        let text = format!("{lost} sightings were lost: a short conflict may have been missed.");
        page.text(0, Style::Warning, &text);
    }
    let evicted = most(|record| record.evicted);
    if evicted > 0 {
        let text = format!(
            "{evicted} addresses were forgotten, none of them leased or contested: the table \
             is full. Somebody may be flooding it with forged ones."
        );
        page.text(0, Style::Warning, &text);
    }
}
