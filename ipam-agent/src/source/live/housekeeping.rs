//! What has to be done about SIGHTINGS so that no port crowds out the others. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipam_common::sighting::{SightingKey, Tally};

/// What to do after a look at the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Housekeeping {
    /// How many new entries each port may put in until the next look.
    pub(super) budgets: BTreeMap<u32, i64>,
    /// Entries that have to go.
    pub(super) delete: Vec<SightingKey>,
}

impl Housekeeping {
    /// How many entries of one port the table may hold: of 262,144 less than a third, so
    /// that it takes several ports that flood to make the kernel evict others' entries.
    pub(super) const SHARE: i64 = 81_920;
    /// A port with more is cut back …
    const HIGH: usize = Self::SHARE as usize / 8 * 7;
    /// … to so many, the latest.
    const LOW: usize = Self::SHARE as usize / 4 * 3;

    /// What `entries` call for, if these are the ports.
    pub(super) fn of(entries: &[(SightingKey, Tally)], ports: &BTreeSet<u32>) -> Self {
        let mut of_port: BTreeMap<u32, Vec<_>> =
            ports.iter().map(|port| (*port, Vec::new())).collect();
        let mut due = Self::default();
        for (key, tally) in entries {
            match of_port.get_mut(&key.ifindex) {
                Some(entries) => entries.push((tally.last_seen, *key)),
                None => due.delete.push(*key),
            }
        }
        for (port, mut entries) in of_port {
            if entries.len() > Self::HIGH {
                entries.sort_unstable();
                let old = entries.drain(..entries.len() - Self::LOW);
                due.delete.extend(old.map(|(_, key)| key));
            }
            due.budgets.insert(port, Self::SHARE - entries.len() as i64);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(ifindex: u32, number: u32, last_seen: u64) -> (SightingKey, Tally) {
        let key = SightingKey {
            ifindex,
            outer_vlan: 0,
            vlan: 0,
            address: u128::from(number).to_be_bytes(),
            mac: [2, 0, 0, 0, 0, 1],
            probe: 0,
            reserved: 0,
        };
        let tally = Tally {
            last_seen,
            ..Tally::default()
        };
        (key, tally)
    }

    #[test]
    fn a_port_near_its_share_loses_its_oldest() {
        let count = Housekeeping::HIGH as u32 + 1;
        // The lower the number, the later it was heard.
        let entries: Vec<_> = (0..count)
            .map(|n| entry(1, n, u64::from(count - n)))
            .collect();
        let due = Housekeeping::of(&entries, &[1].into());
        let kept = Housekeeping::LOW as u32;
        assert_eq!(due.delete.len() as u32, count - kept);
        let number = |key: &SightingKey| u128::from_be_bytes(key.address) as u32;
        assert!(due.delete.iter().all(|key| number(key) >= kept));
        assert_eq!(
            due.budgets,
            [(1, Housekeeping::SHARE - i64::from(kept))].into()
        );
    }

    proptest! {
        #[test]
        fn what_stays_and_what_may_come_is_each_ports_share(
            seen in prop::collection::vec((0u32..5, any::<u64>()), 0..60),
            ports in prop::collection::btree_set(0u32..5, 0..5),
        ) {
            let entries: Vec<_> =
                (0..).zip(seen).map(|(n, (port, at))| entry(port, n, at)).collect();
            let due = Housekeeping::of(&entries, &ports);
            let gone: BTreeSet<_> = due.delete.iter().collect();
            prop_assert_eq!(gone.len(), due.delete.len());
            prop_assert_eq!(due.budgets.keys().copied().collect::<BTreeSet<_>>(), ports.clone());
            for (port, budget) in &due.budgets {
                let stay = entries.iter().filter(|(key, _)| key.ifindex == *port && !gone.contains(key));
                prop_assert_eq!(stay.count() as i64 + budget, Housekeeping::SHARE);
            }
            for (key, _) in &entries {
                prop_assert_eq!(gone.contains(key), !ports.contains(&key.ifindex));
            }
        }
    }
}
