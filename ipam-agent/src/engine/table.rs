//! Who claims what, where: the table that verdicts are drawn from.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipam_common::{Address, Evidence, Mac};
use smallvec::SmallVec;

use super::{
    answers::{Answer, Answers, To},
    conflict::{Alive, Conflict},
    owner::OwnerKey,
    runs::{ALTERNATION_WINDOW, Move, Runs},
    segment::Segment,
    shelf::{Keyed, Shelves},
    time::{Moment, Timestamp},
};

/// How many addresses are kept, over all segments. Beyond it, those that are neither
/// leased nor contested go, the longest unheard first.
pub const MAX_ENTRIES: usize = 1 << 20;
/// How many segments are told apart: whoever is on a bridge that filters no VLANs can make
/// up as many as there are pairs of tags.
const MAX_SEGMENTS: usize = 65_536;
/// How many claims one address has; beyond it, the longest unheard go, but for the first
/// half: who makes up a MAC for each frame doesn't hide who was there before.
pub const MAX_CLAIMS: usize = 16;
/// For how long a claim is remembered that nobody repeats.
pub const CLAIM_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// A segment's number in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(u32);

impl SegmentId {
    /// That of an index, which [`Self::index`] gave.
    pub(super) fn new(index: usize) -> Self {
        Self(index as u32)
    }

    /// The number itself: less than [`MAX_SEGMENTS`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where in the table: an address of a segment.
pub type Place = (SegmentId, Address);

/// One MAC's claim of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub mac: Mac,
    /// The port it was last heard on.
    pub ifindex: u32,
    /// First heard.
    pub first_seen: Timestamp,
    /// Last heard.
    pub last_seen: Timestamp,
    last_strong: Moment,
    /// How many frames.
    pub frames: u32,
    kinds: u16,
    /// Whom it answered of late.
    pub answers: Answers,
}

// A million of them are kept.
const _: () = assert!(size_of::<Claim>() == 56 && Evidence::ALL.len() <= 16);

impl Claim {
    /// A claim of which nothing was heard yet.
    pub(super) fn new(heard: &Heard) -> Self {
        Self {
            mac: heard.mac,
            ifindex: heard.ifindex,
            first_seen: heard.at,
            last_seen: heard.at,
            last_strong: Moment::NEVER,
            frames: 0,
            kinds: 0,
            answers: Answers::None,
        }
    }

    /// Last assertion that contests; `None` if it only ever gave weak ones or is exempt.
    pub fn last_strong(&self) -> Option<Timestamp> {
        self.last_strong.get()
    }

    /// Whether it never gave a weak one: else its first may have been.
    pub fn was_always_strong(&self) -> bool {
        self.kinds() & Evidence::WeakAdvertisement.bit() == 0
    }

    pub(super) fn hear(&mut self, heard: &Heard) {
        self.frames = match heard.total {
            Some(total) => self.frames.max(total),
            None => self.frames.saturating_add(1),
        };
        self.kinds |= heard.kinds as u16;
        self.first_seen = self.first_seen.min(heard.at);
        if heard.at >= self.last_seen {
            self.last_seen = heard.at;
            self.ifindex = heard.ifindex;
        }
        if let Some(to) = heard.answers {
            self.answers.add(Answer {
                to,
                strong: heard.strong,
                at: heard.at,
            });
        }
        if heard.strong {
            self.last_strong = Moment::from(self.last_strong().max(Some(heard.at)));
        }
    }

    /// The kinds of evidence, as [`Evidence::bit`].
    pub fn kinds(&self) -> u32 {
        self.kinds.into()
    }

    /// The kinds of evidence.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence> + use<> {
        let kinds = self.kinds();
        Evidence::ALL
            .into_iter()
            .filter(move |kind| kinds & kind.bit() != 0)
    }
}

/// One address of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Who claims it, in the order of first hearing.
    pub claims: SmallVec<[Claim; 1]>,
    /// What is being judged, as soon as there is anything to judge.
    pub contest: Option<Box<Contest>>,
}

/// What is known beyond plain claims once an address is more than one machine's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contest {
    /// Who spoke after whom.
    pub runs: Runs,
    /// What shows that two are alive, while the contest lasts.
    pub proofs: BTreeSet<Alive>,
    /// Those two or more.
    pub rivals: BTreeSet<Mac>,
    /// When what they show began: whoever came again since then made it worse.
    pub begun: Option<Timestamp>,
    /// When the last frame was heard that shows it: the contest goes on for a while from there.
    pub proved: Option<Timestamp>,
    /// Turns up to here have been judged and are settled: a new contest needs newer ones.
    pub settled: Timestamp,
    /// Since when somebody asserts it without a lease.
    pub unleased_since: Option<Timestamp>,
    /// When one for whom it is not set apart first asserted it, while that goes on.
    pub reserved_since: Option<Timestamp>,
    /// Who used it unleased when the lease that covers it was granted.
    pub squatters: BTreeSet<Mac>,
    /// When a stranger to the lease first asserted it, while that goes on.
    pub stranger_since: Option<Timestamp>,
    /// When another asserted an address of this host, to be looked at a second later.
    pub ours_since: Option<Timestamp>,
    /// The MAC with which this host had it then.
    pub our_mac: Option<Mac>,
    /// Since when two local ports assert it, to be looked behind ten seconds later.
    pub behind_since: Option<Timestamp>,
    /// Whether that was done.
    pub looked_behind: bool,
    /// When two were last found to have it though they may have said nothing: configured
    /// behind two ports, or answering when asked.
    pub found_at: Option<Timestamp>,
    /// When the claimants were asked.
    pub asked_at: Option<Timestamp>,
    /// The conflict, open or ended less than an hour ago.
    pub conflict: Option<Conflict>,
    /// The timer that is set.
    pub deadline: Option<Timestamp>,
}

impl Contest {
    /// Something shows that these are alive, whose contest began then, since `at`.
    pub fn prove(
        &mut self,
        alive: Alive,
        rivals: impl IntoIterator<Item = Mac>,
        begun: Timestamp,
        at: Timestamp,
    ) {
        self.proofs.insert(alive);
        self.rivals.extend(rivals);
        self.begun = Some(self.begun.map_or(begun, |known| known.min(begun)));
        self.proved = self.proved.max(Some(at));
    }

    /// The contest is over. What these claimed until now is judged; what is told late was not.
    pub fn settle(&mut self, claims: &[Claim]) {
        self.proofs.clear();
        self.rivals.clear();
        self.begun = None;
        self.proved = None;
        let judged = claims.iter().map(|claim| claim.last_seen).max();
        self.settled = judged.unwrap_or_default().max(self.settled);
    }
}

/// One claim heard.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Who.
    pub mac: Mac,
    /// The port.
    pub ifindex: u32,
    /// When.
    pub at: Timestamp,
    /// Whether it contests.
    pub strong: bool,
    /// The kinds of evidence, as [`Evidence::bit`].
    pub kinds: u32,
    /// Whom it answers.
    pub answers: Option<To>,
    /// How many frames this stands for, counted from the beginning; `None`: one more.
    pub total: Option<u32>,
}

impl Entry {
    /// Note a claim. The change of speaker that is known by it.
    pub fn hear(&mut self, heard: &Heard, owner_of: &dyn Fn(Mac) -> OwnerKey) -> Option<Move> {
        let owner = owner_of(heard.mac);
        let contested =
            heard.strong && self.strong().any(|(claim, _)| owner_of(claim.mac) != owner);
        if contested {
            self.contest(owner_of, heard.at);
        }
        self.note(heard);
        let contest = self.contest.as_mut().filter(|_| heard.strong)?;
        contest.runs.add(owner, heard.mac, heard.at)
    }

    fn note(&mut self, heard: &Heard) {
        let place = self.claims.iter().position(|claim| claim.mac == heard.mac);
        let place = place.unwrap_or_else(|| {
            self.make_room();
            self.claims.push(Claim::new(heard));
            self.claims.len() - 1
        });
        self.claims[place].hear(heard);
    }

    /// The contest, begun with what the claims tell if there was none. What they told longer
    /// ago than turns count is settled: there was one then, or nothing came of it.
    pub fn contest(&mut self, owner_of: &dyn Fn(Mac) -> OwnerKey, at: Timestamp) -> &mut Contest {
        if self.contest.is_none() {
            let mut contest = Contest {
                settled: at - ALTERNATION_WINDOW,
                ..Contest::default()
            };
            for (claim, last) in self.strong() {
                let owner = owner_of(claim.mac);
                if claim.was_always_strong() {
                    contest.runs.add(owner, claim.mac, claim.first_seen);
                }
                contest.runs.add(owner, claim.mac, last);
            }
            self.contest = Some(Box::new(contest));
        }
        self.contest.get_or_insert_default()
    }

    /// Those who contest, with their last word.
    pub fn strong(&self) -> impl Iterator<Item = (&Claim, Timestamp)> {
        self.claims
            .iter()
            .filter_map(|claim| Some((claim, claim.last_strong()?)))
    }

    /// The last sign of life.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.claims.iter().map(|claim| claim.last_seen).max()
    }

    fn make_room(&mut self) {
        if self.claims.len() >= MAX_CLAIMS
            && let Some(oldest) =
                (MAX_CLAIMS / 2..self.claims.len()).min_by_key(|&i| self.claims[i].last_seen)
        {
            self.claims.remove(oldest);
        }
    }
}

/// An entry, and its address.
#[derive(Debug)]
struct Placed {
    address: Address,
    entry: Entry,
}

impl Keyed for Placed {
    type Key = Address;

    fn key(&self) -> Address {
        self.address
    }
}

fn located((number, placed): (usize, &Placed)) -> (Place, &Entry) {
    ((SegmentId::new(number), placed.address), &placed.entry)
}

/// Every address of every segment.
#[derive(Debug, Default)]
pub struct Table {
    ids: BTreeMap<Segment, SegmentId>,
    segments: Vec<Segment>,
    /// By the segments' numbers.
    entries: Shelves<Placed>,
    evicted: u64,
}

impl Table {
    /// The number of a segment, given if it has none; `None` if [`MAX_SEGMENTS`] have one.
    pub fn id(&mut self, segment: &Segment) -> Option<SegmentId> {
        if let Some(&id) = self.ids.get(segment) {
            return Some(id);
        }
        if self.segments.len() >= MAX_SEGMENTS {
            return None;
        }
        let id = SegmentId(u32::try_from(self.segments.len()).ok()?);
        self.segments.push(segment.clone());
        self.ids.insert(segment.clone(), id);
        Some(id)
    }

    /// The number of a segment that was met.
    pub fn find(&self, segment: &Segment) -> Option<SegmentId> {
        self.ids.get(segment).copied()
    }

    /// The segment of a number.
    pub fn segment(&self, id: SegmentId) -> &Segment {
        &self.segments[id.index()]
    }

    /// Every segment met, in the order of names.
    pub fn segments(&self) -> impl Iterator<Item = (&Segment, SegmentId)> {
        self.ids.iter().map(|(segment, &id)| (segment, id))
    }

    /// An address, made if new; `spare` says which may go if the table is full.
    pub fn entry(&mut self, place: Place, spare: &dyn Fn(&Address) -> bool) -> &mut Entry {
        if self.entries.len() >= MAX_ENTRIES && self.get(&place).is_none() {
            self.evict(spare);
        }
        let (segment, address) = place;
        let new = || Placed {
            address,
            entry: Entry::default(),
        };
        let placed = { &mut self.entries }.get_or_insert_with(segment.index(), address, new);
        &mut placed.entry
    }

    /// An address.
    pub fn get(&self, place: &Place) -> Option<&Entry> {
        Some(&self.entries.get(place.0.index(), place.1)?.entry)
    }

    /// An address, to change it.
    pub fn get_mut(&mut self, place: &Place) -> Option<&mut Entry> {
        let placed = self.entries.get_mut(place.0.index(), place.1)?;
        Some(&mut placed.entry)
    }

    /// Everything, in no particular order, but always in the same.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries.iter().map(located)
    }

    /// Everything, segment by segment as they were met.
    pub fn sorted(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries.sorted().map(located)
    }

    /// The places of one address, in every segment.
    pub fn places_of(&self, address: Address) -> impl Iterator<Item = Place> + '_ {
        self.ids
            .values()
            .map(move |&id| (id, address))
            .filter(|place| self.get(place).is_some())
    }

    /// How many addresses were dropped because the table was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forget what nobody repeated for [`CLAIM_MEMORY`], unless it is contested.
    pub fn forget(&mut self, now: Timestamp) {
        self.entries.retain(|_, Placed { entry, .. }| {
            { entry.claims.iter_mut() }.for_each(|claim| claim.answers.forget(now));
            entry.contest.is_some() || {
                entry
                    .claims
                    .retain(|claim| now.since(claim.last_seen) < CLAIM_MEMORY);
                !entry.claims.is_empty()
            }
        });
    }

    /// Drop an eighth of what may go, the longest unheard: of what neither is leased nor
    /// was ever anybody else's; if there is none, of what is in no conflict now; else of all.
    fn evict(&mut self, spare: &dyn Fn(&Address) -> bool) {
        let worth = |place: Place, entry: &Entry| {
            let conflict = entry.contest.as_ref().and_then(|c| c.conflict.as_ref());
            match conflict.is_some_and(Conflict::is_active) {
                true => 2,
                false => u8::from(entry.contest.is_some() || !spare(&place.1)),
            }
        };
        let of = |least: u8| -> Vec<(Option<Timestamp>, Place)> {
            self.iter()
                .filter(|&(place, entry)| worth(place, entry) == least)
                .map(|(place, entry)| (entry.last_seen(), place))
                .collect()
        };
        let Some(mut candidates) = (0..=2).map(of).find(|found| !found.is_empty()) else {
            return;
        };
        let nth = (candidates.len() / 8).min(candidates.len() - 1);
        candidates.select_nth_unstable(nth);
        for &(_, (segment, address)) in &candidates[..=nth] {
            self.entries.remove(segment.index(), address);
        }
        self.evicted = self.evicted.saturating_add(nth as u64 + 1);
    }
}
