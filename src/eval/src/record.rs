//! What a run was: enough to count its answers again, in another program or on another day, without a model.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cluegate_judge::Models;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data::{DataSet, Row};
use crate::journal::{JournalError, lines};
use crate::metrics::{Bootstrap, Judged, Said};
use crate::results::{ResultKey, Results};
use crate::run::MethodRun;

/// Name of the record in the folder of a run.
pub const RECORD_FILE: &str = "run.json";

/// Name of the rows that were looked at, in the folder of a run.
pub const ROWS_FILE: &str = "rows.jsonl";

/// Most bytes of a record.
const MAX_BYTES: u64 = 64 << 20;

/// Why the record of a run cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no run in the folder.
    #[error("{} holds no run: there is no {RECORD_FILE}; name a folder that `cluegate eval run --out` wrote", .0.display())]
    NoRun(PathBuf),
    /// A file of another form.
    #[error("{}: expected a record as this program writes it: {reason}; run the measurement again", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The rows or the results.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What a run was asked, and of what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Version of the program.
    pub version: String,
    /// The command line, without the program's path.
    pub command: Vec<String>,
    /// The data set.
    pub data: DataRecord,
    /// The rules.
    pub constitution: ConstitutionRecord,
    /// Fingerprints of the models.
    pub models: Models,
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
    /// The rules that count at the level of rules.
    pub rules: Vec<String>,
    /// The methods, in order.
    pub methods: Vec<MethodRecord>,
}

/// A data set, and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// How tables call it.
    pub name: String,
    /// Hash over its rows.
    pub revision: String,
    /// Its rows.
    pub rows: usize,
    /// How many of them were looked at.
    pub looked_at: usize,
    /// As it was named on the command line.
    pub set: String,
    /// Where its pictures lie, if that was named.
    pub pictures: Option<PathBuf>,
    /// What is drawn, for sets that are.
    pub scenes: Option<ScenesRecord>,
}

/// Which scenes are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenesRecord {
    /// Their seed.
    pub seed: u64,
    /// Violating scenes a rule, and as many others.
    pub per_rule: usize,
    /// How they are drawn: `world` or `foreign`.
    pub style: String,
}

/// A constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstitutionRecord {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: String,
    /// Ids and words of its rules.
    pub rules: Vec<(String, String)>,
}

/// A method that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodRecord {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: String,
    /// Whether it goes by the policies of rows.
    pub reads_policy: bool,
    /// Rows without an answer, with the reason.
    pub failures: Vec<String>,
}

/// A row that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowRecord {
    /// Its place in the data set, from 0.
    pub index: usize,
    /// The row.
    pub row: Row,
    /// Content hash of its picture; none if it could not be read.
    pub hash: Option<String>,
}

/// A run as it lies on disk.
#[derive(Debug)]
pub struct Kept {
    /// What it was.
    pub record: RunRecord,
    /// The rows that were looked at.
    pub rows: Vec<RowRecord>,
    /// The answers.
    pub results: Results,
}

impl Kept {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn read(folder: &Path) -> Result<Self, RecordError> {
        let path = folder.join(RECORD_FILE);
        let refuse = |source| RecordError::File { path: path.clone(), source };
        let form = |reason: String| RecordError::Form { path: path.clone(), reason };
        let bytes = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(RecordError::NoRun(folder.to_owned()));
            }
            Err(error) => return Err(refuse(error)),
        };
        if bytes > MAX_BYTES {
            return Err(form(format!("it has {bytes} bytes, more than the {MAX_BYTES} allowed")));
        }
        let text = fs::read_to_string(&path).map_err(refuse)?;
        let record: RunRecord = serde_json::from_str(&text).map_err(|error| form(error.to_string()))?;
        let rows: Vec<RowRecord> = lines(folder, ROWS_FILE)?;
        if rows.len() != record.data.looked_at {
            let (expected, came) = (record.data.looked_at, rows.len());
            return Err(form(format!("it tells of {expected} rows, and {ROWS_FILE} has {came}")));
        }
        Ok(Self { record, rows, results: Results::read(folder)? })
    }

    /// What `method` said, row by row.
    pub fn judged(&self, method: &MethodRecord) -> Vec<Judged<'_>> {
        judged(&self.rows, method, &self.results)
    }
}

/// Writes what a run was into `folder`; the answers are there already.
///
/// # Errors
/// The system refused.
pub fn write(folder: &Path, record: &RunRecord, rows: &[RowRecord]) -> Result<(), RecordError> {
    let mut text = Vec::new();
    for row in rows {
        // Rows are plain data, which serialises.
        text.extend(serde_json::to_vec(row).map_err(|error| other(folder, ROWS_FILE, error.into()))?);
        text.push(b'\n');
    }
    replace(&folder.join(ROWS_FILE), &text)?;
    let mut text =
        serde_json::to_vec_pretty(record).map_err(|error| other(folder, RECORD_FILE, error.into()))?;
    text.push(b'\n');
    replace(&folder.join(RECORD_FILE), &text)
}

fn other(folder: &Path, name: &str, source: std::io::Error) -> RecordError {
    RecordError::File { path: folder.join(name), source }
}

/// Writes a file whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = fs::File::create(&part)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|source| RecordError::File { path: path.to_owned(), source })
}

/// The rows `indices` of `set` with the hashes of their pictures, as any of `runs` saw them.
pub fn rows(set: &dyn DataSet, indices: &[usize], runs: &[MethodRun]) -> Vec<RowRecord> {
    let hash = |at: usize| runs.iter().find_map(|run| run.picture(at)).map(str::to_owned);
    let row = |(at, index): (usize, &usize)| RowRecord {
        index: *index,
        row: set.rows()[*index].clone(),
        hash: hash(at),
    };
    indices.iter().enumerate().map(row).collect()
}

/// What `method` said of `rows`, as `results` have it.
pub fn judged<'a>(rows: &'a [RowRecord], method: &MethodRecord, results: &'a Results) -> Vec<Judged<'a>> {
    let said = |row: &RowRecord| {
        let key = ResultKey {
            method: method.name.clone(),
            revision: method.revision.clone(),
            picture: row.hash.clone()?,
            policy: row.row.policy.as_ref().filter(|_| method.reads_policy).map(crate::data::Policy::hash),
        };
        results.get(&key).map(Said::Outcome)
    };
    rows.iter().map(|row| Judged { row: &row.row, said: said(row).unwrap_or(Said::Nothing) }).collect()
}
