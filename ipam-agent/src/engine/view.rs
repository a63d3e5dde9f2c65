//! What the engine knows, for whoever reports it.

use std::collections::BTreeSet;

use ipam_common::{
    Address, Mac,
    sighting::{SightingKey, Tally},
};

use super::{
    Counts, Engine,
    conflict::{Conflict, Event, Kind, Verdict},
    coverage::Unwatched,
    judge::Judge,
    lease::Lease,
    leasebook::{LeaseBook, Record},
    plan::{Asker, ReclaimPlan},
    reclaim::{LeaseState, PassFacts, Planner},
    scope::ScopedPool,
    segment::{Segment, Topology},
    station::Track,
    table::{Claim, Contest, Entry, Place},
    time::Timestamp,
};

/// A conflict, and what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Where.
    pub segment: &'a Segment,
    /// The address; of a station, the one that it asserted last.
    pub address: Address,
    /// Who claims it or, of a station, on which ports it does.
    pub claims: &'a [Claim],
    /// How often the speaker, or the station's port, changed.
    pub changes: u32,
    /// The conflict.
    pub conflict: &'a Conflict,
}

impl Engine {
    /// What would be released for this asker, and why the rest stays.
    pub fn plan(&self, asker: Asker, now: Timestamp) -> ReclaimPlan {
        self.planner(now).plan(asker)
    }

    /// When the address was last asserted, wherever.
    pub fn last_heard(&self, address: Address) -> Option<Timestamp> {
        let places = self.table.places_of(address);
        places
            .filter_map(|place| self.table.get(&place)?.last_seen())
            .max()
    }

    /// The planner over what is known now.
    pub fn planner(&self, now: Timestamp) -> Planner<'_> {
        Planner {
            settings: &self.settings.reclaim,
            leases: &self.leases,
            scopes: &self.scopes,
            topology: &self.topology,
            table: &self.table,
            coverage: &self.coverage,
            quarantine: &self.quarantine,
            pass: &self.pass,
            probing: &self.probing,
            attempts: &self.attempts,
            now,
        }
    }

    /// Every conflict that is open or ended less than an hour ago: of addresses, of stations,
    /// of leases; each by segment and address.
    pub fn conflicts(&self) -> impl Iterator<Item = Case<'_>> {
        let mut contested: Vec<(Place, &Entry, &Contest)> = { self.table.iter() }
            .filter_map(|(place, entry)| Some((place, entry, entry.contest.as_deref()?)))
            .collect();
        contested.sort_unstable_by_key(|&(place, _, _)| place);
        let contests = contested.into_iter().filter_map(|(place, entry, contest)| {
            Some(Case {
                segment: self.table.segment(place.0),
                address: place.1,
                claims: &entry.claims,
                changes: contest.runs.changes(),
                conflict: contest.conflict.as_ref()?,
            })
        });
        let stations = self.stations.tracks().filter_map(|(id, track)| {
            Some(Case {
                segment: self.table.segment(id.0),
                address: track.address,
                claims: &track.claims,
                changes: track.changes,
                conflict: track.conflict.as_ref()?,
            })
        });
        let leases = self.twice.iter().map(|(segment, address, conflict)| {
            let entry = self.entry(segment, address);
            Case {
                segment,
                address,
                claims: entry.map_or(&[], |entry| entry.claims.as_slice()),
                changes: 0,
                conflict,
            }
        });
        contests.chain(stations).chain(leases)
    }

    /// What a conflict that the engine has just told of is about, as far as it is still known.
    pub fn case<'a>(
        &'a self,
        segment: &'a Segment,
        address: Address,
        conflict: &'a Conflict,
    ) -> Case<'a> {
        let (claims, changes) = match conflict.verdict.kind() {
            Kind::DuplicateMac => {
                let mut tracks = self.stations.tracks();
                let of = |track: &Track| {
                    let known = track.conflict.as_ref();
                    known.is_some_and(|known| known.id == conflict.id)
                };
                let track = tracks.find(|(_, track)| of(track));
                track.map_or((&[][..], 0), |(_, track)| (&track.claims, track.changes))
            }
            _ => {
                let entry = self.entry(segment, address);
                let contest = entry.and_then(|entry| entry.contest.as_ref());
                (
                    entry.map_or(&[][..], |entry| &entry.claims),
                    contest.map_or(0, |contest| contest.runs.changes()),
                )
            }
        };
        Case {
            segment,
            address,
            claims,
            changes,
            conflict,
        }
    }

    fn entry(&self, segment: &Segment, address: Address) -> Option<&Entry> {
        self.table.get(&(self.table.find(segment)?, address))
    }

    /// A conflict in one sentence, each MAC with its vendor, as `vendor` knows it, and where
    /// it was heard.
    pub fn sentence(
        &self,
        segment: &Segment,
        address: Address,
        conflict: &Conflict,
        vendor: &dyn Fn(Mac) -> Option<&'static str>,
    ) -> String {
        let entry = self.entry(segment, address);
        let claim_of = |mac: Mac| entry?.claims.iter().find(|claim| claim.mac == mac);
        let name = |mac: Mac| self.name(claim_of(mac), mac, vendor);
        let sentence = conflict.verdict.sentence(address, &name);
        match &conflict.verdict {
            Verdict::Duplicate(contested) => {
                let claimants = contested.claimants().iter();
                let claims: Vec<Option<&Claim>> = claimants.map(|&mac| claim_of(mac)).collect();
                let records = self.leases_in(segment, address);
                let grants = records.iter().map(|record| self.grant(record, &claims));
                grants.fold(sentence, |sentence, grant| format!("{sentence}; {grant}"))
            }
            _ => sentence,
        }
    }

    /// An event in one sentence, each MAC with its vendor and where it was heard.
    pub fn event_sentence(
        &self,
        event: &Event,
        vendor: &dyn Fn(Mac) -> Option<&'static str>,
    ) -> String {
        let entry = self.entry(&event.segment, event.address);
        let claim_of = |mac: Mac| entry?.claims.iter().find(|claim| claim.mac == mac);
        event.sentence(&|mac| self.name(claim_of(mac), mac, vendor))
    }

    fn name(
        &self,
        claim: Option<&Claim>,
        mac: Mac,
        vendor: &dyn Fn(Mac) -> Option<&'static str>,
    ) -> String {
        if self.topology.own_macs.contains(&mac) {
            return format!("{mac} (this host)");
        }
        let port = claim.and_then(|claim| self.topology.ports.get(&claim.ifindex));
        let made = vendor(mac).map_or_else(String::new, |vendor| format!(" ({vendor})"));
        let on = port.map_or_else(String::new, |port| format!(" on {}", port.name));
        format!("{mac}{made}{on}")
    }

    /// To whom an address is leased, and who of its claimants that is. This host's own claim
    /// is none: nobody hears it.
    fn grant(&self, record: &Record, claims: &[Option<&Claim>]) -> String {
        let judge = Judge {
            topology: &self.topology,
            owners: &self.owners,
            leases: &self.leases,
            scopes: &self.scopes,
            windows: self.settings.windows,
        };
        let holder = record.lease.holder();
        let is_holder =
            { claims.iter().flatten() }.find(|claim| judge.is_holder(record, claim) == Some(true));
        let is_stranger = |claim: &Claim| judge.is_holder(record, claim) == Some(false);
        let is_neither = claims.iter().all(|claim| claim.is_some_and(is_stranger));
        let who = match (is_holder, holder.mac) {
            (Some(claim), _) => Some(claim.mac.to_string()),
            (None, Some(mac)) => Some(mac.to_string()),
            (None, None) => None,
        };
        let stranger = if is_neither {
            ", which is none of them"
        } else {
            ""
        };
        let name = match (holder.name(), who) {
            (Some(name), Some(mac)) => format!("{name} ({mac})"),
            (Some(name), None) => name.to_string(),
            (None, Some(mac)) => mac,
            (None, None) => String::from("a holder without a name"),
        };
        format!("{} leased it to {name}{stranger}", record.lease.store)
    }

    /// Every address, by segment.
    pub fn entries(&self) -> impl Iterator<Item = (&Segment, Address, &Entry)> {
        self.table
            .sorted()
            .map(|(place, entry)| (self.table.segment(place.0), place.1, entry))
    }

    /// What is known of one address, by segment.
    pub fn entries_of(&self, address: Address) -> Vec<(&Segment, &Entry)> {
        let places = self.table.places_of(address);
        let known = places.filter_map(|place| {
            let entry = self.table.get(&place)?;
            Some((self.table.segment(place.0), entry))
        });
        let mut entries: Vec<_> = known.collect();
        entries.sort_by_key(|&(segment, _)| segment);
        entries
    }

    /// Every claim as the kernel would tell it, so that a later run of the agent in this boot
    /// can be told of it.
    pub fn heard(&self) -> impl Iterator<Item = (SightingKey, Tally)> {
        self.entries().flat_map(move |(segment, address, entry)| {
            entry.claims.iter().filter_map(move |claim| {
                let tags = self.topology.tags_towards(claim.ifindex, segment)?;
                let key = SightingKey {
                    ifindex: claim.ifindex,
                    outer_vlan: tags.outer,
                    vlan: tags.vlan,
                    address: address.mapped(),
                    mac: claim.mac.bytes(),
                    probe: 0,
                    reserved: 0,
                };
                let tally = Tally {
                    first_seen: claim.first_seen.0,
                    last_seen: claim.last_seen.0,
                    last_strong: claim.last_strong().map_or(0, |at| at.0),
                    frames: claim.frames,
                    kinds: claim.kinds(),
                    ..Tally::default()
                };
                Some((key, tally))
            })
        })
    }

    /// Every segment that is watched or was heard, in order.
    pub fn segments(&self) -> BTreeSet<Segment> {
        let mut segments = self.topology.segments();
        segments.extend(self.table.segments().map(|(segment, _)| segment.clone()));
        segments
    }

    /// The segments that have ports of their own, or pools, in order: unlike [`Self::segments`]
    /// nobody on a wire adds to them.
    pub fn known_segments(&self) -> BTreeSet<Segment> {
        let mut segments = self.topology.segments();
        let of_pools = self.pools().filter_map(|pool| pool.scope().segment());
        segments.extend(of_pools.cloned());
        segments
    }

    /// What happened that is no conflict, in order of time.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// The leases.
    pub fn leases(&self) -> &LeaseBook {
        &self.leases
    }

    /// The leases of an address in a segment.
    pub fn leases_in(&self, segment: &Segment, address: Address) -> Vec<&Record> {
        let of = self.leases.of(&address).iter();
        of.filter(|record| self.scopes.covers(&record.lease, segment))
            .collect()
    }

    /// The wire of a lease, if one is known.
    pub fn segment_of(&self, lease: &Lease) -> Option<&Segment> {
        self.scopes.of(lease).segment()
    }

    /// The pools of all stores, by store, in each store's order.
    pub fn pools(&self) -> impl Iterator<Item = &ScopedPool> {
        self.scopes.all()
    }

    /// The links.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Since when a segment has been watched whole or why it isn't.
    pub fn covered_since(&self, segment: &Segment, now: Timestamp) -> Result<Timestamp, Unwatched> {
        let watched = self.coverage.since(&self.topology, segment, now)?;
        Ok(watched.since)
    }

    /// What the last pass was told.
    pub fn last_pass(&self) -> &PassFacts {
        &self.pass
    }

    /// A lease's state.
    pub fn state(&self, record: &Record, now: Timestamp) -> LeaseState {
        self.planner(now).state(record)
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
