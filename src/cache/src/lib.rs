//! Memory for what would otherwise be computed again: numbers that outlive the process ([`Cache`]), and anything that
//! does not ([`Recent`]). Both are bounded.
//!
//! # What is kept on disk
//! Numbers that depend on a model and a text, and on no picture: the model's answer without a picture (`M(None, c)`,
//! CLUE s 3.4), the embedding of a rule's text, the embedding of a detector's query; and texts that a model wrote when a
//! constitution was compiled. An entry is named by everything
//! that it depends on: the kind of number, the fingerprint of the model, the hash of the prompt template, the text, and
//! the version of this program.
//!
//! # One file for each entry
//! The other choice would be one file for each model and template, replaced as a whole. Then two processes that add
//! entries at the same time lose one another's, unless they lock; a constitution of 300 statements that gains one
//! rewrites 301; and one damaged byte costs all. With a file for each entry, two processes that compute the same entry
//! write the same bytes under the same name, and none waits for another. The price is that reading 300 entries opens
//! 300 files, a few milliseconds at start, and that small files fill up whole blocks of the disk.
//!
//! A file is written beside its place and renamed into it, so that nobody reads half of one. It is not forced to the
//! disk: what a power failure leaves truncated is noticed when it is read.
//!
//! # What is trusted
//! A file counts only if its checksum is right and the key inside it is the one that was asked for; any other is
//! reported, ignored and written anew. The checksum shows damage, not intent: **whoever can write to the folder can
//! change verdicts**, as with the files of the models. The folder is therefore created for its owner alone, and one to
//! which others can write is not used. Verdicts themselves are never kept on disk, for a file would then be a
//! permission to release a picture.

mod cache;
mod disk;
mod entry;
mod folder;
mod recent;

pub use cache::{Cache, Counts, Scope, Uncomputed};
pub use disk::DISK_BOUND;
pub use folder::default_folder;
pub use recent::{Bound, Recent};
