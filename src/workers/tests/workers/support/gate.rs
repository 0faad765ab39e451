use std::sync::{Condvar, Mutex};

use super::FOR_EVER;

/// Holds whoever passes while it is closed.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    tickets: usize,
    arrived: usize,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().closed = false;
        self.changed.notify_all();
    }

    /// Lets `count` pass though it is closed.
    pub(crate) fn let_pass(&self, count: usize) {
        self.state.lock().unwrap().tickets += count;
        self.changed.notify_all();
    }

    /// Waits until `count` in all have come to it.
    pub(crate) fn wait_for(&self, count: usize) {
        let guard = self.state.lock().unwrap();
        let (state, late) =
            self.changed.wait_timeout_while(guard, FOR_EVER, |state| state.arrived < count).unwrap();
        drop(state);
        assert!(!late.timed_out(), "nobody comes to the gate");
    }

    pub(crate) fn pass(&self) {
        let mut guard = self.state.lock().unwrap();
        guard.arrived += 1;
        self.changed.notify_all();
        let held = |state: &mut State| state.closed && state.tickets == 0;
        let (mut guard, late) = self.changed.wait_timeout_while(guard, FOR_EVER, held).unwrap();
        guard.tickets = guard.tickets.saturating_sub(usize::from(guard.closed));
        drop(guard);
        assert!(!late.timed_out(), "nobody opens the gate");
    }
}
