//! The requests in work, for those who ask how far theirs are or want them stopped. Each tenant sees its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluegate_perception::Call;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::upstream::Progress;

/// Ends a request: the judge's work, the upstream's, and the wait for both.
#[derive(Debug, Clone)]
pub(crate) struct Canceller {
    call: Call,
    token: CancellationToken,
}

impl Canceller {
    /// Ends what runs under `call` and `token`.
    pub(crate) fn new(call: Call, token: CancellationToken) -> Self {
        Self { call, token }
    }

    /// Ends it now.
    pub(crate) fn cancel(&self) {
        self.call.cancel();
        self.token.cancel();
    }
}

/// A request in work.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Whose it is.
    pub(crate) tenant: Arc<str>,
    /// Its id.
    pub(crate) request_id: String,
    /// Number of pictures asked for.
    pub(crate) count: u32,
    /// How far it is.
    pub(crate) progress: watch::Receiver<Progress>,
    /// Ends it.
    pub(crate) canceller: Canceller,
}

/// All requests in work, in the order of their begin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

/// Takes its request off the list when dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    running: Running,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.running.lock().entries.remove(&self.number);
    }
}

impl Running {
    /// Puts a request on the list.
    pub(crate) fn list(&self, entry: Entry) -> Listed {
        let mut list = self.lock();
        let number = list.next;
        list.next += 1;
        list.entries.insert(number, entry);
        Listed { running: self.clone(), number }
    }

    /// The requests of `tenant`, oldest first.
    pub(crate) fn of(&self, tenant: &str) -> Vec<Entry> {
        self.lock().entries.values().filter(|entry| &*entry.tenant == tenant).cloned().collect()
    }

    /// Ends all requests, of all tenants.
    pub(crate) fn cancel_all(&self) {
        self.lock().entries.values().for_each(|entry| entry.canceller.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing that runs under the lock leaves the list half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
