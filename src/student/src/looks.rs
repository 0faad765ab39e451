//! Two looks at a picture: a first at its views, which decides about most, and for the rest a closer one at its parts.

use serde::{Deserialize, Serialize};

use crate::error::{Result, StudentError, StudentErrorKind};
use crate::head::{Head, largest};

/// Which scores of the first look decide. What lies between is looked at closer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// Scores below are cleared; `None`: the first look clears nothing.
    pub clear_below: Option<f64>,
    /// Scores from here go on to the judge.
    pub send_from: f64,
}

impl Band {
    /// What a score of the first look decides; none if it says too little.
    fn decides(&self, first: f64) -> Option<Look> {
        if self.clear_below.is_some_and(|below| first < below) {
            return Some(Look::Clear(first));
        }
        (first >= self.send_from).then_some(Look::Send(first))
    }
}

/// The closer look: what a part that shows a rule's matter larger says beside the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Closer {
    /// Logits of the views.
    pub whole: Head,
    /// Logits of the parts. For each rule that of the most suspicious part is added to the whole's.
    pub parts: Head,
    /// When it is not asked.
    pub band: Band,
}

/// The heads of a student.
#[derive(Debug, Clone, PartialEq)]
pub struct Looks {
    /// The first look.
    pub first: Head,
    /// The closer one; none if the first look decides about every picture.
    pub closer: Option<Closer>,
}

/// What the looks made of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Look {
    /// The first look's score is below the band.
    Clear(f64),
    /// The first look's score is above it.
    Send(f64),
    /// The last look's score, for the threshold.
    Score(f64),
}

impl Look {
    /// The score with which it stands among others when a threshold is sought: no threshold changes what the first look
    /// decided.
    pub(crate) fn rank(self) -> f64 {
        match self {
            Self::Clear(_) => f64::NEG_INFINITY,
            Self::Send(_) => f64::INFINITY,
            Self::Score(score) => score,
        }
    }
}

impl Looks {
    /// Whether a picture with these views is looked at closer.
    ///
    /// # Errors
    /// Features of another number; a score that is no number; no view at all.
    pub(crate) fn looks_closer<V: AsRef<[f32]>>(&self, views: &[V]) -> Result<bool> {
        let first = score(most(&self.first, views)?)?;
        Ok(self.closer.as_ref().is_some_and(|closer| closer.band.decides(first).is_none()))
    }

    /// Looks at a picture by the features of its views; `parts` is asked for those of its parts if it takes a closer look.
    ///
    /// # Errors
    /// Features of another number; a score that is no number; no view or no part at all; what `parts` answers.
    pub(crate) fn look<V: AsRef<[f32]>, P: AsRef<[f32]>, E: From<StudentError>>(
        &self,
        views: &[V],
        parts: impl FnOnce() -> std::result::Result<Vec<P>, E>,
    ) -> std::result::Result<Look, E> {
        let first = score(most(&self.first, views)?)?;
        let Some(closer) = &self.closer else { return Ok(Look::Score(first)) };
        if let Some(look) = closer.band.decides(first) {
            return Ok(look);
        }
        let (whole, part) = (most(&closer.whole, views)?, most(&closer.parts, &parts()?)?);
        Ok(Look::Score(score(whole.into_iter().zip(part).map(|(whole, part)| whole + part).collect())?))
    }
}

/// The largest of each output's logits over some features.
fn most<T: AsRef<[f32]>>(head: &Head, features: &[T]) -> Result<Vec<f64>> {
    let mut all = features.iter().map(|features| head.logits(features.as_ref()));
    let none = || StudentError::new(StudentErrorKind::NotANumber, "expected features of a picture, got none");
    let first = all.next().ok_or_else(none)??;
    all.try_fold(first, |most, logits| {
        Ok(most.into_iter().zip(logits?).map(|(a, b)| largest([a, b].into_iter())).collect())
    })
}

/// The largest of the rules' logits: the larger, the likelier unsafe. An output for "any rule", trained beside them, orders
/// pictures worse: the rules' own labels say more (docs/student.md).
fn score(logits: Vec<f64>) -> Result<f64> {
    let score = largest(logits.into_iter());
    if score.is_finite() {
        return Ok(score);
    }
    let message =
        format!("the student's score came out as {score}: no answer; the encoder or the head is broken");
    Err(StudentError::new(StudentErrorKind::NotANumber, message))
}
