//! What was heard: events as they come, and the kernel's table read whole.

use ipam_common::{
    Address, Mac,
    sighting::{SightingKey, Tags, Tally},
};

use super::{
    Engine, MAX_EVENTS, MAX_WIRES, MISMATCH_MEMORY,
    answers::{ANSWER_WINDOW, Answer, To},
    attempt::{Collision, Speaker},
    conflict::{Event, EventKind},
    conflict_of,
    input::Seen,
    owner::is_virtual_router,
    segment::{Unplaced, Wiring},
    table::{Claim, Heard, Place, SegmentId},
    time::Timestamp,
};

impl Engine {
    pub(super) fn seen(&mut self, seen: &Seen, now: Timestamp) {
        let sighting = &seen.sighting;
        let mut heard = Heard {
            mac: sighting.mac,
            ifindex: seen.ifindex,
            at: seen.at,
            strong: !sighting.evidence.is_weak(),
            kinds: sighting.evidence.bit(),
            answers: To::of(sighting),
            total: seen.again.then_some(1),
        };
        let Some(place) = self.place(sighting.address, sighting.tags, &heard) else {
            return;
        };
        if self.nonces.is_echo(place, seen) {
            self.counts.echoes += 1;
            return;
        }
        self.sender(place, seen, now);
        let owner = self.owners.of(heard.mac, &self.topology.own_macs);
        let exempt = self.owners.is_exempt(place.1, heard.mac);
        let speaker = Speaker { owner, exempt };
        if sighting.evidence.is_probe() {
            // Sent to one station it is a keep-alive.
            if Mac::new(sighting.to).is_some() {
                return;
            }
            match self.attempts.probe(place, seen, speaker) {
                Some(met) => self.collided(place, seen.at, Some(met), now),
                None => self.answered_before(place, seen, now),
            }
            self.answered_all_before(place, seen, now);
            self.station(place, &heard, seen, now);
            return;
        }
        let (collision, kinds) = self.attempts.assertion(place, seen, speaker);
        heard.kinds |= kinds;
        if !sighting.evidence.is_arp() && heard.answers == Some(To::All) {
            let asker = self.attempts.asker(&place, seen, owner);
            heard.answers = Some(asker.map_or(To::All, To::Asker));
        }
        self.collided(place, seen.at, collision, now);
        self.station(place, &heard, seen, now);
        self.assertion(place, heard, now);
    }

    /// An owner's answer to this probe may have been heard before it: what comes by two CPUs, or
    /// has one time in a capture, is told in any order.
    fn answered_before(&mut self, place: Place, seen: &Seen, now: Timestamp) {
        let (asker, own) = (seen.sighting.mac, &self.topology.own_macs);
        let owner = self.owners.of(asker, own);
        let claims = { self.table.get(&place).into_iter() }.flat_map(|entry| &entry.claims);
        let others = claims.filter(|claim| {
            self.owners.of(claim.mac, own) != owner && !self.owners.is_exempt(place.1, claim.mac)
        });
        let answers = others.flat_map(|claim| {
            let answers = claim.answers.iter();
            answers.map(|answer| (claim.mac, *answer))
        });
        let answers = answers.filter(|(_, answer)| {
            answer.to.reaches(asker)
                && answer.at >= seen.at
                && answer.at.since(seen.at) <= ANSWER_WINDOW
        });
        let first = answers.min_by_key(|(_, answer)| answer.at);
        let Some((other, Answer { at, .. })) = first else {
            return;
        };
        let collision = Collision {
            asker,
            other,
            both_asked: false,
        };
        let told = self.attempts.is_first_answer(&place, asker);
        self.collided(place, at, told.then_some(collision), now);
    }

    /// What answered this probe by telling all and was heard before it is known for an answer
    /// now, and may be one of two.
    fn answered_all_before(&mut self, place: Place, seen: &Seen, now: Timestamp) {
        let (asker, own) = (seen.sighting.mac, &self.topology.own_macs);
        if seen.sighting.evidence.is_arp() {
            return;
        }
        let Some(entry) = self.table.get_mut(&place) else {
            return;
        };
        let owner = self.owners.of(asker, own);
        let others =
            { entry.claims.iter_mut() }.filter(|claim| self.owners.of(claim.mac, own) != owner);
        let found = others.fold(None, |found, claim| {
            found.max(claim.answers.found(asker, seen.at))
        });
        if found.is_some() {
            self.judge(place, found, None, now);
        }
    }

    /// Tells of two that want one address, unless that is a conflict already.
    fn collided(
        &mut self,
        place: Place,
        at: Timestamp,
        collision: Option<Collision>,
        now: Timestamp,
    ) {
        let Some(collision) = collision else {
            return;
        };
        let entry = self.table.get(&place);
        let conflict = entry.and_then(conflict_of);
        if conflict.is_some_and(|known| {
            known.is_active() && known.verdict.macs().contains(&collision.asker)
        }) {
            return;
        }
        let event = Event {
            kind: EventKind::ProbeCollision,
            segment: self.table.segment(place.0).clone(),
            address: place.1,
            at,
            macs: vec![collision.asker, collision.other],
            both_asked: collision.both_asked,
            outcome: None,
        };
        self.happened(event, now);
    }

    /// Notes by which port a station spoke. A frame that somebody else's MAC sent says
    /// nothing of that, and a virtual router is wherever its master is.
    fn station(&mut self, place: Place, heard: &Heard, seen: &Seen, now: Timestamp) {
        if !seen.again && seen.sighting.ether_src == heard.mac.bytes() {
            self.station_heard(place, heard, now);
        }
    }

    fn station_heard(&mut self, place: Place, heard: &Heard, now: Timestamp) {
        let port = self.topology.ports.get(&heard.ifindex);
        let routed = port.is_some_and(|port| port.wiring == Wiring::Routed);
        if routed || is_virtual_router(heard.mac) || self.owners.is_exempt(place.1, heard.mac) {
            return;
        }
        let id = (place.0, heard.mac);
        if self.stations.hear(id, place.1, heard) {
            self.look_at(id, now);
        }
        self.counts.unfollowed = self.stations.refused() + self.attempts.dropped();
    }

    /// ARP that names another sender than Ethernet does: a proxy's or a forger's.
    fn sender(&mut self, place: Place, seen: &Seen, now: Timestamp) {
        let sighting = &seen.sighting;
        let Some(source) = Mac::new(sighting.ether_src) else {
            return;
        };
        let own = &self.topology.own_macs;
        if !sighting.evidence.is_arp()
            || self.owners.of(source, own) == self.owners.of(sighting.mac, own)
            || [source, sighting.mac].into_iter().any(is_virtual_router)
            || self.owners.is_exempt(place.1, sighting.mac)
        {
            return;
        }
        let key = (place, sighting.mac, source);
        let told = self.mismatches.get(&key);
        if told.is_some_and(|at| now.since(*at) < MISMATCH_MEMORY) {
            return;
        }
        if self.mismatches.len() >= MAX_EVENTS {
            self.mismatches.pop_first();
        }
        self.mismatches.insert(key, now);
        let event = Event {
            kind: EventKind::SenderMismatch,
            segment: self.table.segment(place.0).clone(),
            address: place.1,
            at: seen.at,
            macs: vec![sighting.mac, source],
            both_asked: false,
            outcome: None,
        };
        self.happened(event, now);
    }

    /// Every entry that says more than is known is an assertion, or two.
    pub(super) fn snapshot(&mut self, table: Vec<(SightingKey, Tally)>, now: Timestamp) {
        let mut heard: Vec<(Address, Tags, Heard)> = Vec::new();
        for (key, tally) in table {
            let (Some(address), Some(mac)) = (Address::from_mapped(key.address), Mac::new(key.mac))
            else {
                continue;
            };
            if key.probe != 0 {
                continue;
            }
            let tags = Tags {
                outer: key.outer_vlan,
                vlan: key.vlan,
            };
            let known = self.claim(address, key.ifindex, tags, mac);
            let mut tell = |at: u64, strong: bool, total: u32| {
                let heard_then = Heard {
                    mac,
                    ifindex: key.ifindex,
                    at: Timestamp(at),
                    strong,
                    kinds: tally.kinds,
                    answers: None,
                    total: Some(total),
                };
                heard.push((address, tags, heard_then));
            };
            // The event of its first word was lost, or is still to come.
            let first_seen = known.map(|claim| claim.first_seen);
            if first_seen.is_some_and(|first| Timestamp(tally.first_seen) < first) {
                tell(tally.first_seen, tally.last_strong != 0, 1);
            }
            match known {
                // All there is to know, but for the count of frames.
                Some(claim) if claim.last_seen >= Timestamp(tally.last_seen) => {
                    if claim.frames < tally.frames {
                        tell(tally.last_seen, false, tally.frames);
                    }
                }
                Some(_) => tell(
                    tally.last_seen,
                    tally.last_strong == tally.last_seen,
                    tally.frames,
                ),
                None => {
                    let strong = tally.last_strong != 0;
                    tell(tally.first_seen, strong, 1);
                    if tally.last_seen > tally.first_seen {
                        tell(
                            tally.last_strong.max(tally.first_seen),
                            strong,
                            tally.frames,
                        );
                    }
                }
            }
        }
        heard.sort_by_key(|(address, tags, heard)| (heard.at, *address, *tags, heard.mac));
        for (address, tags, heard) in heard {
            let Some(place) = self.place(address, tags, &heard) else {
                continue;
            };
            // The table doesn't say who sent the frame: of those alone who were heard
            // speaking for themselves.
            if self.stations.contains((place.0, heard.mac)) {
                self.station_heard(place, &heard, now);
            }
            self.assertion(place, heard, now);
        }
    }

    /// A claim, if it is known.
    fn claim(&mut self, address: Address, ifindex: u32, tags: Tags, mac: Mac) -> Option<&Claim> {
        let place = (self.wire(ifindex, tags, address).ok()??, address);
        let claims = &self.table.get(&place)?.claims;
        claims.iter().find(|claim| claim.mac == mac)
    }

    /// Where in the table a sighting belongs; `None` if it is this host's own, or of a place
    /// that isn't known, or one too many.
    fn place(&mut self, address: Address, tags: Tags, heard: &Heard) -> Option<Place> {
        if self.topology.own_macs.contains(&heard.mac) {
            self.counts.echoes += 1;
            return None;
        }
        match self.wire(heard.ifindex, tags, address) {
            Ok(Some(id)) => return Some((id, address)),
            Ok(None) => self.counts.unsegmented += 1,
            Err(Unplaced::UnknownPort) => self.counts.unknown_port += 1,
            Err(Unplaced::NotAMember) => self.counts.not_a_member += 1,
        }
        None
    }

    /// The number of the segment that frames of these tags by this port belong to; `None`:
    /// there are too many segments for one more.
    fn wire(
        &mut self,
        ifindex: u32,
        tags: Tags,
        address: Address,
    ) -> Result<Option<SegmentId>, Unplaced> {
        // A link-local address means something on its own link only.
        let wire = (ifindex, tags, address.is_link_local());
        if let Some(&id) = self.wires.get(&wire) {
            return Ok(Some(id));
        }
        let segment = self.topology.segment(ifindex, tags, address)?;
        let id = self.table.id(&segment);
        if let Some(id) = id {
            if self.wires.len() >= MAX_WIRES {
                self.wires.clear();
            }
            self.wires.insert(wire, id);
        }
        Ok(id)
    }

    fn assertion(&mut self, place: Place, mut heard: Heard, now: Timestamp) {
        self.is_quarantined_alive(place, &heard, now);
        heard.strong &= !self.owners.is_exempt(place.1, heard.mac);
        let claims = self
            .table
            .get(&place)
            .map_or(&[][..], |entry| &entry.claims);
        if self.kinships.meet(&heard, claims, &self.topology) {
            self.gather_owners();
        }
        let (topology, owners, leases) = (&self.topology, &self.owners, &self.leases);
        let owner_of = |mac| owners.of(mac, &topology.own_macs);
        let entry = self
            .table
            .entry(place, &|address| !leases.contains(address));
        let moved = entry.hear(&heard, &owner_of);
        self.counts.evicted = self.table.evicted();
        if heard.strong {
            self.judge(place, Some(heard.at), moved, now);
        }
    }
}
