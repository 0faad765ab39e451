//! The CLUE method: a constitution and a picture in, a verdict with evidence out (Wang et al., "MLLM-as-a-Judge for
//! Image Safety without Human Labeling", arXiv 2501.00192).
//!
//! The judge is a plan and its execution. [`Judge::prepare`] computes once what depends on the constitution only.
//! [`Judge::inspect`] scans for relevant rules, looks for the central objects, and asks every first question of every
//! relevant chain in one batch. A pure function then folds the known answers along each chain; where an answer is
//! missing it says so, the missing ones of all rules are asked in one batch, and the fold starts again. So the cost is
//! that of few large batches, and the result that of Algorithm 1 taken rule by rule, question by question: the tests
//! hold this crate against a second, literal form of it.
//!
//! [`Judge::glance`] is a cheaper look at a picture that is still being drawn, whose report releases nothing.
//!
//! What does not change is not computed twice: `M(None, c)` is kept in a [`Cache`](cluegate_cache::Cache), on disk if
//! the judge is given one that is ([`Judge::with_cache`]), and the reports of pictures judged before can be kept in
//! memory ([`Judge::with_verdicts`]).
//!
//! Nothing here turns a failure into a verdict: see [`JudgeError`].

mod error;
mod evidence;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
mod fold;
mod glance;
mod inspect;
mod judge;
mod options;
mod pictures;
mod prepared;
mod priors;
mod rationale;
mod reading;
mod refold;
mod regions;
mod relevance;
mod report;
mod templates;
#[cfg(test)]
mod tests;
mod verdicts;
mod views;

pub use error::{JudgeError, JudgeErrorKind};
pub use evidence::{
    DecidedBy, FoundRegion, Outcome, PreconditionEvidence, RuleEvidence, StatementEvidence, Verdict,
};
pub use glance::Glance;
pub use judge::Judge;
pub use options::{InspectOptions, JudgeOptions, Stages};
pub use pictures::{parts, views};
pub use prepared::Prepared;
pub use reading::PromptReport;
pub use refold::{Refolded, refold};
pub use report::{CompleteVerdict, Models, Passes, PerStage, PrefilterEvidence, Report, Stage, Timings};
pub use templates::{TemplateError, Templates};
