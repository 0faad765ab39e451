//! Why a method has no outcome.

use cluegate_judge::JudgeError;
use cluegate_perception::{AnswerScore, PerceptionError};
use cluegate_student::StudentError;
use thiserror::Error;

/// Why a method has no outcome.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MethodError {
    /// The judge failed.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// A model failed.
    #[error(transparent)]
    Perception(#[from] PerceptionError),
    /// The student belongs to another encoder, or gave no answer.
    #[error(transparent)]
    Student(#[from] StudentError),
    /// A model gave more or fewer answers than there were questions.
    #[error("expected {expected} answer(s), got {came}; the model implementation is wrong")]
    AnswerCount {
        /// Questions.
        expected: usize,
        /// Answers.
        came: usize,
    },
    /// An answer that is none: no number, or out of range.
    #[error("expected {expected}, got {came}; the model's answer cannot be used")]
    Answer {
        /// What would have been right.
        expected: &'static str,
        /// What came.
        came: String,
    },
    /// A row without the policy that the method goes by.
    #[error("the method {method} goes by a policy, and neither the row nor the command names one")]
    NoPolicy {
        /// The method.
        method: String,
    },
}

/// The only answer of a model that was asked one thing.
pub(super) fn only<T>(answers: Vec<T>) -> Result<T, MethodError> {
    let came = answers.len();
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(answer), None) => Ok(answer),
        _ => Err(MethodError::AnswerCount { expected: 1, came }),
    }
}

/// `p(Yes) / (p(Yes) + p(No))`, checked.
pub(super) fn ratio(answer: AnswerScore) -> Result<f64, MethodError> {
    let valid = [answer.yes, answer.no].iter().all(|p| p.is_finite() && *p >= 0.0);
    let ratio = answer.ratio();
    if valid && ratio.is_finite() {
        Ok(ratio)
    } else {
        let came = format!("p(Yes) = {}, p(No) = {}", answer.yes, answer.no);
        Err(MethodError::Answer { expected: "probabilities of Yes and No, not both zero", came })
    }
}
