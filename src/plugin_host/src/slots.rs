//! How many calls an instance has at a time, and which of them are late.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluegate_perception::{Call, PerceptionError};

/// How often somebody who waits looks whether anybody still waits for them.
pub(crate) const GLANCE: Duration = Duration::from_millis(10);

/// The calls in work.
#[derive(Debug)]
pub(crate) struct Slots {
    most: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Each call with the moment by which it should have ended.
    running: Vec<(u64, Instant)>,
}

/// A call in work. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    slots: Arc<Slots>,
    id: u64,
}

/// Why there is no place.
#[derive(Debug)]
pub(crate) enum NoPlace {
    /// A call before has outlived its deadline and holds its place for ever.
    Stuck,
    /// Nobody waits any more.
    Over(PerceptionError),
}

impl Slots {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), freed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for a call that may take `deadline`.
    pub(crate) fn take(self: &Arc<Self>, deadline: Duration, call: &Call) -> Result<Ticket, NoPlace> {
        let mut state = self.lock();
        loop {
            call.check().map_err(NoPlace::Over)?;
            let now = Instant::now();
            if state.running.len() < self.most {
                let id = state.next;
                state.next += 1;
                state.running.push((id, now + deadline));
                return Ok(Ticket { slots: Arc::clone(self), id });
            }
            if state.running.iter().any(|(_, until)| *until < now) {
                return Err(NoPlace::Stuck);
            }
            let waited = self.freed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Ticket {
    /// Gives a call this much longer, such as while the host itself thinks.
    pub(crate) fn extend(slots: &Slots, id: u64, by: Duration) {
        if let Some((_, until)) = slots.lock().running.iter_mut().find(|(running, _)| *running == id) {
            *until += by;
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.slots.lock().running.retain(|(running, _)| *running != self.id);
        self.slots.freed.notify_one();
    }
}
