//! What was heard: events as they come, and the kernel's table read whole.

use ipam_common::{
    Address, Evidence, Mac,
    sighting::{SightingKey, Tags, Tally},
};

use super::{Engine, input::Seen, segment::Unplaced, table::Heard, time::Timestamp};

impl Engine {
    pub(super) fn seen(&mut self, seen: &Seen, now: Timestamp) {
        let sighting = &seen.sighting;
        if sighting.evidence.is_probe() {
            return;
        }
        // An answer goes to who asked; a gratuitous one, or one to everybody, answers nobody.
        let asker = Mac::new(sighting.ether_dst).map(Mac::bytes);
        let answers = matches!(
            sighting.evidence,
            Evidence::ArpReply | Evidence::NeighborAdvertisement | Evidence::WeakAdvertisement
        );
        let heard = Heard {
            mac: sighting.mac,
            ifindex: seen.ifindex,
            at: seen.at,
            strong: !sighting.evidence.is_weak(),
            kinds: sighting.evidence.bit(),
            answers: asker.filter(|_| answers),
            total: None,
        };
        self.assertion(sighting.address, sighting.tags, heard, now);
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
            match known {
                // All there is to know, but for the count of frames.
                Some(claim) if claim.0 >= Timestamp(tally.last_seen) => {
                    if claim.1 < tally.frames {
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
            self.assertion(address, tags, heard, now);
        }
    }

    /// When a claim was last heard, and in how many frames.
    fn claim(
        &mut self,
        address: Address,
        ifindex: u32,
        tags: Tags,
        mac: Mac,
    ) -> Option<(Timestamp, u32)> {
        let segment = self.topology.segment(ifindex, tags, address).ok()?;
        let place = (self.table.id(&segment), address);
        let claims = &self.table.get(&place)?.claims;
        let claim = claims.iter().find(|claim| claim.mac == mac)?;
        Some((claim.last_seen, claim.frames))
    }

    fn assertion(&mut self, address: Address, tags: Tags, mut heard: Heard, now: Timestamp) {
        if self.topology.own_macs.contains(&heard.mac) {
            self.counts.echoes += 1;
            return;
        }
        let segment = match self.topology.segment(heard.ifindex, tags, address) {
            Ok(segment) => segment,
            Err(Unplaced::UnknownPort) => {
                self.counts.unknown_port += 1;
                return;
            }
            Err(Unplaced::NotAMember) => {
                self.counts.not_a_member += 1;
                return;
            }
        };
        heard.strong &= !self.owners.is_exempt(address, heard.mac);
        let place = (self.table.id(&segment), address);
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
