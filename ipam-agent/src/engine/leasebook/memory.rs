//! What earlier runs recorded of leases, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use super::{Changes, LeaseBook, Origin, Record, Remembered};
use crate::engine::lease::StoreName;

impl LeaseBook {
    /// What earlier runs recorded, the oldest first. It may come after the leases were read,
    /// because it could not be read before: what then is to be recorded, and to be forgotten.
    pub fn remember(&mut self, remembered: Vec<Remembered>) -> Changes {
        let mut changes = Changes::default();
        for known in remembered {
            if known.boot != self.boot && !self.boots.contains(&known.boot) {
                self.boots.push(Arc::clone(&known.boot));
            }
            let key = (known.store.clone(), known.address);
            let leases = self.records.get_mut(known.address).into_iter();
            let mut records = leases.flat_map(|leases| &mut leases.0);
            match records.find(|record| record.lease.store == known.store) {
                Some(record) => {
                    if learn(record, &known, &self.boot) {
                        changes.remember.push(key);
                    }
                }
                None if self.stores.contains_key(&known.store) => changes.forget.push(key),
                None => drop(self.remembered.insert(key, known)),
            }
        }
        changes
    }

    /// All that is known and not among what was found `recorded`, which may be less than was
    /// once written.
    pub fn unrecorded(&self, recorded: &[Remembered]) -> Vec<Remembered> {
        let recorded: BTreeMap<_, _> = { recorded.iter() }
            .map(|known| ((&known.store, known.address), &known.generation))
            .collect();
        let unread = self.remembered.values().chain(self.away.values()).cloned();
        let leases = self.iter().map(|record| record.to_remember(&self.boot));
        // Of two records of one lease the last counts, as elsewhere.
        let known: BTreeMap<_, _> = { unread.chain(leases) }
            .map(|known| ((known.store.clone(), known.address), known))
            .collect();
        let mut known: Vec<_> = known.into_values().collect();
        known.retain(|known| {
            recorded.get(&(&known.store, known.address)) != Some(&&known.generation)
        });
        known
    }

    /// Forget what an earlier run recorded of this source's stores and is no longer there.
    pub(super) fn forget_unseen(
        &mut self,
        present: &BTreeSet<StoreName>,
        unread: &BTreeSet<StoreName>,
        changes: &mut Changes,
    ) {
        let mut remembered = mem::take(&mut self.remembered);
        remembered.retain(|(store, address), _| {
            let read = present.contains(store) && !unread.contains(store);
            let mut records = self.of(address).iter();
            let there = records.any(|record| record.lease.store == *store);
            if read && !there {
                changes.forget.push((store.clone(), *address));
            }
            !read || there
        });
        self.remembered = remembered;
    }

    /// Forget what a store no longer has that is there again.
    pub(super) fn forget_away(
        &mut self,
        present: &BTreeSet<StoreName>,
        unread: &BTreeSet<StoreName>,
        changes: &mut Changes,
    ) {
        self.away.retain(|key, _| {
            let read = present.contains(&key.0) && !unread.contains(&key.0);
            if read {
                changes.forget.push(key.clone());
            }
            !read
        });
    }
}

/// Learns late what an earlier run recorded of a lease; whether its record is another now, and
/// is to be recorded.
fn learn(record: &mut Record, known: &Remembered, this_boot: &Arc<str>) -> bool {
    let same = known.generation == record.lease.generation();
    let unknown = record.origin == Origin::Unknown;
    if known.boot == *this_boot {
        if same && unknown {
            record.since = record.since.min(known.since);
        }
        return false;
    }
    // One that the power cut damaged: the same file.
    let damaged = !same
        && unknown
        && record.lease.damage.is_some()
        && known.generation.inode == record.lease.inode();
    if same || damaged {
        record.origin = Origin::EarlierBoot(Arc::clone(&known.boot));
    }
    damaged
}

#[cfg(test)]
mod tests {
    use ipam_common::Address;

    use super::*;
    use crate::engine::{
        lease::{Damage, Generation, Holder, Lease, Mode, Place, StoreView},
        time::Timestamp,
    };

    const NET: &str = "host-local:net";

    fn generation(inode: u64, content: &[u8]) -> Generation {
        Generation {
            inode,
            modified: 5,
            content: content.into(),
        }
    }

    fn lease(last: u8, content: &[u8]) -> Lease {
        let damage = content.is_empty().then_some(Damage::Empty);
        Lease::new(
            StoreName(NET.into()),
            Address::v4([10, 0, 0, last]).expect("claimable"),
            &Holder::default(),
            &generation(last.into(), content),
            damage,
        )
    }

    fn known(lease: &Lease, boot: &str) -> Remembered {
        Remembered {
            store: lease.store.clone(),
            address: lease.address,
            generation: lease.generation(),
            boot: boot.into(),
            since: Timestamp(3),
        }
    }

    /// A source with the store and these leases, or without the store.
    fn read(book: &mut LeaseBook, leases: Option<&[Lease]>, now: u64) -> Changes {
        let view = |leases: &[Lease]| StoreView {
            store: StoreName(NET.into()),
            mode: Mode::AfterReboot,
            writable: Ok(()),
            place: Place::Routed,
            pools: Vec::new(),
            leases: leases.to_vec(),
            fencing: Default::default(),
        };
        let views = leases.map(view).into_iter().collect();
        book.update(0, views, Vec::new(), Timestamp(now))
    }

    fn origin(book: &LeaseBook, lease: &Lease) -> (Origin, u64) {
        let record = &book.of(&lease.address)[0];
        (record.origin.clone(), record.since.0)
    }

    fn earlier(boot: &str) -> Origin {
        Origin::EarlierBoot(boot.into())
    }

    #[test]
    fn what_was_recorded_and_is_told_late_is_of_leases_that_are_known() {
        let mut book = LeaseBook::new("now".into());
        let leases = [
            lease(1, b"a"),
            lease(2, b"b"),
            lease(3, b""),
            lease(4, b"d"),
            lease(5, b"e"),
        ];
        read(&mut book, Some(&leases), 9);
        let gone = lease(7, b"x");
        let elsewhere = Lease::new(
            StoreName("host-local:late".into()),
            gone.address,
            &Holder::default(),
            &gone.generation(),
            None,
        );
        let told = vec![
            known(&leases[0], "before"),
            known(&leases[1], "now"),
            // A power cut emptied it since.
            known(&lease(3, b"c"), "before"),
            // Granted anew since.
            known(&lease(4, b"another"), "before"),
            known(&gone, "before"),
            known(&elsewhere, "before"),
        ];
        let changes = book.remember(told);
        assert_eq!(origin(&book, &leases[0]), (earlier("before"), 9));
        assert_eq!(origin(&book, &leases[1]), (Origin::Unknown, 3));
        assert_eq!(origin(&book, &leases[2]), (earlier("before"), 9));
        assert_eq!(origin(&book, &leases[3]), (Origin::Unknown, 9));
        assert_eq!(origin(&book, &leases[4]), (Origin::Unknown, 9));
        let key = |lease: &Lease| (lease.store.clone(), lease.address);
        assert_eq!(changes.remember, [key(&leases[2])]);
        assert_eq!(changes.forget, [key(&gone)]);
        assert!(book.remembered.keys().eq([&key(&elsewhere)]));
    }

    #[test]
    fn a_store_that_was_never_read_is_known_to_be_unread() {
        let mut book = LeaseBook::new("now".into());
        let net = StoreName(NET.into());
        let failed = vec![(net.clone(), "no permission".to_owned())];
        book.update(0, Vec::new(), failed, Timestamp(1));
        assert!(book.unread().eq([(Some(&net), "no permission")]));
        let changes = read(&mut book, Some(&[lease(1, b"a")]), 2);
        assert!(changes.pools);
        assert_eq!(book.unread().count(), 0);
        assert_eq!(book.stores()[&net].mode, Mode::AfterReboot);
    }

    #[test]
    fn what_is_known_and_was_lost_is_recorded_again_with_its_boot() {
        let mut book = LeaseBook::new("now".into());
        let (old, new, anew) = (lease(1, b"a"), lease(2, b"b"), lease(3, b"c"));
        let elsewhere = Lease::new(
            StoreName("host-local:late".into()),
            old.address,
            &Holder::default(),
            &old.generation(),
            None,
        );
        let unread = known(&elsewhere, "before");
        book.remember(vec![known(&old, "before"), unread.clone()]);
        read(
            &mut book,
            Some(&[old.clone(), new.clone(), anew.clone()]),
            9,
        );
        let since = |known, at| Remembered {
            since: Timestamp(at),
            ..known
        };
        let all = [
            unread,
            since(known(&old, "before"), 9),
            since(known(&new, "now"), 9),
            since(known(&anew, "now"), 9),
        ];
        assert_eq!(book.unrecorded(&[]), all);
        let found = [known(&old, "before"), known(&lease(3, b"x"), "now")];
        let missing = [all[0].clone(), all[2].clone(), all[3].clone()];
        assert_eq!(book.unrecorded(&found), missing);
        assert_eq!(book.unrecorded(&all), []);
    }

    #[test]
    fn a_store_that_went_and_is_there_again_has_the_leases_of_its_boot() {
        let (same, other, lost) = (lease(1, b"a"), lease(2, b"b"), lease(3, b"c"));
        let fresh = lease(4, b"d");
        let mut book = LeaseBook::new("now".into());
        let told = [&same, &other, &lost].map(|lease| known(lease, "before"));
        book.remember(told.into());
        let all = [same.clone(), other.clone(), lost.clone(), fresh.clone()];
        read(&mut book, Some(&all), 9);
        let key = |lease: &Lease| (lease.store.clone(), lease.address);
        let changes = read(&mut book, None, 10);
        assert_eq!(changes.forget, [key(&fresh)]);
        // Emptied, and nobody watched: it may be another file of the same number.
        let emptied = lease(2, b"");
        let changes = read(&mut book, Some(&[same.clone(), emptied, fresh.clone()]), 11);
        assert_eq!(origin(&book, &same), (earlier("before"), 11));
        assert_eq!(origin(&book, &other), (Origin::ThisBoot, 11));
        assert_eq!(origin(&book, &fresh), (Origin::ThisBoot, 11));
        assert_eq!(changes.remember, [key(&other), key(&fresh)]);
        assert_eq!(changes.forget, [key(&lost)]);
        // What one store loses while it is there is gone.
        read(&mut book, Some(&[]), 12);
        read(&mut book, Some(std::slice::from_ref(&same)), 13);
        assert_eq!(origin(&book, &same), (Origin::ThisBoot, 13));
    }
}
