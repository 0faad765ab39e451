//! Checkpoints from the Hugging Face hub: which ones go together ([`presets`]), where they lie ([`HubCache`], the layout
//! that `huggingface_hub` reads and writes), and how they get there ([`Hub`]).
//!
//! # Why a client of its own
//! The crate `hf-hub` 0.5 shares the layout, but appends to a half-written file whatever the server answers, checks no
//! checksum, sets no time-out, and knows neither `HF_HUB_CACHE` nor `HF_HUB_OFFLINE`; 1.0 pulls in some 280 crates. What
//! is needed here are three kinds of request over `ureq` and rustls.
//!
//! # What is trusted
//! The hub's answer about a commit names each file with its size and checksum (SHA-256 of large files, git's SHA-1 of
//! small ones), over TLS. Everything else has to agree with it: a body that is longer, shorter or has another checksum
//! is removed. Names of files come from outside and are checked before they become paths ([`FileName`]). The token goes
//! to the configured endpoint alone, never to a host that it redirects to, and stands in no message.
//!
//! # Two processes
//! Each file is fetched under a lock of the operating system (`flock` on `.locks/REPO/ETAG.lock`, the lock that
//! `huggingface_hub` takes). The second one waits, and then finds the file there. A process that is killed loses its
//! locks, and what it had written is the beginning of the next attempt.

mod cache;
mod choose;
mod client;
mod digest;
mod error;
mod info;
mod models_file;
mod names;
pub mod presets;
mod pull;
mod remove;
mod settings;
mod space;
mod transfer;
mod trust;
mod verify;
pub mod wheels;

pub use cache::{CachedRepo, CachedRevision, HubCache};
pub use client::Limits;
pub use digest::Digest;
pub use error::{HubError, HubErrorKind, Result};
pub use models_file::{Pin, models_file, pins};
pub use names::{Commit, FileName, RepoId, Revision};
pub use presets::{Part, Preset};
pub use pull::{Hub, Plan, PlannedFile, Pulled};
pub use remove::Removed;
pub use settings::{Settings, Token};
pub use space::{bytes, total_memory};
pub use transfer::{Event, Progress, Quiet};
pub use trust::Trust;
pub use verify::{FileState, Finding};
