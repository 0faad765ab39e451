//! The thread of a model, and what stands between it and the model's panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use cluegate_perception::{PerceptionError, PerceptionErrorKind, Result};

use crate::statistics::Counters;

/// A running thread, which is waited for when this is dropped. Its owner has to make it end before, so it is declared
/// after the ends of the channels that the thread reads.
#[derive(Debug)]
pub(crate) struct Thread(Option<JoinHandle<()>>);

impl Thread {
    /// # Errors
    /// `Backend` if the system gives no thread.
    pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Self> {
        let started = Builder::new().name(format!("cluegate-{name}")).spawn(work);
        let thread = started.map_err(|source| {
            backend(format!(
                "the system gives no thread for the {name}: {source}; allow the process more threads"
            ))
        })?;
        Ok(Self(Some(thread)))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // Whoever still waited for a thread that panicked has had an error already.
            let _ = thread.join();
        }
    }
}

/// Runs `work` of the model `name`; a panic is an error of kind `Backend`.
pub(crate) fn guard<T>(name: &str, counters: &Counters, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic left half done belongs to the model: a lock that it poisoned is an error of the next call.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        counters.panics.increment();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Err(backend(format!("the {name} panicked: {}", text.unwrap_or("it left no message"))))
    })
}

/// Refuses answers of the wrong number.
pub(crate) fn check_count(name: &str, items: &str, expected: usize, came: usize) -> Result<()> {
    if expected == came {
        return Ok(());
    }
    Err(wrong(name, format_args!("expected {expected} {items}, got {came}")))
}

/// The error of a model that breaks the rules of its trait.
pub(crate) fn wrong(name: &str, what: impl std::fmt::Display) -> PerceptionError {
    backend(format!("the {name}: {what}; the model implementation is wrong"))
}

/// An error of kind `Backend`.
pub(crate) fn backend(message: String) -> PerceptionError {
    PerceptionError::new(PerceptionErrorKind::Backend, message)
}
