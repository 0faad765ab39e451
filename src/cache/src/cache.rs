//! Numbers and texts by what they depend on: in memory, and behind it on disk.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::disk::{DISK_BOUND, Disk};
use crate::entry::{HASH_BYTES, Key};
use crate::recent::{Bound, Recent};

/// What is held in memory: as many entries as thousands of constitutions have statements.
const MEMORY_BOUND: Bound = Bound { entries: 1 << 16, bytes: 64 << 20 };

/// What an entry takes in memory beside its values: key, order of use, allocations.
const ENTRY_OVERHEAD: usize = 192;

/// What the entries of one kind have in common.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// What the numbers are, such as `rule embedding`.
    pub kind: &'a str,
    /// Fingerprint of the model that computed them.
    pub model: &'a str,
    /// Hash of the prompt template around the text; empty if there is none.
    pub template: &'a str,
    /// Number of values of each entry. An entry with another number is none.
    pub width: usize,
}

/// How often an entry came from where, since the cache was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// From memory.
    pub memory: u64,
    /// From the disk.
    pub disk: u64,
    /// From nowhere: it had to be computed.
    pub missed: u64,
}

/// A computation that did not give what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{kind}: expected {expected} rows of {width} values, got {came} rows or others; the model implementation is wrong"
)]
pub struct Uncomputed {
    /// Kind of the numbers.
    pub kind: String,
    /// Number of texts.
    pub expected: usize,
    /// Number of rows that came.
    pub came: usize,
    /// Expected length of a row.
    pub width: usize,
}

/// A cache of computed numbers and texts. Clones are handles to the same cache; threads and processes may share its folder.
///
/// It cannot fail: what cannot be read is computed again, and what cannot be written stays in memory.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Recent<[u8; HASH_BYTES], Arc<[f64]>>,
    texts: Recent<[u8; HASH_BYTES], Arc<str>>,
    disk: Option<Disk>,
    from_memory: AtomicU64,
    from_disk: AtomicU64,
    missed: AtomicU64,
}

impl Default for Cache {
    fn default() -> Self {
        Self::in_memory()
    }
}

impl Cache {
    /// A cache that ends with the process.
    pub fn in_memory() -> Self {
        Self::over(None)
    }

    /// A cache in `folder`, which is created if need be, bounded by [`DISK_BOUND`]. If the folder cannot be written to,
    /// or others than its owner can write to it, a warning is logged and the cache is one in memory.
    pub fn open(folder: impl AsRef<Path>) -> Self {
        Self::open_bounded(folder, DISK_BOUND)
    }

    /// As [`Self::open`], within another bound.
    pub fn open_bounded(folder: impl AsRef<Path>, bound: Bound) -> Self {
        let folder = folder.as_ref();
        match Disk::open(folder, bound) {
            Ok(disk) => Self::over(Some(disk)),
            Err(problem) => {
                tracing::warn!(
                    folder = %folder.display(),
                    %problem,
                    "nothing is kept on disk, and every start computes anew; name another folder in CLUEGATE_CACHE_DIR"
                );
                Self::in_memory()
            }
        }
    }

    fn over(disk: Option<Disk>) -> Self {
        Self(Arc::new(Inner {
            memory: Recent::new(MEMORY_BOUND),
            texts: Recent::new(MEMORY_BOUND),
            disk,
            from_memory: AtomicU64::new(0),
            from_disk: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }))
    }

    /// Where the entries lie; `None` for a cache in memory.
    pub fn folder(&self) -> Option<&Path> {
        self.0.disk.as_ref().map(Disk::folder)
    }

    /// Where entries came from so far.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            memory: read(&self.0.from_memory),
            disk: read(&self.0.from_disk),
            missed: read(&self.0.missed),
        }
    }

    /// The values of `text`, if they are known.
    pub fn get(&self, scope: &Scope<'_>, text: &str) -> Option<Arc<[f64]>> {
        let key = Key::new(scope, text);
        let of_width = |values: &Arc<[f64]>| values.len() == scope.width;
        if let Some(values) = self.0.memory.get(&key.digest()).filter(of_width) {
            self.0.from_memory.fetch_add(1, Ordering::Relaxed);
            return Some(values);
        }
        let read = self
            .0
            .disk
            .as_ref()
            .and_then(|disk| disk.read(&key, |bytes| key.decode(bytes)))
            .map(Arc::from)
            .filter(of_width);
        match &read {
            Some(values) => {
                self.remember(&key, values);
                self.0.from_disk.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.0.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        read
    }

    /// Keeps the values of `text`. Values that are NaN or infinite, or another number of them than the scope says, are
    /// not kept.
    pub fn put(&self, scope: &Scope<'_>, text: &str, values: &[f64]) {
        if values.len() != scope.width || !values.iter().all(|value| value.is_finite()) {
            return;
        }
        let key = Key::new(scope, text);
        self.remember(&key, &values.into());
        if let Some(disk) = &self.0.disk {
            disk.write(&key, &key.encode(values));
        }
    }

    /// What a model wrote when it was asked `text`, if it is known. The scope's width counts for nothing here.
    pub fn text(&self, scope: &Scope<'_>, text: &str) -> Option<Arc<str>> {
        let key = Key::of_text(scope, text);
        if let Some(written) = self.0.texts.get(&key.digest()) {
            self.0.from_memory.fetch_add(1, Ordering::Relaxed);
            return Some(written);
        }
        let disk = self.0.disk.as_ref();
        let read = disk.and_then(|disk| disk.read(&key, |bytes| key.decode_text(bytes))).map(Arc::from);
        match &read {
            Some(written) => {
                self.remember_text(&key, written);
                self.0.from_disk.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.0.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        read
    }

    /// Keeps what a model wrote when it was asked `text`.
    pub fn put_text(&self, scope: &Scope<'_>, text: &str, written: &str) {
        let key = Key::of_text(scope, text);
        self.remember_text(&key, &written.into());
        if let Some(disk) = &self.0.disk {
            disk.write(&key, &key.encode_text(written));
        }
    }

    fn remember_text(&self, key: &Key, written: &Arc<str>) {
        self.0.texts.insert(key.digest(), Arc::clone(written), ENTRY_OVERHEAD + written.len());
    }

    fn remember(&self, key: &Key, values: &Arc<[f64]>) {
        let bytes = ENTRY_OVERHEAD + size_of_val(&**values);
        self.0.memory.insert(key.digest(), Arc::clone(values), bytes);
    }

    /// The values of each of `texts`, in their order. Those that are not known are computed in one call of `compute`,
    /// each once, and kept; it is not called if all are known. It gives one row of [`Scope::width`] values for each text
    /// that it gets, in their order.
    ///
    /// # Errors
    /// Those of `compute`, and [`Uncomputed`] if it gives other rows. Nothing is kept then.
    pub fn get_or_compute<E: From<Uncomputed>>(
        &self,
        scope: &Scope<'_>,
        texts: &[&str],
        compute: impl FnOnce(&[&str]) -> Result<Vec<Vec<f64>>, E>,
    ) -> Result<Vec<Arc<[f64]>>, E> {
        let mut known: HashMap<&str, Arc<[f64]>> = HashMap::new();
        let mut missing: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        for text in texts {
            if seen.insert(*text) {
                match self.get(scope, text) {
                    Some(values) => drop(known.insert(text, values)),
                    None => missing.push(text),
                }
            }
        }
        let uncomputed = |came| Uncomputed {
            kind: scope.kind.to_owned(),
            expected: missing.len(),
            came,
            width: scope.width,
        };
        if !missing.is_empty() {
            let rows = compute(&missing)?;
            if rows.len() != missing.len() || rows.iter().any(|row| row.len() != scope.width) {
                return Err(uncomputed(rows.len()).into());
            }
            for (text, row) in missing.iter().zip(rows) {
                self.put(scope, text, &row);
                known.insert(text, row.into());
            }
        }
        texts
            .iter()
            .map(|text| known.get(text).cloned().ok_or_else(|| uncomputed(known.len()).into()))
            .collect()
    }
}
