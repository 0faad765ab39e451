//! Answers on disk: one JSON line for each, appended as it comes, found again by what it depends on. A run that was
//! killed goes on where it ended, and ends with the same bytes as one that was not.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::outcome::Outcome;

/// Name of the file in the folder of a run.
pub const RESULTS_FILE: &str = "results.jsonl";

/// Most bytes of a file of results: a million rows with evidence.
const MAX_BYTES: u64 = 64 << 30;

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultKey {
    /// Name of the method.
    pub method: String,
    /// Revision of the method.
    pub revision: String,
    /// Content hash of the picture.
    pub picture: String,
    /// Hash of the row's policy, where the method goes by it.
    pub policy: Option<String>,
}

/// Why results cannot be kept.
#[derive(Debug, Error)]
pub enum ResultsError {
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
    /// A line that is no result.
    #[error("{}:{line}: expected a result as this program writes it: {reason}; remove the line or the file", path.display())]
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(flatten)]
    key: ResultKey,
    outcome: Outcome,
}

/// The answers of all runs into one folder.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    file: File,
    known: HashMap<ResultKey, Outcome>,
}

impl Results {
    /// Opens the results in `folder`, which is made if need be, and keeps others from writing them. A last line that was
    /// cut short when its writer was killed is taken off.
    ///
    /// # Errors
    /// See [`ResultsError`].
    pub fn open(folder: &Path) -> Result<Self, ResultsError> {
        let path = folder.join(RESULTS_FILE);
        let refuse = |path: &Path| {
            let path = path.to_owned();
            move |source| ResultsError::File { path, source }
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
            fs::TryLockError::WouldBlock => ResultsError::InUse { path: path.clone() },
            fs::TryLockError::Error(source) => ResultsError::File { path: path.clone(), source },
        })?;
        let bytes = file.metadata().map_err(refuse(&path))?.len();
        if bytes > MAX_BYTES {
            return Err(ResultsError::TooLarge { path, bytes });
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(refuse(&path))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut known = HashMap::new();
        for (index, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let Line { key, outcome } = serde_json::from_slice(line).map_err(|error| ResultsError::Line {
                path: path.clone(),
                line: index + 1,
                reason: error.to_string(),
            })?;
            known.insert(key, outcome);
        }
        file.set_len(whole as u64).map_err(refuse(&path))?;
        file.seek(SeekFrom::End(0)).map_err(refuse(&path))?;
        Ok(Self { path, file, known })
    }

    /// The answer for `key`, if it is known.
    pub fn get(&self, key: &ResultKey) -> Option<&Outcome> {
        self.known.get(key)
    }

    /// Keeps an answer. What [`Self::get`] gives is what the file says, so that figures do not depend on whether a run
    /// was resumed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, key: ResultKey, outcome: Outcome) -> Result<(), ResultsError> {
        let refuse = |source| ResultsError::File { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&Line { key, outcome }).map_err(|error| refuse(error.into()))?;
        let Line { key, outcome } = serde_json::from_slice(&line).map_err(|error| refuse(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(refuse)?;
        self.known.insert(key, outcome);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::outcome::Judgment;

    fn key(picture: &str) -> ResultKey {
        ResultKey { method: "m".into(), revision: "r".into(), picture: picture.into(), policy: None }
    }

    fn outcome(score: f64) -> Outcome {
        let violated = Some(vec!["a".to_owned()]);
        let words = Some("a \"b\"\n".to_owned());
        Outcome::Judged(Judgment {
            flagged: true,
            violated,
            score: Some(score),
            passes: 2,
            words,
            evidence: Vec::new(),
        })
    }

    #[test]
    fn a_line_that_was_cut_is_written_again_with_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RESULTS_FILE);
        let mut results = Results::open(folder.path()).unwrap();
        results.add(key("1"), outcome(1.0 / 3.0)).unwrap();
        let first = fs::metadata(&path).unwrap().len();
        results.add(key("2"), Outcome::Unparseable("Hm".into())).unwrap();
        drop(results);
        let whole = fs::read(&path).unwrap();
        for cut in first..whole.len() as u64 {
            File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let mut results = Results::open(folder.path()).unwrap();
            assert_eq!(results.get(&key("1")), Some(&outcome(1.0 / 3.0)));
            assert_eq!(results.get(&key("2")), None);
            results.add(key("2"), Outcome::Unparseable("Hm".into())).unwrap();
            drop(results);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_line_of_something_else_is_refused_and_so_is_a_second_writer() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RESULTS_FILE), "\n{\"a\":1}\n").unwrap();
        let error = Results::open(folder.path()).unwrap_err();
        assert!(matches!(error, ResultsError::Line { line: 2, .. }), "{error}");
        let other = tempfile::tempdir().unwrap();
        let _first = Results::open(other.path()).unwrap();
        assert!(matches!(Results::open(other.path()).unwrap_err(), ResultsError::InUse { .. }));
    }
}
