//! The same judgement over captures: the capture's own clock drives the engine.

mod merge;
mod order;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use self::{
    merge::{Merge, MergedFrame, Track},
    order::Order,
    ports::Ports,
};
use super::{
    settings,
    stores::{self, Stores},
};
use ipam_common::Sighting;

use crate::{
    config::Config,
    engine::{
        Engine,
        input::{Command, Input, Notice, Seen},
        scope::Scope,
        time::Timestamp,
    },
    error::in_full,
    report::{
        compose::{Composer, WallClock, sort_conflicts},
        document::{CaptureRecord, ConflictRecord, ConflictState, Report, Summary},
    },
    source::pcap::{CaptureError, OnRead, Place},
};

/// For how long the clock goes on after a capture's end: what is pending ripens.
const AFTER: Duration = Duration::from_secs(5);
/// When nothing is left that a timer could decide: conflicts are forgotten an hour after
/// their end, claims after a day.
const SETTLED: Duration = Duration::from_secs(2 * 86_400);
/// After a capture's clock was set back, judgement goes on as after a pause of so long: nothing
/// is proved by what was before and after it, and a conflict that goes on keeps its id.
const PAUSE: Duration = Duration::from_secs(181);
/// So often a clock is set back, and so far in all (146 years); beyond it, the capture is
/// merely out of order.
const MAX_SET_BACK: usize = 64;
const FARTHEST: u64 = 1 << 62;
/// A bridge passes a frame on within this time: on another port of the segment it is the
/// same frame, and not the same station there.
const PASSED_ON: Duration = Duration::from_millis(10);
/// How many frames are remembered for that: all of them, of 100,000 a second.
const MAX_RECENT: usize = 1024;
/// How many conflicts are kept that ended more than an hour before the captures' end.
const MAX_PAST: usize = 1 << 16;

/// Which captures, and how.
#[derive(Clone, Default)]
pub struct ReplayOptions {
    /// The captures, in any order: their frames are judged in the order of time.
    pub captures: Vec<Place>,
    /// Interfaces that are ports of one segment, by its name.
    pub segments: BTreeMap<String, Vec<String>>,
    /// Told how many bytes more were read.
    pub on_read: Option<OnRead>,
}

/// Why captures can't be replayed, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Its frames would count twice, and every station be in two places.
    #[error("{0} is given twice")]
    Twice(Place),
    /// A store.
    #[error("can't judge without the leases: {0}")]
    Leases(String),
    /// A store that somebody named.
    #[error("there is no {}: name host-local's directory, --leases host-local:DIR", .0.display())]
    NoDirectory(PathBuf),
    /// A segment of which nothing was captured.
    #[error("no interface {missing} in what was captured, but {met}")]
    NoInterface {
        /// Those that are missing.
        missing: String,
        /// Those there are.
        met: String,
    },
}

/// What came of captures.
#[derive(Debug)]
pub struct Replayed {
    /// What was found in what could be read.
    pub report: Report,
    /// What could not.
    pub failed: Vec<ReplayError>,
    /// Segments of the leases' pools, none of which was captured.
    pub unheard: BTreeSet<String>,
    /// Events before those of the report, of which it has the last.
    pub forgotten: u64,
}

/// Judges captures and reports at their end.
///
/// # Errors
/// One of them can't be opened or is no capture, or a source of leases can't be read.
pub fn replay(config: &Config, options: &ReplayOptions) -> Result<Replayed, ReplayError> {
    once_each(&options.captures)?;
    let mut judge = Judge::new(config)?;
    let mut merge = Merge::new(&options.captures, options.on_read.clone())?;
    let mut ports = Ports::new(&options.captures, &options.segments);
    while merge.next(&mut |track, frame| judge.take(track, frame, &mut ports)) {}
    judge.finish(&ports);

    for (number, track) in merge.tracks.iter().enumerate() {
        for port in &track.ports {
            ports.met(number, port);
        }
    }
    let blind: Vec<String> = merge.tracks.iter().filter_map(blind).collect();
    let unheard = judge.unheard();
    let forgotten = judge.engine.counts().forgotten;
    let mut report = judge.report(&blind);
    report.captures = merge.tracks.iter().map(record).collect();
    let failures = merge.tracks.into_iter().filter_map(|track| track.failed);
    let mut failed: Vec<ReplayError> = failures.map(Into::into).collect();
    let missing: Vec<&str> = ports.missing().collect();
    if !missing.is_empty() {
        failed.push(ReplayError::NoInterface {
            missing: missing.join(", "),
            met: match ports.all_met().collect::<Vec<_>>() {
                met if met.is_empty() => String::from("none was described"),
                met => met.join(", "),
            },
        });
    }
    Ok(Replayed {
        report,
        failed,
        unheard,
        forgotten,
    })
}

/// The engine, and what it told of.
struct Judge {
    engine: Engine,
    now: Timestamp,
    /// When the first frame was. The leases were read before there was a time.
    first: Option<Timestamp>,
    /// Frames that come later than this are not told late: the clock was set back.
    late: Duration,
    /// From when on the engine's clock is ahead of the captures', and by how much.
    set_back: Vec<(Timestamp, u64)>,
    host: String,
    /// Conflicts that ended, as they were then.
    past: BTreeMap<String, ConflictRecord>,
    left_out: u64,
    /// Frames of ports that share a segment.
    order: Order<(u32, Sighting)>,
    /// The ports that the engine knows.
    attached: BTreeSet<u32>,
    /// What was heard last, and by which port.
    recent: VecDeque<Seen>,
}

impl Judge {
    fn new(config: &Config) -> Result<Self, ReplayError> {
        if let Some(directory) = stores::missing(&config.stores) {
            return Err(ReplayError::NoDirectory(directory.to_owned()));
        }
        let settings = settings(config, "");
        // A contest of which half was told late is still judged.
        let late = settings.windows.quiet / 2;
        let mut engine = Engine::new(settings);
        for input in Stores::new(&config.stores).read().inputs {
            match &input {
                Input::SourceFailed { why, .. } => return Err(ReplayError::Leases(why.clone())),
                Input::Stores { failed, .. } if !failed.is_empty() => {
                    let whys: Vec<&str> = failed.iter().map(|(_, why)| why.as_str()).collect();
                    return Err(ReplayError::Leases(whys.join("; ")));
                }
                _ => engine.handle(input, Timestamp(0)),
            }
        }
        Ok(Self {
            engine,
            now: Timestamp(0),
            first: None,
            late,
            set_back: Vec::new(),
            host: super::host_name(),
            past: BTreeMap::new(),
            left_out: 0,
            order: Order::default(),
            attached: BTreeSet::new(),
            recent: VecDeque::new(),
        })
    }

    /// Takes in a frame. One that a port passed on may be written before the one it is a copy
    /// of, so where ports share a segment they are put in order first.
    fn take(&mut self, track: &Track, frame: MergedFrame, ports: &mut Ports) {
        let heard = frame.heard.map(|(port, sighting)| {
            let ifindex = ports.index(frame.track, port, track.port(port));
            (ifindex, sighting)
        });
        if !ports.any_joined() {
            return self.see(frame.at, heard, ports);
        }
        let mut order = std::mem::take(&mut self.order);
        order.take(frame.at, heard, &mut |at, heard| self.see(at, heard, ports));
        self.order = order;
    }

    /// There are no more.
    fn finish(&mut self, ports: &Ports) {
        std::mem::take(&mut self.order).finish(&mut |at, heard| self.see(at, heard, ports));
    }

    fn see(&mut self, at: u64, heard: Option<(u32, Sighting)>, ports: &Ports) {
        let at = self.time(at);
        self.first = self.first.map(|first| first.min(at)).or(Some(at));
        // Time goes on first, and never back.
        self.advance(self.now.max(at));
        let Some((ifindex, sighting)) = heard else {
            return;
        };
        if !self.attached.contains(&ifindex) {
            let topology = Arc::new(ports.topology.clone());
            let since = self.now;
            self.engine
                .handle(Input::Links { topology, since }, self.now);
            // Others were met of which what was heard is still held back.
            for &ifindex in ports.topology.ports.keys() {
                if self.attached.insert(ifindex) {
                    self.engine
                        .handle(Input::Attached { ifindex, since }, self.now);
                }
            }
        }
        let seen = Seen {
            again: false,
            at,
            ifindex,
            sighting,
        };
        if self.is_passed_on(&seen, ports) {
            return;
        }
        self.engine.handle(Input::Seen(seen), self.now);
        self.listen();
    }

    /// A capture's time as the engine's, whose clock is never set back.
    fn time(&mut self, at: u64) -> Timestamp {
        let ahead = self.set_back.last().map_or(0, |&(_, ahead)| ahead);
        let time = Timestamp(at.saturating_add(ahead));
        if self.now.since(time) <= self.late {
            return time;
        }
        let after = self.now + PAUSE;
        let ahead = after.0.saturating_sub(at);
        if self.set_back.len() >= MAX_SET_BACK || ahead > FARTHEST {
            return time;
        }
        self.set_back.push((after, ahead));
        after
    }

    /// Whether another port of the segment has just heard this very frame. A capture has what
    /// leaves a port as well as what comes in by it, which the live program doesn't look at.
    fn is_passed_on(&mut self, seen: &Seen, ports: &Ports) -> bool {
        if !ports.any_joined() {
            return false;
        }
        while let Some(oldest) = self.recent.front()
            && (self.recent.len() >= MAX_RECENT || seen.at.since(oldest.at) > PASSED_ON)
        {
            self.recent.pop_front();
        }
        let passed_on = self.recent.iter().any(|before| {
            before.sighting == seen.sighting
                && before.ifindex != seen.ifindex
                && ports.are_joined(before.ifindex, seen.ifindex)
        });
        if !passed_on {
            self.recent.push_back(*seen);
        }
        passed_on
    }

    /// Fires the timers that are due before then, each at its own time: what is said at the
    /// very moment is said in time.
    fn advance(&mut self, to: Timestamp) {
        let settled = self.now + SETTLED;
        while let Some(at) = self.engine.poll_timeout()
            && at < to
        {
            self.now = match at > settled {
                true => to,
                false => self.now.max(at),
            };
            self.engine.handle_timeout(self.now);
            self.listen();
        }
        self.now = to;
    }

    /// Keeps conflicts that are over: the engine forgets them an hour later.
    fn listen(&mut self) {
        while let Some(command) = self.engine.next_command() {
            let Command::Publish(Notice::Resolved(segment, address, conflict)) = command else {
                continue;
            };
            let conflict = self
                .composer(&[])
                .conflict_told(&segment, address, &conflict);
            if self.past.len() < MAX_PAST {
                self.past.insert(conflict.id.clone(), conflict);
            } else if !self.past.contains_key(&conflict.id) {
                self.left_out += 1;
            }
        }
    }

    fn composer<'a>(&'a self, blind: &'a [String]) -> Composer<'a> {
        Composer {
            engine: &self.engine,
            clock: WallClock {
                began: 0,
                set_back: &self.set_back,
                first: self.first.unwrap_or_default(),
            },
            now: self.now,
            host: &self.host,
            boot: None,
            blind,
        }
    }

    /// The segments that pools name and that are called otherwise in the captures.
    fn unheard(&self) -> BTreeSet<String> {
        let heard = self.engine.segments();
        let named = self.engine.pools().filter_map(|pool| match pool.scope() {
            Scope::Segment(segment) => Some(&segment.name),
            Scope::Anywhere | Scope::Unknown | Scope::Nowhere(_) => None,
        });
        named
            .filter(|name| heard.iter().all(|segment| segment.name != **name))
            .map(|name| name.to_string())
            .collect()
    }

    /// At the captures' end the clock goes on: what is pending ripens, nothing resolves.
    fn report(mut self, blind: &[String]) -> Report {
        let end = self.composer(blind).report();
        let past = std::mem::take(&mut self.past);
        let left_out = self.left_out;
        self.advance(self.now + AFTER);
        self.engine.handle_timeout(self.now);
        let mut report = self.composer(blind).report();

        let mut conflicts = past;
        let by_id = |conflict: ConflictRecord| (conflict.id.clone(), conflict);
        conflicts.extend(end.conflicts.into_iter().map(by_id));
        for ripe in report.conflicts {
            let known = conflicts.get(&ripe.id).map(|known| known.state);
            if known != Some(ConflictState::Active) && ripe.state == ConflictState::Active {
                conflicts.insert(ripe.id.clone(), ripe);
            }
        }
        report.conflicts = conflicts.into_values().collect();
        sort_conflicts(&mut report.conflicts);
        report.summary = Summary::of(&report.conflicts);
        if left_out > 0 {
            let text = format!("{left_out} conflicts that were over by then are not listed");
            report.blind.push(text);
        }
        report
    }
}

/// Refuses a capture that is given twice, be it by another name.
fn once_each(captures: &[Place]) -> Result<(), ReplayError> {
    let mut met = BTreeSet::new();
    for place in captures {
        if !met.insert(place.resolved()) {
            return Err(ReplayError::Twice(place.clone()));
        }
    }
    Ok(())
}

/// Why nothing was learnt from a capture, or not all.
fn blind(track: &Track) -> Option<String> {
    let (place, counts) = (&track.place, &track.counts);
    if counts.is_blind() {
        let why: Vec<_> = counts.skipped().map(|(why, _)| why.name()).collect();
        return Some(format!(
            "{place}: none of its {} frames could be looked at: {}",
            counts.frames,
            why.join(", ")
        ));
    }
    let cut = counts.cut();
    (cut > 0).then(|| {
        format!(
            "{place}: {cut} frames of ARP or ND were cut short as they were captured; \
             `tcpdump -s 0` takes them whole"
        )
    })
}

fn record(track: &Track) -> CaptureRecord {
    let wall = |at| WallClock::since(0).at(Timestamp(at));
    let counts = &track.counts;
    CaptureRecord {
        file: track.place.to_string(),
        first_frame: track.span.map(|(first, _)| wall(first)),
        last_frame: track.span.map(|(_, last)| wall(last)),
        damage: track.failed.as_ref().map(|error| in_full(error)),
        frames: counts.frames,
        arp: counts.arp,
        nd: counts.nd,
        refused: named(counts.refused().map(|(why, count)| (why.name(), count))),
        skipped: named(counts.skipped().map(|(why, count)| (why.name(), count))),
        late: counts.late,
    }
}

fn named<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts.map(|(why, count)| (why.to_owned(), count)).collect()
}
