//! Independent work side by side on the cores of the machine.
//!
//! Dividing one small matrix product between threads gains little, because they wait for each other after every
//! operation; giving each thread a whole piece of work, of which it computes everything, gains nearly all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads that each compute alone: what runs on one of them is not divided further.
#[derive(Debug)]
pub struct Cores {
    pools: Vec<ThreadPool>,
}

/// Everything in turn, on the caller's thread, where operations are divided as usual.
pub(crate) static IN_TURN: Cores = Cores { pools: Vec::new() };

impl Cores {
    /// As many as rayon has threads, for a model on the CPU; in turn for any other device.
    pub(crate) fn new(device: &Device) -> Self {
        Self::of(if device.is_cpu() { None } else { Some(1) })
    }

    /// So many; as many as rayon has threads, where no number is named. One works in turn, and divides each operation.
    pub fn of(count: Option<usize>) -> Self {
        let count = count.unwrap_or_else(rayon::current_num_threads);
        if count < 2 {
            return Self { pools: Vec::new() };
        }
        let build = |_| ThreadPoolBuilder::new().num_threads(1).build().ok();
        // A system that grants no more threads gets its answers in turn.
        Self { pools: (0..count).map(build).collect::<Option<Vec<_>>>().unwrap_or_default() }
    }

    /// How many pieces of work run at a time.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// `work` of every item, in the order of the items. Must not be called from within `work`: the inner call would
    /// wait for the thread that it runs on.
    pub fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        if self.pools.len() < 2 || items.len() < 2 {
            return items.iter().map(work).collect();
        }
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(items.len()));
        let take_all = || {
            while let Some((index, item)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                items.get(index).map(|item| (index, item))
            } {
                let result = work(item);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
            }
        };
        std::thread::scope(|scope| {
            for pool in self.pools.iter().take(items.len()) {
                scope.spawn(|| pool.install(take_all));
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let cores = Cores {
            pools: (0..3).map(|_| ThreadPoolBuilder::new().num_threads(1).build().unwrap()).collect(),
        };
        let items: Vec<u64> = (0..50).collect();
        let work = |item: &u64| {
            assert_eq!(rayon::current_num_threads(), 1);
            std::thread::sleep(std::time::Duration::from_micros(100 * (item % 7)));
            item * item
        };
        let expected: Vec<u64> = items.iter().map(|item| item * item).collect();
        assert_eq!(cores.map(&items, work), expected);
        assert_eq!(IN_TURN.map(&items, |item| item * item), expected);
        assert_eq!([Some(0), Some(1), Some(5)].map(|count| Cores::of(count).count()), [1, 1, 5]);
    }
}
