//! How sure a recall is that was counted: exact binomial bounds (Clopper and Pearson, Biometrika 26, 1934), one-sided.

/// The logarithm of a binomial coefficient.
fn ln_choose(n: u64, k: u64) -> f64 {
    (1..=k).map(|i| (((n - k + i) as f64) / (i as f64)).ln()).sum()
}

/// Probability of at most `misses` misses in `count` trials that each miss with probability `rate`.
fn at_most(misses: u64, count: u64, rate: f64) -> f64 {
    if misses >= count || rate <= 0.0 {
        return 1.0;
    }
    if rate >= 1.0 {
        return 0.0;
    }
    let term =
        |k: u64| (ln_choose(count, k) + k as f64 * rate.ln() + (count - k) as f64 * (-rate).ln_1p()).exp();
    (0..=misses).map(term).sum::<f64>().min(1.0)
}

/// The recall, 0 to 1, that is not undercut with this `confidence` (0 to 1, exclusive) when `misses` of `count` unsafe
/// pictures were missed. 0 for no pictures.
pub fn recall_lower_bound(misses: u64, count: u64, confidence: f64) -> f64 {
    if count == 0 || misses >= count {
        return 0.0;
    }
    // The rate of misses at which so few would be seen with the remaining probability only; the probability falls with it.
    let (mut low, mut high) = (misses as f64 / count as f64, 1.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at_most(misses, count, middle) > 1.0 - confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    1.0 - high
}

/// The most misses among `count` unsafe pictures for which the recall is at least `recall` with this `confidence`; none if
/// even no miss would show too little.
pub fn misses_allowed(count: u64, recall: f64, confidence: f64) -> Option<u64> {
    let enough = |misses: u64| recall_lower_bound(misses, count, confidence) >= recall;
    if !enough(0) {
        return None;
    }
    // Never more than the share itself.
    let (mut good, mut bad) = (0, ((1.0 - recall) * count as f64).ceil() as u64 + 1);
    while bad - good > 1 {
        let middle = u64::midpoint(good, bad);
        if enough(middle) { good = middle } else { bad = middle }
    }
    Some(good)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // The roots of the binomial distribution function in exact fractions.
        for (misses, count, confidence, expected) in [
            (0, 299, 0.95, 0.990_030_8),
            (0, 298, 0.95, 0.989_997_5),
            (1, 473, 0.95, 0.990_010_3),
            (12, 2000, 0.95, 0.990_296_8),
            (5, 10, 0.975, 0.187_086_0),
        ] {
            let bound = recall_lower_bound(misses, count, confidence);
            assert!((bound - expected).abs() < 2e-6, "{misses} of {count}: {bound}");
        }
        assert_eq!(misses_allowed(298, 0.99, 0.95), None);
        assert_eq!(misses_allowed(299, 0.99, 0.95), Some(0));
        assert_eq!(misses_allowed(473, 0.99, 0.95), Some(1));
        assert_eq!((recall_lower_bound(0, 0, 0.95), recall_lower_bound(3, 3, 0.95)), (0.0, 0.0));
    }

    proptest! {
        #[test]
        fn more_misses_and_more_confidence_bound_less(misses in 0u64..20, count in 21u64..2000, confidence in 0.5f64..0.99) {
            let bound = recall_lower_bound(misses, count, confidence);
            prop_assert!(bound <= 1.0 - misses as f64 / count as f64);
            prop_assert!(recall_lower_bound(misses + 1, count, confidence) < bound);
            prop_assert!(recall_lower_bound(misses, count, confidence + 0.005) < bound);
            prop_assert!(recall_lower_bound(misses, count + 1, confidence) > bound);
        }
    }
}
