//! How work is divided between threads.

use std::ops::Range;

use candle_core::Device;
use rayon::prelude::*;

/// Operations that are done before another thread has been told of them.
const SMALL: usize = 1 << 20;
/// Rows of one task: the intermediate results of so many stay in a core's own cache.
const MOST_ROWS: usize = 64;
/// Below so many rows of one task, a weight costs more to fetch than to use.
const FEWEST_ROWS: usize = 8;

/// Runs `work` on a thread of the current pool if it computes on the CPU, so that its parts are divided without being
/// handed over first.
pub fn on_all_cores<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    // A scope runs on the pool of the calling thread, or else on the global one.
    if device.is_cpu() { rayon::scope(|_| work()) } else { work() }
}

/// Threads that `flop` operations are divided between.
pub(super) fn threads(flop: usize) -> usize {
    let threads = rayon::current_num_threads();
    if threads > 1 && flop > SMALL { threads } else { 1 }
}

/// Whether `rows` rows give enough tasks to that many threads.
pub(super) fn enough_rows(rows: usize, threads: usize) -> bool {
    threads == 1 || rows >= threads * FEWEST_ROWS / 2
}

/// Rows of one task if `rows` rows are divided between that many threads.
pub(super) fn rows_per_task(rows: usize, threads: usize) -> usize {
    // As many tasks for each thread as for any other.
    let turns = rows.div_ceil(threads * MOST_ROWS).max(1);
    rows.div_ceil(threads * turns).max(FEWEST_ROWS)
}

/// Calls `work(rows, out)` for blocks of rows, `out` being the block's part of the result, `width` values a row.
pub(super) fn by_rows(
    rows: usize,
    width: usize,
    threads: usize,
    out: &mut [f32],
    work: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    if rows == 0 || width == 0 {
        return;
    }
    let step = rows_per_task(rows, threads);
    let run = |(index, out): (usize, &mut [f32])| work(index * step..(index * step + step).min(rows), out);
    if threads == 1 {
        out.chunks_mut(step * width).enumerate().for_each(run);
    } else {
        out.par_chunks_mut(step * width).enumerate().for_each(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_task() {
        for rows in [1, 7, 8, 64, 65, 256, 257, 3601] {
            for threads in [1, 2, 3, 8, 64] {
                let mut out = vec![0f32; rows * 3];
                by_rows(rows, 3, threads, &mut out, |range, out| {
                    assert_eq!(out.len(), range.len() * 3);
                    for (row, out) in range.zip(out.chunks_exact_mut(3)) {
                        out.iter_mut().for_each(|value| *value += row as f32);
                    }
                });
                assert!(out.chunks_exact(3).enumerate().all(|(row, out)| out == [row as f32; 3]));
                assert!(rows_per_task(rows, threads) <= MOST_ROWS.max(FEWEST_ROWS));
            }
        }
    }
}
