//! What was released, why, and what became of it.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{Csv, Document, Maybe, joined, leases::was, reclaim::result_style};
use crate::{
    engine::{lease::Damage, plan::Asker},
    journal::UndoResult,
    report::{
        document::{
            CacheEntry, CacheOutcome, FenceChange, FenceEntry, FenceOutcome, HardwareAddress,
            History, HistoryEntry, ReleaseResult, UndoRecord,
        },
        page::{Align::Left, Cell, Page, Style, Table, count},
    },
};

impl Document for History {
    fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    fn table(&self, page: &mut Page) {
        if self.entries.is_empty() {
            let text = if self.damaged_lines > 0 {
                "No release can be read."
            } else {
                "Nothing was ever released."
            };
            page.text(0, Style::Plain, text);
        } else {
            let mut table = Table::new([
                ("WHEN", Left),
                ("ADDRESS", Left),
                ("RESULT", Left),
                ("WAS OF", Left),
                ("ASKED BY", Left),
                ("ID", Left),
                ("WHY", Left),
            ]);
            for entry in &self.entries {
                let result = match is_back(entry) {
                    true => Cell::new(Style::Warning, "put back"),
                    false => Cell::new(result_style(entry.result), entry.result.name()),
                };
                table.row([
                    page.ago(entry.at).into(),
                    entry.address.to_string().into(),
                    result,
                    was(&entry.holder, entry.damage).into(),
                    asked(Some(entry.asker), entry.by.as_deref()).into(),
                    entry.id.as_str().into(),
                    why(page, entry).into(),
                ]);
            }
            page.table(0, table);
        }
        if !self.fences.is_empty() {
            page.blank();
            page.text(0, Style::Bold, "Fences:");
            page.table(0, fences(page, &self.fences));
        }
        if !self.caches.is_empty() {
            page.blank();
            page.text(0, Style::Bold, "Dead entries of CNI's caches:");
            page.table(0, caches(page, &self.caches));
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
            &"id",
            &"at",
            &"boot_id",
            &"asker",
            &"by",
            &"store",
            &"address",
            &"holder",
            &"damage",
            &"result",
            &"finished_at",
            &"detail",
            &"watched_since",
            &"gate_seconds",
            &"quiet_seconds",
            &"unchanged_seconds",
            &"earlier_boot",
            &"sources",
            &"passes",
            &"unanswered_probes",
            &"undo_at",
            &"undo_asker",
            &"undo_by",
            &"undo_reason",
            &"undo_result",
            &"undo_detail",
            &"taken_at",
            &"taken_by",
            &"reason",
            &"kind",
            &"squatter",
            &"path",
        ]);
        for entry in &self.entries {
            let (proof, undo, taken) = (&entry.evidence, entry.undo.as_ref(), entry.taken.as_ref());
            csv.row([
                &entry.id,
                &entry.at,
                &entry.boot_id,
                &asker_name(entry.asker),
                &Maybe(entry.by.as_ref()),
                &entry.store,
                &entry.address,
                &entry.holder,
                &Maybe(entry.damage.map(Damage::name)),
                &entry.result,
                &Maybe(entry.finished_at),
                &Maybe(entry.detail.as_ref()),
                &proof.watched_since,
                &proof.gate_seconds,
                &proof.quiet_seconds,
                &proof.unchanged_seconds,
                &Maybe(proof.earlier_boot.as_ref()),
                &joined(&proof.sources, " "),
                &proof.passes,
                &Maybe(proof.unanswered_probes),
                &Maybe(undo.and_then(|undo| undo.at)),
                &Maybe(undo.and_then(|undo| undo.asker).map(asker_name)),
                &Maybe(undo.and_then(|undo| undo.by.as_ref())),
                &Maybe(undo.and_then(|undo| undo.reason.as_ref())),
                &Maybe(undo.and_then(|undo| undo.result).map(undo_name)),
                &Maybe(undo.and_then(|undo| undo.detail.as_ref())),
                &Maybe(taken.map(|taken| taken.at)),
                &Maybe(taken.map(|taken| &taken.holder)),
                &entry.reason,
                &"release",
                &"",
                &"",
            ]);
        }
        for fence in &self.fences {
            let kind = match fence.change {
                FenceChange::Raised => "fence-raised",
                FenceChange::Lowered => "fence-lowered",
            };
            let told = Told {
                id: &fence.id,
                at: fence.at,
                boot_id: &fence.boot_id,
                store: &fence.store,
                address: Some(fence.address),
                result: fence.result.name(),
                finished_at: fence.finished_at,
                detail: fence.detail.as_deref(),
                reason: &fence.reason,
                kind,
                squatter: fence.squatter.as_ref(),
                ..Told::default()
            };
            told.row(csv);
        }
        for cache in &self.caches {
            let told = Told {
                id: &cache.id,
                at: cache.at,
                boot_id: &cache.boot_id,
                holder: &cache.container_id,
                damage: cache.damage.name(),
                result: cache.result.name(),
                finished_at: cache.finished_at,
                detail: cache.detail.as_deref(),
                unchanged_seconds: Some(cache.unchanged_seconds),
                sources: &cache.sources,
                reason: &cache.reason,
                kind: "cache-removal",
                path: &cache.path,
                ..Told::default()
            };
            told.row(csv);
        }
    }
}

/// What is told of something that is no release, in the columns of releases.
#[derive(Default)]
struct Told<'a> {
    id: &'a str,
    at: Timestamp,
    boot_id: &'a str,
    store: &'a str,
    address: Option<IpAddr>,
    holder: &'a str,
    damage: &'a str,
    result: &'a str,
    finished_at: Option<Timestamp>,
    detail: Option<&'a str>,
    unchanged_seconds: Option<u64>,
    sources: &'a [String],
    reason: &'a str,
    kind: &'a str,
    squatter: Option<&'a HardwareAddress>,
    path: &'a str,
}

impl Told<'_> {
    fn row(&self, csv: &mut Csv) {
        csv.row([
            &self.id,
            &self.at,
            &self.boot_id,
            &"daemon",
            &"",
            &self.store,
            &Maybe(self.address),
            &self.holder,
            &self.damage,
            &self.result,
            &Maybe(self.finished_at),
            &Maybe(self.detail),
            &"",
            &"",
            &"",
            &Maybe(self.unchanged_seconds),
            &"",
            &joined(self.sources, " "),
            &"",
            &"",
            &"",
            &"",
            &"",
            &"",
            &"",
            &"",
            &"",
            &"",
            &self.reason,
            &self.kind,
            &Maybe(self.squatter),
            &self.path,
        ]);
    }
}

fn fences(page: &Page, fences: &[FenceEntry]) -> Table {
    let mut table = Table::new([
        ("WHEN", Left),
        ("ADDRESS", Left),
        ("RESULT", Left),
        ("STORE", Left),
        ("ID", Left),
        ("WHY", Left),
    ]);
    for fence in fences {
        let result = match (fence.result, fence.change) {
            (FenceOutcome::Done, change) => Cell::new(Style::Plain, change.name()),
            (FenceOutcome::Failed, change) => {
                Cell::new(Style::Warning, format!("not {}", change.name()))
            }
            (FenceOutcome::Unknown, _) => Cell::new(Style::Warning, fence.result.name()),
        };
        table.row([
            page.ago(fence.at).into(),
            fence.address.to_string().into(),
            result,
            fence.store.as_str().into(),
            fence.id.as_str().into(),
            joined(fence.detail.iter().chain([&fence.reason]), "; ").into(),
        ]);
    }
    table
}

fn caches(page: &Page, caches: &[CacheEntry]) -> Table {
    let mut table = Table::new([
        ("WHEN", Left),
        ("FILE", Left),
        ("RESULT", Left),
        ("ID", Left),
        ("WHY", Left),
    ]);
    for cache in caches {
        let style = match cache.result {
            CacheOutcome::Removed => Style::Plain,
            _ => Style::Warning,
        };
        table.row([
            page.ago(cache.at).into(),
            cache.path.as_str().into(),
            Cell::new(style, cache.result.name()),
            cache.id.as_str().into(),
            joined(cache.detail.iter().chain([&cache.reason]), "; ").into(),
        ]);
    }
    table
}

/// Why it went or stayed, and what happened since.
fn why(page: &Page, entry: &HistoryEntry) -> String {
    let mut parts = Vec::new();
    match (entry.result, &entry.detail) {
        (ReleaseResult::Kept | ReleaseResult::Failed, Some(detail)) => {
            parts.push(detail.clone());
            parts.push(format!("it was to go because {}", entry.reason));
        }
        (_, Some(detail)) => {
            parts.push(entry.reason.clone());
            parts.push(detail.clone());
        }
        (_, None) => parts.push(entry.reason.clone()),
    }
    parts.extend(entry.undo.as_ref().map(|undo| undone(page, undo)));
    if let Some(taken) = &entry.taken {
        parts.push(format!(
            "leased anew to {} {}",
            taken.holder,
            page.ago(taken.at)
        ));
    }
    joined(parts, "; ")
}

fn undone(page: &Page, undo: &UndoRecord) -> String {
    let when = page.ago_or(undo.finished_at.or(undo.at), "some time ago");
    let who = asked(undo.asker, undo.by.as_deref());
    let reason = undo.reason.as_deref().unwrap_or("nobody knows why");
    let detail = undo.detail.as_deref().unwrap_or("no reason was written");
    match undo.result {
        Some(UndoResult::PutBack) => format!("put back {when} by {who}: {reason}"),
        Some(UndoResult::Taken | UndoResult::Failed) => {
            format!("{who} could not put it back {when}: {detail}")
        }
        None => format!("{who} was about to put it back {when}; what became of it isn't known"),
    }
}

fn is_back(entry: &HistoryEntry) -> bool {
    let result = entry.undo.as_ref().and_then(|undo| undo.result);
    result == Some(UndoResult::PutBack)
}

/// The person, or whoever else it was.
fn asked(asker: Option<Asker>, by: Option<&str>) -> String {
    match (asker, by) {
        (Some(Asker::Person), Some(by)) => by.to_owned(),
        (Some(asker), _) => asker_name(asker).to_owned(),
        (None, _) => "somebody".to_owned(),
    }
}

fn asker_name(asker: Asker) -> &'static str {
    match asker {
        Asker::Daemon => "daemon",
        Asker::Person => "person",
    }
}

fn undo_name(result: UndoResult) -> &'static str {
    match result {
        UndoResult::PutBack => "put-back",
        UndoResult::Taken => "taken",
        UndoResult::Failed => "failed",
    }
}
