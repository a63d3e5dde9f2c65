//! Asking, on the wire, whether anybody has an address whose lease is about to be released:
//! what is asked, and what came of it.
//!
//! An answer is good for the grant that was asked about, and for the pass after it: a later
//! one asks again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipam_common::{Address, Mac, sighting::Tags};

use super::{
    Engine,
    input::Command,
    lease::{Generation, Lease, StoreName},
    reclaim::Clear,
    segment::{PortKind, Segment, Topology},
    time::Timestamp,
};

/// How many leases are asked about at once, where somebody could answer; others wait for the next pass.
pub const MAX_ASKED: usize = 2048;

/// Ask whether anybody has these, then say [`super::input::Input::Probed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Its number.
    pub round: u64,
    /// What to ask, wire by wire.
    pub wires: Vec<Wire>,
}

/// What is asked on one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The segment.
    pub segment: Segment,
    /// Out of which ports, with which tags.
    pub exits: Vec<(u32, Tags)>,
    /// The addresses.
    pub addresses: Vec<Address>,
}

/// What came of it for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it was asked for.
    pub segment: Segment,
    /// The address.
    pub address: Address,
    /// What was found.
    pub finding: Finding,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// So many probes were sent, and nobody said anything.
    Silent(u32),
    /// Somebody has it.
    Answered {
        /// Who.
        mac: Mac,
        /// The port it was heard on.
        ifindex: u32,
    },
    /// Somebody was heard probing for it: it was not asked for any more.
    Wanted(Mac),
    /// It could not be asked for, or not everywhere; why, in words.
    Unsent(String),
}

/// That nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// How many probes were sent, out of all ports together.
    pub sent: u32,
    /// Out of how many ports.
    pub ports: usize,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = if self.ports == 1 { "port" } else { "ports" };
        let Self { sent, ports: of } = self;
        write!(f, "{sent} probes out of {of} {ports} were not answered")
    }
}

/// What the last inquiry about a lease found.
#[derive(Clone, Debug)]
pub(super) struct Known {
    generation: Generation,
    segment: Segment,
    ports: Arc<[u32]>,
    /// It is being asked for.
    pub waiting: bool,
    /// The pass that asked.
    pub asked: u64,
    /// Nobody answered, since the lease is clear of everything else, as this pass judges.
    pub silent: Option<Silent>,
    /// The same for the next pass. Until then this pass goes by what it had.
    fresh: Option<Silent>,
    /// What was found instead.
    pub against: Option<Against>,
}

/// An inquiry that nobody answered.
#[derive(Clone, Debug)]
pub(super) struct Silent {
    pub unanswered: Unanswered,
    pub ports: Arc<[u32]>,
    /// The pass that asked.
    pub asked: u64,
    /// The pass that may judge by it.
    pub judged: u64,
}

/// What stands against a release.
#[derive(Clone, Debug)]
pub(super) enum Against {
    Answered {
        mac: Mac,
        port: Arc<str>,
        at: Timestamp,
    },
    Wanted(Mac),
    Unsent(String),
}

type Key = (StoreName, Address);

/// What was asked, and what came of it.
#[derive(Debug, Default)]
pub struct Probing {
    round: u64,
    open: bool,
    /// Of the open round: nobody is on their wires.
    unreached: Vec<Found>,
    known: BTreeMap<Key, Known>,
}

impl Known {
    /// That nobody answered, whichever pass is to judge by it.
    pub fn last_silent(&self) -> Option<&Silent> {
        self.fresh.as_ref().or(self.silent.as_ref())
    }
}

impl Probing {
    /// What is known of this very grant.
    pub(super) fn of(&self, lease: &Lease) -> Option<&Known> {
        let known = self.known.get(&(lease.store.clone(), lease.address))?;
        (known.generation == lease.generation()).then_some(known)
    }

    /// Whether the wire's silence about this very grant is for the next pass to judge by.
    pub(super) fn is_fresh(&self, lease: &Lease) -> bool {
        self.of(lease).is_some_and(|known| known.fresh.is_some())
    }

    /// A pass begins: it judges by what was found since the last.
    pub(super) fn begin_pass(&mut self) {
        for known in self.known.values_mut() {
            known.silent = known.fresh.take().or(known.silent.take());
        }
    }

    /// A pass was made: silence counts only as long as nothing else stands against the lease.
    fn pass(&mut self, clear: &BTreeSet<Key>) {
        self.known.retain(|key, known| {
            if clear.contains(key) {
                return true;
            }
            known.waiting = false;
            (known.silent, known.fresh) = (None, None);
            matches!(known.against, Some(Against::Answered { .. }))
        });
    }

    fn ask(&mut self, lease: &Lease, segment: &Segment, ports: &Arc<[u32]>, pass: u64) {
        let key = (lease.store.clone(), lease.address);
        let known = self.known.entry(key).or_insert_with(|| Known {
            generation: lease.generation(),
            segment: segment.clone(),
            ports: Arc::default(),
            waiting: false,
            asked: 0,
            silent: None,
            fresh: None,
            against: None,
        });
        if known.generation != lease.generation() {
            known.generation = lease.generation();
            (known.silent, known.fresh, known.against) = (None, None, None);
        }
        known.segment = segment.clone();
        known.ports = Arc::clone(ports);
        (known.waiting, known.asked) = (true, pass);
    }

    /// What was asked for is answered.
    fn told(&mut self, found: Vec<Found>, topology: &Topology, pass: u64, now: Timestamp) {
        let found: BTreeMap<(Segment, Address), Finding> = found
            .into_iter()
            .map(|found| ((found.segment, found.address), found.finding))
            .collect();
        for ((_, address), known) in &mut self.known {
            if !std::mem::take(&mut known.waiting) {
                continue;
            }
            let Some(finding) = found.get(&(known.segment.clone(), *address)) else {
                continue;
            };
            if !matches!(finding, Finding::Silent(_)) {
                (known.silent, known.fresh) = (None, None);
            }
            known.against = match finding {
                Finding::Silent(sent) => {
                    known.fresh = Some(Silent {
                        unanswered: Unanswered {
                            sent: *sent,
                            ports: known.ports.len(),
                        },
                        ports: Arc::clone(&known.ports),
                        asked: known.asked,
                        judged: pass + 1,
                    });
                    None
                }
                Finding::Answered { mac, ifindex } => Some(Against::Answered {
                    mac: *mac,
                    port: topology.ports.get(ifindex).map_or_else(
                        || "a port that is gone".into(),
                        |port| Arc::clone(&port.name),
                    ),
                    at: now,
                }),
                Finding::Wanted(mac) => Some(Against::Wanted(*mac)),
                Finding::Unsent(why) => Some(Against::Unsent(why.clone())),
            };
        }
    }
}

/// The ports out of which somebody on the segment could be asked. Beyond a veth without
/// carrier there is nobody: its other end is down.
pub(super) fn exits(topology: &Topology, segment: &Segment) -> Vec<(u32, Tags)> {
    let reaches = |port: &super::segment::Port| port.kind != PortKind::Veth || port.carrier;
    topology
        .ports_of(segment)
        .filter(|(_, port)| reaches(port))
        .filter_map(|(ifindex, _)| Some((ifindex, topology.tags_towards(ifindex, segment)?)))
        .collect()
}

impl Engine {
    /// Asks about the leases against which nothing stands but that nobody was asked: of those
    /// that the daemon may release next, of all if a person waits, and of each once.
    pub(super) fn ask_the_wire(
        &mut self,
        clear: &Clear,
        person: bool,
        going: &BTreeSet<Key>,
        now: Timestamp,
    ) {
        let all: BTreeSet<Key> = clear.keys().cloned().collect();
        self.probing.pass(&all);
        let fences = self.fences_to_ask(now);
        if self.probing.open || (all.is_empty() && fences.is_empty()) {
            return;
        }
        let pass = self.pass.number;
        let next = self.next_pass.unwrap_or(now);
        let asked = self.planner(now).to_ask(clear, person, going, next);
        let asked = asked.iter().map(|asked| (asked, true));
        let asked = asked.chain(fences.iter().map(|fence| (fence, false)));
        let mut wires: BTreeMap<Segment, (Wire, Arc<[u32]>)> = BTreeMap::new();
        let mut unreached = Vec::new();
        for ((lease, segment), leased) in asked {
            let (wire, ports) = wires.entry(segment.clone()).or_insert_with(|| {
                let exits = exits(&self.topology, segment);
                let ports = exits.iter().map(|(ifindex, _)| *ifindex).collect();
                let addresses = Vec::new();
                let wire = Wire {
                    segment: segment.clone(),
                    exits,
                    addresses,
                };
                (wire, ports)
            });
            if leased {
                self.probing.ask(lease, segment, ports, pass);
            }
            if wire.exits.is_empty() {
                // Nobody is there to be asked, or to answer.
                unreached.push(Found {
                    segment: segment.clone(),
                    address: lease.address,
                    finding: Finding::Silent(0),
                });
            } else {
                wire.addresses.push(lease.address);
            }
        }
        let mut wires: Vec<Wire> = wires.into_values().map(|(wire, _)| wire).collect();
        wires.retain_mut(|wire| {
            wire.addresses.sort_unstable();
            wire.addresses.dedup();
            !wire.addresses.is_empty()
        });
        self.asked_about_fences(fences);
        if wires.is_empty() {
            self.found_on_wires(unreached, now);
            return;
        }
        self.probing.round += 1;
        self.probing.open = true;
        self.probing.unreached = unreached;
        self.commands.push_back(Command::Probe(Inquiry {
            round: self.probing.round,
            wires,
        }));
    }

    /// The wire was asked.
    pub(super) fn probed(&mut self, round: u64, mut found: Vec<Found>, now: Timestamp) {
        if !self.probing.open || round != self.probing.round {
            return;
        }
        self.probing.open = false;
        found.append(&mut self.probing.unreached);
        self.found_on_wires(found, now);
    }

    fn found_on_wires(&mut self, found: Vec<Found>, now: Timestamp) {
        let silent = found
            .iter()
            .filter(|f| matches!(f.finding, Finding::Silent(_)));
        let silent = silent
            .map(|found| (found.segment.clone(), found.address))
            .collect();
        self.nobody_has(&silent, now);
        let topology = Arc::clone(&self.topology);
        self.probing.told(found, &topology, self.pass.number, now);
        self.hurry(now);
    }
}

#[cfg(test)]
mod tests;
