//! The course of a conflict: it opens, changes, ends, and comes back under its id.

use ipam_common::{Address, Mac};

use super::{BEHIND_GRACE, Judged, OURS_GRACE, Windows};
use crate::engine::{
    conflict::{About, Conflict, Kind, Verdict},
    runs::ALTERNATION_WINDOW,
    segment::Segment,
    table::{Claim, Contest},
    time::Timestamp,
};

/// Bring the conflict in line with the verdict.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of `judge`, split off for its length"
)]
pub(super) fn update(
    segment: &Segment,
    address: Address,
    claims: &[Claim],
    contest: &mut Contest,
    verdict: Option<Verdict>,
    vital: bool,
    windows: Windows,
    now: Timestamp,
    judged: &mut Judged,
) {
    let Some(verdict) = verdict else {
        if let Some(conflict) = &mut contest.conflict {
            judged.resolved = conflict.end(now);
        }
        let over = contest.conflict.as_ref().and_then(|known| known.resolved);
        if over.is_some_and(|at| now.since(at) >= windows.memory) {
            contest.conflict = None;
        }
        return;
    };
    let severity = verdict.severity(vital);
    let of = |mac: &Mac| claims.iter().find(|claim| claim.mac == *mac);
    let involved = || verdict.macs().iter().filter_map(of);
    let last_seen = involved().filter_map(|claim| claim.last_strong()).max();
    let first_seen = match verdict.kind() {
        // What it would have been before, had all been told in order, is part of it.
        Kind::DuplicateAddress => {
            let parts = [
                contest.begun,
                contest.stranger_since,
                contest.reserved_since,
            ];
            parts.into_iter().flatten().min()
        }
        Kind::LeaseMismatch => contest.stranger_since,
        Kind::ReservedAddress => contest.reserved_since,
        _ => contest.unleased_since,
    };
    let first_seen = first_seen.unwrap_or(now);
    let last_seen = last_seen.unwrap_or(now);
    judged.since = Some(first_seen);
    match &mut contest.conflict {
        Some(conflict) => {
            // Of what is told late the earliest counts.
            conflict.first_seen = conflict.first_seen.min(first_seen);
            let known = conflict.verdict.macs();
            judged.joined = verdict.macs().iter().any(|mac| !known.contains(mac));
            let worse = verdict.kind() < conflict.verdict.kind() || severity > conflict.severity;
            judged.opened = conflict.go_on(verdict, severity, last_seen, now) || worse;
        }
        None => {
            judged.opened = true;
            let about = About::Address(address);
            let conflict = Conflict::begin(
                segment, about, verdict, severity, first_seen, last_seen, now,
            );
            contest.conflict = Some(conflict);
        }
    }
}

/// When to judge again though nothing be heard.
pub(super) fn next(
    claims: &[Claim],
    contest: &Contest,
    duplicate_until: Option<Timestamp>,
    windows: Windows,
    now: Timestamp,
) -> Option<Timestamp> {
    let quiet = claims
        .iter()
        .filter_map(|claim| claim.last_strong())
        .map(|at| at + windows.quiet);
    let active = contest.conflict.as_ref().is_some_and(Conflict::is_active);
    let ended = contest
        .conflict
        .as_ref()
        .and_then(|conflict| conflict.resolved)
        .map(|at| at + windows.memory);
    let settles = contest.runs.last().map(|run| run.last + ALTERNATION_WINDOW);
    let behind = contest.behind_since.filter(|_| !contest.looked_behind);
    let timers = [
        contest.unleased_since.map(|at| at + windows.lease_grace),
        contest.ours_since.map(|at| at + OURS_GRACE),
        behind.map(|at| at + BEHIND_GRACE),
        duplicate_until.filter(|_| !contest.proofs.is_empty()),
        ended,
        settles,
    ];
    timers
        .into_iter()
        .flatten()
        .chain(quiet.filter(|_| active))
        .filter(|&at| at > now)
        .min()
}
