//! Answers on disk: one JSON line for each, appended as it comes, found again by what it depends on. A run that was
//! killed goes on where it ended, and ends with the same bytes as one that was not.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError, lines};
use crate::outcome::Outcome;

/// Name of the file in the folder of a run.
pub const RESULTS_FILE: &str = "results.jsonl";

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
pub type ResultsError = JournalError;

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
    /// None for results that are only read.
    journal: Option<Journal>,
    known: HashMap<ResultKey, Outcome>,
}

impl Results {
    /// Opens the results in `folder`, which is made if need be, and keeps others from writing them. A last line that was
    /// cut short when its writer was killed is taken off.
    ///
    /// # Errors
    /// See [`ResultsError`].
    pub fn open(folder: &Path) -> Result<Self, ResultsError> {
        let (journal, lines) = Journal::open(folder, RESULTS_FILE)?;
        Ok(Self { journal: Some(journal), known: known(lines) })
    }

    /// Reads the results in `folder`, none if there are none, and leaves the file as it is: what is added is known here
    /// only.
    ///
    /// # Errors
    /// See [`ResultsError`].
    pub fn read(folder: &Path) -> Result<Self, ResultsError> {
        Ok(Self { journal: None, known: known(lines(folder, RESULTS_FILE)?) })
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
        let line = Line { key, outcome };
        let Line { key, outcome } = match &mut self.journal {
            Some(journal) => journal.add(&line)?,
            None => line,
        };
        self.known.insert(key, outcome);
        Ok(())
    }
}

fn known(lines: Vec<Line>) -> HashMap<ResultKey, Outcome> {
    lines.into_iter().map(|Line { key, outcome }| (key, outcome)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, File};

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
            assert_eq!(Results::read(folder.path()).unwrap().get(&key("1")), Some(&outcome(1.0 / 3.0)));
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
