//! What was released, and is watched all the same: should its address be in use after all,
//! the lease is put back, and an alarm tells of it.
//!
//! An address is quarantined until somebody has a new lease of it, its lease is put back,
//! [`QUARANTINE`] is over, or the host boots: no holder of a node-local lease outlives that.

mod restored;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipam_common::{Address, Mac, sighting::Stamps};

use super::{
    Engine,
    conflict::{Event, EventKind},
    input::{Command, Notice},
    lease::{Generation, Lease, StoreName},
    plan::Release,
    scope::Scope,
    segment::Segment,
    table::{Heard, Place},
    time::Timestamp,
};

pub use restored::Restored;

/// For how long a released address is watched.
pub const QUARANTINE: Duration = Duration::from_secs(24 * 3600);
/// What could not be put back is tried again no more often than this.
const RETRY: Duration = Duration::from_secs(300);
/// How many released addresses are watched: as many as a /16 has. Beyond it, those go that
/// were released first.
pub const MAX_QUARANTINED: usize = 65_536;

/// A lease that was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// The journal's id of it.
    pub id: Arc<str>,
    /// The lease as it was.
    pub lease: Lease,
    /// Not after it was released: whatever is heard later, is heard without a lease.
    pub at: Timestamp,
    /// Since when nothing had been heard of its address.
    pub quiet_since: Timestamp,
    /// The earlier boot that it was of.
    pub earlier_boot: Option<Arc<str>>,
}

/// A lease that an earlier run put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The journal's id of its release.
    pub id: Arc<str>,
    /// The lease as it was.
    pub lease: Lease,
    /// The silence that its address broke; `None`: a person wanted it back.
    pub silence: Option<Duration>,
}

/// What became of putting a lease back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// It is there again.
    Done {
        /// The lease as it was.
        lease: Lease,
        /// The record that is there now, if that is known.
        record: Option<Generation>,
    },
    /// The address has a new lease.
    Taken,
    /// It could not be done; in words.
    Failed(String),
}

/// A released address, watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The journal's id; `None`: the release is still under way.
    id: Option<Arc<str>>,
    /// The lease as it was.
    pub lease: Lease,
    /// When it was released.
    pub at: Timestamp,
    quiet_since: Timestamp,
    earlier_boot: Option<Arc<str>>,
    /// LEASED's stamps at the last pass.
    pub stamps: Stamps,
    /// The first sign of life after the release.
    alive: Option<Sign>,
    /// The driver is putting it back.
    asked: bool,
    /// When it was last to be put back.
    tried: Option<Timestamp>,
    /// The alarm was told.
    told: bool,
    /// It is put back or leased anew, and the store not read since.
    ended: bool,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    at: Timestamp,
    mac: Option<Mac>,
    kind: SignKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignKind {
    Assertion,
    Packet,
    Held,
    /// A READY sandbox of a container runtime has it.
    Ready,
}

impl Quarantined {
    /// The journal's id of the release.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// Until when it is watched, if nothing happens.
    pub fn until(&self) -> Timestamp {
        self.at + QUARANTINE
    }

    fn is_open(&self) -> bool {
        self.id.is_some() && !self.ended
    }

    /// It was put back, as this record.
    fn restored(&self, record: Option<Generation>) -> Option<Restored> {
        let broken = self.alive.map(|sign| sign.at.since(self.quiet_since));
        Some(Restored {
            id: self.id.clone()?,
            content: self.lease.generation().content,
            wanted: broken.is_none(),
            silence: broken.unwrap_or_default(),
            origin: record.zip(self.earlier_boot.clone()),
        })
    }
}

type Key = (Address, StoreName);

/// The released addresses.
#[derive(Debug, Default)]
pub struct Quarantine {
    entries: BTreeMap<Key, Quarantined>,
    /// The leases that were put back.
    restored: BTreeMap<Key, Restored>,
}

impl Quarantine {
    /// Those that are watched, by address and store.
    pub fn iter(&self) -> impl Iterator<Item = &Quarantined> {
        self.entries.values().filter(|entry| entry.is_open())
    }

    /// Those of one address.
    pub fn of(&self, address: Address) -> impl Iterator<Item = &Quarantined> {
        self.at(address)
            .map(|(_, entry)| entry)
            .filter(|entry| entry.is_open())
    }

    /// Whether the kernel is to watch for the address, though nobody leased it.
    pub(super) fn watches(&self, address: &Address) -> bool {
        !self.entries.is_empty() && self.at(*address).next().is_some()
    }

    fn at(&self, address: Address) -> impl Iterator<Item = (&Key, &Quarantined)> {
        of(&self.entries, address)
    }

    fn restored_of(&self, address: Address) -> impl Iterator<Item = (&Key, &Restored)> {
        of(&self.restored, address)
    }

    /// Makes room; what had to go.
    fn bound(&mut self) -> Vec<Address> {
        let mut gone = Vec::new();
        let over = self.entries.len().saturating_sub(MAX_QUARANTINED);
        if over > 0 {
            let mut by_age: Vec<_> = { self.entries.iter() }
                .map(|(key, entry)| (entry.at, key.clone()))
                .collect();
            by_age.sort_unstable();
            for (_, key) in by_age.into_iter().take(over) {
                gone.push(key.0);
                self.entries.remove(&key);
            }
        }
        gone
    }
}

/// What of a map is of an address.
fn of<T>(map: &BTreeMap<Key, T>, address: Address) -> impl Iterator<Item = (&Key, &T)> {
    let first = (address, StoreName(Arc::default()));
    let entries = map.range(first..);
    entries.take_while(move |((at, _), _)| *at == address)
}

impl Engine {
    /// Leases are about to be released: their addresses stay watched.
    pub(super) fn releasing(&mut self, mut releases: Vec<Release>, now: Timestamp) {
        // A person's plan and the daemon's own may hold the same lease: the second finds it gone.
        releases.retain(|release| {
            let known = self.quarantine.of(release.lease().address);
            !{ known }.any(|entry| entry.lease.store == release.lease().store)
        });
        let entries = releases.iter().map(|release| {
            let proof = release.proof();
            let released = Released {
                id: Arc::default(),
                lease: release.lease().clone(),
                at: now,
                quiet_since: now - proof.quiet_for(),
                earlier_boot: proof.earlier_boot().map(Arc::from),
            };
            (None, released)
        });
        self.quarantine_all(entries);
    }

    /// What an earlier run released in this boot.
    pub(super) fn released_before(
        &mut self,
        mut released: Vec<Released>,
        returned: Vec<Returned>,
        now: Timestamp,
    ) {
        for returned in returned {
            self.returned(returned);
        }
        released.retain(|known| now < known.at + QUARANTINE);
        let addresses: Vec<Address> = released.iter().map(|known| known.lease.address).collect();
        let entries = released.into_iter();
        self.quarantine_all(entries.map(|known| (Some(Arc::clone(&known.id)), known)));
        self.end_quarantines(addresses.iter().copied());
        for &address in &addresses {
            self.heard_since(address, now);
        }
        let add = addresses
            .into_iter()
            .filter(|address| self.quarantine.watches(address) && !self.leases.contains(address));
        let add: Vec<Address> = add.collect();
        if !add.is_empty() {
            self.commands.push_back(Command::Watch {
                add,
                remove: Vec::new(),
            });
        }
    }

    /// Who was heard with a released address before it was known to be one.
    fn heard_since(&mut self, address: Address, now: Timestamp) {
        let mut alive = Vec::new();
        for (key, entry) in self.quarantine.at(address) {
            let scope = self.scopes.of(&entry.lease);
            let places = self.table.places_of(address);
            let here = places.filter(|place| scope.covers(self.table.segment(place.0)));
            let claims = here.filter_map(|place| self.table.get(&place));
            let last = claims
                .flat_map(|known| &known.claims)
                .filter(|claim| claim.last_seen > entry.at)
                .max_by_key(|claim| claim.last_seen);
            if let Some(claim) = last {
                let sign = Sign {
                    at: claim.last_seen,
                    mac: Some(claim.mac),
                    kind: SignKind::Assertion,
                };
                alive.push((key.clone(), sign));
            }
        }
        for (key, sign) in alive {
            self.alive(&key, sign, now);
        }
    }

    fn quarantine_all(&mut self, entries: impl Iterator<Item = (Option<Arc<str>>, Released)>) {
        for (id, released) in entries {
            let key = (released.lease.address, released.lease.store.clone());
            let entry = Quarantined {
                id,
                lease: released.lease,
                at: released.at,
                quiet_since: released.quiet_since,
                earlier_boot: released.earlier_boot,
                stamps: Stamps::default(),
                alive: None,
                asked: false,
                tried: None,
                told: false,
                ended: false,
            };
            self.quarantine.entries.insert(key, entry);
        }
        let gone = self.quarantine.bound();
        self.unwatch(gone);
    }

    /// A release has ended: under this id, or not at all.
    pub(super) fn release_ended(&mut self, store: &StoreName, address: Address, id: Option<&str>) {
        let key = (address, store.clone());
        match (id, self.quarantine.entries.get_mut(&key)) {
            (Some(id), Some(entry)) => {
                entry.id = Some(id.into());
                self.end_quarantines([address]);
            }
            (None, Some(entry)) if entry.id.is_none() => {
                self.quarantine.entries.remove(&key);
                self.unwatch(vec![address]);
            }
            (None, _) | (_, None) => {}
        }
    }

    /// A lease was to be put back.
    pub(super) fn put_back(&mut self, id: &str, result: PutBack, now: Timestamp) {
        let mut entries = self.quarantine.entries.iter_mut();
        let entry = entries.find(|(_, entry)| entry.id.as_deref() == Some(id));
        let Some((key, entry)) = entry else {
            // Too long ago to be watched: only a person can have asked.
            if let PutBack::Done { lease, .. } = result {
                self.returned(Returned {
                    id: id.into(),
                    lease,
                    silence: None,
                });
            }
            return;
        };
        entry.asked = false;
        let address = key.0;
        let (back, outcome) = match result {
            PutBack::Taken => {
                // Whoever has it now is whom it was heard from.
                entry.ended = true;
                return self.end_quarantines([address]);
            }
            PutBack::Done { record, .. } => {
                entry.ended = true;
                let restored = entry.restored(record);
                let outcome = format!("its lease, released as {id}, was put back");
                (restored.map(|restored| (key.clone(), restored)), outcome)
            }
            PutBack::Failed(why) => (
                None,
                format!("its lease, released as {id}, could not be put back: {why}"),
            ),
        };
        if let Some(sign) = entry
            .alive
            .filter(|_| !std::mem::replace(&mut entry.told, true))
        {
            let lease = entry.lease.clone();
            self.alarm(&lease, sign, outcome, now);
        }
        if let Some((key, restored)) = back {
            self.quarantine.restore(key, restored);
            self.keep_origins([address]);
        }
        self.end_quarantines([address]);
    }

    fn alarm(&mut self, lease: &Lease, sign: Sign, outcome: String, now: Timestamp) {
        let segment = match self.scopes.of(lease) {
            Scope::Segment(segment) => segment.clone(),
            // Its network's configuration went meanwhile.
            _ => Segment {
                name: Arc::clone(&lease.store.0),
                outer_vlan: None,
                vlan: None,
            },
        };
        let heard = match sign.kind {
            SignKind::Assertion => "",
            SignKind::Packet => "IP packets come from it; ",
            SignKind::Held => "it is configured in a network namespace of this host; ",
            SignKind::Ready => "a container runtime has a READY sandbox with it; ",
        };
        let event = Event {
            kind: EventKind::ReleasedButAlive,
            segment,
            address: lease.address,
            at: sign.at.min(now),
            macs: sign.mac.into_iter().collect(),
            both_asked: false,
            outcome: Some(format!("{heard}{outcome}").into()),
        };
        self.keep_event(event.clone());
        self.publish(Notice::Happened(event));
    }

    /// An assertion of an address that may have been released.
    pub(super) fn is_quarantined_alive(&mut self, place: Place, heard: &Heard, now: Timestamp) {
        if !self.quarantine.watches(&place.1) {
            return;
        }
        let segment = self.table.segment(place.0);
        let covers = |entry: &Quarantined| self.scopes.of(&entry.lease).covers(segment);
        let keys: Vec<_> = { self.quarantine.at(place.1) }
            .filter(|(_, entry)| heard.at > entry.at && covers(entry))
            .map(|(key, _)| key.clone())
            .collect();
        let sign = Sign {
            at: heard.at,
            mac: Some(heard.mac),
            kind: SignKind::Assertion,
        };
        for key in keys {
            self.alive(&key, sign, now);
        }
    }

    /// What a pass found out about the released addresses; gives those that the kernel
    /// isn't watching for.
    pub(super) fn look_at_quarantined(
        &mut self,
        stamps: &BTreeMap<Address, Stamps>,
        held: &BTreeMap<Address, Option<u32>>,
        now: Timestamp,
    ) -> Vec<Address> {
        let mut unwatched = Vec::new();
        let mut alive = Vec::new();
        for (key, entry) in &mut self.quarantine.entries {
            match stamps.get(&key.0) {
                None => unwatched.push(key.0),
                Some(stamps) => entry.stamps = *stamps,
            }
            let (assertion, packet) = (entry.stamps.assertion, entry.stamps.packet);
            let sign = |at, kind| Sign {
                at,
                mac: None,
                kind,
            };
            let scope = self.scopes.of(&entry.lease);
            // LEASED knows no segments: where the address is another's on another wire, only
            // what is heard on its own counts.
            let elsewhere = self.table.places_of(key.0).any(|place| {
                let heard = self.table.get(&place).and_then(|known| known.last_seen());
                heard > Some(entry.at) && !scope.covers(self.table.segment(place.0))
            });
            let behind = |port: Option<u32>| match (port, scope) {
                (Some(port), Scope::Segment(segment)) => {
                    let mut ports = self.topology.ports_of(segment);
                    ports.any(|(ifindex, _)| ifindex == port)
                }
                _ => true,
            };
            if Timestamp(assertion) > entry.at && !elsewhere {
                alive.push((key.clone(), sign(Timestamp(assertion), SignKind::Assertion)));
            } else if Timestamp(packet) > entry.at && !elsewhere {
                alive.push((key.clone(), sign(Timestamp(packet), SignKind::Packet)));
            } else if held.get(&key.0).is_some_and(|&port| behind(port)) {
                alive.push((key.clone(), sign(now, SignKind::Held)));
            } else if self.pass.sandboxes.is_ready(key.0) && self.leases.of(&key.0).is_empty() {
                alive.push((key.clone(), sign(now, SignKind::Ready)));
            } else if let Some(known) = entry.alive {
                // What could not be put back is tried again.
                alive.push((key.clone(), known));
            }
        }
        for (key, sign) in alive {
            self.alive(&key, sign, now);
        }
        unwatched.retain(|address| !self.leases.contains(address));
        unwatched
    }

    fn alive(&mut self, key: &Key, mut sign: Sign, now: Timestamp) {
        let Some(entry) = self.quarantine.entries.get_mut(key) else {
            return;
        };
        let waits = entry.tried.is_some_and(|at| now.since(at) < RETRY);
        let Some(id) = entry
            .id
            .clone()
            .filter(|_| entry.is_open() && !entry.asked && !waits)
        else {
            return;
        };
        if sign.mac.is_none() {
            let claims = self.table.places_of(key.0);
            let claims = claims.filter_map(|place| self.table.get(&place));
            let last = claims
                .flat_map(|entry| &entry.claims)
                .max_by_key(|claim| claim.last_seen);
            sign.mac = last.map(|claim| claim.mac);
        }
        let sign = *entry.alive.get_or_insert(sign);
        entry.asked = true;
        entry.tried = Some(now);
        let who = sign
            .mac
            .map_or_else(String::new, |mac| format!(" by {mac}"));
        let reason = match sign.kind {
            SignKind::Assertion => format!("{} was asserted{who} after the release", key.0),
            SignKind::Packet => format!("an IP packet came from {} after the release", key.0),
            SignKind::Ready => format!("a container runtime has a READY sandbox with {}", key.0),
            SignKind::Held => format!(
                "{} was found configured in a network namespace of this host after the release",
                key.0
            ),
        };
        self.commands.push_back(Command::PutBack { id, reason });
    }

    /// Ends the quarantine of those addresses that have a new lease.
    pub(super) fn end_quarantines(&mut self, addresses: impl IntoIterator<Item = Address>) {
        for address in addresses {
            let mut ended = Vec::new();
            // What is there while a lease is being put back may be it, even damaged since:
            // whoever does that will tell.
            let known = self.quarantine.at(address);
            for (key, entry) in known.filter(|(_, entry)| !entry.asked) {
                let scope = self.scopes.of(&entry.lease);
                let former = entry.lease.generation();
                let new = self.leases.of(&address).iter().find(|record| {
                    let lease = &record.lease;
                    let generation = lease.generation();
                    // Nobody asked for it, and the same record is there anew: a person puts it
                    // back, and will tell.
                    generation != former
                        && (entry.ended || generation.content != former.content)
                        && (lease.store == entry.lease.store || self.scopes.of(lease) == scope)
                });
                if let Some(new) = new
                    && let Some(id) = &entry.id
                {
                    let holder = new.lease.holder();
                    let tell = (!entry.ended).then(|| Command::Taken {
                        id: Arc::clone(id),
                        holder,
                    });
                    ended.push((key.clone(), tell));
                }
            }
            for (key, tell) in ended {
                self.quarantine.entries.remove(&key);
                self.commands.extend(tell);
            }
            // What was put back and is gone again, was given back by its holder.
            let leases = self.leases.of(&address);
            self.quarantine.restored.retain(|(at, store), _| {
                *at != address
                    || self
                        .quarantine
                        .entries
                        .contains_key(&(address, store.clone()))
                    || leases.iter().any(|record| record.lease.store == *store)
            });
        }
    }

    /// Ends the quarantines whose time is over.
    pub(super) fn forget_quarantined(&mut self, now: Timestamp) {
        let mut gone = Vec::new();
        self.quarantine.entries.retain(|key, entry| {
            let over = now >= entry.until() && !entry.asked;
            if over {
                gone.push(key.0);
            }
            !over
        });
        self.unwatch(gone);
    }

    /// The released addresses.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Has the kernel watch no longer for those that nothing asks it to.
    fn unwatch(&mut self, mut addresses: Vec<Address>) {
        addresses
            .retain(|address| !self.leases.contains(address) && !self.quarantine.watches(address));
        if !addresses.is_empty() {
            self.commands.push_back(Command::Watch {
                add: Vec::new(),
                remove: addresses,
            });
        }
    }
}

#[cfg(test)]
mod tests;
