//! Unattended releases that came to nothing. Each is in the journal, so that one which fails
//! for ever is tried ever more rarely.

use std::time::Duration;

use super::{Planner, words};
use crate::engine::{
    leasebook::Record,
    plan::{Asker, Blocker, Reason},
    time::Timestamp,
};

/// So many intervals between passes lie between two tries at most.
const LONGEST: u32 = 60;

/// How often it was tried to release a lease, in vain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    in_vain: u8,
    /// When there may be another.
    next: Timestamp,
}

impl Tries {
    /// One more: the next waits twice as long as this one did.
    pub(in crate::engine) fn failed(&mut self, interval: Duration, now: Timestamp) {
        let doubled = 1u32.checked_shl(self.in_vain.into()).unwrap_or(LONGEST);
        self.in_vain = self.in_vain.saturating_add(1);
        self.next = now + interval.saturating_mul(doubled.min(LONGEST));
    }
}

impl Planner<'_> {
    /// A person who asks has done something about it, or wants to know.
    pub(super) fn tried(&self, record: &Record, asker: Asker, blockers: &mut Vec<Blocker>) {
        let Tries { in_vain, next } = record.tries;
        if asker == Asker::Daemon && self.now < next {
            let detail = format!(
                "tried {in_vain} times in vain, `reclaim history` says why; again in {}",
                words(next.since(self.now))
            );
            blockers.push(Blocker {
                reason: Reason::Budget,
                detail,
                until: Some(next),
            });
        }
    }
}
