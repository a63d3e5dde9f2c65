//! Where each MAC is: one that is behind two ports at once is used twice.
//!
//! A station moves: a guest migrates, a failover moves a bond's MAC. It is a duplicate when
//! both places are ports of this host that are up, or when it moves as RFC 7432 §15.1
//! counts: five times within three minutes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ipam_common::{Address, Mac};

use super::{
    conflict::{About, Conflict, Severity, Verdict},
    judge::Windows,
    segment::{PortKind, Segment, Topology},
    shelf::{Keyed, Shelves},
    table::{Claim, Heard, MAX_ENTRIES, SegmentId},
    time::Timestamp,
};

/// So many moves...
const MOVES: usize = 5;
/// ... within this time are no migrations.
const MOVES_WINDOW: Duration = Duration::from_secs(180);
/// A port that a guest left may be up for so long after it came back behind another.
const PORT_GRACE: Duration = Duration::from_secs(2);
/// How many ports of one station are told apart; beyond it, the longest unheard go.
const MAX_PORTS: usize = 8;

/// A MAC in a segment.
pub type StationId = (SegmentId, Mac);

/// Every MAC, and where it was heard last.
#[derive(Debug, Default)]
pub struct Stations {
    /// By the segments' numbers.
    stations: Shelves<Station>,
    /// Those that were heard on two ports.
    tracks: BTreeMap<StationId, Track>,
    refused: u64,
}

#[derive(Debug)]
struct Station {
    mac: Mac,
    /// Whether there is a track of it.
    moved: bool,
    ifindex: u32,
    last: Timestamp,
}

impl Keyed for Station {
    type Key = Mac;

    fn key(&self) -> Mac {
        self.mac
    }
}

/// A station that moved.
#[derive(Debug)]
pub struct Track {
    /// What it said on each port.
    pub claims: Vec<Claim>,
    /// How often it moved.
    pub changes: u32,
    /// The address that it asserted last.
    pub address: Address,
    /// The conflict, open or ended less than an hour ago.
    pub conflict: Option<Conflict>,
    moves: VecDeque<Timestamp>,
    both_since: Option<Timestamp>,
    deadline: Option<Timestamp>,
}

/// What came of looking at a station.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The conflict opened or came back.
    pub opened: bool,
    /// It ended.
    pub resolved: bool,
    /// The timer that was set.
    pub before: Option<Timestamp>,
    /// When to look again.
    pub deadline: Option<Timestamp>,
}

impl Stations {
    /// A station spoke for an address. Whether it is to be looked at.
    pub fn hear(&mut self, id: StationId, address: Address, heard: &Heard) -> bool {
        let full = self.stations.len() >= MAX_ENTRIES;
        let Some(station) = self.stations.get_mut(id.0.index(), id.1) else {
            if full {
                self.refused = self.refused.saturating_add(1);
                return false;
            }
            let (segment, mac) = id;
            let new = || Station {
                mac,
                moved: false,
                ifindex: heard.ifindex,
                last: heard.at,
            };
            self.stations.get_or_insert_with(segment.index(), mac, new);
            return false;
        };
        let elsewhere = heard.ifindex != station.ifindex;
        if elsewhere || station.moved {
            station.moved = true;
            let track = self.tracks.entry(id).or_insert_with(|| {
                let before = Heard {
                    ifindex: station.ifindex,
                    at: station.last,
                    total: None,
                    ..*heard
                };
                Track::new(address, &before)
            });
            // What is told late says where it was, not where it is.
            let moves = elsewhere && heard.at >= station.last;
            track.hear(address, heard, moves);
            if moves {
                station.ifindex = heard.ifindex;
            }
        }
        station.last = station.last.max(heard.at);
        elsewhere
    }

    /// Whether a station is known.
    pub fn contains(&self, id: StationId) -> bool {
        self.stations.get(id.0.index(), id.1).is_some()
    }

    /// How many new stations were not followed because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Looks at one station.
    pub fn look(
        &mut self,
        id: StationId,
        segment: &Segment,
        topology: &Topology,
        windows: Windows,
        now: Timestamp,
    ) -> Looked {
        let Some(track) = self.tracks.get_mut(&id) else {
            return Looked::default();
        };
        track.look(id.1, segment, topology, windows, now)
    }

    /// Every station that moved.
    pub fn tracks(&self) -> impl Iterator<Item = (StationId, &Track)> {
        self.tracks.iter().map(|(&id, track)| (id, track))
    }

    /// A station that moved.
    pub fn track(&self, id: StationId) -> Option<&Track> {
        self.tracks.get(&id)
    }

    /// Forgets who said nothing for so long, unless there is a conflict about it.
    pub fn forget(&mut self, now: Timestamp, after: Duration) {
        let tracks = &mut self.tracks;
        self.stations.retain(|segment, station| {
            let id = (SegmentId::new(segment), station.mac);
            let conflict = tracks
                .get(&id)
                .is_some_and(|track| track.conflict.is_some());
            let keep = conflict || now.since(station.last) < after;
            if !keep {
                tracks.remove(&id);
            }
            keep
        });
    }
}

impl Track {
    /// Of a station that was heard once, then.
    fn new(address: Address, heard: &Heard) -> Self {
        let mut track = Self {
            claims: Vec::new(),
            changes: 0,
            address,
            conflict: None,
            moves: VecDeque::new(),
            both_since: None,
            deadline: None,
        };
        track.note(heard);
        track
    }

    fn hear(&mut self, address: Address, heard: &Heard, moves: bool) {
        self.note(heard);
        self.address = address;
        if moves {
            self.changes = self.changes.saturating_add(1);
            self.moves.push_back(heard.at);
            if self.moves.len() > MOVES {
                self.moves.pop_front();
            }
            self.both_since.get_or_insert(heard.at);
        }
    }

    fn note(&mut self, heard: &Heard) {
        let known = self.claims.iter_mut().find(|c| c.ifindex == heard.ifindex);
        if let Some(claim) = known {
            claim.hear(heard);
            return;
        }
        if self.claims.len() >= MAX_PORTS
            && let Some(oldest) = (0..MAX_PORTS).min_by_key(|&i| self.claims[i].last_seen)
        {
            self.claims.remove(oldest);
        }
        let mut claim = Claim::new(heard);
        claim.hear(heard);
        self.claims.push(claim);
    }

    fn look(
        &mut self,
        mac: Mac,
        segment: &Segment,
        topology: &Topology,
        windows: Windows,
        now: Timestamp,
    ) -> Looked {
        let mut looked = Looked {
            before: self.deadline,
            ..Looked::default()
        };
        let local = self.claims.iter().filter(|claim| {
            let port = topology.ports.get(&claim.ifindex);
            port.is_some_and(|port| port.kind == PortKind::Veth && port.up)
        });
        let mut heard: Vec<Timestamp> = self.claims.iter().map(|c| c.last_seen).collect();
        heard.sort_unstable();
        let until = heard.iter().nth_back(1).map(|&at| at + windows.quiet);
        let lasts = until.is_some_and(|until| now < until);
        let both = local.count() >= 2 && lasts;
        let due = self.both_since.map(|since| since + PORT_GRACE);
        let flaps = self.moves.len() == MOVES
            && self
                .moves
                .back()
                .zip(self.moves.front())
                .is_some_and(|(last, first)| last.since(*first) <= MOVES_WINDOW);
        let open = self.conflict.as_ref().is_some_and(Conflict::is_active);
        let duplicate = lasts && (open || flaps || (both && due.is_some_and(|due| due <= now)));
        if duplicate {
            let ports = self.claims.iter().map(|claim| port_name(topology, claim));
            let verdict = Verdict::DuplicateMac {
                mac: [mac],
                ports: ports.collect(),
            };
            looked.opened = self.open(mac, segment, verdict, now);
        } else if let Some(conflict) = &mut self.conflict {
            looked.resolved = conflict.end(now);
        }
        if due.is_some_and(|due| due <= now) {
            self.both_since = None;
        }
        if !lasts {
            self.moves.clear();
        }
        let over = self
            .conflict
            .as_ref()
            .and_then(|conflict| conflict.resolved);
        let forgotten = over.map(|at| at + windows.memory);
        if forgotten.is_some_and(|at| at <= now) {
            self.conflict = None;
        }
        let open = self.conflict.as_ref().is_some_and(Conflict::is_active);
        looked.deadline = [due, until.filter(|_| open), forgotten]
            .into_iter()
            .flatten()
            .filter(|&at| at > now)
            .min();
        self.deadline = looked.deadline;
        looked
    }

    /// Opens the conflict or keeps it open; whether it wasn't.
    fn open(&mut self, mac: Mac, segment: &Segment, verdict: Verdict, now: Timestamp) -> bool {
        let last_seen = self.claims.iter().map(|claim| claim.last_seen).max();
        let last_seen = last_seen.unwrap_or(now);
        if let Some(conflict) = &mut self.conflict {
            return conflict.go_on(verdict, Severity::Warning, last_seen, now);
        }
        // From when the second port was heard.
        let mut firsts: Vec<Timestamp> = self.claims.iter().map(|c| c.first_seen).collect();
        firsts.sort_unstable();
        let first_seen = firsts.get(1).copied().unwrap_or(now);
        self.conflict = Some(Conflict::begin(
            segment,
            About::Mac(mac),
            verdict,
            Severity::Warning,
            first_seen,
            last_seen,
            now,
        ));
        true
    }
}

fn port_name(topology: &Topology, claim: &Claim) -> Arc<str> {
    topology.ports.get(&claim.ifindex).map_or_else(
        || "a port that is gone".into(),
        |port| Arc::clone(&port.name),
    )
}
