//! A folder with one file for each entry.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::entry::Key;
use crate::recent::Bound;

/// What the folder holds at most: 16,384 files and 64 MiB of content (up to 128 MiB of disk in blocks of 4 KiB). When
/// there is more, the files go that were not read at any start for longest, a quarter of the bound at once. Other
/// processes' files are counted now and then, so that the folder may for a while hold a little more.
pub const DISK_BOUND: Bound = Bound { entries: 16_384, bytes: 64 << 20 };

/// Largest file; what is larger stays in memory. An embedding takes 4 to 16 KiB.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Own writes after which the folder is counted again, for others write to it too.
const WRITES_BETWEEN_COUNTS: usize = 1024;

/// Age from which an unfinished file counts as left behind by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

const ENTRY_EXTENSION: &str = "numbers";
const UNFINISHED_EXTENSION: &str = "unfinished";

#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    bound: Bound,
    /// Tells this process's unfinished files from those of others, also of other machines.
    process: u64,
    unfinished: AtomicU64,
    /// Set at the first failed write, after which none is tried.
    writes_off: AtomicBool,
    /// What the folder is thought to hold; `None` until it was counted.
    used: Mutex<Option<Used>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    entries: usize,
    bytes: usize,
    /// Own writes since the folder was counted.
    writes: usize,
}

impl Used {
    fn exceeds(self, entries: usize, bytes: usize) -> bool {
        self.entries > entries || self.bytes > bytes
    }
}

impl Disk {
    /// Uses the folder `numbers` in `folder`.
    ///
    /// # Errors
    /// It cannot be created or written to, or others than its owner can write to it.
    pub(crate) fn open(folder: &Path, bound: Bound) -> Result<Self, String> {
        let disk = Self {
            folder: folder.join("numbers"),
            bound,
            process: RandomState::new().build_hasher().finish(),
            unfinished: AtomicU64::new(0),
            writes_off: AtomicBool::new(false),
            used: Mutex::new(None),
        };
        create_private(&disk.folder).map_err(|error| format!("it cannot be created: {error}"))?;
        refuse_shared(&disk.folder)?;
        // Better now than at the first entry, which was expensive to compute.
        let probe = disk.unfinished_path("probe");
        write_new(&probe, &[])
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|error| format!("it cannot be written to: {error}"))?;
        Ok(disk)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(key.name()).with_extension(ENTRY_EXTENSION)
    }

    fn unfinished_path(&self, name: &str) -> PathBuf {
        let count = self.unfinished.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{name}-{:016x}-{count}.{UNFINISHED_EXTENSION}", self.process))
    }

    /// What `decode` finds in the entry of a key, if there is a sound one.
    pub(crate) fn read<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, &'static str>,
    ) -> Option<T> {
        let path = self.path(key);
        let (file, bytes) = match read_file(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file of the cache cannot be read; it is ignored");
                return None;
            }
        };
        match decode(&bytes) {
            Ok(values) => {
                // The order in which files go is that of their last use. If the system refuses, it is that of writing.
                let _ = file.set_modified(SystemTime::now());
                Some(values)
            }
            Err(problem) => {
                tracing::warn!(
                    path = %path.display(),
                    problem,
                    "a file of the cache is not what its name says; it is ignored and written anew"
                );
                None
            }
        }
    }

    /// Writes an entry's bytes. After a failure, which is reported once, nothing more is written.
    pub(crate) fn write(&self, key: &Key, bytes: &[u8]) {
        if bytes.len() > MAX_FILE_BYTES.min(self.bound.bytes) || self.writes_off.load(Ordering::Relaxed) {
            return;
        }
        let written = match self.replace(key, bytes) {
            // Somebody cleared the cache while this process runs.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_private(&self.folder).and_then(|()| self.replace(key, bytes))
            }
            other => other,
        };
        match written {
            Ok(()) => self.count(bytes.len()),
            Err(error) if !self.writes_off.swap(true, Ordering::Relaxed) => tracing::warn!(
                folder = %self.folder.display(),
                %error,
                "the cache cannot be written to; nothing more is kept on disk until the next start"
            ),
            Err(_) => {}
        }
    }

    /// Writes a whole file beside its place and renames it, so that nobody sees half of one.
    fn replace(&self, key: &Key, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.unfinished_path(&key.name());
        let result = write_new(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, self.path(key)));
        if result.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        result
    }

    /// Counts a written file in, and makes room if the folder holds too much.
    fn count(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let now = used.map(|used| Used {
            entries: used.entries + 1,
            bytes: used.bytes + bytes,
            writes: used.writes + 1,
        });
        let within = |used: &Used| {
            used.writes < WRITES_BETWEEN_COUNTS && !used.exceeds(self.bound.entries, self.bound.bytes)
        };
        *used = match now.filter(within) {
            Some(used) => Some(used),
            None => self
                .make_room()
                .inspect_err(|error| {
                    tracing::warn!(folder = %self.folder.display(), %error, "the cache cannot be counted");
                })
                // Without a count it is tried again after as many writes as ever.
                .map_or(Some(Used::default()), Some),
        };
    }

    /// Counts the files; if there are too many, removes those not used for longest. Two processes may do so at once.
    fn make_room(&self) -> io::Result<Used> {
        let mut files = Vec::new();
        let mut used = Used::default();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            // Another process may have removed or renamed it meanwhile.
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let age = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(OsStr::to_str) {
                Some(ENTRY_EXTENSION) if about.is_file() => {
                    let bytes = about.len() as usize;
                    used.entries += 1;
                    used.bytes += bytes;
                    files.push((age, path, bytes));
                }
                Some(UNFINISHED_EXTENSION) if age.elapsed().is_ok_and(|age| age > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                // What is none of ours stays.
                _ => {}
            }
        }
        if used.exceeds(self.bound.entries, self.bound.bytes) {
            files.sort_unstable();
            for (_, path, bytes) in files {
                if !used.exceeds(
                    self.bound.entries - self.bound.entries / 4,
                    self.bound.bytes - self.bound.bytes / 4,
                ) {
                    break;
                }
                let _ = fs::remove_file(path);
                used.entries -= 1;
                used.bytes -= bytes;
            }
        }
        Ok(used)
    }
}

fn read_file(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    // One byte more than an entry may have is enough to see that it is none.
    (&file).take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(bytes)
}

/// Creates a folder and those above it, each for its owner alone.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Whoever can write to the folder can change verdicts.
fn refuse_shared(folder: &Path) -> Result<(), String> {
    #[cfg(unix)]
    {
        let about = fs::metadata(folder).map_err(|error| format!("it cannot be examined: {error}"))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions());
        if mode & 0o022 != 0 {
            return Err(format!(
                "others than its owner can write to {} (mode {:o}, expected at most 755)",
                folder.display(),
                mode & 0o7777
            ));
        }
    }
    Ok(())
}
