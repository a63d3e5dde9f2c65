//! What works on this host, and the mend for what doesn't.

use jiff::Timestamp;

use super::{Csv, Document, Maybe};
use crate::report::{
    document::{CheckStatus, Doctor},
    page::{Align::Left, Cell, Page, Style, Table},
};

impl Document for Doctor {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        let mut table = Table::new([("", Left), ("WHAT", Left), ("FOUND", Left)]);
        for check in &self.checks {
            let (style, status) = match check.status {
                CheckStatus::Ok => (Style::Good, "ok"),
                CheckStatus::Warn => (Style::Warning, "WARN"),
                CheckStatus::Fail => (Style::Bad, "FAIL"),
            };
            table.row([
                Cell::new(style, status),
                check.name.as_str().into(),
                check.detail.as_str().into(),
            ]);
            if let Some(mend) = &check.mend {
                let mend = format!("-> {mend}");
                table.row(["".into(), "".into(), Cell::new(Style::Bold, mend)]);
            }
        }
        page.table(0, table);
        let worst = self.checks.iter().map(|check| check.status).max();
        let text = match worst.unwrap_or(CheckStatus::Ok) {
            CheckStatus::Ok => "All is well.",
            CheckStatus::Warn => "It works, with the limits above.",
            CheckStatus::Fail => "It does not work yet: mend what says FAIL, from the top.",
        };
        page.blank();
        page.text(0, Style::Bold, text);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([&"name", &"status", &"detail", &"mend"]);
        for check in &self.checks {
            csv.row([
                &check.name,
                &check.status,
                &check.detail,
                &Maybe(check.mend.as_ref()),
            ]);
        }
    }
}
