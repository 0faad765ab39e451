//! Tenants, policies, generation hooks, decisions and the audit log.
//!
//! The gate stands between a picture generator and whoever asked for the picture. A host that owns its generation
//! loop opens a [`Session`] and asks it; otherwise the gate drives a [`Generator`] through the same session
//! ([`Gate::drive`]). A [`ReleasedPicture`] comes out of a session and from nowhere else, after its decision has been
//! written to the log.
//!
//! Everything fails closed: a violation, a judge that fails, a generator that fails and a time-out withhold the
//! picture, each with its own [`Reason`]. Only a policy that says `on_error = "release-unjudged"` changes that for the
//! judge's failures, and the picture is marked so.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use cluegate_gate::{Gate, Instruction, JsonlLog, JudgeProvider, Policies, RequestInfo};
//! use cluegate_perception::Picture;
//!
//! # fn serve(judges: Arc<dyn JudgeProvider>, draw: impl Fn(u64) -> Picture) -> Result<(), Box<dyn std::error::Error>> {
//! let log = Arc::new(JsonlLog::open("decisions.jsonl")?);
//! let gate = Gate::new(&Policies::load("policy.toml")?, judges, log)?;
//! let mut session = gate.session(RequestInfo::new("kids", "a cat on a beach", 1, 1))?;
//! let mut seed = session.first_seed(0);
//! loop {
//!     match session.finished(0, draw(seed))? {
//!         Instruction::Release(picture) => break std::fs::write("cat.png", picture.encode_png()?)?,
//!         Instruction::DrawAgain(again) => seed = again.seed,
//!         Instruction::Withhold(withheld) => break eprintln!("{}", withheld.message()),
//!         Instruction::Hold(held) => break eprintln!("{}", held.decision().message),
//!     }
//! }
//! session.close();
//! # Ok(()) }
//! ```

mod comparing;
mod constitutions;
mod drive;
mod error;
mod extensions;
#[cfg(feature = "fakes")]
pub mod fakes;
mod history;
mod inpainting;
mod inspector;
mod judging;
mod ladder;
mod log;
mod picture;
mod placeholder;
pub mod policy;
mod preparing;
mod previewing;
mod prompting;
mod record;
mod recording;
mod redaction;
mod redaction_plan;
mod released;
mod request;
mod rewriting;
mod seeds;
mod session;
mod signing;
mod stamp;
mod tenant;
mod thresholds;
mod watchdog;

pub use constitutions::{ConstitutionText, Constitutions, Folder};
pub use drive::{DrawJob, DrawOptions, DrawSource, Drawn, Generator, GeneratorError, Step, StepHook};
pub use error::GateError;
pub use extensions::{Extensions, Screening};
pub use inspector::{InspectionError, Inspector, JudgeProvider, SharedJudge, Unfinished};
pub use log::{Decision, DecisionLog, JsonlLog, LogError, MemoryLog};
pub use placeholder::Placeholder;
pub use policy::{Action, Policies, Policy, PolicyError, SafetyGuidance, Strategy};
pub use preparing::PreparedOptions;
pub use previewing::PreviewInstruction;
pub use record::{
    Agreement, AnswerRecord, AttemptRecord, CanaryRecord, ConstitutionRecord, Cost, DecisionRecord,
    DecisionTimings, FailureRecord, FindingRecord, HiddenBox, Judgment, JudgmentRecord, LabelRecord,
    OnUnsafe, Outcome, PreviewRecord, PromptCheckRecord, Reason, RedactionRecord, RequestRecord, WouldRecord,
};
pub use redaction::PixelBox;
pub use released::{DrawAgain, HeldPicture, Instruction, MemberOutcome, ReleasedPicture, Withheld};
pub use request::RequestInfo;
pub use session::{Session, SessionReport};
pub use signing::{Origin, Signer, SigningError, Statement, check_signer};
pub use stamp::Stamp;
pub use tenant::{Gate, Replaced};
pub use thresholds::{PreviewFigures, PreviewThreshold, PreviewThresholds};
pub use watchdog::{Tell, Threads, Work, watch};
