//! What happens, a line each: there is no end at which columns could be measured.

use super::{Csv, Format, Maybe, RenderError, joined};
use crate::report::{
    document::{ConflictRecord, EventRecord, Happening, Severity, WatchLine},
    page::{Cell, Page, Style, View, count, date},
};

/// What comes before the first line; nothing for most formats.
///
/// # Errors
/// Out of memory, in effect.
pub fn watch_head(format: Format) -> Result<String, RenderError> {
    if format != Format::Csv {
        return Ok(String::new());
    }
    let mut csv = Csv::default();
    csv.row([
        &"at",
        &"what",
        &"id",
        &"kind",
        &"severity",
        &"address",
        &"segment",
        &"vlan",
        &"outer_vlan",
        &"macs",
        &"stores",
        &"reason",
    ]);
    csv.finish()
}

/// One line with its newline; `None` for what only programs need to be told.
///
/// # Errors
/// Out of memory, in effect.
pub fn watch_line(
    line: &WatchLine,
    format: Format,
    view: View,
) -> Result<Option<String>, RenderError> {
    match format {
        Format::Json => Ok(Some(serde_json::to_string(line)? + "\n")),
        Format::Table => {
            let mut page = Page::new(view, line.at);
            Ok(line.write(&mut page).map(|()| page.finish()))
        }
        Format::Csv => {
            let mut csv = Csv::default();
            line.csv(&mut csv).map(|()| csv.finish()).transpose()
        }
    }
}

impl WatchLine {
    fn write(&self, page: &mut Page) -> Option<()> {
        let text = self.text()?;
        let date = Cell::new(Style::Dim, date(self.at));
        let what = format!("{:8}", self.what);
        let Some(conflict) = &self.conflict else {
            let style = match (&self.event, self.missed) {
                (Some(_), _) => Style::Bad,
                (None, Some(_)) => Style::Warning,
                (None, None) => Style::Bold,
            };
            page.line(0, [date, Cell::new(style, what), text.into()]);
            return Some(());
        };
        let style = match conflict.severity {
            _ if self.what == Happening::Resolved => Style::Good,
            Severity::Critical => Style::Bad,
            Severity::Warning => Style::Warning,
            Severity::Info => Style::Plain,
        };
        page.line(
            0,
            [
                date,
                Cell::new(style, what),
                Cell::new(style, format!("{:8}", conflict.severity)),
                format!("{:17}", conflict.kind).into(),
                text.into(),
            ],
        );
        Some(())
    }

    fn csv(&self, csv: &mut Csv) -> Option<()> {
        let text = self.text()?;
        let conflict = self.conflict.as_ref();
        let release = self.release.as_ref();
        let event = self.event.as_ref();
        let segment = conflict.map(|conflict| &conflict.segment);
        let segment = segment.or(event.map(|event| &event.segment));
        let address = conflict.map(|conflict| conflict.address);
        let address = address.or(event.map(|event| event.address));
        let severity = conflict.map(|conflict| conflict.severity);
        let macs = |conflict: &ConflictRecord| {
            let claims = conflict.claims.iter();
            joined(claims.map(|claim| claim.mac), " ")
        };
        let event_macs = |event: &EventRecord| joined(&event.macs, " ");
        let stores = |conflict: &ConflictRecord| {
            let leases = conflict.leases.iter();
            joined(leases.map(|lease| &lease.store), " ")
        };
        let store = release.map(|release| release.store.clone());
        let reason = conflict.map(|conflict| conflict.reason.as_str());
        let reason = reason.or(release.map(|release| release.reason.as_str()));
        let reason = reason.or(event.map(|event| event.reason.as_str()));
        csv.row([
            &self.at,
            &self.what,
            &Maybe(conflict.map(|conflict| &conflict.id)),
            &Maybe(conflict.map(|conflict| conflict.kind)),
            &Maybe(severity.or(event.map(|event| event.severity))),
            &Maybe(address.or(release.map(|release| release.address))),
            &Maybe(segment.map(|segment| &segment.name)),
            &Maybe(segment.and_then(|segment| segment.vlan)),
            &Maybe(segment.and_then(|segment| segment.outer_vlan)),
            &Maybe(conflict.map(macs).or(event.map(event_macs))),
            &Maybe(conflict.map(stores).or(store)),
            &reason.unwrap_or(&text),
        ]);
        Some(())
    }

    /// In words.
    fn text(&self) -> Option<String> {
        match (&self.conflict, &self.release, self.missed) {
            (Some(conflict), ..) => Some(format!("{}: {}", conflict.segment, conflict.reason)),
            (_, Some(release), _) => Some(format!(
                "{} of {}, leased to {}: {}",
                release.address, release.store, release.holder, release.reason
            )),
            _ if self.event.is_some() => self.event.as_ref().map(|event| {
                let EventRecord {
                    severity,
                    segment,
                    reason,
                    ..
                } = event;
                format!("{severity}  {segment}: {reason}")
            }),
            (.., Some(missed)) => Some(format!(
                "{}: this reader was too slow",
                count(usize::try_from(missed).unwrap_or(usize::MAX), "line")
            )),
            _ => None,
        }
    }
}
