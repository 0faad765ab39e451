//! How far the log is written, for whoever reads behind the writer.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of the last entry that is durable.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    seq: u64,
    ended: bool,
}

impl Progress {
    /// Entries up to `seq` are durable.
    pub(crate) fn reached(&self, seq: u64) {
        self.lock().seq = seq;
        self.changed.notify_all();
    }

    /// Nothing more will be written.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Whether nothing more will be written.
    pub(crate) fn ended(&self) -> bool {
        self.lock().ended
    }

    /// The number of the last entry that is durable.
    pub(crate) fn seq(&self) -> u64 {
        self.lock().seq
    }

    /// Waits until there is an entry after `seq`, the end, or `longest` has passed.
    pub(crate) fn wait_beyond(&self, seq: u64, longest: Duration) {
        let state = self.lock();
        // Who waits looks again whatever woke them.
        drop(self.changed.wait_timeout_while(state, longest, |state| !state.ended && state.seq <= seq));
    }

    /// Waits until the end, or until `longest` has passed.
    pub(crate) fn wait_for_end(&self, longest: Duration) {
        let state = self.lock();
        drop(self.changed.wait_timeout_while(state, longest, |state| !state.ended));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Changed by single assignments only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
