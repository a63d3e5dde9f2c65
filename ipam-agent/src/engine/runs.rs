//! Who asserted an address after whom: the history that tells a contest from a move.

use std::{collections::VecDeque, time::Duration};

use ipam_common::Mac;

use super::{owner::OwnerKey, time::Timestamp};

/// A return within this time shows that the first claimant is alive: DEFEND_INTERVAL
/// (RFC 5227 §1.1).
pub const RETURN_WINDOW: Duration = Duration::from_secs(10);
/// Four turns within this time are no move: as long as RFC 7432 §15.1 watches a MAC.
pub const ALTERNATION_WINDOW: Duration = Duration::from_secs(180);

/// How many turns are kept.
const MAX_RUNS: usize = 16;

/// Assertions by one owner with nobody else's in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The owner.
    pub owner: OwnerKey,
    /// The MAC it last spoke with.
    pub mac: Mac,
    /// The first assertion.
    pub first: Timestamp,
    /// The last but one.
    previous: Timestamp,
    /// The last one.
    pub last: Timestamp,
}

impl Run {
    fn extend(&mut self, mac: Mac, at: Timestamp) {
        if at >= self.last {
            self.previous = self.last;
            self.last = at;
            self.mac = mac;
        } else {
            self.previous = self.previous.max(at);
        }
    }
}

/// That another has an address now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The MAC of who had it.
    pub from: Mac,
    /// The MAC of who has it.
    pub to: Mac,
    /// When.
    pub at: Timestamp,
}

/// The latest turns, oldest first, no two neighbours of one owner.
///
/// An assertion may be told after a later one: two CPUs' events race, and an event tells of
/// who spoke before. Told after several later ones, it may be taken for part of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    runs: VecDeque<Run>,
    changes: u32,
}

impl Runs {
    /// Add one assertion. The change that is known by it: it is the latest and another owner's
    /// than the one before, or was told after the one that followed it.
    pub fn add(&mut self, owner: OwnerKey, mac: Mac, at: Timestamp) -> Option<Move> {
        let run = Run {
            owner,
            mac,
            first: at,
            previous: at,
            last: at,
        };
        // The place: after every run that began no later.
        let place = self.runs.partition_point(|known| known.first <= at);
        if let Some(before) = place.checked_sub(1).and_then(|i| self.runs.get_mut(i)) {
            if before.owner == owner {
                before.extend(mac, at);
                return None;
            }
            if before.last > at {
                // Inside another's run, which therefore is two.
                let after = Run {
                    first: before.last,
                    previous: before.last,
                    ..*before
                };
                before.last = if before.previous < at {
                    before.previous
                } else {
                    before.first
                };
                before.previous = before.first;
                self.runs.insert(place, run);
                self.runs.insert(place + 1, after);
                self.changes = self.changes.saturating_add(2);
                self.bound();
                return None;
            }
        }
        if let Some(after) = self.runs.get_mut(place)
            && after.owner == owner
        {
            after.first = at;
            return None;
        }
        self.runs.insert(place, run);
        if self.runs.len() > 1 {
            self.changes = self.changes.saturating_add(1);
        }
        let told_late = place == 0 && self.runs.len() == 2;
        let moved = (told_late || place > 0 && place + 1 == self.runs.len())
            .then(|| self.last_move())
            .flatten();
        self.bound();
        moved
    }

    fn last_move(&self) -> Option<Move> {
        let mut latest = self.runs.iter().rev();
        let (to, from) = (latest.next()?, latest.next()?);
        Some(Move {
            from: from.mac,
            to: to.mac,
            at: to.first,
        })
    }

    /// How often the speaker changed.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// When one of these owners last took over from another of them.
    pub fn met(&self, among: &dyn Fn(OwnerKey) -> bool) -> Option<Timestamp> {
        let mut turns = self.runs.iter().rev().filter(|run| among(run.owner));
        let mut later = turns.next()?;
        for turn in turns {
            if turn.owner != later.owner {
                return Some(later.first);
            }
            later = turn;
        }
        None
    }

    /// The last turn.
    pub fn last(&self) -> Option<&Run> {
        self.runs.back()
    }

    /// The turn by which somebody, after `since`, asserted again within [`RETURN_WINDOW`] after
    /// others' assertions that themselves followed one of his; and those others' turns, oldest
    /// first. `spoke`: whether an owner did before then, which is asked of turns that are too
    /// old to be kept.
    pub fn returned(
        &self,
        since: Timestamp,
        spoke: &dyn Fn(OwnerKey, Timestamp) -> bool,
    ) -> Option<(Run, Vec<Run>)> {
        let (kept, all) = (self.runs.len(), self.runs.len() < MAX_RUNS);
        (1..kept).rev().find_map(|i| {
            let back = self.runs[i];
            let before = (0..i).rev().find(|&j| self.runs[j].owner == back.owner);
            let followed = |other: &Run| before.is_some() || !all && spoke(back.owner, other.first);
            let others = self.runs.range(before.map_or(0, |j| j + 1)..i).copied();
            let others: Vec<Run> = others
                .filter(|other| back.first.since(other.last) <= RETURN_WINDOW && followed(other))
                .collect();
            (back.first > since && !others.is_empty()).then_some((back, others))
        })
    }

    /// Whether two owners took four turns, the last of them after `since`, within
    /// [`ALTERNATION_WINDOW`] from the last assertion of the first turn to the first one of the
    /// last; and the first, the second and the last.
    pub fn alternated(&self, since: Timestamp) -> Option<[Run; 3]> {
        self.four_turns(&|[first, _, last]| {
            last.first > since && last.first.since(first.last) <= ALTERNATION_WINDOW
        })
    }

    /// Whether two owners took four turns of which all but the first are part of what began
    /// then.
    pub fn came_again(&self, begun: Timestamp) -> bool {
        self.four_turns(&|[_, second, _]| second.last >= begun)
            .is_some()
    }

    /// Four turns of two owners of which `wanted` takes the first, the second and the last.
    fn four_turns(&self, wanted: &dyn Fn([Run; 3]) -> bool) -> Option<[Run; 3]> {
        (3..self.runs.len()).rev().find_map(|i| {
            let last = self.runs[i];
            (0..i).rev().map(|j| self.runs[j].owner).find_map(|other| {
                if other == last.owner {
                    return None;
                }
                let mut before = self.runs.iter().take(i).rev();
                let mut turn = |owner| before.find(|run| run.owner == owner).copied();
                let _third = turn(other)?;
                let (second, first) = (turn(last.owner)?, turn(other)?);
                let turns = [first, second, last];
                wanted(turns).then_some(turns)
            })
        })
    }

    fn bound(&mut self) {
        while self.runs.len() > MAX_RUNS {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mac(n: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, n]).expect("unicast")
    }

    fn owner(n: u8) -> OwnerKey {
        OwnerKey::Mac(mac(n))
    }

    fn runs(turns: &[(u8, u64)]) -> Runs {
        let mut runs = Runs::default();
        for &(n, seconds) in turns {
            runs.add(owner(n), mac(n), Timestamp(seconds * 1_000_000_000));
        }
        runs
    }

    /// Who returned, and to whom.
    fn returned(turns: &[(u8, u64)]) -> Option<(Mac, Vec<Mac>)> {
        let (back, others) = runs(turns).returned(Timestamp(0), &|_, _| false)?;
        Some((back.mac, others.iter().map(|run| run.mac).collect()))
    }

    #[test]
    fn a_failover_and_a_late_failback_are_no_return() {
        let turns = [(1, 0), (2, 60), (1, 180)];
        assert_eq!(returned(&turns), None);
    }

    #[test]
    fn a_return_counts_from_the_others_last_word() {
        let turns = [(1, 0), (2, 60), (2, 75), (1, 84)];
        assert_eq!(returned(&turns), Some((mac(1), vec![mac(2)])));
    }

    #[test]
    fn who_returns_does_to_all_who_followed() {
        let turns = [(1, 0), (2, 1), (3, 2), (1, 3)];
        assert_eq!(returned(&turns), Some((mac(1), vec![mac(2), mac(3)])));
        let long_ago = [(1, 0), (2, 1), (3, 12), (1, 13)];
        assert_eq!(returned(&long_ago), Some((mac(1), vec![mac(3)])));
        let before_him = [(2, 0), (1, 1), (3, 2), (1, 3)];
        assert_eq!(returned(&before_him), Some((mac(1), vec![mac(3)])));
    }

    #[test]
    fn they_met_when_one_last_took_over_from_another() {
        let turns = runs(&[(1, 0), (2, 20), (3, 40), (2, 60), (3, 80)]);
        let met = |among: &[u8]| turns.met(&|of| among.iter().any(|&n| owner(n) == of));
        assert_eq!(met(&[1, 2]), Some(Timestamp(20_000_000_000)));
        assert_eq!(met(&[2, 3]), Some(Timestamp(80_000_000_000)));
        assert_eq!(met(&[1]), None);
    }

    fn alternated(turns: &[(u8, u64)]) -> Option<(Mac, Mac)> {
        let [first, _, last] = runs(turns).alternated(Timestamp(0))?;
        Some((first.mac, last.mac))
    }

    #[test]
    fn four_turns_inside_the_window_alternate() {
        let turns = [(1, 0), (2, 50), (1, 110), (2, 170)];
        assert_eq!(alternated(&turns), Some((mac(1), mac(2))));
        let slow = [(1, 0), (2, 70), (1, 130), (2, 200)];
        assert_eq!(alternated(&slow), None);
    }

    #[test]
    fn a_third_party_hides_no_alternation() {
        let turns = [(1, 0), (2, 20), (3, 40), (1, 60), (2, 80)];
        assert_eq!(alternated(&turns), Some((mac(1), mac(2))));
    }

    proptest! {
        /// Told in order or with neighbours exchanged, the turns are the same.
        #[test]
        fn an_assertion_told_late_makes_no_difference(
            speakers in prop::collection::vec(1u8..4, 1..14),
            exchanged in prop::collection::vec(any::<bool>(), 14),
        ) {
            let told: Vec<(u8, u64)> =
                speakers.iter().zip(1u64..).map(|(&n, at)| (n, at)).collect();
            let mut late = told.clone();
            for (pair, exchange) in late.chunks_exact_mut(2).zip(exchanged) {
                if exchange {
                    pair.swap(0, 1);
                }
            }
            let turns = |runs: &Runs| {
                let turns = runs.runs.iter().map(|run| (run.owner, run.first, run.last));
                turns.collect::<Vec<_>>()
            };
            prop_assert_eq!(turns(&runs(&told)), turns(&runs(&late)));
        }
    }
}
