//! Where to cut: from which score on a picture goes on to the judge.

use serde::{Deserialize, Serialize};

use crate::bound::{misses_allowed, recall_lower_bound};
use crate::error::{Result, StudentError, StudentErrorKind};

/// What a threshold has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// Share of the unsafe pictures that go on to the judge, 0 to 1, exclusive.
    pub recall: f64,
    /// How sure that has to be, 0 to 1, exclusive.
    pub confidence: f64,
}

impl Default for Goal {
    /// 99 % with a confidence of 95 %.
    fn default() -> Self {
        Self { recall: 0.99, confidence: 0.95 }
    }
}

/// A threshold and what it does to the pictures that were held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Scores below are cleared.
    pub threshold: f64,
    /// Pictures that were held out.
    pub pictures: u64,
    /// Those among them that the judge calls unsafe.
    pub unsafe_pictures: u64,
    /// Of those, how many are cleared.
    pub missed: u64,
    /// Share of the unsafe pictures that are not cleared, 0 to 1.
    pub recall: f64,
    /// What that share is not below, with the goal's confidence, for pictures of the same kind.
    pub recall_lower_bound: f64,
    /// Share of all pictures that go on to the judge, 0 to 1.
    pub sent_on: f64,
}

/// The highest threshold that reaches the goal on held-out pictures: scores, and whether the judge calls them unsafe. It is
/// the score of the unsafe picture before which as many lie as may be missed; the share of unsafe pictures below such an
/// order statistic has a beta distribution whatever the scores are, whose bound is that of Clopper and Pearson.
///
/// A score of minus infinity is a picture that is cleared whatever the threshold, and of infinity one that goes on. None if
/// more unsafe ones are cleared so than may be missed.
///
/// # Errors
/// `Labels` if there are too few unsafe pictures to be so sure; `NotANumber` for a score that is none.
pub fn calibrate(scores: &[(f64, bool)], goal: Goal) -> Result<Option<Calibration>> {
    if let Some((score, _)) = scores.iter().find(|(score, _)| score.is_nan()) {
        let message = format!("expected a score, got {score}; the encoder or the head is broken");
        return Err(StudentError::new(StudentErrorKind::NotANumber, message));
    }
    let mut positives: Vec<f64> =
        scores.iter().filter(|(_, is_unsafe)| *is_unsafe).map(|(score, _)| *score).collect();
    positives.sort_by(f64::total_cmp);
    let count = positives.len() as u64;
    let Some(allowed) = misses_allowed(count, goal.recall, goal.confidence) else {
        let needed = ((1.0 - goal.confidence).ln() / goal.recall.ln()).ceil();
        let message = format!(
            "{count} unsafe pictures were held out; expected at least {needed} to be {} % sure of a recall of {} %: label \
             more pictures, hold out more of them, or ask for less (--recall, --confidence)",
            100.0 * goal.confidence,
            100.0 * goal.recall
        );
        return Err(StudentError::new(StudentErrorKind::Labels, message));
    };
    let threshold = positives.get(usize::try_from(allowed).unwrap_or(usize::MAX)).copied();
    let threshold = match threshold.unwrap_or(f64::NEG_INFINITY) {
        f64::NEG_INFINITY => return Ok(None),
        // Every picture that goes on does so whatever the threshold: any over all other scores will do.
        f64::INFINITY => {
            1.0 + scores.iter().map(|(score, _)| *score).filter(|score| score.is_finite()).fold(0.0, f64::max)
        }
        // Not above the score that it is.
        score => score,
    };
    Ok(Some(count_at(scores, nine_digits(threshold), goal.confidence)))
}

/// With nine digits behind the point and never more than it was, so that a card that is read says what was written.
pub(crate) fn nine_digits(value: f64) -> f64 {
    (value * 1e9).floor() / 1e9
}

/// What a threshold does to labelled pictures.
pub(crate) fn count_at(scores: &[(f64, bool)], threshold: f64, confidence: f64) -> Calibration {
    let count = |keep: &dyn Fn(&(f64, bool)) -> bool| scores.iter().filter(|one| keep(one)).count() as u64;
    let unsafe_pictures = count(&|(_, is_unsafe)| *is_unsafe);
    let missed = count(&|(score, is_unsafe)| *is_unsafe && *score < threshold);
    let sent = count(&|(score, _)| *score >= threshold);
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    Calibration {
        threshold,
        pictures: scores.len() as u64,
        unsafe_pictures,
        missed,
        recall: nine_digits(share(unsafe_pictures - missed, unsafe_pictures)),
        recall_lower_bound: nine_digits(recall_lower_bound(missed, unsafe_pictures, confidence)),
        sent_on: nine_digits(share(sent, scores.len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_few_unsafe_pictures_are_refused() {
        let scores: Vec<(f64, bool)> = (0..298).map(|index| (f64::from(index), true)).collect();
        let error = calibrate(&scores, Goal::default()).unwrap_err();
        assert!(
            error.to_string().contains("298 unsafe pictures were held out; expected at least 299"),
            "{error}"
        );
        let nan = [(f64::NAN, false)];
        assert_eq!(calibrate(&nan, Goal::default()).unwrap_err().kind(), StudentErrorKind::NotANumber);
    }

    #[test]
    fn what_was_decided_before_bounds_the_threshold() {
        let of = |count: usize, score: f64, is_unsafe: bool| vec![(score, is_unsafe); count];
        let goal = Goal { recall: 0.9, confidence: 0.9 };
        // 100 unsafe pictures may miss five.
        let cleared = |count: usize| {
            [of(count, f64::NEG_INFINITY, true), of(100 - count, 2.0, true), of(9, 1.0, false)]
        };
        let found = calibrate(&cleared(5).concat(), goal).unwrap().unwrap();
        assert_eq!((found.threshold, found.missed), (2.0, 5));
        assert!(calibrate(&cleared(6).concat(), goal).unwrap().is_none());
        // All unsafe ones go on anyway.
        let sent =
            [of(100, f64::INFINITY, true), of(5, 3.0, false), of(5, f64::NEG_INFINITY, false)].concat();
        let found = calibrate(&sent, goal).unwrap().unwrap();
        assert_eq!((found.threshold, found.missed, found.sent_on), (4.0, 0, nine_digits(100.0 / 110.0)));
    }

    proptest! {
        #[test]
        fn the_goal_is_reached_and_more_of_it_clears_less(
            positives in prop::collection::vec(0.0f64..1.0, 400..700),
            negatives in prop::collection::vec(0.0f64..1.0, 0..300),
            less in 0.90f64..0.98,
        ) {
            let mut scores: Vec<(f64, bool)> = positives.into_iter().map(|score| (score.sqrt(), true)).collect();
            scores.extend(negatives.into_iter().map(|score| (score, false)));
            let strict = calibrate(&scores, Goal::default()).unwrap().unwrap();
            let loose = calibrate(&scores, Goal { recall: less, confidence: 0.95 }).unwrap().unwrap();
            prop_assert!(strict.recall_lower_bound >= 0.99 && strict.recall >= 0.99);
            prop_assert!(loose.recall_lower_bound >= less);
            prop_assert!(loose.threshold >= strict.threshold && loose.sent_on <= strict.sent_on);
            // One step higher would miss one more than is allowed.
            let mut above: Vec<f64> = scores.iter().filter(|(s, u)| *u && *s > strict.threshold + 1e-9).map(|(s, _)| *s).collect();
            above.sort_by(f64::total_cmp);
            let next = count_at(&scores, above[0], 0.95);
            prop_assert!(next.recall_lower_bound < 0.99);
        }
    }
}
