//! What shows that two claimants of one address are both alive.

use std::collections::BTreeSet;

use ipam_common::Mac;

use super::{BEHIND_GRACE, Judge, Judged, OURS_GRACE};
use crate::engine::{
    answers::answered_together,
    conflict::Alive,
    leasebook::Record,
    owner::OwnerKey,
    runs::Move,
    segment::PortKind,
    table::{Claim, Contest, Entry, MAX_CLAIMS},
    time::Timestamp,
};

impl Judge<'_> {
    /// Look for what shows that two claimants are alive.
    pub(super) fn note_proofs(
        &self,
        records: &[&Record],
        claims: &[Claim],
        contest: &mut Contest,
        strangers: &[Mac],
        now: Timestamp,
    ) {
        // What it is, who shows it, with which frame their contest began, and which shows it.
        let mut found: Vec<(Alive, Vec<Mac>, Timestamp, Timestamp)> = Vec::new();
        let runs = &contest.runs;
        let spoke = |owner, at| {
            claims.iter().any(|claim| {
                claim.was_always_strong()
                    && claim.first_seen < at
                    && self.owner_of(claim.mac) == owner
            })
        };
        if let Some((back, others)) = runs.returned(contest.settled, &spoke) {
            found.extend(others.iter().map(|other| {
                let begun = self.began(other.first, other.last, now);
                (Alive::Return, vec![other.mac, back.mac], begun, back.first)
            }));
        }
        if let Some([first, second, last]) = runs.alternated(contest.settled) {
            let rivals = vec![first.mac, last.mac];
            found.push((Alive::Alternation, rivals, second.first, last.first));
        }
        for (i, claim) in claims.iter().enumerate() {
            for other in &claims[i + 1..] {
                if self.owner_of(claim.mac) == self.owner_of(other.mac) {
                    continue;
                }
                let (one, two) = (&claim.answers, &other.answers);
                if let Some(at) = answered_together(one, two, contest.settled) {
                    found.push((Alive::TwoAnswers, vec![claim.mac, other.mac], at, at));
                }
            }
            // The holder spoke after a stranger had, who is still there.
            let holder = records
                .iter()
                .any(|record| self.is_holder(record, claim) == Some(true));
            if holder
                && contest.stranger_since.is_some()
                && let Some(back) = claim.last_strong()
                && Some(back) > contest.stranger_since.max(Some(contest.settled))
            {
                let strange = |other: &&Claim| strangers.contains(&other.mac);
                found.extend(claims.iter().filter(strange).filter_map(|other| {
                    let rivals = vec![other.mac, claim.mac];
                    Some((Alive::HolderReturn, rivals, other.last_strong()?, back))
                }));
            }
        }
        for (alive, rivals, begun, at) in found {
            contest.prove(alive, rivals, begun, at);
        }
        // Of those who come and go only who is still known is named.
        if contest.rivals.len() > MAX_CLAIMS {
            let known = |mac: &Mac| claims.iter().any(|claim| claim.mac == *mac);
            contest.rivals.retain(known);
        }
        if contest.begun.is_some_and(|at| contest.runs.came_again(at)) {
            contest.proofs.insert(Alive::SecondReturn);
        }
    }

    /// Another asserted an address of this host: a contest if it is still ours a second
    /// later, else it moved.
    pub(super) fn note_ours(
        &self,
        ours: Option<Mac>,
        claims: &[Claim],
        contest: &mut Contest,
        heard: Option<Timestamp>,
        now: Timestamp,
        judged: &mut Judged,
    ) {
        let latest = claims
            .iter()
            .filter(|claim| {
                self.is_present(claim, now) && claim.last_strong() > Some(contest.settled)
            })
            .max_by_key(|claim| claim.last_strong());
        if ours.is_some() && heard.is_some() && latest.is_some() {
            contest.ours_since.get_or_insert(now);
            contest.our_mac = ours;
        }
        let due = contest
            .ours_since
            .is_some_and(|since| now.since(since) >= OURS_GRACE);
        let (true, Some(claim)) = (due, latest) else {
            return;
        };
        contest.ours_since = None;
        match ours {
            Some(mac) => {
                let begun = self.first_word(claim, now).unwrap_or(now);
                contest.prove(Alive::Ours, [mac, claim.mac], begun, now);
            }
            None => {
                judged.moved = contest.our_mac.take().map(|from| Move {
                    from,
                    to: claim.mac,
                    at: heard.unwrap_or(now),
                });
            }
        }
    }

    /// Two local ports assert it: ten seconds later, look behind them.
    pub(super) fn note_behind(
        &self,
        claims: &[Claim],
        contest: &mut Contest,
        now: Timestamp,
        judged: &mut Judged,
    ) {
        let local = |claim: &&Claim| {
            self.is_present(claim, now)
                && self
                    .topology
                    .ports
                    .get(&claim.ifindex)
                    .is_some_and(|port| port.kind == PortKind::Veth)
        };
        let mut behind = claims.iter().filter(local);
        let rivals = behind.next().is_some_and(|first| {
            behind.any(|other| {
                other.ifindex != first.ifindex
                    && self.owner_of(other.mac) != self.owner_of(first.mac)
            })
        });
        if !rivals {
            contest.behind_since = None;
            contest.looked_behind = false;
            return;
        }
        let since = *contest.behind_since.get_or_insert(now);
        if !contest.looked_behind && now.since(since) >= BEHIND_GRACE {
            contest.looked_behind = true;
            judged.look_behind = true;
        }
    }

    /// The address was found configured behind these ports, at once. It counts
    /// [`BEHIND_GRACE`] after a claimant's first word: a pod that is made anew may have it
    /// before the old one's namespace is gone.
    pub fn behind(&self, entry: &mut Entry, ports: &BTreeSet<u32>, now: Timestamp) {
        let rivals = entry
            .strong()
            .filter(|(claim, _)| ports.contains(&claim.ifindex))
            .filter(|(claim, _)| now.since(claim.first_seen) >= BEHIND_GRACE)
            .map(|(claim, _)| claim.mac)
            .collect();
        self.found(entry, rivals, Alive::TwoPorts, now);
    }

    /// These answered when they were asked.
    pub fn confirmed(&self, entry: &mut Entry, answered: &[Mac], now: Timestamp) {
        let rivals = entry
            .strong()
            .filter(|(claim, _)| answered.contains(&claim.mac))
            .map(|(claim, _)| claim.mac)
            .collect();
        self.found(entry, rivals, Alive::Confirmed, now);
    }

    /// These were found to have the address.
    fn found(&self, entry: &mut Entry, rivals: Vec<Mac>, alive: Alive, now: Timestamp) {
        let owner_of = |mac| self.owner_of(mac);
        let owners: BTreeSet<OwnerKey> = rivals.iter().map(|&mac| owner_of(mac)).collect();
        if owners.len() < 2 {
            return;
        }
        let contest = entry.contest(&owner_of, now);
        let begun = contest.runs.met(&|owner| owners.contains(&owner));
        contest.prove(alive, rivals, begun.unwrap_or(now), now);
        contest.found_at = Some(now);
    }

    /// Until when the contest lasts: nobody but one was heard for [`super::Windows::quiet`] by
    /// then. Of turns further apart than that the last one shows that it goes on.
    pub(super) fn duplicate_until(
        &self,
        claims: &[Claim],
        contest: &Contest,
        ours: Option<Mac>,
    ) -> Option<Timestamp> {
        let mut last: Vec<(OwnerKey, Timestamp)> = Vec::new();
        for claim in claims
            .iter()
            .filter(|claim| contest.rivals.contains(&claim.mac))
        {
            let Some(at) = claim.last_strong() else {
                continue;
            };
            let owner = self.owner_of(claim.mac);
            match last.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, known)) => *known = at.max(*known),
                None => last.push((owner, at)),
            }
        }
        let mut times: Vec<Timestamp> = last.into_iter().map(|(_, at)| at).collect();
        times.sort_unstable();
        // An address that is configured here has an owner who need not speak.
        let second = if contest.proofs.contains(&Alive::Ours) && ours.is_some() {
            times.last()
        } else {
            times.len().checked_sub(2).and_then(|i| times.get(i))
        };
        let quiet = self.windows.quiet;
        let until = second.copied().max(contest.found_at)? + quiet;
        match contest.proved {
            Some(proved) if proved >= until => Some(proved + quiet),
            _ => Some(until),
        }
    }
}
