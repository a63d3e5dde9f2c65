//! Frames of several interfaces in the order of time. Who captures on several at once writes
//! what each has ready, and so, within a moment, in any order.

use std::collections::BTreeMap;

/// How far out of order frames may be, nanoseconds.
const MOMENT: u64 = 10_000_000;
/// How many are held back at once.
const MAX_HELD: usize = 1 << 14;

/// What is held back until nothing can come before it any more.
pub struct Order<T> {
    /// By time, and as they came.
    held: BTreeMap<(u64, u64), T>,
    taken: u64,
    /// From when on frames may still come.
    from: u64,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            taken: 0,
            from: 0,
        }
    }
}

impl<T> Order<T> {
    /// Takes one in. One that is older than a moment was late, or the clock was set back:
    /// it comes after all that came before it.
    pub fn take(&mut self, at: u64, what: T, each: &mut dyn FnMut(u64, T)) {
        if at < self.from {
            self.finish(each);
            self.from = 0;
        }
        self.held.insert((at, self.taken), what);
        self.taken += 1;
        self.from = self.from.max(at.saturating_sub(MOMENT));
        while let Some((&(at, _), _)) = self.held.first_key_value()
            && (at < self.from || self.held.len() > MAX_HELD)
            && let Some((_, what)) = self.held.pop_first()
        {
            each(at, what);
        }
    }

    /// Gives out what is left.
    pub fn finish(&mut self, each: &mut dyn FnMut(u64, T)) {
        for ((at, _), what) in std::mem::take(&mut self.held) {
            each(at, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_HELD, MOMENT, Order};

    fn order(times: &[u64]) -> Vec<u64> {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for (number, &at) in times.iter().enumerate() {
            order.take(at, number, &mut |at, _| out.push(at));
        }
        order.finish(&mut |at, _| out.push(at));
        out
    }

    #[test]
    fn within_a_moment_it_is_that_of_time() {
        let [a, b, c] = [0, MOMENT / 2, 3 * MOMENT];
        assert_eq!(order(&[b, a, c]), [a, b, c]);
        assert_eq!(order(&[a, a + 1, a]), [a, a, a + 1]);
    }

    #[test]
    fn beyond_it_is_as_they_came() {
        let late = [5 * MOMENT, 0, 1, 6 * MOMENT];
        assert_eq!(order(&late), late);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (mut order, mut out) = (Order::default(), 0);
        for number in 0..2 * MAX_HELD {
            order.take(7, number, &mut |_, _| out += 1);
        }
        assert_eq!(out, MAX_HELD);
    }
}
