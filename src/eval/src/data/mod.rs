//! Labelled pictures from wherever they come: drawn scenes, a folder of our own, published data sets.
//!
//! Every reader gives the same [`Row`]s, so that a method or a measure knows no format. Readers are strict: a row that
//! cannot be understood is an error with its file and line, never left out. The texts of published sets may hold more
//! columns or keys than are read; those of our own format may not.

mod csv;
mod error;
mod files;
mod folder;
mod json;
mod llavaguard;
mod parquet;
mod prompts;
mod queries;
mod safeeditbench;
mod unsafebench;

use std::collections::{BTreeSet, HashMap};

use cluegate_perception::Picture;
use serde::{Deserialize, Serialize};

pub use csv::quoted;
pub use error::{DataError, Problem};
pub use files::{FileSet, Format};
pub use folder::{LABELS_FILE, export};
pub use llavaguard::PolicyVariant;
pub(crate) use llavaguard::rating;
pub use parquet::ParquetSet;
pub use prompts::{PromptFormat, PromptRow};
pub use queries::{HazardJudge, QueryRow, parse_queries, unnamed_share};

/// Most rows of a data set.
pub const MAX_ROWS: usize = 1_000_000;

/// Most bytes of a data set's text: pictures are files of their own.
pub const MAX_TEXT_BYTES: u64 = 1 << 30;

/// A text to be read, and how messages call it.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// The file's name.
    pub file: &'a str,
    /// What is in it.
    pub content: &'a str,
}

/// What is true of a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// The rules that it violates, among those that the set labels; safe if there is none.
    Rules(BTreeSet<String>),
    /// Unsafe or not, without a rule.
    Unsafe(bool),
}

impl Truth {
    /// Whether the picture is unsafe.
    pub fn is_unsafe(&self) -> bool {
        match self {
            Self::Rules(rules) => !rules.is_empty(),
            Self::Unsafe(is) => *is,
        }
    }

    /// The violated rules, if rules are labelled.
    pub fn rules(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Rules(rules) => Some(rules),
            Self::Unsafe(_) => None,
        }
    }
}

/// What a row asks a judge to go by, where the set brings it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A policy in words.
    Text(String),
    /// The whole question as published, policy and form of the answer included, without the picture's mark.
    Question(String),
}

impl Policy {
    /// Hash over kind and words, 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        let (kind, words) = match self {
            Self::Text(words) => (0, words),
            Self::Question(words) => (1, words),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]);
        hasher.update(words.as_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

/// One labelled picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Unique within the set.
    pub id: String,
    /// The picture's name: a path below the folder of pictures, or the name of a scene.
    pub picture: String,
    /// What is true of it.
    pub truth: Truth,
    /// The category that the set puts it in.
    pub category: Option<String>,
    /// Where the set took it from.
    pub source: Option<String>,
    /// What it is to be judged by, if the row says so.
    pub policy: Option<Policy>,
    /// The policy's level (SafeEditBench) or variant (LlavaGuard).
    pub level: Option<String>,
    /// Rows of the same pair are the same picture with and without what makes it unsafe.
    pub pair: Option<String>,
    /// The prompt that the picture was drawn from, or the words that came with it.
    pub text: Option<String>,
}

impl Row {
    /// A row of which only the essentials are known.
    pub fn new(id: impl Into<String>, picture: impl Into<String>, truth: Truth) -> Self {
        Self {
            id: id.into(),
            picture: picture.into(),
            truth,
            category: None,
            source: None,
            policy: None,
            level: None,
            pair: None,
            text: None,
        }
    }
}

/// A set of labelled pictures.
pub trait DataSet {
    /// How tables call it.
    fn name(&self) -> &str;

    /// The rows, at least one.
    fn rows(&self) -> &[Row];

    /// The rules that the rows are labelled by, in order; empty where the truth is safe or unsafe.
    fn rules(&self) -> &[String];

    /// The picture of the row at `index`.
    ///
    /// # Errors
    /// It cannot be read, decoded or drawn.
    fn picture(&self, index: usize) -> Result<Picture, DataError>;

    /// Hash over all rows, 64 hexadecimal digits: two sets of the same revision have the same labels.
    fn revision(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for row in self.rows() {
            // A row is plain data, which serialises; if it ever did not, sets would only look alike.
            hasher.update(&serde_json::to_vec(row).unwrap_or_default());
            hasher.update(b"\n");
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Names for rows of sets that give them none: what they are about, numbered from the second on.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, usize>);

impl Names {
    /// The next name for `about`.
    pub(crate) fn next(&mut self, about: &str) -> String {
        let count = self.0.entry(about.to_owned()).or_default();
        *count += 1;
        if *count == 1 { about.to_owned() } else { format!("{about}#{count}") }
    }
}

/// Refuses rows of the same id; `lines` are those of `rows`.
pub(crate) fn refuse_repeated(file: &str, rows: &[(usize, Row)]) -> Result<(), DataError> {
    let mut seen = HashMap::new();
    for (line, row) in rows {
        if let Some(first) = seen.insert(row.id.as_str(), *line) {
            return Err(DataError::new(file, *line, Problem::Repeated { id: row.id.clone(), first }));
        }
    }
    Ok(())
}
