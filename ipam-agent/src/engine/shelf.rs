//! Values found by hash and held in pieces: for what there may be a million of.
//!
//! A look-up costs one step into a small index and one to the value; growing moves none of
//! them. Hashes are keyed anew in each process, so that nobody on the wire can make up keys
//! that collide, and no order depends on them: it is that of insertion and removal, or the
//! keys'.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// How many values are in one piece.
const PIECE: usize = 256;

/// A value that says by itself under which key it is found.
pub trait Keyed {
    /// The key.
    type Key: Copy + Hash + Ord;

    /// The key; it never changes while the value is on a shelf.
    fn key(&self) -> Self::Key;
}

/// Values by key, at most 2³² of them.
#[derive(Debug)]
pub struct Shelf<V> {
    /// Places in `pieces`, by the hash of the key of what is there.
    index: HashTable<u32>,
    /// All but the last are full, and none is empty.
    pieces: Vec<Vec<V>>,
    hasher: DefaultHashBuilder,
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            pieces: Vec::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

fn split(place: u32) -> (usize, usize) {
    let place = place as usize;
    (place / PIECE, place % PIECE)
}

fn hash_at<V: Keyed>(pieces: &[Vec<V>], hasher: &DefaultHashBuilder, place: u32) -> u64 {
    let (piece, at) = split(place);
    hasher.hash_one(pieces[piece][at].key())
}

impl<V: Keyed> Shelf<V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Makes room in the index for so many more.
    pub fn reserve(&mut self, more: usize) {
        let (pieces, hasher) = (&self.pieces, &self.hasher);
        self.index
            .reserve(more, |&place| hash_at(pieces, hasher, place));
    }

    /// The value of a key.
    pub fn get(&self, key: V::Key) -> Option<&V> {
        let (piece, at) = split(self.find(key)?);
        self.pieces.get(piece)?.get(at)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: V::Key) -> Option<&mut V> {
        let (piece, at) = split(self.find(key)?);
        self.pieces.get_mut(piece)?.get_mut(at)
    }

    /// Whether there is one of that key.
    pub fn contains(&self, key: V::Key) -> bool {
        self.find(key).is_some()
    }

    /// The value of a key, made if there is none.
    pub fn get_or_insert_with(&mut self, key: V::Key, make: impl FnOnce() -> V) -> &mut V {
        let place = self.find(key).unwrap_or_else(|| self.add(make()));
        let (piece, at) = split(place);
        &mut self.pieces[piece][at]
    }

    /// Adds a value whose key has none yet.
    pub fn insert(&mut self, value: V) {
        self.add(value);
    }

    fn add(&mut self, value: V) -> u32 {
        let hash = self.hasher.hash_one(value.key());
        let place = u32::try_from(self.len()).unwrap_or(u32::MAX);
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            // The first grows as it needs to: most shelves are small.
            let room = if self.pieces.is_empty() { 0 } else { PIECE };
            self.pieces.push(Vec::with_capacity(room));
        }
        let (pieces, hasher) = (&self.pieces, &self.hasher);
        self.index
            .insert_unique(hash, place, |&place| hash_at(pieces, hasher, place));
        if let Some(piece) = self.pieces.last_mut() {
            piece.push(value);
        }
        place
    }

    /// Takes a value away; the last one comes to its place.
    pub fn remove(&mut self, key: V::Key) -> Option<V> {
        let place = self.find(key)?;
        let hash = self.hasher.hash_one(key);
        let known = self.index.find_entry(hash, |&known| known == place);
        known.ok()?.remove();
        let mut value = self.pieces.last_mut()?.pop()?;
        // As many as there are now: the place that the last one had.
        let last = u32::try_from(self.index.len()).unwrap_or(u32::MAX);
        if place != last {
            let hash = self.hasher.hash_one(value.key());
            if let Some(known) = self.index.find_mut(hash, |&known| known == last) {
                *known = place;
            }
            let (piece, at) = split(place);
            std::mem::swap(&mut self.pieces[piece][at], &mut value);
        }
        if self.pieces.last().is_some_and(Vec::is_empty) {
            self.pieces.pop();
        }
        Some(value)
    }

    /// Keeps those for which `keep` is true; they are asked in no particular order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        let gone = |value: &mut V| {
            let key = value.key();
            (!keep(value)).then_some(key)
        };
        let values = self.pieces.iter_mut().flatten();
        let gone: Vec<V::Key> = values.filter_map(gone).collect();
        for key in gone {
            self.remove(key);
        }
    }

    /// Every value, in no particular order, but always in the same.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.pieces.iter().flatten()
    }

    /// Every value, in the order of the keys.
    pub fn sorted(&self) -> impl Iterator<Item = &V> {
        let mut all: Vec<(V::Key, &V)> = self.iter().map(|value| (value.key(), value)).collect();
        all.sort_unstable_by_key(|&(key, _)| key);
        all.into_iter().map(|(_, value)| value)
    }

    /// Every value, in the order of the keys, to change it.
    pub fn sorted_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let values = self.pieces.iter_mut().flatten();
        let mut all: Vec<(V::Key, &mut V)> = values.map(|value| (value.key(), value)).collect();
        all.sort_unstable_by_key(|&(key, _)| key);
        all.into_iter().map(|(_, value)| value)
    }

    fn find(&self, key: V::Key) -> Option<u32> {
        let is_it = |&place: &u32| {
            let (piece, at) = split(place);
            self.pieces[piece][at].key() == key
        };
        self.index.find(self.hasher.hash_one(key), is_it).copied()
    }
}

/// Shelves by number, for what is mostly asked for shelf by shelf.
#[derive(Debug)]
pub struct Shelves<V> {
    shelves: Vec<Shelf<V>>,
    len: usize,
}

impl<V> Default for Shelves<V> {
    fn default() -> Self {
        Self {
            shelves: Vec::new(),
            len: 0,
        }
    }
}

impl<V: Keyed> Shelves<V> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    pub fn get(&self, number: usize, key: V::Key) -> Option<&V> {
        self.shelves.get(number)?.get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, number: usize, key: V::Key) -> Option<&mut V> {
        self.shelves.get_mut(number)?.get_mut(key)
    }

    /// The value of a key, made if there is none.
    pub fn get_or_insert_with(
        &mut self,
        number: usize,
        key: V::Key,
        make: impl FnOnce() -> V,
    ) -> &mut V {
        if self.shelves.len() <= number {
            self.shelves.resize_with(number + 1, Shelf::default);
        }
        let len = &mut self.len;
        self.shelves[number].get_or_insert_with(key, || {
            *len += 1;
            make()
        })
    }

    /// Takes a value away.
    pub fn remove(&mut self, number: usize, key: V::Key) -> Option<V> {
        let removed = self.shelves.get_mut(number)?.remove(key)?;
        self.len -= 1;
        Some(removed)
    }

    /// Keeps those for which `keep` is true; they are asked in no particular order.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, &mut V) -> bool) {
        for (number, shelf) in self.shelves.iter_mut().enumerate() {
            shelf.retain(|value| keep(number, value));
        }
        self.len = self.shelves.iter().map(Shelf::len).sum();
    }

    /// Every value with its shelf's number, in no particular order, but always in the same.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &V)> {
        let shelves = self.shelves.iter().enumerate();
        shelves.flat_map(|(number, shelf)| shelf.iter().map(move |value| (number, value)))
    }

    /// Every value with its shelf's number, in the order of numbers and keys.
    pub fn sorted(&self) -> impl Iterator<Item = (usize, &V)> {
        let shelves = self.shelves.iter().enumerate();
        shelves.flat_map(|(number, shelf)| shelf.sorted().map(move |value| (number, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Keyed for (u16, u32) {
        type Key = u16;

        fn key(&self) -> u16 {
            self.0
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16, u32),
        Remove(u16),
        /// Keep what leaves no such remainder.
        Retain(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0u16..900, any::<u32>()).prop_map(|(key, value)| Step::Put(key, value)),
            5 => (0u16..900).prop_map(Step::Remove),
            1 => (1u32..7, 0u32..7).prop_map(|(by, rest)| Step::Retain(by, rest)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is done to it, it holds what an ordered map would.
        #[test]
        fn a_shelf_is_a_map(steps in prop::collection::vec(step(), 0..3000)) {
            let mut shelf: Shelf<(u16, u32)> = Shelf::default();
            let mut map: BTreeMap<u16, u32> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        match shelf.get_mut(key) {
                            Some(known) => known.1 = value,
                            None => shelf.insert((key, value)),
                        }
                        map.insert(key, value);
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(shelf.remove(key).map(|(_, value)| value), map.remove(&key));
                    }
                    Step::Retain(by, rest) => {
                        shelf.retain(|&mut (_, value)| value % by != rest);
                        map.retain(|_, &mut value| value % by != rest);
                    }
                }
                prop_assert_eq!(shelf.len(), map.len());
            }
            let there: Vec<(u16, u32)> = map.clone().into_iter().collect();
            prop_assert_eq!(shelf.sorted().copied().collect::<Vec<_>>(), &there[..]);
            prop_assert_eq!(shelf.sorted_mut().map(|v| *v).collect::<Vec<_>>(), &there[..]);
            prop_assert_eq!(shelf.iter().count(), there.len());
            for key in 0..900 {
                prop_assert_eq!(shelf.get(key).map(|v| &v.1), map.get(&key));
                prop_assert_eq!(shelf.contains(key), map.contains_key(&key));
            }
        }
    }
}
