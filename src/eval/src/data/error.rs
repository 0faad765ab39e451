//! Why a data set cannot be read, with the place.

use std::fmt;

use thiserror::Error;

/// A data set that cannot be read: the file, the line where there is one, and what is wrong.
#[derive(Debug, Error)]
#[error("{}{problem}", Place(file, *line))]
pub struct DataError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

impl DataError {
    pub(crate) fn new(file: &str, line: impl Into<Option<usize>>, problem: Problem) -> Self {
        Self { file: file.to_owned(), line: line.into(), problem }
    }
}

struct Place<'a>(&'a str, Option<usize>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(line) => write!(f, "{}:{line}: ", self.0),
            None => write!(f, "{}: ", self.0),
        }
    }
}

/// What is wrong with a data set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// The system refused to write.
    #[error("cannot be written: {0}")]
    Unwritable(std::io::Error),
    /// More bytes than a data set's text may have.
    #[error("has {bytes} bytes, more than the {limit} allowed; split the file")]
    TooLarge {
        /// Bytes that came.
        bytes: u64,
        /// Most allowed.
        limit: u64,
    },
    /// More rows than a data set may have.
    #[error("more than the {limit} rows allowed; split the file")]
    TooManyRows {
        /// Most allowed.
        limit: usize,
    },
    /// Bytes that are no text.
    #[error("expected UTF-8 text, found byte {0} to be none; save the file as UTF-8")]
    NotUtf8(usize),
    /// Not CSV as RFC 4180 has it.
    #[error("not CSV: {0}")]
    Csv(String),
    /// Not JSON, or not of the expected form.
    #[error("expected {expected}: {reason}")]
    Json {
        /// What a row should be.
        expected: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// No row at all.
    #[error("expected at least one row, found none")]
    Empty,
    /// A column that is not there.
    #[error("expected the column `{column}`; the columns are {}", .known.join(", "))]
    MissingColumn {
        /// The column.
        column: &'static str,
        /// The columns that are there.
        known: Vec<String>,
    },
    /// A column that no reader knows.
    #[error(
        "unknown column `{column}`{}; known: {}",
        .nearest.as_ref().map_or(String::new(), |near| format!(" (did you mean `{near}`?)")),
        .known.join(", ")
    )]
    UnknownColumn {
        /// The column.
        column: String,
        /// The known one that is spelled most like it.
        nearest: Option<String>,
        /// All known ones.
        known: Vec<&'static str>,
    },
    /// A column that is there twice.
    #[error("the column `{0}` is there twice")]
    RepeatedColumn(String),
    /// A value that cannot be.
    #[error("`{key}`: expected {expected}, got {came:?}")]
    Value {
        /// Column or key.
        key: &'static str,
        /// What would have been right.
        expected: String,
        /// What came, shortened.
        came: String,
    },
    /// Two rows of one name.
    #[error("the id {id:?} is that of line {first} already")]
    Repeated {
        /// The id.
        id: String,
        /// The line of the first one.
        first: usize,
    },
    /// Labels that contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// A picture file that is not there.
    #[error(
        "there is no picture {path}; expected pictures below the folder of the file, or below the one that is named \
         for pictures"
    )]
    MissingPicture {
        /// Where it was looked for.
        path: String,
    },
    /// A picture that cannot be decoded or drawn.
    #[error("the picture {id}: {reason}")]
    Picture {
        /// The row.
        id: String,
        /// What the decoder said.
        reason: String,
    },
}

/// `text` as messages show it: at most 60 characters.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
