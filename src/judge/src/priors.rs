//! `M(None, c)`: what the model answers without a picture. It depends on the model, the statement template and the
//! statement only, so it is asked once and kept, on disk too if the judge was given a cache that is.

use cluegate_cache::{Cache, Scope};
use cluegate_perception::Fingerprint;

use crate::error::JudgeError;
use crate::report::Stage;

const KIND: &str = "score without an image";

/// `M(None, c)` of each statement, 0 to 1. Those that the cache does not know are asked in one call of `ask`, which
/// answers each once, in their order; it is not called if all are known.
pub(crate) fn scores_without_image(
    cache: &Cache,
    model: &Fingerprint,
    template: &str,
    statements: &[&str],
    ask: impl FnOnce(&[&str]) -> Result<Vec<f64>, JudgeError>,
) -> Result<Vec<f64>, JudgeError> {
    let scope = Scope { kind: KIND, model, template, width: 1 };
    let rows = cache.get_or_compute(&scope, statements, |unknown| {
        Ok::<_, JudgeError>(ask(unknown)?.into_iter().map(|score| vec![score]).collect())
    })?;
    let score = |(statement, row): (&&str, &[f64])| match row {
        [score] if (0.0..=1.0).contains(score) => Ok(*score),
        other => Err(JudgeError::OutOfRange {
            stage: Stage::Statements,
            what: format!("the score without an image of {statement:?}"),
            value: other.first().copied().unwrap_or(f64::NAN),
            min: 0.0,
            max: 1.0,
        }),
    };
    statements.iter().zip(rows.iter().map(|row| &**row)).map(score).collect()
}
