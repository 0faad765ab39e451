#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn orders_have_consecutive_seeds_and_fit_the_batch() {
    let due = |member, attempt, seed| Due { member, attempt, seed, avoid: Vec::new() };
    let first: Vec<Due> = (0..5).map(|i| due(i, 1, 7 + i as u64)).collect();
    let sizes = |due: &[Due], batch| orders(due, batch).iter().map(|run| run.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&first, 2), [2, 2, 1]);
    assert_eq!(sizes(&first, 8), [5]);
    // What is drawn again has words of its own to avoid.
    assert_eq!(sizes(&[due(0, 2, 7), due(1, 2, 8)], 8), [1, 1]);
    assert_eq!(sizes(&[due(0, 1, u64::MAX), due(1, 1, 0)], 8), [1, 1]);
}
