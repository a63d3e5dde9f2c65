//! Frames of several interfaces in the order of time. Who captures on several at once writes
//! what each has ready, and so, within a moment, in any order.

use std::collections::BTreeMap;

/// How far out of order frames may be, nanoseconds: what one interface has ready, dumpcap
/// writes every 250 ms, or as soon as it comes to it.
const MOMENT: u64 = 1_000_000_000;
/// How many are held back at once.
const MAX_HELD: usize = 1 << 14;

/// What is held back until nothing can come before it any more.
pub struct Order<T> {
    /// By time, and as they came.
    held: BTreeMap<(u64, u64), Option<T>>,
    taken: u64,
    /// The latest of all that were taken; 0: none was.
    latest: u64,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            taken: 0,
            latest: 0,
        }
    }
}

impl<T> Order<T> {
    /// Takes one in. One that is older than a moment was late, or the clock was set back:
    /// it comes after all that came before it.
    ///
    /// One that says nothing only moves the clock on: it is not held back, and of all those
    /// that follow each other only the last may be given out.
    pub fn take(&mut self, at: u64, what: Option<T>, each: &mut dyn FnMut(u64, Option<T>)) {
        if at < self.from() {
            self.finish(each);
        }
        // With the first one time begins.
        if what.is_some() || self.latest == 0 {
            self.held.insert((at, self.taken), what);
            self.taken += 1;
        }
        self.latest = self.latest.max(at);
        while let Some((&(at, _), _)) = self.held.first_key_value()
            && (at < self.from() || self.held.len() > MAX_HELD)
            && let Some((_, what)) = self.held.pop_first()
        {
            each(at, what);
        }
    }

    /// Gives out what is left.
    pub fn finish(&mut self, each: &mut dyn FnMut(u64, Option<T>)) {
        let latest = std::mem::take(&mut self.latest);
        let mut given = 0;
        for ((at, _), what) in std::mem::take(&mut self.held) {
            each(at, what);
            given = at;
        }
        if given < latest {
            each(latest, None);
        }
    }

    /// From when on frames may still come.
    fn from(&self) -> u64 {
        self.latest.saturating_sub(MOMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_HELD, MOMENT, Order};

    /// What is given out of frames that say something, and of some that don't.
    fn order(frames: &[(u64, bool)]) -> Vec<(u64, bool)> {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for &(at, says) in frames {
            let what = says.then_some(());
            order.take(at, what, &mut |at, what| out.push((at, what.is_some())));
        }
        order.finish(&mut |at, what| out.push((at, what.is_some())));
        out
    }

    fn times(times: &[u64]) -> Vec<u64> {
        let frames: Vec<_> = times.iter().map(|&at| (at, true)).collect();
        order(&frames).into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn within_a_moment_it_is_that_of_time() {
        let [a, b, c] = [1, MOMENT / 2, 3 * MOMENT];
        assert_eq!(times(&[b, a, c]), [a, b, c]);
        assert_eq!(times(&[a, a + 1, a]), [a, a, a + 1]);
    }

    #[test]
    fn beyond_it_is_as_they_came() {
        let late = [5 * MOMENT, 1, 2, 6 * MOMENT];
        assert_eq!(times(&late), late);
    }

    #[test]
    fn what_says_nothing_moves_the_clock_on() {
        let [says, not] = [true, false];
        let frames = [(10, not), (30, says), (20, says), (40, not), (50, not)];
        assert_eq!(
            order(&frames),
            [(10, not), (20, says), (30, says), (50, not)]
        );
        // Also where it tells that the clock was set back.
        let later = 5 * MOMENT;
        let frames = [(later, says), (later + 1, not), (7, not), (9, says)];
        assert_eq!(
            order(&frames),
            [(later, says), (later + 1, not), (7, not), (9, says)]
        );
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (mut order, mut out) = (Order::default(), 0);
        for number in 0..2 * MAX_HELD {
            order.take(7, Some(number), &mut |_, _| out += 1);
            order.take(7, None, &mut |_, _| out += 1);
        }
        assert_eq!(out, MAX_HELD);
    }
}
