//! Where a chain stands, and what comes next in it.

use crate::canonical::{Digest, digest_of};
use crate::entry::{Draft, Index, Link, Position};
use crate::error::{AuditError, Result};

/// An entry with its place in a chain, ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) link: Link,
    /// The line without its end.
    pub(crate) text: String,
    pub(crate) index: Index,
}

/// The end of a chain.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    instance: String,
    seq: u64,
    last: Digest,
}

impl Chain {
    /// The chain of `instance` after `last`; a new one without.
    pub(crate) fn after(instance: &str, last: Option<&Position>) -> Result<Self> {
        let Some(last) = last else {
            return Ok(Self { instance: instance.to_owned(), seq: 0, last: [0; 32] });
        };
        let digest = digest_of(&last.hash).ok_or_else(|| {
            AuditError::Entry(format!("{:?} is no hash of 64 hexadecimal digits", last.hash))
        })?;
        Ok(Self { instance: instance.to_owned(), seq: last.seq, last: digest })
    }

    /// Gives `draft` the next place.
    pub(crate) fn place(&mut self, draft: Draft) -> Result<Placed> {
        let (link, hash) = Link::new(&self.instance, self.seq + 1, &self.last, &draft.body);
        let text = draft.place(&link)?;
        (self.seq, self.last) = (link.seq, hash);
        Ok(Placed { link, text, index: draft.index })
    }

    /// Its last entry; none if it is empty.
    pub(crate) fn position(&self) -> Option<Position> {
        let hash = crate::canonical::hex(&self.last);
        (self.seq > 0).then(|| Position { instance: self.instance.clone(), seq: self.seq, hash })
    }
}
