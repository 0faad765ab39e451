//! How scores are spread where the answer is yes and where it is no (CLUE, Figure 6).

use serde::Serialize;

/// Bars of a histogram.
const BINS: usize = 20;

/// What the scores of a histogram are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// The method's own score of a picture, 0 to 1; positive where the picture is unsafe.
    Picture,
    /// `M(x, c)` of a rule's chain, 0 to 1, as the model says it: the lowest over the preconditions of the highest over
    /// their statements; positive where the rule is violated.
    Raw,
    /// The same debiased, -1 to 1: `M(x, c) - M(None, c)` as a share of what `M(None, c)` leaves in that direction, so
    /// that `a1` and `a2` stand at the same place for every statement.
    Debiased,
}

/// How scores are spread over bars of one width.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// What the scores are.
    pub of: ScoreKind,
    /// Where the first bar begins.
    pub low: f64,
    /// Where the last bar ends.
    pub high: f64,
    /// How many positives are in each bar; what lies outside is in the nearest.
    pub positives: Vec<usize>,
    /// How many negatives.
    pub negatives: Vec<usize>,
    /// Scores that are no numbers.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Share of pairs of a positive and a negative in which the positive scores higher, ties by half (the area under the
    /// ROC curve); where there are both.
    pub area: Option<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The form that serde asks for.
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The histogram of `scores`, each with whether it is a positive; `None` for none.
pub fn histogram(of: ScoreKind, scores: &[(f64, bool)]) -> Option<Histogram> {
    if scores.is_empty() {
        return None;
    }
    let (low, high) = if of == ScoreKind::Debiased { (-1.0, 1.0) } else { (0.0, 1.0) };
    let (mut positives, mut negatives, mut left_out) = (vec![0; BINS], vec![0; BINS], 0);
    for (score, positive) in scores {
        if score.is_nan() {
            left_out += 1;
            continue;
        }
        let place = ((score - low) / (high - low) * BINS as f64).clamp(0.0, (BINS - 1) as f64);
        let counts = if *positive { &mut positives } else { &mut negatives };
        counts[place as usize] += 1;
    }
    Some(Histogram { of, low, high, positives, negatives, left_out, area: area(scores) })
}

/// The area under the ROC curve by ranks (Mann and Whitney 1947).
fn area(scores: &[(f64, bool)]) -> Option<f64> {
    let mut sorted: Vec<(f64, bool)> = scores.iter().copied().filter(|(score, _)| !score.is_nan()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|(_, positive)| *positive).count();
    let negatives = sorted.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let (mut below, mut won) = (0.0, 0.0);
    #[allow(clippy::float_cmp)] // Ties are equal numbers.
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let hits = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let others = tied.len() as f64 - hits;
        won += hits * (below + others / 2.0);
        below += others;
    }
    Some(won / (positives as f64 * negatives as f64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bars_are_half_open_and_ends_belong_to_the_nearest() {
        let scores = [(0.0, true), (0.05, false), (0.5, true), (1.0, true), (7.0, false), (f64::NAN, true)];
        let histogram = histogram(ScoreKind::Picture, &scores).unwrap();
        let filled = |counts: &[usize]| -> Vec<usize> {
            counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bin, _)| bin).collect()
        };
        assert_eq!(filled(&histogram.positives), [0, 10, 19]);
        assert_eq!(filled(&histogram.negatives), [1, 19]);
        assert_eq!(histogram.left_out, 1);
        assert_eq!(super::histogram(ScoreKind::Raw, &[]), None);
        assert_eq!(super::histogram(ScoreKind::Debiased, &[(-1.0, false)]).unwrap().negatives[0], 1);
    }

    proptest! {
        #[test]
        fn every_score_is_in_one_bar_and_the_area_is_that_of_all_pairs(
            scores in prop::collection::vec(((-15_i8..15).prop_map(|tenth| f64::from(tenth) / 10.0), any::<bool>()), 1..80),
        ) {
            let histogram = histogram(ScoreKind::Debiased, &scores).unwrap();
            let all: usize = histogram.positives.iter().chain(&histogram.negatives).sum();
            prop_assert_eq!(all, scores.len());
            let (mut pairs, mut won) = (0.0, 0.0);
            for (high, _) in scores.iter().filter(|(_, positive)| *positive) {
                for (low, _) in scores.iter().filter(|(_, positive)| !*positive) {
                    pairs += 1.0;
                    won += if high > low { 1.0 } else if high < low { 0.0 } else { 0.5 };
                }
            }
            prop_assert_eq!(histogram.area.is_none(), pairs == 0.0);
            if let Some(area) = histogram.area {
                prop_assert!((area - won / pairs).abs() < 1e-9);
            }
        }
    }
}
