//! Who asks whether an address is free: probes (RFC 5227 §2.1, RFC 4862 §5.4), and what
//! came of them.
//!
//! A machine probes a few times before it takes an address; that is one attempt. One that
//! is answered, or that meets another's, is told of once.

use std::{collections::BTreeMap, time::Duration};

use ipam_common::Mac;

use super::{
    answers::{ANSWER_WINDOW, To},
    input::Seen,
    owner::OwnerKey,
    table::Place,
    time::Timestamp,
};

/// Probes of one MAC for one address that are no further apart are one attempt.
pub const ATTEMPT_WINDOW: Duration = Duration::from_secs(10);
/// Whose probes are no further apart than PROBE_MAX and ANNOUNCE_WAIT (RFC 5227 §1.1) probe
/// at the same time.
const MEETING_WINDOW: Duration = Duration::from_secs(2);
/// How many addresses' attempts are followed at once.
const MAX_PLACES: usize = 4096;
/// How many attempts for one address.
const MAX_ATTEMPTS: usize = 8;

/// Whose frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The machine.
    pub owner: OwnerKey,
    /// Whether it contests nobody.
    pub exempt: bool,
}

impl Speaker {
    /// Whether both can't have one address.
    fn contests(self, other: Self) -> bool {
        self.owner != other.owner && !self.exempt && !other.exempt
    }
}

/// One machine's probes for one address.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    mac: Mac,
    speaker: Speaker,
    last: Timestamp,
    kinds: u32,
    told: bool,
}

/// Two that want one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collision {
    /// Who asked.
    pub asker: Mac,
    /// Who has it, or asked too.
    pub other: Mac,
    /// Whether the other asked too.
    pub both_asked: bool,
}

/// The attempts that go on.
#[derive(Debug, Default)]
pub struct Attempts {
    places: BTreeMap<Place, Vec<Attempt>>,
    dropped: u64,
}

impl Attempts {
    /// A probe was heard, sent to more than one station: whether it meets another's.
    pub fn probe(&mut self, place: Place, seen: &Seen, speaker: Speaker) -> Option<Collision> {
        if self.places.len() >= MAX_PLACES && !self.places.contains_key(&place) {
            self.make_room(seen.at);
        }
        let attempts = self.places.entry(place).or_default();
        attempts.retain(|attempt| seen.at.since(attempt.last) <= ATTEMPT_WINDOW);
        let mac = seen.sighting.mac;
        let own = attempts.iter().position(|attempt| attempt.mac == mac);
        let own = own.unwrap_or_else(|| {
            if attempts.len() >= MAX_ATTEMPTS {
                attempts.remove(0);
                self.dropped = self.dropped.saturating_add(1);
            }
            attempts.push(Attempt {
                mac,
                speaker,
                last: seen.at,
                kinds: 0,
                told: false,
            });
            attempts.len() - 1
        });
        let attempt = &mut attempts[own];
        attempt.last = attempt.last.max(seen.at);
        attempt.kinds |= seen.sighting.evidence.bit();
        let told = attempt.told;
        let rival = attempts.iter().position(|attempt| {
            attempt.speaker.contests(speaker)
                && !(attempt.told && told)
                && distance(attempt.last, seen.at) <= MEETING_WINDOW
        });
        rival.map(|rival| {
            attempts[rival].told = true;
            attempts[own].told = true;
            // Who asked first is named first.
            Collision {
                asker: attempts[rival].mac,
                other: mac,
                both_asked: true,
            }
        })
    }

    /// Somebody answered this machine: whether that is to be told of.
    pub fn is_first_answer(&mut self, place: &Place, asker: Mac) -> bool {
        let mut attempts = self.places.get_mut(place).into_iter().flatten();
        let attempt = attempts.find(|attempt| attempt.mac == asker && !attempt.speaker.exempt);
        attempt.is_some_and(|attempt| !std::mem::replace(&mut attempt.told, true))
    }

    /// An address was asserted: whether that answers an attempt, and the kinds of probe by
    /// which its speaker asked for the address before.
    pub fn assertion(
        &mut self,
        place: Place,
        seen: &Seen,
        speaker: Speaker,
    ) -> (Option<Collision>, u32) {
        let Some(attempts) = self.places.get_mut(&place) else {
            return (None, 0);
        };
        let asked = attempts.iter().filter(|attempt| {
            attempt.speaker.owner == speaker.owner
                && distance(attempt.last, seen.at) <= ATTEMPT_WINDOW
        });
        let kinds = asked.fold(0, |kinds, attempt| kinds | attempt.kinds);
        let to = To::of(&seen.sighting);
        let answered = attempts.iter_mut().find(|attempt| {
            attempt.speaker.contests(speaker)
                && !attempt.told
                && seen.at >= attempt.last
                && seen.at.since(attempt.last) <= ANSWER_WINDOW
                && to.is_some_and(|to| to.reaches(attempt.mac))
        });
        let collision = answered.map(|attempt| {
            attempt.told = true;
            Collision {
                asker: attempt.mac,
                other: seen.sighting.mac,
                both_asked: false,
            }
        });
        (collision, kinds)
    }

    /// Whose probe it answers, if it goes to all of whom one just probed: an advertisement has
    /// no other way (RFC 4861 §7.2.4).
    pub fn asker(&self, place: &Place, seen: &Seen, owner: OwnerKey) -> Option<Mac> {
        let attempts = self.places.get(place)?;
        let asked = attempts.iter().find(|attempt| {
            attempt.speaker.owner != owner
                && seen.at >= attempt.last
                && seen.at.since(attempt.last) <= ANSWER_WINDOW
        });
        asked.map(|attempt| attempt.mac)
    }

    /// Whether somebody was heard probing for the address of late.
    pub fn goes_on(&self, place: &Place, now: Timestamp) -> bool {
        self.over_at(place).is_some_and(|over| now < over)
    }

    /// When nobody will have been heard probing for the address of late, if nobody goes on.
    pub fn over_at(&self, place: &Place) -> Option<Timestamp> {
        let attempts = self.places.get(place).into_iter().flatten();
        let last = attempts.map(|attempt| attempt.last).max()?;
        Some(last + ATTEMPT_WINDOW + Duration::from_nanos(1))
    }

    /// How many attempts were dropped because there were too many.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets what is over.
    pub fn forget(&mut self, now: Timestamp) {
        self.places.retain(|_, attempts| {
            attempts.retain(|attempt| now.since(attempt.last) <= ATTEMPT_WINDOW);
            !attempts.is_empty()
        });
    }

    /// Forgets what is over, else the eighth that was not heard for longest.
    fn make_room(&mut self, now: Timestamp) {
        self.forget(now);
        if self.places.len() < MAX_PLACES {
            return;
        }
        let heard = |attempts: &[Attempt]| attempts.iter().map(|attempt| attempt.last).max();
        let mut oldest: Vec<_> = { self.places.iter() }
            .map(|(&place, attempts)| (heard(attempts), place))
            .collect();
        oldest.select_nth_unstable(MAX_PLACES / 8);
        for (_, place) in &oldest[..MAX_PLACES / 8] {
            let dropped = self
                .places
                .remove(place)
                .map_or(0, |attempts| attempts.len());
            self.dropped = self.dropped.saturating_add(dropped as u64);
        }
    }
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.max(other).since(one.min(other))
}
