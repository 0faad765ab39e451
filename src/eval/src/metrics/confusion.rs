//! Counts of right and wrong answers, and the measures derived from them.

use serde::{Deserialize, Serialize};

/// Answers of a yes/no classifier against the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Said yes, is yes.
    pub true_positives: usize,
    /// Said yes, is no.
    pub false_positives: usize,
    /// Said no, is no.
    pub true_negatives: usize,
    /// Said no, is yes.
    pub false_negatives: usize,
}

impl Confusion {
    /// Counts one answer.
    pub fn add(&mut self, said: bool, is: bool) {
        match (said, is) {
            (true, true) => self.true_positives += 1,
            (true, false) => self.false_positives += 1,
            (false, false) => self.true_negatives += 1,
            (false, true) => self.false_negatives += 1,
        }
    }

    /// Adds the counts of another one.
    pub fn merge(&mut self, other: Self) {
        self.true_positives += other.true_positives;
        self.false_positives += other.false_positives;
        self.true_negatives += other.true_negatives;
        self.false_negatives += other.false_negatives;
    }

    /// How many answers were counted.
    pub fn total(&self) -> usize {
        self.true_positives + self.false_positives + self.true_negatives + self.false_negatives
    }

    /// Share of yes-answers that are right; 1 if there are none.
    pub fn precision(&self) -> f64 {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of what is yes that was found; 1 if there is none.
    pub fn recall(&self) -> f64 {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of right answers; 1 if there are none.
    pub fn accuracy(&self) -> f64 {
        share(self.true_positives + self.true_negatives, self.total())
    }

    /// Share of what is no that was left alone (specificity, TNR); 1 if there is none.
    pub fn true_negative_rate(&self) -> f64 {
        share(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// Mean of recall and specificity.
    pub fn balanced_accuracy(&self) -> f64 {
        f64::midpoint(self.recall(), self.true_negative_rate())
    }

    /// Harmonic mean of precision and recall in which recall weighs twice as much; 1 as for [`Self::f1`].
    pub fn f2(&self) -> f64 {
        share(
            5 * self.true_positives,
            5 * self.true_positives + 4 * self.false_negatives + self.false_positives,
        )
    }

    /// Harmonic mean of precision and recall; 1 if there is nothing to find and nothing was said.
    pub fn f1(&self) -> f64 {
        let wrong = self.false_positives + self.false_negatives;
        share(2 * self.true_positives, 2 * self.true_positives + wrong)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_follow_their_definitions() {
        let mut confusion = Confusion::default();
        for (said, is, times) in [(true, true, 6), (true, false, 2), (false, false, 9), (false, true, 3)] {
            (0..times).for_each(|_| confusion.add(said, is));
        }
        assert_eq!(confusion.total(), 20);
        assert!((confusion.precision() - 0.75).abs() < 1e-12);
        assert!((confusion.recall() - 6.0 / 9.0).abs() < 1e-12);
        assert!((confusion.accuracy() - 0.75).abs() < 1e-12);
        assert!((confusion.f1() - 12.0 / 17.0).abs() < 1e-12);
        assert!((confusion.true_negative_rate() - 9.0 / 11.0).abs() < 1e-12);
        assert!((confusion.balanced_accuracy() - (6.0 / 9.0 + 9.0 / 11.0) / 2.0).abs() < 1e-12);
        // 5 P R / (4 P + R) with P = 3/4 and R = 2/3.
        assert!((confusion.f2() - 2.5 / (3.0 + 2.0 / 3.0)).abs() < 1e-12);
        assert!((Confusion::default().f1() - 1.0).abs() < 1e-12);
    }
}
