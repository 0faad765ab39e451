//! One file from the hub to the cache: locked, resumed, checked, renamed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use crate::cache::{HubCache, create_parent};
use crate::client::{Attempts, Client, Failure};
use crate::digest::{Hasher, hash_file};
use crate::error::{HubError, HubErrorKind, Result};
use crate::names::{Commit, RepoId};
use crate::pull::PlannedFile;
use crate::space::bytes;

/// How much is read from the network at a time.
const CHUNK: usize = 1 << 18;

/// What happens while files are fetched.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file comes next.
    Begin {
        /// Its name.
        file: &'a str,
    },
    /// So many bytes more are there, or were found there and checked.
    Bytes(u64),
    /// So many bytes that were counted have to come again.
    Lost(u64),
    /// Another process fetches this file; it is waited for.
    Waiting {
        /// Its name.
        file: &'a str,
    },
    /// What was there is damaged and was removed.
    Damaged {
        /// Its name.
        file: &'a str,
    },
    /// An attempt failed, and another one comes.
    Retrying {
        /// Name of the file.
        file: &'a str,
        /// What failed.
        why: &'a str,
        /// The wait before the next attempt.
        wait: Duration,
    },
}

/// Whoever wants to know what happens while files are fetched.
pub trait Progress {
    /// Called for every event, from the thread that fetches.
    fn on(&self, event: Event<'_>);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn on(&self, _: Event<'_>) {}
}

/// Fetches files of one commit.
pub(crate) struct Transfer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a HubCache,
    pub(crate) repo: &'a RepoId,
    pub(crate) commit: &'a Commit,
    pub(crate) progress: &'a dyn Progress,
}

/// A file that is being written.
struct Partial {
    file: File,
    hasher: Hasher,
    /// Bytes in the file.
    have: u64,
    /// How many of them were there before this process began; a checksum that does not fit may be their fault.
    inherited: u64,
}

impl Transfer<'_> {
    /// Makes sure that a file is in the cache, whole; gives the bytes that came over the network.
    pub(crate) fn fetch(&self, wanted: &PlannedFile) -> Result<u64> {
        let name = wanted.name.as_str();
        self.progress.on(Event::Begin { file: name });
        let _lock =
            self.cache.lock(self.repo, wanted.digest, || self.progress.on(Event::Waiting { file: name }))?;
        if check_stored(self.cache, self.repo, self.commit, wanted, self.progress)? {
            self.cache.place(self.repo, self.commit, &wanted.name, wanted.digest)?;
            return Ok(0);
        }
        let part = self.cache.incomplete(self.repo, wanted.digest);
        create_parent(&part).map_err(|error| HubError::io("make the folder of", &part, &error))?;
        let fetched = self.fill(&part, wanted)?;
        let blob = self.cache.blob(self.repo, wanted.digest);
        fs::rename(&part, &blob).map_err(|error| HubError::io("rename", &part, &error))?;
        self.cache.place(self.repo, self.commit, &wanted.name, wanted.digest)?;
        Ok(fetched)
    }

    /// Attempts until the file is whole and has its checksum.
    fn fill(&self, part: &Path, wanted: &PlannedFile) -> Result<u64> {
        let what = format!("{} of {}", wanted.name, self.repo);
        let mut attempts = Attempts::new(self.client.limits);
        let mut partial = self.open(part, wanted)?;
        // Bytes that come again and again, because a server knows no ranges, are no progress.
        let (mut fetched, mut furthest) = (0, partial.have);
        loop {
            let failure = match self.attempt(&mut partial, part, wanted, &mut fetched) {
                Ok(()) => match self.finish(partial, part, wanted)? {
                    None => return Ok(fetched),
                    Some(again) => {
                        partial = again;
                        continue;
                    }
                },
                Err(failure) => failure,
            };
            match failure {
                Failure::Final(error) => return Err(error),
                Failure::Again { why, after } => {
                    if partial.have > furthest {
                        furthest = partial.have;
                        attempts.progress();
                    }
                    let wait = attempts.next(&what, &why, after)?;
                    self.progress.on(Event::Retrying { file: wanted.name.as_str(), why: &why, wait });
                    std::thread::sleep(wait);
                }
            }
        }
    }

    /// Opens what an earlier attempt left, perhaps of another process, and hashes it.
    fn open(&self, part: &Path, wanted: &PlannedFile) -> Result<Partial> {
        let failed = |error: std::io::Error| HubError::io("open", part, &error);
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(part).map_err(failed)?;
        let mut hasher = Hasher::new(wanted.digest, wanted.size);
        let length = file.metadata().map_err(failed)?.len();
        let have = if length > wanted.size {
            file.set_len(0).map_err(failed)?;
            0
        } else {
            let told = |count| self.progress.on(Event::Bytes(count));
            // No more than was measured: a device has no end.
            hasher.update_from(Read::by_ref(&mut file).take(length), told).map_err(failed)?
        };
        Ok(Partial { file, hasher, have, inherited: have })
    }

    /// One request, and what it brings.
    fn attempt(
        &self,
        partial: &mut Partial,
        part: &Path,
        wanted: &PlannedFile,
        fetched: &mut u64,
    ) -> std::result::Result<(), Failure> {
        if partial.have == wanted.size {
            return Ok(());
        }
        let (start, mut body) = self.client.open(self.repo, self.commit, &wanted.name, partial.have)?;
        if start != partial.have {
            self.restart(partial, part, wanted)?;
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) if partial.have == wanted.size => return Ok(()),
                Ok(0) => {
                    let why = format!("the connection ended after {} of {} bytes", partial.have, wanted.size);
                    return Err(Failure::Again { why, after: None });
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let why = format!(
                        "the connection broke after {} of {} bytes: {}",
                        partial.have,
                        wanted.size,
                        self.client.clean(&error.to_string())
                    );
                    return Err(Failure::Again { why, after: None });
                }
            };
            if partial.have + count as u64 > wanted.size {
                // May never have been there, as on a device; the error that matters is the next one.
                let _ = fs::remove_file(part);
                return Err(Failure::Final(HubError::new(
                    HubErrorKind::Checksum,
                    format!(
                        "{} of {}: expected {} bytes, the server sends more; what came was removed. Start the same \
                         command again",
                        wanted.name, self.repo, wanted.size
                    ),
                )));
            }
            let failed = |error: std::io::Error| Failure::Final(HubError::io("write", part, &error));
            partial.file.write_all(&buffer[..count]).map_err(failed)?;
            partial.hasher.update(&buffer[..count]);
            partial.have += count as u64;
            *fetched += count as u64;
            self.progress.on(Event::Bytes(count as u64));
        }
    }

    /// Forgets what is there.
    fn restart(&self, partial: &mut Partial, part: &Path, wanted: &PlannedFile) -> Result<()> {
        let failed = |error: std::io::Error| HubError::io("empty", part, &error);
        partial.file.set_len(0).map_err(failed)?;
        partial.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.progress.on(Event::Lost(partial.have));
        partial.hasher = Hasher::new(wanted.digest, wanted.size);
        (partial.have, partial.inherited) = (0, 0);
        Ok(())
    }

    /// Compares the checksum. `Some` is the file to begin anew with, where what was there before may have been damaged.
    fn finish(&self, partial: Partial, part: &Path, wanted: &PlannedFile) -> Result<Option<Partial>> {
        let Partial { file, hasher, have, inherited } = partial;
        let found = hasher.finish();
        if found == wanted.digest {
            file.sync_all().map_err(|error| HubError::io("write", part, &error))?;
            return Ok(None);
        }
        drop(file);
        fs::remove_file(part).map_err(|error| HubError::io("remove", part, &error))?;
        if inherited > 0 {
            self.progress.on(Event::Damaged { file: wanted.name.as_str() });
            self.progress.on(Event::Lost(have));
            return self.open(part, wanted).map(Some);
        }
        Err(HubError::new(
            HubErrorKind::Checksum,
            format!(
                "{} of {}: expected {} with checksum {}, got {found}; what came was removed. Start the same command \
                 again; if it stays so, a proxy or mirror changes the file, or HF_ENDPOINT is not what it says",
                wanted.name,
                self.repo,
                bytes(wanted.size),
                wanted.digest
            ),
        ))
    }
}

/// Whether a file is in the cache with its checksum. One that is damaged is removed.
pub(crate) fn check_stored(
    cache: &HubCache,
    repo: &RepoId,
    commit: &Commit,
    wanted: &PlannedFile,
    progress: &dyn Progress,
) -> Result<bool> {
    let Some(path) = cache.stored(repo, commit, &wanted.name, (wanted.size, wanted.digest)) else {
        return Ok(false);
    };
    let mut counted = 0;
    let found = hash_file(&path, wanted.digest, |count| {
        counted += count;
        progress.on(Event::Bytes(count));
    })?;
    if found == wanted.digest {
        return Ok(true);
    }
    progress.on(Event::Damaged { file: wanted.name.as_str() });
    progress.on(Event::Lost(counted));
    fs::remove_file(&path).map_err(|error| HubError::io("remove", &path, &error))?;
    Ok(false)
}
