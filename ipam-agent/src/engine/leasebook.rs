//! Every lease of every store, and what the agent itself knows of each.

mod memory;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipam_common::{Address, sighting::Stamps};
use smallvec::{SmallVec, smallvec};

use super::{
    input::Remembered,
    lease::{Fencing, Generation, Lease, Mode, Place, Pool, StoreName, StoreView},
    reclaim::{LeaseState, Tries},
    shelf::{Keyed, Shelf},
    time::Timestamp,
};

/// Where a lease comes from, in terms of boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The agent saw it being granted, in this boot.
    ThisBoot,
    /// The agent recorded it in the boot of this id.
    EarlierBoot(Arc<str>),
    /// It was there before the agent first looked.
    Unknown,
}

/// One lease, and what the agent knows of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The lease.
    pub lease: Lease,
    /// Since when, in this boot, the agent has seen it unchanged.
    pub since: Timestamp,
    /// Its boot.
    pub origin: Origin,
    /// LEASED's stamps at the last pass; since when it is in there, 0 if it isn't.
    pub stamps: Stamps,
    /// The port behind which the last pass found it configured; `Some(None)`: somewhere.
    pub held: Option<Option<u32>>,
    /// How many passes in a row found nothing against it, for the daemon and for a person.
    pub passes: [u8; 2],
    /// What the daemon's own releases of it came to.
    pub tries: Tries,
    /// Its state at the last pass; `None`: none has looked at it yet.
    pub state: Option<LeaseState>,
    round: u32,
}

impl Record {
    /// Since when its address is in LEASED.
    pub fn watched_since(&self) -> Option<Timestamp> {
        Some(Timestamp(self.stamps.since)).filter(|since| since.0 > 0)
    }

    /// Its address is in LEASED since then.
    pub fn watch_since(&mut self, at: Timestamp) {
        self.stamps.since = at.0;
    }

    /// Its address is not in LEASED.
    pub fn unwatch(&mut self) {
        self.stamps.since = 0;
    }

    fn to_remember(&self, this_boot: &Arc<str>) -> Remembered {
        Remembered {
            store: self.lease.store.clone(),
            address: self.lease.address,
            generation: self.lease.generation(),
            boot: match &self.origin {
                Origin::EarlierBoot(boot) => Arc::clone(boot),
                Origin::ThisBoot | Origin::Unknown => Arc::clone(this_boot),
            },
            since: self.since,
        }
    }
}

/// What is known of a store beside its leases.
#[derive(Clone, Debug)]
pub struct Store {
    /// What may be done unasked.
    pub mode: Mode,
    /// Whether it can be written.
    pub writable: Result<(), String>,
    /// The wire of its addresses.
    pub place: Place,
    /// What it hands out.
    pub pools: Vec<Pool>,
    /// What the agent itself has reserved.
    pub fencing: Fencing,
    /// Why it could not be read the last time.
    pub failed: Option<String>,
}

impl Store {
    /// One that is there, and of which nothing is known.
    fn never_read() -> Self {
        Self {
            mode: Mode::Observe,
            writable: Ok(()),
            place: Place::Unknown,
            pools: Vec::new(),
            fencing: Fencing::default(),
            failed: None,
        }
    }
}

/// What changed when a source was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Addresses leased that were not.
    pub added: Vec<Address>,
    /// Addresses no longer leased by anybody.
    pub removed: Vec<Address>,
    /// Every address whose leases changed in any way, in order, once.
    pub touched: Vec<Address>,
    /// Whether pools or places changed.
    pub pools: bool,
    /// To be recorded.
    pub remember: Vec<(StoreName, Address)>,
    /// To be forgotten.
    pub forget: Vec<(StoreName, Address)>,
}

/// The leases of one address: at least one, and seldom more.
#[derive(Debug)]
struct Leases(SmallVec<[Record; 1]>);

impl Keyed for Leases {
    type Key = Address;

    fn key(&self) -> Address {
        self.0[0].lease.address
    }
}

/// Every lease of every store.
#[derive(Debug, Default)]
pub struct LeaseBook {
    boot: Arc<str>,
    sources: BTreeMap<usize, BTreeSet<StoreName>>,
    failing: BTreeMap<usize, String>,
    stores: BTreeMap<StoreName, Store>,
    records: Shelf<Leases>,
    /// What earlier runs recorded, until the lease is read.
    remembered: BTreeMap<(StoreName, Address), Remembered>,
    /// The leases of earlier boots whose stores went, until these are there again.
    away: BTreeMap<(StoreName, Address), Remembered>,
    /// The earlier boots of that, the oldest first.
    boots: Vec<Arc<str>>,
    round: u32,
}

impl LeaseBook {
    /// A book kept in this boot.
    pub fn new(boot: Arc<str>) -> Self {
        Self {
            boot,
            ..Self::default()
        }
    }

    /// A source was read: `views` is all it holds, but for the stores that failed.
    pub fn update(
        &mut self,
        source: usize,
        views: Vec<StoreView>,
        failed: Vec<(StoreName, String)>,
        now: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        let first = !self.sources.contains_key(&source);
        self.failing.remove(&source);
        self.round = self.round.wrapping_add(1);
        let mut present = BTreeSet::new();
        for (name, why) in failed {
            let store = self.stores.entry(name.clone());
            store.or_insert_with(Store::never_read).failed = Some(why);
            present.insert(name);
        }
        let unread = present.clone();
        let told: usize = views.iter().map(|view| view.leases.len()).sum();
        self.records
            .reserve(told.saturating_sub(self.records.len()));
        for view in views {
            present.insert(view.store.clone());
            let store = Store {
                mode: view.mode,
                writable: view.writable,
                place: view.place,
                pools: view.pools,
                fencing: view.fencing,
                failed: None,
            };
            let known = self.stores.insert(view.store, store.clone());
            changes.pools |=
                known.is_none_or(|known| known.place != store.place || known.pools != store.pools);
            for lease in view.leases {
                self.upsert(lease, first, now, &mut changes);
            }
        }
        let before = self.sources.insert(source, present.clone());
        let gone: BTreeSet<StoreName> = before
            .into_iter()
            .flatten()
            .filter(|store| !present.contains(store))
            .collect();
        self.forget_away(&present, &unread, &mut changes);
        self.sweep(&present, &unread, &gone, &mut changes);
        for store in &gone {
            self.stores.remove(store);
            changes.pools = true;
        }
        if first {
            self.forget_unseen(&present, &unread, &mut changes);
        }
        changes
    }

    /// A source could not be read: its stores stay as they are known.
    pub fn source_failed(&mut self, source: usize, why: &str) {
        for name in self.sources.get(&source).into_iter().flatten() {
            if let Some(store) = self.stores.get_mut(name) {
                store.failed = Some(why.to_owned());
            }
        }
        let failing = self.failing.entry(source).or_default();
        why.clone_into(failing);
    }

    /// Why leases are not known as they are now, each cause once: of one store, or of all that
    /// a source has.
    pub fn unread(&self) -> impl Iterator<Item = (Option<&StoreName>, &str)> {
        let of_failing = |store: &StoreName| {
            let mut failing = self.failing.keys();
            failing.any(|source| {
                self.sources
                    .get(source)
                    .is_some_and(|of| of.contains(store))
            })
        };
        let stores = self.stores.iter().filter_map(move |(name, store)| {
            let why = store.failed.as_deref().filter(|_| !of_failing(name))?;
            Some((Some(name), why))
        });
        stores.chain(self.failing.values().map(|why| (None, why.as_str())))
    }

    fn upsert(&mut self, lease: Lease, first: bool, now: Timestamp, changes: &mut Changes) {
        let address = lease.address;
        let mut there = self.records.get_mut(address);
        let records = there.as_mut().map_or(&mut [][..], |leases| &mut leases.0);
        if records.is_empty() {
            changes.added.push(address);
        }
        // An address that is granted anew is in LEASED already.
        let watched = records
            .iter()
            .any(|record| record.watched_since().is_some());
        let known = records
            .iter_mut()
            .find(|record| record.round != self.round && record.lease.is_same_grant(&lease));
        if let Some(record) = known {
            record.round = self.round;
            if record.lease != lease {
                changes.touched.push(address);
                record.lease = lease;
            }
            return;
        }
        changes.touched.push(address);
        let key = (lease.store.clone(), address);
        let away = self.away.remove(&key);
        let remembered = self.remembered.remove(&key).or_else(|| {
            let mut records = records.iter();
            let known = records.find(|record| record.lease.store == lease.store);
            known
                .map(|known| known.to_remember(&self.boot))
                .or_else(|| {
                    // Nobody watched it meanwhile: it must be the very same.
                    away.filter(|known| known.generation == lease.generation())
                })
        });
        let known = remembered.as_ref();
        let same = known.filter(|known| known.generation == lease.generation());
        let (origin, since) = match same {
            Some(known) if known.boot == self.boot => (Origin::Unknown, known.since.min(now)),
            Some(known) => (Origin::EarlierBoot(Arc::clone(&known.boot)), now),
            // A record of an earlier boot that the power cut damaged: the same file.
            None => match known {
                Some(known)
                    if lease.damage.is_some()
                        && known.boot != self.boot
                        && known.generation.inode == lease.inode() =>
                {
                    (Origin::EarlierBoot(Arc::clone(&known.boot)), now)
                }
                _ if first => (Origin::Unknown, now),
                _ => (Origin::ThisBoot, now),
            },
        };
        if same.is_none() {
            changes.remember.push(key);
        }
        let record = Record {
            lease,
            since,
            origin,
            stamps: Stamps {
                since: if watched { now.0 } else { 0 },
                ..Stamps::default()
            },
            held: None,
            passes: [0; 2],
            tries: Tries::default(),
            state: None,
            round: self.round,
        };
        match there {
            Some(leases) => leases.0.push(record),
            None => self.records.insert(Leases(smallvec![record])),
        }
    }

    /// Drop what the stores that were read no longer hold.
    fn sweep(
        &mut self,
        present: &BTreeSet<StoreName>,
        unread: &BTreeSet<StoreName>,
        gone: &BTreeSet<StoreName>,
        changes: &mut Changes,
    ) {
        let round = self.round;
        let keep = |record: &Record| {
            let store = &record.lease.store;
            let swept =
                gone.contains(store) || (present.contains(store) && !unread.contains(store));
            record.round == round || !swept
        };
        let mut forgotten = Vec::new();
        self.records.retain(|leases| {
            let (address, Leases(records)) = (leases.key(), leases);
            let dropped = records.iter().filter(|record| !keep(record));
            let before = forgotten.len();
            forgotten.extend(dropped.clone().map(key_of));
            let away = dropped.filter(|record| gone.contains(&record.lease.store));
            let earlier = away.filter(|record| matches!(record.origin, Origin::EarlierBoot(_)));
            self.away
                .extend(earlier.map(|record| (key_of(record), record.to_remember(&self.boot))));
            if forgotten.len() == before {
                return true;
            }
            changes.touched.push(address);
            let left = records.iter().any(keep);
            if left {
                records.retain(|record| keep(record));
            } else {
                changes.removed.push(address);
            }
            left
        });
        changes.removed.sort_unstable();
        forgotten.sort_by_key(|&(_, address)| address);
        for key in forgotten {
            let mut left = self.of(&key.1).iter();
            let still = left.any(|record| record.lease.store == key.0);
            if !still {
                self.remembered.remove(&key);
            }
            if !still && !self.away.contains_key(&key) {
                changes.forget.push(key);
            }
        }
        changes
            .added
            .retain(|&address| self.records.contains(address));
        changes.touched.sort_unstable();
        changes.touched.dedup();
    }

    /// This very record was put back, and is of that boot. Whether that is news.
    pub fn keep_origin(
        &mut self,
        store: &StoreName,
        address: Address,
        generation: &Generation,
        boot: &Arc<str>,
    ) -> bool {
        let Some(leases) = self.records.get_mut(address) else {
            return false;
        };
        let mut records = leases.0.iter_mut();
        let record = records.find(|record| {
            record.origin == Origin::ThisBoot
                && record.lease.store == *store
                && record.lease.generation() == *generation
        });
        record
            .map(|record| record.origin = Origin::EarlierBoot(Arc::clone(boot)))
            .is_some()
    }

    /// The place of an earlier boot among those that are remembered, the oldest first.
    pub fn boot_order(&self, boot: &str) -> usize {
        let mut boots = self.boots.iter();
        let place = boots.position(|known| **known == *boot);
        place.unwrap_or(self.boots.len())
    }

    /// The stores, by name.
    pub fn stores(&self) -> &BTreeMap<StoreName, Store> {
        &self.stores
    }

    /// The leases of an address.
    pub fn of(&self, address: &Address) -> &[Record] {
        { self.records.get(*address) }.map_or(&[], |leases| &leases.0)
    }

    /// The addresses that have more than one lease, in no particular order.
    pub fn several(&self) -> impl Iterator<Item = Address> {
        let several = self.records.iter().filter(|leases| leases.0.len() > 1);
        several.map(Leases::key)
    }

    /// What is to be recorded of a lease.
    pub fn to_remember(&self, store: &StoreName, address: &Address) -> Option<Remembered> {
        let mut records = self.of(address).iter();
        let record = records.rfind(|record| record.lease.store == *store)?;
        Some(record.to_remember(&self.boot))
    }

    /// Every address that is leased, in no particular order.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.records.iter().map(Leases::key)
    }

    /// Every lease, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.sorted().flat_map(|leases| &leases.0)
    }

    /// Every lease, in no particular order.
    pub fn unsorted(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().flat_map(|leases| &leases.0)
    }

    /// Every lease, by address, to note something of it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.sorted_mut().flat_map(|leases| &mut leases.0)
    }

    /// Whether anybody leased the address.
    pub fn contains(&self, address: &Address) -> bool {
        self.records.contains(*address)
    }

    /// These addresses are in LEASED since `now`.
    pub fn watching(&mut self, addresses: &[Address], now: Timestamp) {
        for &address in addresses {
            let leases = self.records.get_mut(address).into_iter();
            for record in leases.flat_map(|leases| &mut leases.0) {
                let since = record.watched_since().unwrap_or(now);
                record.watch_since(since);
            }
        }
    }
}

fn key_of(record: &Record) -> (StoreName, Address) {
    (record.lease.store.clone(), record.lease.address)
}
