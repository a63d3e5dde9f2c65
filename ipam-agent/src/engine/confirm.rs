//! Asking the claimants of an address, each by itself, where the configuration allows it:
//! two that answer are both alive.

use std::{collections::BTreeSet, time::Duration};

use ipam_common::{Address, Mac, sighting::Tags};

use super::{
    Engine,
    conflict::Severity,
    conflict_of,
    input::Command,
    runs::RETURN_WINDOW,
    segment::Segment,
    table::{Entry, Place},
    time::Timestamp,
};

/// The claimants of one address are asked again after so long at the earliest.
const AGAIN: Duration = Duration::from_secs(60);
/// Who was not heard for so long is not asked.
const RECENT: Duration = Duration::from_secs(3600);

/// Ask these whether they have the address, each by a frame to it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where.
    pub segment: Segment,
    /// Which address.
    pub address: Address,
    /// Whom.
    pub claimants: Vec<Claimant>,
    /// Nobody was heard probing for it of late: it may be asked for in nobody's name without
    /// making a machine give it up that is about to take it.
    pub unprobed: bool,
}

/// Whom to ask, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Its MAC.
    pub mac: Mac,
    /// The port that it was heard on.
    pub ifindex: u32,
    /// The tags that a frame to it needs there.
    pub tags: Tags,
}

impl Engine {
    /// Asks, if it is time to.
    pub(super) fn ask_claimants(&mut self, place: Place, now: Timestamp) {
        if self.settings.confirm.is_empty() {
            return;
        }
        let segment = self.table.segment(place.0);
        let named = self.settings.confirm.iter();
        if !named.into_iter().any(|name| segment.is_called(name)) {
            return;
        }
        let Some(entry) = self.table.get(&place) else {
            return;
        };
        if !is_open_question(entry, now) {
            return;
        }
        let claimants: Vec<Claimant> = entry
            .strong()
            .filter(|(_, last)| now.since(*last) < RECENT)
            .filter_map(|(claim, _)| {
                Some(Claimant {
                    mac: claim.mac,
                    ifindex: claim.ifindex,
                    tags: self.topology.tags_towards(claim.ifindex, segment)?,
                })
            })
            .collect();
        let own = &self.topology.own_macs;
        let owners: BTreeSet<_> = claimants
            .iter()
            .map(|c| self.owners.of(c.mac, own))
            .collect();
        if owners.len() < 2 {
            return;
        }
        let question = Question {
            segment: segment.clone(),
            address: place.1,
            claimants,
            unprobed: !self.attempts.goes_on(&place, now),
        };
        if let Some(contest) = self.table.get_mut(&place).and_then(|e| e.contest.as_mut()) {
            contest.asked_at = Some(now);
        }
        self.commands.push_back(Command::Ask(question));
    }

    /// These answered.
    pub(super) fn answers(
        &mut self,
        segment: &Segment,
        address: Address,
        answered: &[Mac],
        now: Timestamp,
    ) {
        let Some(id) = self.table.find(segment) else {
            return;
        };
        let place = (id, address);
        self.squatter_answered(place, answered, now);
        self.found(place, now, |judge, entry| {
            judge.confirmed(entry, answered, now)
        });
    }
}

/// Whether asking could tell more than is known: somebody took the address over a moment
/// ago, or there is a conflict that is not known to be critical.
fn is_open_question(entry: &Entry, now: Timestamp) -> bool {
    let Some(contest) = &entry.contest else {
        return false;
    };
    if contest.asked_at.is_some_and(|at| now.since(at) < AGAIN) {
        return false;
    }
    match conflict_of(entry).filter(|conflict| conflict.is_active()) {
        Some(conflict) => conflict.severity != Severity::Critical,
        None => contest
            .runs
            .last()
            .is_some_and(|run| now.since(run.first) < RETURN_WINDOW),
    }
}
