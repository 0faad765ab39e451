//! Files of one JSON object a line that are only ever added to: what a run learns, line by line, so that one that was
//! killed has lost nothing but the line that it was writing.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Most bytes of such a file.
const MAX_BYTES: u64 = 64 << 30;

/// Why such a file cannot be kept.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process writes the same file.
    #[error("{} is being written by another run; wait for it, or name another folder", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line of another form.
    #[error("{}:{line}: expected a line as this program writes it: {reason}; remove the line or the file", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// A file larger than any run's.
    #[error("{} has {bytes} bytes, more than the {MAX_BYTES} allowed; name another folder", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// A file of lines, open for one writer.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the file `name` in `folder`, both made if need be, keeps others from writing it, and reads its lines. A last
    /// line that was cut short when its writer was killed is taken off.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open<L: DeserializeOwned>(folder: &Path, name: &str) -> Result<(Self, Vec<L>), JournalError> {
        let path = folder.join(name);
        let refuse = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::File { path, source }
        };
        fs::create_dir_all(folder).map_err(refuse(folder))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(refuse(&path))?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => JournalError::InUse { path: path.clone() },
            fs::TryLockError::Error(source) => JournalError::File { path: path.clone(), source },
        })?;
        let (lines, whole) = read(&path, &mut file)?;
        file.set_len(whole).map_err(refuse(&path))?;
        file.seek(SeekFrom::End(0)).map_err(refuse(&path))?;
        Ok((Self { path, file }, lines))
    }

    /// Adds a line, and gives it back as it will be read: what a run goes by is what the file says, whether it was
    /// resumed or not.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add<L: Serialize + DeserializeOwned>(&mut self, line: &L) -> Result<L, JournalError> {
        let refuse = |source| JournalError::File { path: self.path.clone(), source };
        let mut bytes = serde_json::to_vec(line).map_err(|error| refuse(error.into()))?;
        let line = serde_json::from_slice(&bytes).map_err(|error| refuse(error.into()))?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(refuse)?;
        Ok(line)
    }
}

/// Reads the whole lines of a file that nobody is to write; none if there is no such file.
///
/// # Errors
/// See [`JournalError`].
pub fn lines<L: DeserializeOwned>(folder: &Path, name: &str) -> Result<Vec<L>, JournalError> {
    let path = folder.join(name);
    match File::open(&path) {
        Ok(mut file) => Ok(read(&path, &mut file)?.0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(JournalError::File { path, source }),
    }
}

/// The lines of `file`, and how many bytes they take.
fn read<L: DeserializeOwned>(path: &Path, file: &mut File) -> Result<(Vec<L>, u64), JournalError> {
    let refuse = |source| JournalError::File { path: path.to_owned(), source };
    let bytes = file.metadata().map_err(refuse)?.len();
    if bytes > MAX_BYTES {
        return Err(JournalError::TooLarge { path: path.to_owned(), bytes });
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(refuse)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = Vec::new();
    for (index, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        lines.push(serde_json::from_slice(line).map_err(|error| JournalError::Line {
            path: path.to_owned(),
            line: index + 1,
            reason: error.to_string(),
        })?);
    }
    Ok((lines, whole as u64))
}
