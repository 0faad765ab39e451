//! Which rules could matter for a picture (CLUE s 3.2).

use cluegate_perception::Embedding;

use crate::error::JudgeError;
use crate::report::Stage;

const STAGE: Stage = Stage::Relevance;

/// How far an embedding's length may be from 1: more than rounding in half precision, far less than a broken encoder.
const LENGTH_TOLERANCE: f64 = 0.01;

/// The constitution's threshold, or the encoder's own.
pub(crate) fn threshold(own: Option<f32>, default: f32) -> Result<f32, JudgeError> {
    let threshold = own.unwrap_or(default);
    check_range("the relevance threshold", f64::from(threshold), -1.0, 1.0)?;
    Ok(threshold)
}

/// Refuses embeddings of the wrong number, with a component that is no number, or that are not of length 1. An
/// embedding of length 0 would make every rule irrelevant without a word.
pub(crate) fn check_embeddings(embeddings: &[Embedding], expected: usize) -> Result<(), JudgeError> {
    if embeddings.len() != expected {
        return Err(JudgeError::AnswerCount { stage: STAGE, expected, came: embeddings.len() });
    }
    for embedding in embeddings {
        let length = embedding.values().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        check_range("the length of an embedding", length, 1.0 - LENGTH_TOLERANCE, 1.0 + LENGTH_TOLERANCE)?;
    }
    Ok(())
}

/// The largest cosine between a view of the picture and a rule; none for no view.
pub(crate) fn largest_cosine(views: &[Embedding], rule: &Embedding) -> Result<Option<f32>, JudgeError> {
    views.iter().try_fold(None::<f32>, |largest, view| {
        let cosine = cosine(view, rule)?;
        Ok(Some(largest.map_or(cosine, |largest| largest.max(cosine))))
    })
}

/// Cosine between picture and rule, clamped to -1 to 1 against rounding.
fn cosine(picture: &Embedding, rule: &Embedding) -> Result<f32, JudgeError> {
    // The dot product would silently stop at the end of the shorter vector.
    if picture.values().len() != rule.values().len() {
        return Err(JudgeError::MissingAnswer {
            stage: STAGE,
            expected: format!(
                "an embedding of {} components, as those of the rules, got {}",
                rule.values().len(),
                picture.values().len()
            ),
        });
    }
    Ok(picture.cosine(rule).clamp(-1.0, 1.0))
}

fn check_range(what: &str, value: f64, min: f64, max: f64) -> Result<(), JudgeError> {
    let what = what.to_owned();
    if !value.is_finite() {
        Err(JudgeError::NotANumber { stage: STAGE, what, value })
    } else if !(min..=max).contains(&value) {
        Err(JudgeError::OutOfRange { stage: STAGE, what, value, min, max })
    } else {
        Ok(())
    }
}
