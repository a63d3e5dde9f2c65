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
    /// Add one assertion. The change it is, from whom to whom, if it is the latest and
    /// another owner's than the one before.
    pub fn add(&mut self, owner: OwnerKey, mac: Mac, at: Timestamp) -> Option<(Mac, Mac)> {
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
        let moved =
            (place > 0 && place + 1 == self.runs.len()).then(|| (self.runs[place - 1].mac, mac));
        self.bound();
        moved
    }

    /// How often the speaker changed.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// When a second owner first spoke after `since`: the beginning of whatever this is.
    pub fn second_since(&self, since: Timestamp) -> Option<Timestamp> {
        let mut later = self.runs.iter().skip(1).map(|run| run.first);
        let last = later.clone().next_back();
        later.find(|&first| first > since).or(last)
    }

    /// The last turn.
    pub fn last(&self) -> Option<&Run> {
        self.runs.back()
    }

    /// Whether somebody, after `since`, asserted again within [`RETURN_WINDOW`] after
    /// another's assertion that itself followed one of his; and who they are. `spoke`: whether
    /// an owner did before then, which is asked of turns that are too old to be kept.
    pub fn returned(
        &self,
        since: Timestamp,
        spoke: &dyn Fn(OwnerKey, Timestamp) -> bool,
    ) -> Option<(Mac, Mac)> {
        (1..self.runs.len()).rev().find_map(|i| {
            let (back, other) = (self.runs[i], self.runs[i - 1]);
            let was_before = (0..i - 1).any(|j| self.runs[j].owner == back.owner)
                || (self.runs.len() == MAX_RUNS && spoke(back.owner, other.first));
            (back.first > since && was_before && back.first.since(other.last) <= RETURN_WINDOW)
                .then_some((other.mac, back.mac))
        })
    }

    /// Whether two owners took four turns, the last of them after `since`, within
    /// [`ALTERNATION_WINDOW`] from the last assertion of the first turn to the first one of the
    /// last.
    pub fn alternated(&self, since: Timestamp) -> Option<(Mac, Mac)> {
        let near = |turns: [Run; 3]| turns[2].first.since(turns[0].last) <= ALTERNATION_WINDOW;
        self.four_turns(since, &near)
    }

    /// Whether two owners took four turns, the last of them after `since`, and the second no
    /// earlier than `begun`, when what goes on did.
    pub fn came_again(&self, since: Timestamp, begun: Timestamp) -> bool {
        let recent = |turns: [Run; 3]| turns[1].first >= begun;
        self.four_turns(since, &recent).is_some()
    }

    /// The owners of four turns of which `wanted` takes the first, the second and the last.
    fn four_turns(
        &self,
        since: Timestamp,
        wanted: &dyn Fn([Run; 3]) -> bool,
    ) -> Option<(Mac, Mac)> {
        (3..self.runs.len()).rev().find_map(|i| {
            let last = self.runs[i];
            if last.first <= since {
                return None;
            }
            (0..i).rev().map(|j| self.runs[j].owner).find_map(|other| {
                if other == last.owner {
                    return None;
                }
                let mut before = self.runs.iter().take(i).rev();
                let mut turn = |owner| before.find(|run| run.owner == owner).copied();
                let _third = turn(other)?;
                let (second, first) = (turn(last.owner)?, turn(other)?);
                wanted([first, second, last]).then_some((first.mac, last.mac))
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

    #[test]
    fn a_failover_and_a_late_failback_are_no_return() {
        assert_eq!(
            runs(&[(1, 0), (2, 60), (1, 180)]).returned(Timestamp(0), &|_, _| false),
            None
        );
    }

    #[test]
    fn a_return_counts_from_the_others_last_word() {
        let late = runs(&[(1, 0), (2, 60), (2, 75), (1, 84)]);
        assert_eq!(
            late.returned(Timestamp(0), &|_, _| false),
            Some((mac(2), mac(1)))
        );
    }

    #[test]
    fn four_turns_inside_the_window_alternate() {
        let turns = [(1, 0), (2, 50), (1, 110), (2, 170)];
        let found = runs(&turns).alternated(Timestamp(0));
        assert_eq!(found, Some((mac(1), mac(2))));
        let slow = [(1, 0), (2, 70), (1, 130), (2, 200)];
        assert_eq!(runs(&slow).alternated(Timestamp(0)), None);
    }

    #[test]
    fn a_third_party_hides_no_alternation() {
        let turns = [(1, 0), (2, 20), (3, 40), (1, 60), (2, 80)];
        let found = runs(&turns).alternated(Timestamp(0));
        assert_eq!(found, Some((mac(1), mac(2))));
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
