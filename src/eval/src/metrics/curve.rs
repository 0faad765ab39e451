//! What a threshold costs: which share of the positives lies above it, and which share of everything.

use serde::Serialize;

/// Most points of a curve: as many as a plot shows.
const POINTS: usize = 101;

/// What lies above a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The threshold; what equals it lies above.
    pub threshold: f64,
    /// Share of the positives above it, 0 to 1: recall.
    pub kept: f64,
    /// Share of everything below it, 0 to 1: what is filtered.
    pub filtered: f64,
    /// Share of positives among what lies above it, 0 to 1: precision; 1 if nothing does.
    pub precision: f64,
}

impl CurvePoint {
    /// F1 of calling positive what lies above: the harmonic mean of precision and recall, 0 where both are.
    pub fn f1(&self) -> f64 {
        let sum = self.precision + self.kept;
        if sum > 0.0 { 2.0 * self.precision * self.kept / sum } else { 0.0 }
    }
}

/// The point of the highest F1, the first of them; `None` for no points.
pub fn best(points: &[CurvePoint]) -> Option<CurvePoint> {
    points.iter().copied().reduce(|best, point| if point.f1() > best.f1() { point } else { best })
}

/// The curve over `scores`, each with whether it is a positive: thresholds at evenly spaced ranks, rising. Empty without
/// a positive. A score that is no number counts as below every threshold.
pub fn curve(scores: &[(f64, bool)]) -> Vec<CurvePoint> {
    let positives = scores.iter().filter(|(_, positive)| *positive).count();
    let mut thresholds: Vec<f64> = scores.iter().map(|(score, _)| *score).filter(|s| !s.is_nan()).collect();
    thresholds.sort_by(f64::total_cmp);
    thresholds.dedup();
    if positives == 0 || thresholds.is_empty() {
        return Vec::new();
    }
    let last = thresholds.len() - 1;
    let count = thresholds.len().min(POINTS);
    let point = |index: usize| {
        let threshold = thresholds[if count == 1 { 0 } else { index * last / (count - 1) }];
        let above = scores.iter().filter(|(score, _)| *score >= threshold);
        let (all, hits) = above
            .fold((0_usize, 0_usize), |(all, hits), (_, positive)| (all + 1, hits + usize::from(*positive)));
        CurvePoint {
            threshold,
            kept: hits as f64 / positives as f64,
            filtered: 1.0 - all as f64 / scores.len() as f64,
            precision: if all == 0 { 1.0 } else { hits as f64 / all as f64 },
        }
    };
    (0..count).map(point).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_falls_and_what_is_filtered_rises(
            scores in prop::collection::vec((-2.0_f64..2.0, any::<bool>()), 1..300),
        ) {
            let points = curve(&scores);
            prop_assert_eq!(points.is_empty(), !scores.iter().any(|(_, positive)| *positive));
            for two in points.windows(2) {
                prop_assert!(two[0].threshold < two[1].threshold);
                prop_assert!(two[0].kept >= two[1].kept && two[0].filtered <= two[1].filtered);
            }
            for point in &points {
                prop_assert!([point.kept, point.filtered, point.precision, point.f1()]
                    .iter().all(|share| (0.0..=1.0).contains(share)));
                // Counted anew, one score at a time.
                let hits = scores.iter().filter(|(score, is)| *is && *score >= point.threshold).count();
                let all = scores.iter().filter(|(_, is)| *is).count();
                prop_assert!((point.kept - hits as f64 / all as f64).abs() < 1e-12);
            }
            if let Some(best) = best(&points) {
                prop_assert!(points.iter().all(|point| point.f1() <= best.f1()));
            }
        }
    }

    #[test]
    fn a_curve_starts_with_all_and_ends_with_the_highest() {
        let scores = [(0.1, false), (0.4, true), (0.4, false), (0.9, true), (f64::NAN, false)];
        let points = curve(&scores);
        let read: Vec<_> = points.iter().map(|p| (p.threshold, p.kept, p.filtered, p.precision)).collect();
        assert_eq!(read[0], (0.1, 1.0, 1.0 - 4.0 / 5.0, 0.5));
        assert_eq!(read[1], (0.4, 1.0, 1.0 - 3.0 / 5.0, 2.0 / 3.0));
        assert_eq!(read[2], (0.9, 0.5, 1.0 - 1.0 / 5.0, 1.0));
        assert!(curve(&[(0.3, false)]).is_empty() && curve(&[]).is_empty());
    }

    #[test]
    fn many_scores_give_as_many_points_as_a_plot_shows() {
        let scores: Vec<(f64, bool)> = (0..5000).map(|i| (f64::from(i), i % 3 == 0)).collect();
        let points = curve(&scores);
        assert_eq!(points.len(), POINTS);
        assert!((points[0].threshold, points[POINTS - 1].threshold) == (0.0, 4999.0));
        assert!(points.windows(2).all(|pair| pair[0].kept >= pair[1].kept));
    }
}
