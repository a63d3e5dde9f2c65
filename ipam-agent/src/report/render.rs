//! Documents as tables for people, and as JSON and CSV for programs.

mod addresses;
mod check;
mod doctor;
mod explain;
mod history;
mod leases;
mod overview;
mod reclaim;
mod report;
mod segments;
mod watch;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use self::tests::samples;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    document::{HolderName, SegmentName},
    page::{Page, Style, View, clean},
};
use crate::store::host_local;

pub use self::watch::{watch_head, watch_line};

/// In which form results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The whole document, for programs.
    Json,
    /// One line for each thing, for spreadsheets.
    Csv,
}

/// A document that can be shown.
pub trait Document: Serialize {
    /// When it was made.
    fn generated_at(&self) -> Timestamp;

    /// For people.
    fn table(&self, page: &mut Page);

    /// For spreadsheets.
    fn csv(&self, csv: &mut Csv);
}

/// Why a document can't be written. It is never the document's content.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// As JSON.
    #[error("cannot write the document as JSON")]
    Json(#[from] serde_json::Error),
    /// As CSV.
    #[error("cannot write the document as CSV")]
    Csv(#[from] csv::Error),
}

/// The document as text that ends with a newline.
///
/// # Errors
/// Out of memory, in effect.
pub fn render<D: Document>(
    document: &D,
    format: Format,
    view: View,
) -> Result<String, RenderError> {
    match format {
        Format::Table => {
            let mut page = Page::new(view, document.generated_at());
            document.table(&mut page);
            Ok(page.finish())
        }
        Format::Json => Ok(serde_json::to_string_pretty(document)? + "\n"),
        Format::Csv => {
            let mut csv = Csv::default();
            document.csv(&mut csv);
            csv.finish()
        }
    }
}

/// Lines of comma-separated values (RFC 4180, with plain newlines).
#[derive(Debug, Default)]
pub struct Csv {
    rows: Vec<Vec<String>>,
}

impl Csv {
    /// Adds a line; the first is the headings. All have the same number of values.
    fn row<const N: usize>(&mut self, values: [&dyn std::fmt::Display; N]) {
        let clean = |value: &dyn std::fmt::Display| clean(&value.to_string()).into_owned();
        self.rows.push(values.map(clean).into());
    }

    fn finish(self) -> Result<String, RenderError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in self.rows {
            writer.write_record(row)?;
        }
        let bytes = writer
            .into_inner()
            .map_err(|error| csv::Error::from(error.into_error()))?;
        // It was made of strings.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A value that may be missing: nothing, then.
struct Maybe<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|value| value.fmt(f))
    }
}

/// The values with `separator` between them.
fn joined<T: ToString>(values: impl IntoIterator<Item = T>, separator: &str) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(separator)
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match (self.outer_vlan, self.vlan) {
            (Some(outer), vlan) => write!(f, " VLAN {outer}.{}", vlan.unwrap_or(0)),
            (None, Some(vlan)) => write!(f, " VLAN {vlan}"),
            (None, None) => Ok(()),
        }
    }
}

/// How much of a container's id tells it from others, as container tools print it.
const SHORT_ID: usize = 12;

/// Pod, else container, else MAC, else host interface.
impl std::fmt::Display for HolderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(pod) = &self.pod {
            f.write_str(pod)
        } else if self.container_id.as_deref() == Some(host_local::FENCE_HOLDER) {
            f.write_str("ipam-agent (a fence)")
        } else if let Some(id) = &self.container_id {
            write!(f, "container {}", id.get(..SHORT_ID).unwrap_or(id))
        } else if let Some(mac) = self.mac {
            mac.fmt(f)
        } else if let Some(interface) = &self.host_interface {
            write!(f, "behind {interface}")
        } else {
            f.write_str("unknown")
        }
    }
}

/// What kept the agent from looking.
fn blindness(page: &mut Page, blind: &[String]) {
    if blind.is_empty() {
        return;
    }
    page.blank();
    page.text(0, Style::Warning, "The agent could not see everything:");
    for reason in blind {
        page.text(2, Style::Plain, reason);
    }
}
