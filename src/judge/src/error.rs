//! Why no verdict could be reached.

use cluegate_cache::Uncomputed;
use cluegate_perception::{PerceptionError, PerceptionErrorKind};
use cluegate_student::StudentError;
use thiserror::Error;

use crate::report::Stage;

/// The kind of a [`JudgeError`], stable for logs, metrics and policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JudgeErrorKind {
    /// The deadline passed, before or inside a model call.
    Timeout,
    /// The caller called the inspection off.
    Cancelled,
    /// A model computed something that is not a number.
    NotANumber,
    /// A number lies outside its range, such as a probability of 2.
    OutOfRange,
    /// An answer lacks what the method needs: neither Yes nor No has any probability, a thought is empty, a projection is
    /// empty or cut off.
    MissingAnswer,
    /// A model gave more or fewer answers than there were questions.
    AnswerCount,
    /// A rationale could not be read, not even at the second attempt.
    Unparseable,
    /// A detection names no query, or its box lies outside the picture.
    InvalidDetection,
    /// The picture has no pixels.
    InvalidPicture,
    /// The preparation was made by a judge with other models or templates.
    StalePreparation,
    /// The pre-filter was made for other models or another revision of the constitution, or gave no answer.
    Prefilter,
    /// A file of a model is missing or malformed.
    Model,
    /// A model cannot serve the request.
    Request,
    /// A model's queue is full.
    Overloaded,
    /// A model's backend failed.
    Backend,
}

impl JudgeErrorKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::NotANumber => "not-a-number",
            Self::OutOfRange => "out-of-range",
            Self::MissingAnswer => "missing-answer",
            Self::AnswerCount => "answer-count",
            Self::Unparseable => "unparseable",
            Self::InvalidDetection => "invalid-detection",
            Self::InvalidPicture => "invalid-picture",
            Self::StalePreparation => "stale-preparation",
            Self::Prefilter => "prefilter",
            Self::Model => "model",
            Self::Request => "request",
            Self::Overloaded => "overloaded",
            Self::Backend => "backend",
        }
    }
}

/// Why no verdict could be reached. Never to be read as safe: the caller's fail-closed rule applies.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// A model reported a failure.
    #[error("{stage} stage: {source}")]
    Perception {
        /// The stage that called the model.
        stage: Stage,
        /// The model's error.
        source: PerceptionError,
    },
    /// A number that is not one.
    #[error("{stage} stage: expected a finite {what}, got {value}; the model or its weights are broken")]
    NotANumber {
        /// The stage.
        stage: Stage,
        /// Which number.
        what: String,
        /// What came: NaN or an infinity.
        value: f64,
    },
    /// A number outside its range.
    #[error(
        "{stage} stage: expected {what} between {min} and {max}, got {value}; the model's answer cannot be used"
    )]
    OutOfRange {
        /// The stage.
        stage: Stage,
        /// Which number.
        what: String,
        /// What came.
        value: f64,
        /// Least allowed.
        min: f64,
        /// Most allowed.
        max: f64,
    },
    /// An answer without what the method needs.
    #[error("{stage} stage: expected {expected}, got none; the model cannot judge this")]
    MissingAnswer {
        /// The stage.
        stage: Stage,
        /// What was expected.
        expected: String,
    },
    /// A projection of consequences that did not come to its end.
    #[error(
        "{stage} stage: expected an answer that ends within {limit} tokens, got one that was cut off there; allow more \
         tokens, or ask for fewer words in the template consequences.txt"
    )]
    CutOff {
        /// The stage.
        stage: Stage,
        /// Most tokens of the answer.
        limit: usize,
    },
    /// More or fewer answers than questions.
    #[error("{stage} stage: expected {expected} answers, got {came}; the model implementation is wrong")]
    AnswerCount {
        /// The stage.
        stage: Stage,
        /// Number of questions.
        expected: usize,
        /// Number of answers.
        came: usize,
    },
    /// A rationale that could not be read twice.
    #[error(
        "expected JSON with \"rating\" and \"rationale\" on {statement:?}, got {answer:?} after one retry ({problem}); ask without rationale, or use a model that follows the format"
    )]
    Unparseable {
        /// The statement.
        statement: String,
        /// The last answer.
        answer: String,
        /// Why it could not be read.
        problem: String,
    },
    /// A detection that makes no sense.
    #[error("detection stage: expected {expected}, got {came}; the detector implementation is wrong")]
    InvalidDetection {
        /// What was expected.
        expected: String,
        /// What came.
        came: String,
    },
    /// A picture without pixels.
    #[error("expected a picture with pixels, got {width} x {height}")]
    InvalidPicture {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// A pre-filter that does not belong here, or whose answer is none.
    #[error("{0}")]
    Prefilter(StudentError),
    /// A preparation of another judge.
    #[error(
        "expected a preparation made with these models and templates, got one made with other {what}; prepare the constitution again"
    )]
    StalePreparation {
        /// What differs.
        what: &'static str,
    },
}

impl From<Uncomputed> for JudgeError {
    fn from(error: Uncomputed) -> Self {
        Self::AnswerCount { stage: Stage::Statements, expected: error.expected, came: error.came }
    }
}

impl From<StudentError> for JudgeError {
    fn from(error: StudentError) -> Self {
        Self::Prefilter(error)
    }
}

impl JudgeError {
    /// The kind, for decisions and counters. A failure inside a model keeps its own kind.
    pub fn kind(&self) -> JudgeErrorKind {
        match self {
            Self::Perception { source, .. } => match source.kind() {
                PerceptionErrorKind::Model => JudgeErrorKind::Model,
                PerceptionErrorKind::Request => JudgeErrorKind::Request,
                PerceptionErrorKind::NotANumber => JudgeErrorKind::NotANumber,
                PerceptionErrorKind::MissingAnswer => JudgeErrorKind::MissingAnswer,
                PerceptionErrorKind::Timeout => JudgeErrorKind::Timeout,
                PerceptionErrorKind::Cancelled => JudgeErrorKind::Cancelled,
                PerceptionErrorKind::Overloaded => JudgeErrorKind::Overloaded,
                PerceptionErrorKind::Backend => JudgeErrorKind::Backend,
            },
            Self::NotANumber { .. } => JudgeErrorKind::NotANumber,
            Self::OutOfRange { .. } => JudgeErrorKind::OutOfRange,
            Self::MissingAnswer { .. } | Self::CutOff { .. } => JudgeErrorKind::MissingAnswer,
            Self::AnswerCount { .. } => JudgeErrorKind::AnswerCount,
            Self::Unparseable { .. } => JudgeErrorKind::Unparseable,
            Self::InvalidDetection { .. } => JudgeErrorKind::InvalidDetection,
            Self::InvalidPicture { .. } => JudgeErrorKind::InvalidPicture,
            Self::Prefilter(_) => JudgeErrorKind::Prefilter,
            Self::StalePreparation { .. } => JudgeErrorKind::StalePreparation,
        }
    }
}
