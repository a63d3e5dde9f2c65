//! What would be released and why not, what was, and what became of it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Csv, Document, Maybe, blindness, joined, leases::was};
use crate::{
    engine::{
        lease::Damage,
        plan::{Asker, Reason},
    },
    report::{
        document::{Applied, History, KeptLease, Plan, ReleaseResult},
        page::{Align::Left, Cell, Page, Style, Table, count, span},
    },
};

/// So many leases that are kept for one reason are listed with their details; of more,
/// the addresses.
const DETAILED: usize = 5;
/// So many addresses are listed.
const LISTED: usize = 12;

impl Document for Plan {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        match self.releases.len() {
            0 => page.text(0, Style::Bold, "Nothing would be released."),
            number => {
                let text = format!("{} would be released:", count(number, "lease"));
                page.text(0, Style::Bold, &text);
                self.releases_table(page);
            }
        }
        if !self.kept.is_empty() {
            page.blank();
            let text = format!("{} kept:", count(self.kept.len(), "lease"));
            page.text(0, Style::Bold, &text);
            let mut groups: BTreeMap<Option<Reason>, Vec<&KeptLease>> = BTreeMap::new();
            for kept in &self.kept {
                let reason = kept.blockers.first().map(|blocker| blocker.reason);
                groups.entry(reason).or_default().push(kept);
            }
            for (reason, group) in groups {
                kept_group(page, reason, &group);
            }
        }
        blindness(page, &self.blind);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"action",
            &"store",
            &"address",
            &"holder",
            &"damage",
            &"blockers",
            &"ready_at",
            &"reason",
        ]);
        for release in &self.releases {
            csv.row([
                &"release",
                &release.store,
                &release.address,
                &release.holder,
                &Maybe(release.damage.map(Damage::name)),
                &"",
                &"",
                &release.reason,
            ]);
        }
        for kept in &self.kept {
            let first = kept.blockers.first();
            let reasons = kept.blockers.iter().map(|blocker| blocker.reason.name());
            csv.row([
                &"keep",
                &kept.store,
                &kept.address,
                &"",
                &"",
                &joined(reasons, " "),
                &Maybe(ready(kept)),
                &Maybe(first.map(|blocker| &blocker.detail)),
            ]);
        }
    }
}

impl Plan {
    fn releases_table(&self, page: &mut Page) {
        let mut table = Table::new([
            ("ADDRESS", Left),
            ("STORE", Left),
            ("WAS OF", Left),
            ("SILENT FOR", Left),
            ("WHY", Left),
        ]);
        for release in &self.releases {
            let quiet = i64::try_from(release.evidence.quiet_seconds).unwrap_or(i64::MAX);
            table.row([
                release.address.to_string().into(),
                release.store.as_str().into(),
                was(&release.holder, release.damage).into(),
                span(quiet).into(),
                release.reason.as_str().into(),
            ]);
        }
        page.table(2, table);
    }
}

/// When it could go, if time is all that is missing: when the last condition is met.
fn ready(kept: &KeptLease) -> Option<Timestamp> {
    let ready: Option<Vec<_>> = kept
        .blockers
        .iter()
        .map(|blocker| blocker.ready_at)
        .collect();
    ready?.into_iter().max()
}

fn kept_group(page: &mut Page, reason: Option<Reason>, group: &[&KeptLease]) {
    let (name, meaning) = reason.map_or(("unknown", ""), |reason| (reason.name(), meaning(reason)));
    let heading = Cell::new(Style::Bold, name);
    page.line(
        2,
        [heading, count(group.len(), "lease").into(), meaning.into()],
    );
    if group.len() <= DETAILED {
        let mut table = Table::new([("ADDRESS", Left), ("COULD GO", Left), ("BECAUSE", Left)]);
        for kept in group {
            let details = kept.blockers.iter().map(|blocker| &blocker.detail);
            table.row([
                kept.address.to_string().into(),
                page.ago_or(ready(kept), "-").into(),
                joined(details, "; ").into(),
            ]);
        }
        page.table(4, table);
        return;
    }
    let mut addresses = joined(group.iter().take(LISTED).map(|kept| kept.address), ", ");
    if group.len() > LISTED {
        addresses += &format!(" and {} more", group.len() - LISTED);
    }
    page.text(4, Style::Plain, &addresses);
    let mut times = group.iter().filter_map(|kept| ready(kept));
    if let Some(first) = times.next() {
        let (first, last) = times.fold((first, first), |(first, last), at| {
            (first.min(at), last.max(at))
        });
        let text = match first == last {
            true => format!("could go {}", page.ago(first)),
            false => format!(
                "the first could go {}, the last {}",
                page.ago(first),
                page.ago(last)
            ),
        };
        page.text(4, Style::Plain, &text);
    }
}

/// What the reason's name means, for those who meet it for the first time.
fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::Mode => "the store's mode doesn't allow it unasked",
        Reason::Kept => "the configuration's `keep` names them",
        Reason::Age => "not seen unchanged for long enough",
        Reason::Coverage => "life could have been missed",
        Reason::SegmentUnwatched => "their wire isn't watched",
        Reason::Seen => "somebody was heard",
        Reason::ProbeAnswered => "somebody answered a probe",
        Reason::Holder => "somebody holds them",
        Reason::SourceDown => "not everyone could be asked who holds them",
        Reason::SecondPass => "a second pass must agree",
        Reason::Changed => "no longer the lease that was judged",
        Reason::Budget => "enough for one pass",
        Reason::StateNotPersistent => "the agent's state would not survive a reboot",
        Reason::BootUnknown => "not recorded in an earlier boot",
    }
}

fn result_style(result: ReleaseResult) -> Style {
    match result {
        ReleaseResult::Released => Style::Good,
        ReleaseResult::Kept => Style::Plain,
        ReleaseResult::Failed => Style::Bad,
        ReleaseResult::Unknown => Style::Warning,
    }
}

impl Document for Applied {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        if !self.outcomes.is_empty() {
            let mut table = Table::new([
                ("ADDRESS", Left),
                ("STORE", Left),
                ("RESULT", Left),
                ("WHY", Left),
            ]);
            for outcome in &self.outcomes {
                let blocker = outcome.blocker.as_ref();
                let why = blocker
                    .map(|blocker| &blocker.detail)
                    .or(outcome.error.as_ref());
                table.row([
                    outcome.address.to_string().into(),
                    outcome.store.as_str().into(),
                    Cell::new(result_style(outcome.result), outcome.result.name()),
                    Maybe(why).to_string().into(),
                ]);
            }
            page.table(0, table);
            page.blank();
        }
        let results = ReleaseResult::ALL.iter().filter_map(|&result| {
            let of_it = self
                .outcomes
                .iter()
                .filter(|outcome| outcome.result == result);
            let number = of_it.count();
            (number > 0).then(|| format!("{number} {result}"))
        });
        let text = match self.outcomes.len() {
            0 => "Nothing was released.".to_owned(),
            _ => format!("{}.", joined(results, ", ")),
        };
        page.text(0, Style::Bold, &text);
        blindness(page, &self.blind);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([&"store", &"address", &"result", &"blocker", &"detail"]);
        for outcome in &self.outcomes {
            let blocker = outcome.blocker.as_ref();
            let detail = blocker
                .map(|blocker| &blocker.detail)
                .or(outcome.error.as_ref());
            csv.row([
                &outcome.store,
                &outcome.address,
                &outcome.result,
                &Maybe(blocker.map(|blocker| blocker.reason.name())),
                &Maybe(detail),
            ]);
        }
    }
}

impl Document for History {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        if self.entries.is_empty() {
            page.text(
                0,
                Style::Plain,
                "The journal is empty: nothing was ever released.",
            );
        } else {
            let mut table = Table::new([
                ("WHEN", Left),
                ("ADDRESS", Left),
                ("RESULT", Left),
                ("WAS OF", Left),
                ("ID", Left),
                ("WHY", Left),
            ]);
            for entry in &self.entries {
                let why = entry.detail.as_ref().unwrap_or(&entry.reason);
                table.row([
                    page.ago(entry.at).into(),
                    entry.address.to_string().into(),
                    Cell::new(result_style(entry.result), entry.result.name()),
                    was(&entry.holder, entry.damage).into(),
                    entry.id.as_str().into(),
                    why.as_str().into(),
                ]);
            }
            page.table(0, table);
        }
        if self.damaged_lines > 0 {
            page.blank();
            let lines = usize::try_from(self.damaged_lines).unwrap_or(usize::MAX);
            let text = format!("{} of the journal can't be read.", count(lines, "line"));
            page.text(0, Style::Warning, &text);
        }
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([
            &"id", &"at", &"boot_id", &"asker", &"store", &"address", &"holder", &"damage",
            &"result", &"detail", &"reason",
        ]);
        for entry in &self.entries {
            csv.row([
                &entry.id,
                &entry.at,
                &entry.boot_id,
                &asker_name(entry.asker),
                &entry.store,
                &entry.address,
                &entry.holder,
                &Maybe(entry.damage.map(Damage::name)),
                &entry.result,
                &Maybe(entry.detail.as_ref()),
                &entry.reason,
            ]);
        }
    }
}

fn asker_name(asker: Asker) -> &'static str {
    match asker {
        Asker::Daemon => "daemon",
        Asker::Person => "person",
    }
}
