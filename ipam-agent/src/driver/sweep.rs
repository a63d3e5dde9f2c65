//! A look at SIGHTINGS, told to the engine in portions: in a storm nearly every entry is
//! news, and events must not wait until all of them are judged.

use std::collections::VecDeque;

use ipam_common::sighting::{SightingKey, Tally};

/// How many entries a portion has, at least and about: some milliseconds' work.
const PORTION: usize = 1024;

/// What is still to be told.
pub type Portions = VecDeque<Vec<(SightingKey, Tally)>>;

/// The table in portions. All that was said of one address is in one of them, because who
/// spoke after whom is read off the entries together.
pub fn portions(mut table: Vec<(SightingKey, Tally)>) -> Portions {
    table.sort_unstable_by_key(|(key, _)| key.address);
    let mut portions = Portions::new();
    for claims in table.chunk_by(|(one, _), (other, _)| one.address == other.address) {
        match portions.back_mut() {
            Some(portion) if portion.len() < PORTION => portion.extend_from_slice(claims),
            _ => portions.push_back(claims.to_vec()),
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_address_is_in_one_portion_and_every_entry_in_some() {
        let entry = |number: u32| {
            // Three ports each, and one address on a great many.
            let address: u32 = if number < 9_000 { number / 3 } else { 1 };
            let key = SightingKey {
                ifindex: number,
                outer_vlan: 0,
                vlan: 0,
                address: u128::from(address).to_be_bytes(),
                mac: [2; 6],
                probe: 0,
                reserved: 0,
            };
            (key, Tally::default())
        };
        let portions = portions((0..12_000).rev().map(entry).collect());
        let mut met = BTreeSet::new();
        for portion in &portions {
            let here: BTreeSet<_> = portion.iter().map(|(key, _)| key.address).collect();
            assert!(met.is_disjoint(&here));
            assert!(portion.len() >= PORTION || portion == portions.back().unwrap());
            assert!(portion.len() <= PORTION + 3_003);
            met.extend(here);
        }
        assert_eq!(portions.iter().map(Vec::len).sum::<usize>(), 12_000);
        assert!(portions.len() > 3);
    }
}
