//! What is kept for a tenant to fetch later: released files, and jobs that it asked for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whose it is, and its name. A name alone leads to nothing: what one tenant keeps, no other finds.
type Key = (Arc<str>, String);

/// Values by tenant and name, for a time and within a number of bytes. The oldest give way.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    state: Mutex<State<T>>,
    keep: Duration,
    bytes: usize,
}

#[derive(Debug)]
struct State<T> {
    values: HashMap<Key, Value<T>>,
    /// In the order in which they were put, with their number, so that one that was put again is not taken for the old.
    order: VecDeque<(Key, u64)>,
    next: u64,
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
    /// Keeps each value for `keep` and at most `bytes` in all.
    pub(crate) fn new(keep: Duration, bytes: usize) -> Self {
        let state = State { values: HashMap::new(), order: VecDeque::new(), next: 0, bytes: 0 };
        Self { state: Mutex::new(state), keep, bytes }
    }

    /// Puts a value that takes `bytes`, in place of an older one of this name.
    pub(crate) fn put(&self, tenant: &Arc<str>, name: impl Into<String>, value: T, bytes: usize) {
        let mut state = self.lock();
        let (key, number) = ((Arc::clone(tenant), name.into()), state.next);
        state.next += 1;
        state.bytes += bytes;
        state.order.push_back((key.clone(), number));
        let until = Instant::now() + self.keep;
        if let Some(old) = state.values.insert(key, Value { value, bytes, number, until }) {
            state.bytes -= old.bytes;
        }
        state.make_room(self.bytes);
    }

    /// The value that `tenant` put under `name`.
    pub(crate) fn get(&self, tenant: &Arc<str>, name: &str) -> Option<T> {
        let mut state = self.lock();
        state.make_room(self.bytes);
        let found = state.values.get(&(Arc::clone(tenant), name.to_owned()))?;
        (found.until > Instant::now()).then(|| found.value.clone())
    }

    /// All that `tenant` put, with their names, oldest first.
    pub(crate) fn of(&self, tenant: &Arc<str>) -> Vec<(String, T)> {
        let mut state = self.lock();
        state.make_room(self.bytes);
        let own = state.values.iter().filter(|((owner, _), _)| owner == tenant);
        let mut own: Vec<_> =
            own.map(|((_, name), kept)| (kept.number, name.clone(), kept.value.clone())).collect();
        own.sort_by_key(|(number, ..)| *number);
        own.into_iter().map(|(_, name, value)| (name, value)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that runs under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Lets go of what is too old, and of the oldest while there is too much.
    fn make_room(&mut self, most: usize) {
        let now = Instant::now();
        while let Some((key, number)) = self.order.front() {
            match self.values.get(key) {
                // Put again meanwhile: this is an old place in the queue.
                Some(kept) if kept.number != *number => {}
                Some(kept) if kept.until > now && self.bytes <= most => return,
                Some(kept) => {
                    self.bytes -= kept.bytes;
                    self.values.remove(key);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_tenant_finds_its_own_and_the_oldest_give_way() {
        let kept = Kept::new(Duration::from_secs(60), 10);
        let (kids, news): (Arc<str>, Arc<str>) = (Arc::from("kids"), Arc::from("news"));
        kept.put(&kids, "a", 1, 4);
        kept.put(&news, "a", 2, 4);
        assert_eq!(
            (kept.get(&kids, "a"), kept.get(&news, "a"), kept.get(&news, "b")),
            (Some(1), Some(2), None)
        );
        // Put again: the old place in the queue no longer counts.
        kept.put(&kids, "a", 3, 4);
        kept.put(&kids, "b", 4, 4);
        assert_eq!(
            (kept.get(&kids, "a"), kept.get(&news, "a"), kept.get(&kids, "b")),
            (Some(3), None, Some(4))
        );
        assert_eq!(kept.of(&kids), [("a".to_owned(), 3), ("b".to_owned(), 4)]);
        kept.put(&kids, "too much", 5, 11);
        assert_eq!(kept.of(&kids), []);
        let brief = Kept::new(Duration::ZERO, 10);
        brief.put(&kids, "a", 1, 1);
        assert_eq!(brief.get(&kids, "a"), None);
    }
}
