//! What would be released and why not, what was, and what became of it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Csv, Document, Maybe, blindness, joined, leases::was};
use crate::{
    engine::{lease::Damage, plan::Reason},
    report::{
        document::{
            Applied, BlockerRecord, KeptLease, PausedRecord, Pausing, Plan, ReleaseResult,
            UndoOutcome, Undone,
        },
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
        self.caches_table(page);
        if let Some(paused) = &self.paused {
            page.blank();
            let text = format!("Unattended releases are {}.", pause(page, paused));
            page.text(0, Style::Warning, &text);
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
                &Maybe(ready(&kept.blockers)),
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

    fn caches_table(&self, page: &mut Page) {
        if self.caches.is_empty() {
            return;
        }
        page.blank();
        let entries = match self.caches.len() {
            1 => "1 entry".to_owned(),
            number => format!("{number} entries"),
        };
        let text = format!("{entries} of CNI's caches can't be read:");
        page.text(0, Style::Bold, &text);
        let mut table = Table::new([
            ("FILE", Left),
            ("DAMAGE", Left),
            ("COULD GO", Left),
            ("BECAUSE", Left),
        ]);
        for dead in &self.caches {
            let details = dead.blockers.iter().map(|blocker| &blocker.detail);
            let (when, why) = match dead.blockers.is_empty() {
                true => ("now".to_owned(), "its container is gone".to_owned()),
                false => (
                    page.ago_or(ready(&dead.blockers), "-"),
                    joined(details, "; "),
                ),
            };
            table.row([
                dead.path.as_str().into(),
                dead.damage.name().into(),
                when.into(),
                why.into(),
            ]);
        }
        page.table(2, table);
    }
}

/// When it could go, if time is all that is missing: when the last condition is met.
fn ready(blockers: &[BlockerRecord]) -> Option<Timestamp> {
    let ready: Option<Vec<_>> = blockers.iter().map(|blocker| blocker.ready_at).collect();
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
                page.ago_or(ready(&kept.blockers), "-").into(),
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
    let mut times = group.iter().filter_map(|kept| ready(&kept.blockers));
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
        Reason::Kept => "`keep` names them, or a person has to decide",
        Reason::Age => "not seen unchanged for long enough",
        Reason::Coverage => "life could have been missed",
        Reason::SegmentUnwatched => "their wire isn't watched",
        Reason::Seen => "somebody was heard",
        Reason::ProbeAnswered => "somebody answered a probe",
        Reason::Holder => "somebody holds them",
        Reason::SourceDown => "not everyone could be asked who holds them",
        Reason::SecondPass => "a second pass must agree",
        Reason::Changed => "no longer the lease that was judged",
        Reason::Budget => "enough for now",
        Reason::StateNotPersistent => "the agent's state would not survive a reboot",
        Reason::BootUnknown => "not recorded in an earlier boot",
    }
}

pub(super) fn result_style(result: ReleaseResult) -> Style {
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

impl Document for Pausing {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        match &self.paused {
            Some(paused) => {
                let text = format!("Unattended releases are {}.", pause(page, paused));
                page.text(0, Style::Warning, &text);
            }
            None => page.text(0, Style::Good, "Unattended releases go on."),
        }
    }

    fn csv(&self, csv: &mut Csv) {
        let paused = self.paused.as_ref();
        csv.row([&"paused", &"at", &"by", &"problem"]);
        csv.row([
            &paused.is_some(),
            &Maybe(paused.and_then(|paused| paused.at)),
            &Maybe(paused.and_then(|paused| paused.by.as_ref())),
            &Maybe(self.problem.as_ref()),
        ]);
    }
}

/// Who paused releases, when, and how they go on.
fn pause(page: &Page, paused: &PausedRecord) -> String {
    let by = paused.by.as_deref().unwrap_or("a person");
    let at = page.ago_or(paused.at, "nobody knows when");
    format!("paused by {by}, {at}: `ipam-agent reclaim resume` lets them go on")
}

impl Document for Undone {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        let (style, text) = match (self.result, self.address) {
            (UndoOutcome::PutBack, Some(address)) => (
                Style::Good,
                format!(
                    "{address} is leased to {} by {} again.",
                    Maybe(self.holder.as_ref()),
                    Maybe(self.store.as_ref())
                ),
            ),
            (UndoOutcome::PutBack, None) => (Style::Good, "Put back.".to_owned()),
            (UndoOutcome::Refused, _) => (Style::Warning, self.why()),
            (UndoOutcome::Failed, _) => (Style::Bad, self.why()),
        };
        page.text(0, style, &text);
    }

    fn csv(&self, csv: &mut Csv) {
        csv.row([&"id", &"result", &"store", &"address", &"holder", &"detail"]);
        csv.row([
            &self.id,
            &self.result,
            &Maybe(self.store.as_ref()),
            &Maybe(self.address),
            &Maybe(self.holder.as_ref()),
            &Maybe(self.detail.as_ref()),
        ]);
    }
}

impl Undone {
    fn why(&self) -> String {
        format!("Nothing was put back: {}.", Maybe(self.detail.as_ref()))
    }
}
