//! An ordered map whose clones share what they have in common.
//!
//! A state is a value: each step clones it and changes a little. With thousands of nodes the clone, and finding out what differs between
//! the two, must cost what the change costs, not what the fleet does. So the entries are kept in leaves behind `Arc`: a clone copies the
//! list of leaves, a change copies one leaf, and a comparison skips the leaves that both have.

use std::{borrow::Borrow, fmt, ops::Index, sync::Arc};

/// Most entries of a leaf; a full one is split in two.
const LEAF: usize = 64;

type Leaf<K, V> = Vec<(K, V)>;

/// See the module.
pub struct SharedMap<K, V> {
    /// None is empty; in order.
    leaves: Vec<Arc<Leaf<K, V>>>,
    len: usize,
}

/// An entry that two maps do not share. It may be equal all the same.
type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<K, V> SharedMap<K, V> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            leaves: Vec::new(),
            len: 0,
        }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.leaves
            .iter()
            .flat_map(|leaf| leaf.iter())
            .map(|(key, value)| (key, value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The leaf that has the key, if any has; otherwise the one that would.
    fn leaf<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let begins_after = |leaf: &Arc<Leaf<K, V>>| leaf.first().is_some_and(|(first, _)| first.borrow() <= key);
        self.leaves.partition_point(begins_after).saturating_sub(1)
    }

    /// Leaf and place in it: of the key, or where it would be.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let at = self.leaf(key);
        let found = self
            .leaves
            .get(at)
            .map_or(Err(0), |leaf| leaf.binary_search_by(|(k, _)| k.borrow().cmp(key)));
        (at, found)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (leaf, place) = self.find(key);
        Some(&self.leaves.get(leaf)?.get(place.ok()?)?.1)
    }

    /// The values of the keys just below and just above this one.
    pub fn neighbours(&self, key: &K) -> (Option<&V>, Option<&V>) {
        let (at, place) = self.find(key);
        let (place, next) = match place {
            Ok(place) => (place, place + 1),
            Err(place) => (place, place),
        };
        let within = |leaf: usize, place: usize| self.leaves.get(leaf)?.get(place);
        let below = match place.checked_sub(1) {
            Some(place) => within(at, place),
            None => at.checked_sub(1).and_then(|leaf| self.leaves.get(leaf)?.last()),
        };
        let above = within(at, next).or_else(|| within(at + 1, 0));
        (below.map(|(_, value)| value), above.map(|(_, value)| value))
    }

    /// True when there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).1.is_ok()
    }

    /// The entries that `self` and `later` do not share, in order: what was, and what is.
    pub fn differences<'a>(&'a self, later: &'a Self) -> Differences<'a, K, V> {
        Differences {
            before: Cursor::new(self),
            after: Cursor::new(later),
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (leaf, place) = self.find(key);
        let place = place.ok()?;
        let leaf = Arc::make_mut(self.leaves.get_mut(leaf)?);
        leaf.get_mut(place).map(|(_, value)| value)
    }

    /// Sets the value of a key; the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, place) = self.find(&key);
        let Some(leaf) = self.leaves.get_mut(at) else {
            self.leaves.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let leaf = Arc::make_mut(leaf);
        match place {
            Ok(place) => leaf.get_mut(place).map(|entry| std::mem::replace(&mut entry.1, value)),
            Err(place) => {
                leaf.insert(place, (key, value));
                self.len += 1;
                if leaf.len() > LEAF {
                    let upper = leaf.split_off(LEAF / 2);
                    self.leaves.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes a key and its value away.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, place) = self.find(key);
        let place = place.ok()?;
        let leaf = Arc::make_mut(self.leaves.get_mut(at)?);
        let (_, value) = leaf.remove(place);
        if leaf.is_empty() {
            self.leaves.remove(at);
        }
        self.len -= 1;
        Some(value)
    }

    /// Changes every value: nothing is shared any more.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let leaves = self.leaves.iter_mut();
        leaves.flat_map(|leaf| Arc::make_mut(leaf).iter_mut().map(|(_, value)| value))
    }
}

/// See [`SharedMap::differences`].
pub struct Differences<'a, K, V> {
    before: Cursor<'a, K, V>,
    after: Cursor<'a, K, V>,
}

struct Cursor<'a, K, V> {
    leaves: std::slice::Iter<'a, Arc<Leaf<K, V>>>,
    /// What is left of the leaf that was begun.
    begun: &'a [(K, V)],
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(map: &'a SharedMap<K, V>) -> Self {
        Self {
            leaves: map.leaves.iter(),
            begun: &[],
        }
    }

    /// The next leaf, between two leaves.
    fn whole(&self) -> Option<&'a Arc<Leaf<K, V>>> {
        if self.begun.is_empty() {
            self.leaves.as_slice().first()
        } else {
            None
        }
    }

    fn skip(&mut self) {
        self.leaves.next();
    }

    fn peek(&mut self) -> Option<&'a (K, V)> {
        if self.begun.is_empty() {
            self.begun = self.leaves.next().map_or(&[], |leaf| leaf.as_slice());
        }
        self.begun.first()
    }

    fn take(&mut self) -> Option<&'a V> {
        let (first, rest) = self.begun.split_first()?;
        self.begun = rest;
        Some(&first.1)
    }
}

impl<'a, K: Ord, V> Iterator for Differences<'a, K, V> {
    type Item = Difference<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        while let (Some(one), Some(other)) = (self.before.whole(), self.after.whole())
            && Arc::ptr_eq(one, other)
        {
            self.before.skip();
            self.after.skip();
        }
        let (before, after) = (self.before.peek(), self.after.peek());
        let order = match (before, after) {
            (Some((before, _)), Some((after, _))) => before.cmp(after),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return None,
        };
        let was = if order.is_le() { self.before.take() } else { None };
        let is = if order.is_ge() { self.after.take() } else { None };
        let key = if order.is_le() { before } else { after };
        key.map(|(key, _)| (key, was, is))
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            leaves: self.leaves.clone(),
            len: self.len,
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differences(other).all(|(_, was, is)| was == is)
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        Iter {
            leaves: self.leaves.iter(),
            begun: [].iter(),
        }
    }
}

/// Entries in order.
pub struct Iter<'a, K, V> {
    leaves: std::slice::Iter<'a, Arc<Leaf<K, V>>>,
    begun: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.begun.next() {
                return Some((key, value));
            }
            self.begun = self.leaves.next()?.iter();
        }
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    /// As of a `BTreeMap`: for a key that is known to be there.
    #[allow(clippy::expect_used)]
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no entry found for key")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Steps = Vec<(u16, Option<u8>)>;

    fn steps(most: usize) -> impl Strategy<Value = Steps> {
        proptest::collection::vec((0_u16..400, proptest::option::weighted(0.7, any::<u8>())), 0..most)
    }

    fn walk(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, steps: &Steps) {
        for (key, value) in steps {
            match value {
                Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
                None => assert_eq!(map.remove(key), model.remove(key)),
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_a_clone_stays_as_it_was(first in steps(600), then in steps(60)) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            walk(&mut map, &mut model, &first);
            let (before, was) = (map.clone(), model.clone());
            walk(&mut map, &mut model, &then);
            for (map, model) in [(&map, &model), (&before, &was)] {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert!(map.into_iter().eq(model.iter()));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert!((0..400).all(|key| map.get(&key) == model.get(&key)));
                let below = |key| model.range(..key).next_back().map(|(_, value)| value);
                let above = |key| model.range(key + 1..).next().map(|(_, value)| value);
                prop_assert!((0..400).all(|key| map.neighbours(&key) == (below(key), above(key))));
            }
            prop_assert_eq!(before == map, was == model);
        }

        #[test]
        fn differences_are_all_that_differs(first in steps(600), then in steps(60)) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            walk(&mut map, &mut model, &first);
            let (before, was) = (map.clone(), model.clone());
            walk(&mut map, &mut model, &then);
            let told: Vec<_> = before.differences(&map).filter(|(_, was, is)| was != is).collect();
            let keys: std::collections::BTreeSet<&u16> = was.keys().chain(model.keys()).collect();
            let differ = keys.into_iter().map(|key| (key, was.get(key), model.get(key)));
            prop_assert_eq!(told, differ.filter(|(_, was, is)| was != is).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_small_change_of_a_large_map_differs_in_few_entries() {
        let before: SharedMap<u32, u32> = (0..10_000).map(|key| (key, 0)).collect();
        let mut after = before.clone();
        *after.get_mut(&5000).unwrap() = 1;
        after.remove(&7000);
        assert!(before.differences(&after).count() <= 2 * LEAF);
        assert_eq!(before.differences(&before.clone()).count(), 0);
    }
}
