//! What can go wrong with checkpoints.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::space::bytes;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, HubError>;

/// The kind of a [`HubError`], stable for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HubErrorKind {
    /// A setting cannot be used: a variable, a name, a preset.
    Setting,
    /// Something is needed from the hub, and the network is switched off.
    Offline,
    /// The repository asks for the acceptance of its licence, or for an account.
    Gated,
    /// There is no such repository, revision or file.
    NotFound,
    /// The hub refused for another reason.
    Refused,
    /// The hub cannot be reached, or gave up again and again.
    Network,
    /// The answer is not what the hub is documented to give.
    Answer,
    /// A body has another checksum or length than the hub announced.
    Checksum,
    /// The disk has no room, or no longer.
    Disk,
    /// The machine has too little memory for a set of models.
    Memory,
    /// A file cannot be read or written.
    Io,
    /// A checkpoint is not in the cache, or not all of it.
    NotPulled,
    /// A repository holds nothing that can be loaded.
    Unsuitable,
    /// Something is in use and therefore kept.
    InUse,
}

/// A failure. Every message says what was expected, what came and what to do; none holds a token or a signed address.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct HubError {
    kind: HubErrorKind,
    message: String,
}

impl HubError {
    /// A failure of this kind; the message stands alone.
    pub fn new(kind: HubErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind, for decisions and tests.
    pub fn kind(&self) -> HubErrorKind {
        self.kind
    }

    pub(crate) fn setting(message: impl Into<String>) -> Self {
        Self::new(HubErrorKind::Setting, message)
    }

    pub(crate) fn answer(message: impl Into<String>) -> Self {
        Self::new(HubErrorKind::Answer, message)
    }

    /// A failed operation on a file. A disk or quota that is full is its own kind.
    pub(crate) fn io(doing: &str, path: &Path, source: &std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let place = path.display();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::new(
                HubErrorKind::Disk,
                format!(
                    "the disk is full, or a quota or limit is reached: cannot {doing} {place}: {source}. What was \
                     fetched is kept; make room (`cluegate models list`, `cluegate models remove`) or name another \
                     folder in HF_HOME, then start the same command again: it goes on where it stopped"
                ),
            ),
            _ => Self::new(HubErrorKind::Io, format!("cannot {doing} {place}: {source}")),
        }
    }

    pub(crate) fn no_room(place: PathBuf, needed: u64, free: u64) -> Self {
        Self::new(
            HubErrorKind::Disk,
            format!(
                "expected {} free on the disk of {}, found {}: make room (`cluegate models list` shows what is there, \
                 `cluegate models remove` frees it), name a folder on another disk in HF_HOME, or go on with --force",
                bytes(needed),
                place.display(),
                bytes(free)
            ),
        )
    }
}
