//! What is kept for a tenant to fetch later: released files, and jobs that it asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a value costs beside its bytes, so that many of none are bounded too.
const OVERHEAD: usize = 256;

/// Values by tenant and name, for a time and within a number of bytes. A name alone leads to nothing: what one tenant
/// keeps, no other finds. Where there is too much, the oldest of the tenant that keeps the most give way, so that nobody
/// crowds out another.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    state: Mutex<State<T>>,
    keep: Duration,
    bytes: usize,
}

#[derive(Debug)]
struct State<T> {
    shelves: HashMap<Arc<str>, Shelf<T>>,
    next: u64,
    bytes: usize,
}

/// What one tenant keeps.
#[derive(Debug)]
struct Shelf<T> {
    values: HashMap<String, Value<T>>,
    /// Their names in the order in which they were put, by number.
    order: BTreeMap<u64, String>,
    bytes: usize,
}

#[derive(Debug)]
struct Value<T> {
    value: T,
    bytes: usize,
    number: u64,
    until: Instant,
}

impl<T: Clone> Kept<T> {
    /// Keeps each value for `keep` and at most `bytes` in all, of which each value takes some itself.
    pub(crate) fn new(keep: Duration, bytes: usize) -> Self {
        let state = State { shelves: HashMap::new(), next: 0, bytes: 0 };
        Self { state: Mutex::new(state), keep, bytes }
    }

    /// Puts a value that takes `bytes`, in place of an older one of this name.
    pub(crate) fn put(&self, tenant: &Arc<str>, name: impl Into<String>, value: T, bytes: usize) {
        let (mut state, name) = (self.lock(), name.into());
        let (number, until) = (state.next, Instant::now() + self.keep);
        let bytes = bytes.saturating_add(name.len() + OVERHEAD);
        state.next += 1;
        let shelf = state.shelves.entry(Arc::clone(tenant)).or_insert_with(Shelf::new);
        shelf.order.insert(number, name.clone());
        let old = shelf.values.insert(name, Value { value, bytes, number, until });
        let freed = old.map_or(0, |old| {
            shelf.order.remove(&old.number);
            old.bytes
        });
        shelf.bytes = shelf.bytes.saturating_add(bytes) - freed;
        state.bytes = state.bytes.saturating_add(bytes) - freed;
        state.make_room(self.bytes);
    }

    /// The value that `tenant` put under `name`.
    pub(crate) fn get(&self, tenant: &Arc<str>, name: &str) -> Option<T> {
        let mut state = self.lock();
        state.make_room(self.bytes);
        state.shelves.get(tenant)?.values.get(name).map(|kept| kept.value.clone())
    }

    /// All that `tenant` put, with their names, oldest first.
    pub(crate) fn of(&self, tenant: &Arc<str>) -> Vec<(String, T)> {
        let mut state = self.lock();
        state.make_room(self.bytes);
        let Some(shelf) = state.shelves.get(tenant) else { return Vec::new() };
        let value = |name: &String| Some((name.clone(), shelf.values.get(name)?.value.clone()));
        shelf.order.values().filter_map(value).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that runs under the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Lets go of what is too old, and of the oldest of whoever keeps the most while there is too much.
    fn make_room(&mut self, most: usize) {
        let now = Instant::now();
        for shelf in self.shelves.values_mut() {
            while shelf.oldest().is_some_and(|until| until <= now) {
                self.bytes -= shelf.drop_oldest();
            }
        }
        while self.bytes > most
            && let Some(shelf) = self.shelves.values_mut().max_by_key(|shelf| shelf.bytes)
        {
            if shelf.oldest().is_none() {
                break;
            }
            self.bytes -= shelf.drop_oldest();
        }
        self.shelves.retain(|_, shelf| !shelf.values.is_empty());
    }
}

impl<T> Shelf<T> {
    fn new() -> Self {
        Self { values: HashMap::new(), order: BTreeMap::new(), bytes: 0 }
    }

    /// Until when the oldest value is kept.
    fn oldest(&self) -> Option<Instant> {
        let (_, name) = self.order.first_key_value()?;
        self.values.get(name).map(|kept| kept.until)
    }

    /// Lets go of the oldest value, and says what it took.
    fn drop_oldest(&mut self) -> usize {
        let dropped = self.order.pop_first().and_then(|(_, name)| self.values.remove(&name));
        let bytes = dropped.map_or(0, |dropped| dropped.bytes);
        self.bytes -= bytes;
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tenants() -> (Arc<str>, Arc<str>) {
        (Arc::from("kids"), Arc::from("news"))
    }

    #[test]
    fn each_tenant_finds_its_own_and_what_is_put_again_is_new() {
        let kept = Kept::new(Duration::from_secs(60), 4000);
        let (kids, news) = tenants();
        kept.put(&kids, "a", 1, 1000);
        kept.put(&news, "a", 2, 1000);
        assert_eq!(
            (kept.get(&kids, "a"), kept.get(&news, "a"), kept.get(&news, "b")),
            (Some(1), Some(2), None)
        );
        kept.put(&kids, "b", 3, 100);
        kept.put(&kids, "a", 4, 100);
        assert_eq!(kept.of(&kids), [("b".to_owned(), 3), ("a".to_owned(), 4)]);
        let brief = Kept::new(Duration::ZERO, 4000);
        brief.put(&kids, "a", 1, 1);
        assert_eq!(brief.get(&kids, "a"), None);
        let state = brief.lock();
        assert_eq!((state.bytes, state.shelves.len()), (0, 0));
    }

    #[test]
    fn whoever_keeps_the_most_gives_way() {
        let kept = Kept::new(Duration::from_secs(60), 4000);
        let (kids, news) = tenants();
        kept.put(&news, "old", 0, 1000);
        for round in 0..100 {
            kept.put(&kids, format!("file {round}"), round, 700);
        }
        assert_eq!(kept.get(&news, "old"), Some(0));
        let names = |tenant| kept.of(tenant).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(names(&kids), [98, 99]);
        kept.put(&kids, "too much", 100, 4000);
        assert_eq!((names(&kids), names(&news)), (vec![], vec![0]));
        // Values of no bytes are bounded too, and so is the order of one that is put again and again.
        for round in 0..1000 {
            kept.put(&kids, format!("job {round}"), round, 0);
            kept.put(&kids, "again", round, 0);
        }
        let state = kept.lock();
        assert!(state.bytes <= 4000 && state.shelves[&kids].order.len() < 100);
    }
}
