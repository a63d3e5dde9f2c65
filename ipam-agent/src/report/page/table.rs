//! Columns without borders: easy to read at 80 columns, easy to cut with other tools.

use unicode_width::UnicodeWidthStr;

use super::{Cell, Page, Style, clean, wrap};

/// Between two columns.
const GAP: usize = 2;
/// What the last column needs to stand beside the others; with less it goes below.
const LAST_AT_LEAST: usize = 24;

/// On which side a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Align {
    Left,
    Right,
}

/// Rows of cells under headings. The last column is the one that wraps.
#[derive(Debug)]
pub(in crate::report) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let clean = |cell: Cell| Cell {
            text: clean(&cell.text).into_owned(),
            style: cell.style,
        };
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// The rows, leaving the headings for others.
    pub fn take(&mut self) -> Self {
        Self {
            columns: self.columns.clone(),
            rows: std::mem::take(&mut self.rows),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn write(mut self, page: &mut Page, indent: usize) {
        let headings = self.columns.iter();
        let headings = headings.map(|(name, _)| Cell::new(Style::Dim, *name));
        self.rows.insert(0, headings.collect());
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.text.width()).max().unwrap_or(0)
            })
            .collect();
        let Some((&last_width, before)) = widths.split_last() else {
            return;
        };
        let offset = indent + before.iter().map(|width| width + GAP).sum::<usize>();
        let room = page.view.width.map(|width| width.saturating_sub(offset));
        let below = room.is_some_and(|room| room < LAST_AT_LEAST && room < last_width);
        for (index, row) in self.rows.iter().enumerate() {
            let Some((last, cells)) = row.split_last() else {
                continue;
            };
            page.indent(indent);
            for ((cell, &width), (_, align)) in cells.iter().zip(before).zip(&self.columns) {
                let padding = width - cell.text.width();
                if *align == Align::Right {
                    page.indent(padding);
                }
                page.paint(cell.style, &cell.text);
                if *align == Align::Left {
                    page.indent(padding);
                }
                page.indent(GAP);
            }
            if !below {
                let mut lines = wrap(&last.text, room).into_iter();
                page.paint(last.style, lines.next().unwrap_or_default());
                for line in lines {
                    page.end_line();
                    page.indent(offset);
                    page.paint(last.style, line);
                }
            }
            page.end_line();
            // Its heading would say nothing there.
            if below && index > 0 && !last.text.is_empty() {
                page.text(indent + 2 * GAP, last.style, &last.text);
            }
        }
    }
}
