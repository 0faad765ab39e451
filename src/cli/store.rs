//! A store, opened for one command.

use std::path::Path;

use anyhow::Context;
use cluegate_server::{ReloadError, Stored};
use cluegate_store::{Author, Database, DatabaseOptions, Edit, Store, StoreError};
use tokio::runtime::{EnterGuard, Runtime};

/// Where a command finds the store if it names neither one nor a file.
const VARIABLE: &str = "CLUEGATE_STORE";

/// The store that a command line without a file names, by itself or by its environment.
pub(super) fn named(file: Option<&Path>, store: Option<&str>) -> Option<String> {
    match file {
        Some(_) => None,
        None => store.map(str::to_owned).or_else(|| std::env::var(VARIABLE).ok()),
    }
}

/// A store with the threads that its connections need.
pub(super) struct OpenStore {
    /// Lives as long as the process, which ends with the command.
    runtime: &'static Runtime,
    stored: Stored,
    /// An edit that is given up goes back to its connection, wherever it is dropped.
    _within: EnterGuard<'static>,
}

impl OpenStore {
    /// Opens the store at `url`: a file that is made if there is none, or a server.
    pub(super) fn open(url: &str) -> anyhow::Result<Self> {
        let runtime = Runtime::new().context("cannot start the threads of the store")?;
        let runtime: &'static Runtime = Box::leak(Box::new(runtime));
        let database = runtime.block_on(Database::open(url, DatabaseOptions::default()))?;
        Ok(Self { runtime, stored: Stored::new(Store::new(database)), _within: runtime.enter() })
    }

    /// The store.
    pub(super) fn store(&self) -> &Store {
        self.stored.store()
    }

    /// The store with the policies that it holds.
    pub(super) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Waits for a call of the store.
    pub(super) fn wait<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(call)?)
    }

    /// Waits for a check of what the store holds.
    pub(super) fn check<T>(&self, call: impl Future<Output = Result<T, ReloadError>>) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(call)?)
    }

    /// Begins an edit in the name of whoever runs the command.
    pub(super) fn edit(&self) -> anyhow::Result<Edit> {
        let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
        let by = format!("command line:{}", user.as_deref().unwrap_or("unknown"));
        let author = Author { by: &by, at_ms: jiff::Timestamp::now().as_millisecond() };
        self.wait(self.store().edit(author))
    }
}
