//! What a list of times is summed up by.

/// Times of one thing, in milliseconds, sorted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    /// The times in any order.
    pub(crate) fn new(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        Self(milliseconds)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The times, from the smallest on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().copied()
    }

    /// The smallest; NaN if there is none.
    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest; NaN if there is none.
    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The mean of the two in the middle, or the one there; NaN if there is none.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match (self.0.get(middle), self.0.len() % 2) {
            (Some(upper), 0) => (self.0[middle - 1] + upper) / 2.0,
            (Some(only), _) => *only,
            (None, _) => f64::NAN,
        }
    }

    /// The smallest time that `share` (0 to 1) of all do not exceed (nearest rank); NaN if there is none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A share of a length.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    /// The mean; NaN if there is none.
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
}

impl FromIterator<f64> for Times {
    fn from_iter<I: IntoIterator<Item = f64>>(milliseconds: I) -> Self {
        Self::new(milliseconds.into_iter().collect())
    }
}

/// The slope of the straight line nearest to the points (least squares); NaN for fewer than two different places.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (mut both, mut square) = (0.0, 0.0);
    for (x, y) in points {
        both += (x - mean_x) * (y - mean_y);
        square += (x - mean_x).powi(2);
    }
    both / square
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn measures_follow_their_definitions() {
        let times = Times::new(vec![40.0, 10.0, 30.0, 20.0]);
        assert_eq!(times.len(), 4);
        assert!(close(times.min(), 10.0) && close(times.max(), 40.0));
        assert!(close(times.median(), 25.0) && close(times.mean(), 25.0));
        assert!(close(Times::new(vec![3.0, 1.0, 2.0]).median(), 2.0));
        let hundred: Times = (1..=100).map(f64::from).collect();
        assert!(close(hundred.percentile(0.5), 50.0));
        assert!(close(hundred.percentile(0.99), 99.0));
        assert!(close(hundred.percentile(0.0), 1.0) && close(hundred.percentile(1.0), 100.0));
        // With few times the highest percentile is the longest of them, never one less.
        assert!(close(times.percentile(0.99), 40.0));
    }

    #[test]
    fn nothing_measured_is_no_number() {
        let none = Times::default();
        for value in [none.min(), none.max(), none.median(), none.percentile(0.99), none.mean()] {
            assert!(value.is_nan());
        }
        assert!(slope(&[(1.0, 5.0)]).is_nan());
    }

    #[test]
    fn slope_is_that_of_the_nearest_line() {
        assert!(close(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0));
        assert!(close(slope(&[(0.0, 7.0), (1.0, 7.0), (4.0, 7.0)]), 0.0));
        assert!(close(slope(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0), (3.0, 1.0)]), 0.2));
    }
}
