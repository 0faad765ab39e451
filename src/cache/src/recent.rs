//! A bounded map that forgets what was not asked for longest.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much is kept at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Number of entries.
    pub entries: usize,
    /// Sum of their sizes in bytes.
    pub bytes: usize,
}

/// A map within a [`Bound`], shared between threads. When it is full, the entries that were not asked for longest go.
#[derive(Debug)]
pub struct Recent<K, V> {
    bound: Bound,
    state: Mutex<State<K, V>>,
}

#[derive(Debug)]
struct State<K, V> {
    /// Counts every use.
    clock: u64,
    bytes: usize,
    entries: HashMap<K, Slot<V>>,
    /// Keys by their last use.
    order: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Slot<V> {
    used: u64,
    bytes: usize,
    value: V,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// An empty map.
    pub fn new(bound: Bound) -> Self {
        let state = State { clock: 0, bytes: 0, entries: HashMap::new(), order: BTreeMap::new() };
        Self { bound, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        // No code of a caller but `Hash`, `Eq` and `Clone` runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `key`, which counts as a use.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut state = self.lock();
        let state = &mut *state;
        let slot = state.entries.get_mut(key)?;
        state.clock += 1;
        if let Some(key) = state.order.remove(&slot.used) {
            state.order.insert(state.clock, key);
        }
        slot.used = state.clock;
        Some(slot.value.clone())
    }

    /// Keeps `value`, which takes about `bytes`, in place of any earlier one of that key. A value larger than the
    /// bound is not kept.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        let mut state = self.lock();
        state.remove(&key);
        if bytes > self.bound.bytes || self.bound.entries == 0 {
            return;
        }
        state.clock += 1;
        state.bytes += bytes;
        let used = state.clock;
        state.order.insert(used, key.clone());
        state.entries.insert(key, Slot { used, bytes, value });
        while state.entries.len() > self.bound.entries || state.bytes > self.bound.bytes {
            let Some((_, oldest)) = state.order.pop_first() else { break };
            state.remove(&oldest);
        }
    }

    /// Number of entries and sum of their sizes in bytes.
    pub fn size(&self) -> (usize, usize) {
        let state = self.lock();
        (state.entries.len(), state.bytes)
    }
}

impl<K: Eq + Hash, V> State<K, V> {
    fn remove(&mut self, key: &K) {
        if let Some(slot) = self.entries.remove(key) {
            self.order.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forgets_the_least_recently_used() {
        let recent = Recent::new(Bound { entries: 2, bytes: 100 });
        recent.insert("a".to_owned(), 1, 1);
        recent.insert("b".to_owned(), 2, 1);
        assert_eq!(recent.get("a"), Some(1));
        recent.insert("c".to_owned(), 3, 1);
        assert_eq!((recent.get("a"), recent.get("b"), recent.get("c")), (Some(1), None, Some(3)));
        assert_eq!(recent.size(), (2, 2));
    }

    #[test]
    fn a_large_value_pushes_out_several_and_a_larger_one_none() {
        let recent = Recent::new(Bound { entries: 10, bytes: 10 });
        for key in 0..5 {
            recent.insert(key, key, 2);
        }
        recent.insert(5, 5, 7);
        assert_eq!(recent.size(), (2, 9));
        assert_eq!((recent.get(&3), recent.get(&4), recent.get(&5)), (None, Some(4), Some(5)));
        recent.insert(6, 6, 11);
        assert_eq!((recent.get(&6), recent.size()), (None, (2, 9)));
        // The old value of a key must not stay when the new one cannot be kept.
        recent.insert(5, 50, 11);
        assert_eq!((recent.get(&5), recent.size()), (None, (1, 2)));
    }

    proptest! {
        /// Against a list in the order of use.
        #[test]
        fn behaves_as_a_list_by_last_use(
            steps in proptest::collection::vec((0u8..8, any::<bool>(), 0usize..6), 0..60),
            entries in 0usize..5,
            bytes in 0usize..12,
        ) {
            let recent = Recent::new(Bound { entries, bytes });
            let mut list: Vec<(u8, usize, usize)> = Vec::new();
            for (step, (key, reads, size)) in steps.into_iter().enumerate() {
                let at = list.iter().position(|(other, ..)| *other == key);
                if reads {
                    prop_assert_eq!(recent.get(&key), at.map(|at| list[at].1));
                    if let Some(at) = at {
                        let entry = list.remove(at);
                        list.push(entry);
                    }
                } else {
                    recent.insert(key, step, size);
                    at.map(|at| list.remove(at));
                    if size <= bytes && entries > 0 {
                        list.push((key, step, size));
                    }
                    while list.len() > entries || list.iter().map(|(.., size)| size).sum::<usize>() > bytes {
                        list.remove(0);
                    }
                }
                prop_assert_eq!(recent.size(), (list.len(), list.iter().map(|(.., size)| size).sum()));
            }
        }
    }
}
