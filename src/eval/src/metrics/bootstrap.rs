//! Confidence intervals by the percentile bootstrap (Efron 1979): the figure of the same number of rows drawn with
//! replacement, many times. Rows that depend on each other, such as those of a pair, are drawn together.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Confusion;

/// The lower and the upper end of an interval that holds the figure with 95 %.
pub type Interval = [f64; 2];

/// How often is drawn, and from which seed: the same seed gives the same intervals on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// How many times all rows are drawn; 0 for no intervals.
    pub resamples: usize,
    /// Where the drawing starts.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 1 }
    }
}

impl Bootstrap {
    /// The 95 % interval of each of `measures` over `clusters`, the counts of rows that are drawn together; `None`
    /// without resamples or clusters.
    pub fn intervals<const N: usize>(
        self,
        clusters: &[Confusion],
        measures: [fn(&Confusion) -> f64; N],
    ) -> Option<[Interval; N]> {
        self.drawn(clusters, |sum, cluster| sum.merge(*cluster), measures)
    }

    /// The 95 % interval of each of `measures` of the first counts less that of the second. Each pair of counts is of
    /// the same rows, and both are drawn together (the paired bootstrap): what is hard for both methods widens no
    /// interval. `None` without resamples or clusters.
    pub fn differences<const N: usize>(
        self,
        clusters: &[(Confusion, Confusion)],
        measures: [fn(&Confusion) -> f64; N],
    ) -> Option<[Interval; N]> {
        let less = |measure: fn(&Confusion) -> f64| {
            move |(first, second): &(Confusion, Confusion)| measure(first) - measure(second)
        };
        let merge = |sum: &mut (Confusion, Confusion), cluster: &(Confusion, Confusion)| {
            sum.0.merge(cluster.0);
            sum.1.merge(cluster.1);
        };
        self.drawn(clusters, merge, measures.map(less))
    }

    fn drawn<C: Default, F: Fn(&C) -> f64, const N: usize>(
        self,
        clusters: &[C],
        merge: impl Fn(&mut C, &C),
        figures: [F; N],
    ) -> Option<[Interval; N]> {
        if self.resamples == 0 || clusters.is_empty() {
            return None;
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(self.resamples));
        for _ in 0..self.resamples {
            let mut sum = C::default();
            for _ in 0..clusters.len() {
                // Of 32 bits, so that a machine's word size does not change what is drawn.
                let index = random.random_range(0..u32::try_from(clusters.len()).unwrap_or(u32::MAX));
                merge(&mut sum, &clusters[index as usize]);
            }
            for (values, figure) in drawn.iter_mut().zip(&figures) {
                values.push(figure(&sum));
            }
        }
        Some(drawn.map(|mut values| {
            values.sort_by(f64::total_cmp);
            [percentile(&values, 0.025), percentile(&values, 0.975)]
        }))
    }
}

/// The value below which `share` of the sorted `values` lie, interpolated between the two nearest.
fn percentile(values: &[f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rows(right: usize, wrong: usize) -> Vec<Confusion> {
        let row = |said| {
            let mut row = Confusion::default();
            row.add(said, true);
            row
        };
        std::iter::repeat_n(row(true), right).chain(std::iter::repeat_n(row(false), wrong)).collect()
    }

    #[test]
    fn the_interval_is_that_of_the_binomial() {
        let bootstrap = Bootstrap { resamples: 4000, seed: 9 };
        let [[low, high]] = bootstrap.intervals(&rows(80, 20), [Confusion::recall]).unwrap();
        // 0.8 -+ 1.96 sqrt(0.8 * 0.2 / 100) = 0.722 and 0.878.
        assert!((low - 0.72).abs() < 0.015 && (high - 0.88).abs() < 0.015, "{low} {high}");
        assert_eq!(bootstrap.intervals(&rows(80, 20), [Confusion::recall]), Some([[low, high]]));
        assert_eq!(bootstrap.intervals(&rows(7, 0), [Confusion::recall]), Some([[1.0, 1.0]]));
    }

    #[test]
    fn rows_that_are_drawn_together_say_less() {
        let bootstrap = Bootstrap::default();
        let alone = rows(50, 50);
        let together: Vec<Confusion> = [true, false]
            .into_iter()
            .flat_map(|right| {
                let mut ten = Confusion::default();
                (0..10).for_each(|_| ten.add(right, true));
                std::iter::repeat_n(ten, 5)
            })
            .collect();
        let width = |clusters: &[Confusion]| {
            let [[low, high]] = bootstrap.intervals(clusters, [Confusion::recall]).unwrap();
            high - low
        };
        assert!(width(&together) > 2.0 * width(&alone));
    }

    #[test]
    fn the_difference_of_two_methods_is_that_of_matched_pairs() {
        let bootstrap = Bootstrap { resamples: 4000, seed: 5 };
        // Of 100 rows both find 60 and both miss 20; the first alone finds 15, the second alone 5.
        let row = |first: bool, second: bool| {
            let count = |said: bool| rows(usize::from(said), usize::from(!said))[0];
            (count(first), count(second))
        };
        let groups =
            [(60, row(true, true)), (20, row(false, false)), (15, row(true, false)), (5, row(false, true))];
        let pairs: Vec<_> =
            groups.into_iter().flat_map(|(count, pair)| std::iter::repeat_n(pair, count)).collect();
        let [[low, high]] = bootstrap.differences(&pairs, [Confusion::recall]).unwrap();
        // Matched pairs: 0.10 -+ 1.96 sqrt((0.15 + 0.05 - 0.10^2) / 100) = 0.0146 and 0.1854; were the two independent,
        // 0.10 -+ 1.96 sqrt((0.75 * 0.25 + 0.65 * 0.35) / 100) would be as wide as -0.026 to 0.226.
        assert!((low - 0.0146).abs() < 0.012 && (high - 0.1854).abs() < 0.012, "{low} {high}");
        let same: Vec<_> = pairs.iter().map(|(first, _)| (*first, *first)).collect();
        assert_eq!(bootstrap.differences(&same, [Confusion::recall, Confusion::f1]), Some([[0.0; 2]; 2]));
    }

    #[test]
    fn without_resamples_or_rows_there_is_none() {
        assert_eq!(Bootstrap { resamples: 0, seed: 1 }.intervals(&rows(1, 1), [Confusion::f1]), None);
        assert_eq!(Bootstrap::default().intervals(&[], [Confusion::f1]), None);
    }
}
