//! What shows that two claimants of one address are both alive.

use std::{collections::BTreeSet, time::Duration};

use ipam_common::{Evidence, Mac};

use super::{BEHIND_GRACE, Judge, Judged, OURS_GRACE};
use crate::engine::{
    conflict::Alive,
    leasebook::Record,
    owner::OwnerKey,
    segment::PortKind,
    table::{Claim, Contest, Entry, MAX_CLAIMS},
    time::Timestamp,
};

/// Two answers to one asker within this time are two machines' answers to one question.
const ANSWER_WINDOW: Duration = Duration::from_secs(1);

impl Judge<'_> {
    /// Look for what shows that two claimants are alive.
    pub(super) fn note_proofs(
        &self,
        records: &[&Record],
        claims: &[Claim],
        contest: &mut Contest,
        strangers: &[Mac],
    ) {
        let mut found: Vec<(Alive, (Mac, Mac))> = Vec::new();
        let runs = &contest.runs;
        // What has been weak may not have been an assertion then.
        let weak = Evidence::WeakAdvertisement.bit();
        let spoke = |owner, at| {
            claims.iter().any(|claim| {
                claim.kinds & weak == 0
                    && claim.first_seen < at
                    && self.owner_of(claim.mac) == owner
            })
        };
        if let Some(pair) = runs.returned(contest.settled, &spoke) {
            found.push((Alive::Return, pair));
        }
        if let Some(pair) = runs.alternated(contest.settled) {
            found.push((Alive::Alternation, pair));
        }
        for (i, claim) in claims.iter().enumerate() {
            for other in &claims[i + 1..] {
                if self.owner_of(claim.mac) == self.owner_of(other.mac) {
                    continue;
                }
                if answered_together(claim, other, contest.settled) {
                    found.push((Alive::TwoAnswers, (claim.mac, other.mac)));
                }
            }
            // The holder spoke after a stranger had, who is still there.
            let holder = records
                .iter()
                .any(|record| self.is_holder(record, claim) == Some(true));
            if holder
                && contest.stranger_since.is_some()
                && claim.last_strong() > contest.stranger_since.max(Some(contest.settled))
            {
                let pairs = strangers.iter().map(|&mac| (mac, claim.mac));
                found.extend(pairs.map(|pair| (Alive::HolderReturn, pair)));
            }
        }
        for (proof, (one, other)) in found {
            contest.proofs.insert(proof);
            contest.rivals.extend([one, other]);
        }
        // Of those who come and go only who is still known is named.
        if contest.rivals.len() > MAX_CLAIMS {
            let known = |mac: &Mac| claims.iter().any(|claim| claim.mac == *mac);
            contest.rivals.retain(known);
        }
        let begun = match &contest.conflict {
            Some(conflict) => Some(conflict.first_seen),
            None => contest.runs.second_since(contest.settled),
        };
        if !contest.proofs.is_empty()
            && begun.is_some_and(|begun| contest.runs.came_again(contest.settled, begun))
        {
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
                contest.proofs.insert(Alive::Ours);
                contest.rivals.extend([mac, claim.mac]);
            }
            None => judged.moved = contest.our_mac.take().map(|mac| (mac, claim.mac)),
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
        contest.proofs.insert(alive);
        contest.rivals.extend(rivals);
        contest.found_at = Some(now);
    }

    /// Until when the contest lasts: nobody but one was heard for [`super::Windows::quiet`] by then.
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
        second
            .copied()
            .max(contest.found_at)
            .map(|at| at + self.windows.quiet)
    }
}

fn answered_together(one: &Claim, other: &Claim, settled: Timestamp) -> bool {
    let (Some((asker, at)), Some((other_asker, other_at))) = (one.answered(), other.answered())
    else {
        return false;
    };
    asker == other_asker
        && at.max(other_at) > settled
        && at.max(other_at).since(at.min(other_at)) <= ANSWER_WINDOW
}
