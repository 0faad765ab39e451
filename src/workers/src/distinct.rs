//! Equal items of several requests become one.

use std::collections::HashMap;
use std::hash::Hash;

/// The different items among those put in, in the order of their first appearance.
#[derive(Debug)]
pub(crate) struct Distinct<K, T> {
    places: HashMap<K, usize>,
    items: Vec<T>,
}

impl<K: Eq + Hash, T> Distinct<K, T> {
    pub(crate) fn new() -> Self {
        Self { places: HashMap::new(), items: Vec::new() }
    }

    /// The place of the item with this key, and the item, which is `item()` if it is new.
    pub(crate) fn place(&mut self, key: K, item: impl FnOnce() -> T) -> (usize, &mut T) {
        let Self { places, items } = self;
        let place = *places.entry(key).or_insert_with(|| {
            items.push(item());
            items.len() - 1
        });
        (place, &mut items[place])
    }

    /// All of them, by place.
    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }
}
