//! The log file: whole lines, brought to the disk before they count, reopened when it was rotated away.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::entry::Position;
use crate::error::{AuditError, Result};
use crate::head::{Head, HeadFile};
use crate::keys::Keyring;
use crate::reader::{Tail, tail};

/// A log file and its head, written by this process alone.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    head: HeadFile,
    keys: Option<Keyring>,
    /// Length that the file must be brought back to, because half a batch could not be removed at once.
    undo: Option<u64>,
    /// Held as long as this process writes; its path stays when the log is rotated.
    _lock: File,
}

/// Where a log file's chain stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Its last entry.
    pub(crate) last: Option<Position>,
    /// Bytes that a crash left behind the last line, which are gone now.
    pub(crate) torn: u64,
}

impl LogFile {
    /// Opens the file at `path`, or makes it, and repairs what a crash left: a line that was never finished was never
    /// acknowledged, and is cut off.
    ///
    /// # Errors
    /// If another process writes it, its end is missing or is no entry of a log, or it cannot be opened.
    pub(crate) fn open(path: &Path, keys: Option<Keyring>) -> Result<(Self, Standing)> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(AuditError::io(folder, "made"))?;
        }
        let lock = lock(path)?;
        let mut file = open_for_appending(path)?;
        let Tail { last, whole, torn } = tail(path, &mut file)?;
        if torn > 0 {
            file.set_len(whole).and_then(|()| file.sync_data()).map_err(AuditError::io(path, "repaired"))?;
        }
        let known = crate::head::read(path)?;
        let last = match (last.map(|line| line.chain().position()), known) {
            (Some(last), Some(head))
                if last.seq < head.position.seq && last.instance == head.position.instance =>
            {
                let place = path.display().to_string();
                return Err(AuditError::CutOff { place, head: head.position, found: last.seq });
            }
            (Some(last), _) => Some(last),
            // An empty file beside a head is what rotation leaves: the chain goes on from there.
            (None, head) => head.map(|head| head.position),
        };
        let head = HeadFile::open(path)?;
        Ok((
            Self { path: path.to_path_buf(), file, head, keys, undo: None, _lock: lock },
            Standing { last, torn },
        ))
    }

    /// Appends whole lines and brings them to the disk. If that fails, the file is as it was before, or the next call
    /// makes it so.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<()> {
        if let Some(before) = self.undo {
            self.file.set_len(before).map_err(AuditError::io(&self.path, "repaired"))?;
            self.undo = None;
        }
        self.reopen_if_rotated()?;
        let before = self.file.metadata().map_err(AuditError::io(&self.path, "read"))?.len();
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        written.map_err(|source| {
            // After a failed sync the kernel may have dropped what was not written, so nothing of it may stay.
            let regular = self.file.metadata().is_ok_and(|found| found.is_file());
            if regular && let Err(problem) = self.file.set_len(before) {
                tracing::error!(file = %self.path.display(), %problem, "half a batch stays in the decision log for now");
                self.undo = Some(before);
            }
            AuditError::io(&self.path, "written")(source)
        })
    }

    /// Keeps the head, once everything up to it is in the log.
    pub(crate) fn keep_head(&mut self, position: Position) -> Result<()> {
        self.head.write(&Head::new(position, self.keys.as_ref()))
    }

    /// Brings the head to the disk.
    pub(crate) fn sync_head(&mut self) -> Result<()> {
        self.head.sync()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on in a new file if the path leads to another one, or to none.
    fn reopen_if_rotated(&mut self) -> Result<()> {
        if is_at(&self.file, &self.path)? {
            return Ok(());
        }
        // What is in the old one was brought to the disk batch by batch.
        self.file = open_for_appending(&self.path)?;
        tracing::info!(file = %self.path.display(), "the decision log was rotated; going on in a new file");
        Ok(())
    }
}

/// How long a lock that is held may take to be let go. A process that this one is starting holds a copy of every open file from
/// its fork to its exec, so a log closed in between is free only some milliseconds later.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Makes sure that no other process writes the log at `path`.
///
/// # Errors
/// [`AuditError::Locked`] if another process holds it for longer than [`LOCK_PATIENCE`].
pub(crate) fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(AuditError::io(&name, "opened"))?;
    let given_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < given_up => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(TryLockError::WouldBlock) => return Err(AuditError::Locked { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(AuditError::io(&name, "locked")(source)),
        }
    }
}

fn open_for_appending(path: &Path) -> Result<File> {
    let existed = path.exists();
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(AuditError::io(path, "opened"))?;
    if !existed {
        sync_folder(path)?;
    }
    Ok(file)
}

/// Brings the entry of `path` in its folder to the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(AuditError::io(folder, "written"))?;
    Ok(())
}

/// Whether `file` is what `path` leads to.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let own = file.metadata().map_err(AuditError::io(path, "read"))?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(AuditError::io(path, "read")(source)),
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(_file: &File, path: &Path) -> Result<bool> {
    Ok(path.exists())
}
