//! No more frames than so many in a second.

use std::time::Duration;

use tokio::time::Instant;

/// Gives out times that are no nearer to each other than a fixed gap.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    next: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            gap: Duration::from_secs(1) / per_second,
            next: None,
        }
    }

    /// The first free time from `now` on; it is taken then.
    pub(super) fn slot(&mut self, now: Instant) -> Instant {
        let slot = self.next.map_or(now, |next| next.max(now));
        self.next = Some(slot + self.gap);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_spread_and_what_comes_later_is_not_held_up() {
        let mut pace = Pace::new(500);
        let start = Instant::now();
        let slots: Vec<_> = (0..501).map(|_| pace.slot(start)).collect();
        assert_eq!(slots[0], start);
        assert_eq!(slots[500], start + Duration::from_secs(1));
        assert!(
            slots
                .windows(2)
                .all(|two| two[1] - two[0] == Duration::from_millis(2))
        );

        let later = start + Duration::from_secs(5);
        assert_eq!(pace.slot(later), later);
    }
}
