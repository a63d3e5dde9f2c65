//! Whether one address is free.

use jiff::Timestamp;

use super::{Csv, Document, Maybe};
use crate::report::{
    document::{AddressCheck, AddressVerdict},
    page::{Page, Style},
};

impl Document for AddressCheck {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        let style = match self.verdict {
            AddressVerdict::Free => Style::Good,
            AddressVerdict::InUse | AddressVerdict::BeingClaimed => Style::Bad,
        };
        page.text(0, style, &self.reason);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"address",
            &"interface",
            &"verdict",
            &"mac",
            &"evidence",
            &"own_interface",
            &"reason",
        ]);
        csv.row([
            &self.address,
            &self.interface,
            &self.verdict,
            &Maybe(self.mac),
            &Maybe(self.evidence),
            &Maybe(self.own_interface.as_ref()),
            &self.reason,
        ]);
    }
}
