//! Sequences that were computed before, by what they show.
//!
//! The key is the picture's content hash (or none) together with the tokens: token ids alone stand for every picture
//! of a size, and caches keyed by them have answered about the wrong picture in other engines.

use std::sync::{Arc, Mutex, PoisonError};

use cluegate_perception::ContentHash;

use super::decoder::{KeyValues, Past, Piece};

/// A remembered sequence of which the first `length` tokens are wanted.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    sequence: Arc<KeyValues>,
    length: usize,
}

impl Remembered {
    pub(super) fn new(sequence: Arc<KeyValues>, length: usize) -> Self {
        Self { sequence, length }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn past(&self) -> Past<'_> {
        Past(Some((&self.sequence, self.length)))
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        Piece { from: &self.sequence, row: 0, first: 0, length: self.length }
    }
}

#[derive(Debug)]
struct Entry {
    picture: Option<ContentHash>,
    tokens: Vec<u32>,
    sequence: Arc<KeyValues>,
}

/// The sequences used last, bounded in number and bytes.
#[derive(Debug)]
pub(super) struct PrefixCache {
    /// The one used last comes last.
    entries: Mutex<Vec<Entry>>,
    max_entries: usize,
    max_bytes: usize,
}

impl PrefixCache {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: Mutex::new(Vec::new()), max_entries, max_bytes }
    }

    /// The longest remembered beginning of `tokens` after `picture`.
    pub(super) fn longest(&self, picture: Option<ContentHash>, tokens: &[u32]) -> Option<Remembered> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, length) = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.picture == picture)
            .map(|(index, entry)| (index, common_length(&entry.tokens, tokens)))
            .max_by_key(|&(_, length)| length)
            .filter(|&(_, length)| length > 0)?;
        let entry = entries.remove(index);
        let found = Remembered::new(entry.sequence.clone(), length);
        entries.push(entry);
        Some(found)
    }

    /// Remembers a sequence (one row that starts at the first column), in place of those that are its beginnings, and
    /// forgets the oldest ones over the bounds.
    pub(super) fn insert(&self, picture: Option<ContentHash>, tokens: Vec<u32>, sequence: Arc<KeyValues>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.picture != picture || !tokens.starts_with(&entry.tokens));
        entries.push(Entry { picture, tokens, sequence });
        let mut bytes: usize = entries.iter().map(|entry| entry.sequence.bytes()).sum();
        while entries.len() > self.max_entries || (bytes > self.max_bytes && entries.len() > 1) {
            bytes -= entries.remove(0).sequence.bytes();
        }
    }
}

/// How many tokens two sequences share from their beginning.
pub(super) fn common_length(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
