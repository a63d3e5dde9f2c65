//! Counts of how long things took. A plain value: whoever owns it counts, and a copy is told.

use std::time::Duration;

/// Upper bounds of the buckets, in seconds: from what detection takes to what a pass may.
const BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0,
];

/// How often things took how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len()],
    beyond: u64,
    sum: f64,
}

impl Histogram {
    /// One more took so long.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.sum += seconds;
        match BOUNDS.iter().position(|&bound| seconds <= bound) {
            Some(bucket) => self.counts[bucket] += 1,
            None => self.beyond += 1,
        }
    }

    /// The sum in seconds, the count, and how many are in each bucket, by its upper bound.
    pub fn told(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let buckets = BOUNDS.into_iter().zip(self.counts);
        let all = buckets.chain([(f64::INFINITY, self.beyond)]).collect();
        let count = self.counts.iter().sum::<u64>() + self.beyond;
        (self.sum, count, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_bucket_that_it_fits_into() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 120_000, 120_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let (sum, count, buckets) = histogram.told();
        assert_eq!((sum.round(), count), (240.0, 5));
        let filled: Vec<_> = buckets
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .collect();
        let expected = [
            (0.0005, 1),
            (0.001, 1),
            (0.0025, 1),
            (120.0, 1),
            (f64::INFINITY, 1),
        ];
        assert_eq!(filled, expected);
    }
}
