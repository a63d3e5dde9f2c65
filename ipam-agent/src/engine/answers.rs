//! Whom a claimant of an address answered of late, and when it told everybody.

use std::time::Duration;

use ipam_common::{Evidence, Mac, Sighting};
use smallvec::SmallVec;

use super::time::Timestamp;

/// Answers that are no further apart are answers to one question, and come before the next
/// probe would: PROBE_MIN (RFC 5227 §1.1), RetransTimer (RFC 4861 §10).
pub const ANSWER_WINDOW: Duration = Duration::from_secs(1);
/// How many of one claimant are kept while they are within [`ANSWER_WINDOW`].
const MAX_ANSWERS: usize = 4;

/// Who is told that an address is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Who asked.
    Asker(Mac),
    /// Everybody on the wire: who announces, or has no other way.
    All,
}

impl To {
    /// Whom a frame defends its address against, if that is what it does: a reply to who asked
    /// (RFC 826, RFC 4861 §7.2.4), or what is sent to everybody (RFC 5227 §2.4, RFC 4862
    /// §5.4.3).
    pub fn of(sighting: &Sighting) -> Option<Self> {
        match sighting.evidence {
            Evidence::ArpAnnouncement | Evidence::ArpGratuitousReply => Some(Self::All),
            Evidence::ArpReply | Evidence::NeighborAdvertisement | Evidence::WeakAdvertisement => {
                Some(Mac::new(sighting.to).map_or(Self::All, Self::Asker))
            }
            _ => None,
        }
    }

    /// Whether this reaches one who asks.
    pub fn reaches(self, asker: Mac) -> bool {
        matches!(self, Self::All) || self == Self::Asker(asker)
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To whom.
    pub to: To,
    /// Whether it contests.
    pub strong: bool,
    /// When.
    pub at: Timestamp,
}

/// The last ones, as a rule one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// Nobody was ever answered.
    #[default]
    None,
    /// The last one.
    One(Answer),
    /// Those to several, within [`ANSWER_WINDOW`] of the latest.
    Several(Box<SmallVec<[Answer; MAX_ANSWERS]>>),
}

impl Answers {
    /// Those that are known.
    pub fn iter(&self) -> impl Iterator<Item = &Answer> {
        match self {
            Self::None => &[][..],
            Self::One(answer) => std::slice::from_ref(answer),
            Self::Several(answers) => answers.as_slice(),
        }
        .iter()
    }

    /// Note one more.
    pub fn add(&mut self, answer: Answer) {
        let latest = self
            .iter()
            .fold(answer.at, |latest, known| latest.max(known.at));
        let over = |known: &Answer| latest.since(known.at) > ANSWER_WINDOW;
        let again = |known: &Answer| {
            (known.to, known.strong) == (answer.to, answer.strong) && known.at <= answer.at
        };
        let mut kept: SmallVec<[Answer; MAX_ANSWERS]> = self.iter().copied().collect();
        kept.retain(|known| !over(known) && !again(known));
        if !over(&answer) {
            if kept.len() == MAX_ANSWERS {
                kept.remove(0);
            }
            kept.push(answer);
        }
        *self = match kept[..] {
            [] => Self::None,
            [one] => Self::One(one),
            _ => Self::Several(Box::new(kept)),
        };
    }

    /// Somebody turns out to have asked then: what all were told right after is the answer. When
    /// the last such was.
    pub fn found(&mut self, asker: Mac, asked: Timestamp) -> Option<Timestamp> {
        let answers = match self {
            Self::None => &mut [][..],
            Self::One(answer) => std::slice::from_mut(answer),
            Self::Several(answers) => answers.as_mut_slice(),
        };
        let found = answers.iter_mut().filter(|answer| {
            answer.to == To::All && answer.at >= asked && answer.at.since(asked) <= ANSWER_WINDOW
        });
        found.fold(None, |last, answer| {
            answer.to = To::Asker(asker);
            last.max(Some(answer.at))
        })
    }

    /// Gives back what room only those to several need, once they are over.
    pub fn forget(&mut self, now: Timestamp) {
        if let Self::Several(answers) = self
            && answers
                .iter()
                .all(|known| now.since(known.at) > ANSWER_WINDOW)
        {
            *self = answers.last().map_or(Self::None, |&last| Self::One(last));
        }
    }
}

/// When two owners had answered one asker's question: each a single one, within
/// [`ANSWER_WINDOW`] of each other, the later one after `since`.
pub fn answered_together(one: &Answers, other: &Answers, since: Timestamp) -> Option<Timestamp> {
    let strong = |answers: &'_ Answers| -> SmallVec<[(Mac, Timestamp); MAX_ANSWERS]> {
        answers
            .iter()
            .filter(|answer| answer.strong)
            .filter_map(|answer| match answer.to {
                To::Asker(asker) => Some((asker, answer.at)),
                To::All => None,
            })
            .collect()
    };
    let others = strong(other);
    let both = strong(one).into_iter().filter_map(|(asker, at)| {
        let same = others
            .iter()
            .filter(|(other_asker, _)| *other_asker == asker);
        let both = same.filter_map(|&(_, other_at)| {
            let (first, last) = (at.min(other_at), at.max(other_at));
            (last > since && last.since(first) <= ANSWER_WINDOW).then_some(last)
        });
        both.min()
    });
    both.min()
}
