//! One thread per model, where the requests of all callers and tenants meet and are computed together.
//!
//! [`RelevanceWorker`], [`DetectorWorker`] and [`LanguageWorker`] stand in for the model that they own: they implement
//! the same trait, so that the judge does not know of them, and whoever shares one shares the model.
//!
//! ```text
//!  callers                 the model's queue                    the model's thread
//!
//!  news ──┐  permit,   ┌─────────────────────┐  drained  news │▪▪▪▪▪▪│ ─┐ in turn   ┌─────────────────┐
//!  news ──┼──────────▶ │ bounded channel     │ ────────▶ shop │▪     │ ─┼─────────▶ │ one merged call │
//!  shop ──┘  or        └─────────────────────┘           wiki │▪▪    │ ─┘ up to a   └────────┬────────┘
//!    ▲       `Overloaded`                                lanes, one a    batch                │
//!    │       at once                                     tenant                               │
//!    └─────── each caller's own answers, or the error that its own request caused ◀──────────┘
//! ```
//!
//! - **Permit before work.** A request takes a place in the queue before anything is copied for it. Without a free
//!   place it is refused at once. A tenant may fill most of an idle queue but never all of it, and the less the more
//!   tenants there are: see [`AdmissionOptions::per_tenant`]. [`Admission`] offers the same for whole pictures.
//! - **Dynamic batches.** Whatever waits when the model becomes free goes into one call, up to a largest size. Nobody
//!   waits for a batch to fill. Requests about the same picture share one pass.
//! - **Fair.** Tenants take turns, and within one the first to come is the first served: a tenant with a thousand
//!   waiting requests delays the single one of another by one batch at most.
//! - **Deadlines and cancellation.** A caller waits until its deadline and no longer, even for a model that hangs. What
//!   nobody waits for any more is not computed, and an answer in the making leaves its batch.
//! - **Failures stay with their cause.** When a merged call panics, errs, or answers with the wrong number, each of its
//!   requests is computed alone: the innocent get their answers, and the offender its error. A number that is not one
//!   (NaN) is passed on to the caller who asked for it; to refuse it is the judge's part.
//! - **Score while answers are decoded.** The language model's thread alternates between a batch of scores and one
//!   token of every free answer, and answers join and leave between two tokens: see [`LanguageWorker`].
//!
//! There is no async runtime, and no thread besides the one of each model. A batched answer is the model's answer to
//! the merged call, so it equals the single one as far as the model's own batching keeps them equal.

mod admission;
mod batch;
mod decode;
mod detector;
mod distinct;
mod lanes;
mod language;
mod options;
mod pace;
mod queue;
mod relevance;
mod statistics;
mod thread;

pub use admission::{Admission, Permit};
pub use detector::DetectorWorker;
pub use language::LanguageWorker;
pub use options::{AdmissionOptions, LanguageOptions, WorkerOptions};
pub use relevance::RelevanceWorker;
pub use statistics::{LanguageStatistics, Statistics};
