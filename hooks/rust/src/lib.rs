//! The gate in a generation loop of your own, and ready hooks by name.
//!
//! A loop asks the gate what to do with each picture until it is decided. That is [`until_decided`], which is short enough
//! to copy; a loop that shows previews asks between its steps too, as `examples/regenerate_on_violation.rs` does.
//!
//! A ready hook says what follows from a violation: [`block_on_violation`], [`regenerate_on_violation`],
//! [`redact_on_violation`] and [`shadow`] are each a template for a policy (`hooks/ready/`), which a policy file names with
//! `extends`, and a function that makes a gate of it. [`notify`] tells a webhook of each picture that is kept back.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use cluegate_gate::{JsonlLog, JudgeProvider, MemberOutcome, RequestInfo};
//! use cluegate_hooks::{TENANT, regenerate_on_violation, until_decided};
//! use cluegate_perception::Picture;
//!
//! # type Failed = Box<dyn std::error::Error>;
//! # fn serve(judges: Arc<dyn JudgeProvider>, draw: impl Fn(&str, u64) -> Result<Picture, Failed>) -> Result<(), Failed> {
//! let prompt = "a cat on a beach";
//! let log = Arc::new(JsonlLog::open("decisions.jsonl")?);
//! let gate = regenerate_on_violation::gate("scene", judges, log)?;
//! let mut session = gate.session(RequestInfo::new(TENANT, prompt, 1, 1))?;
//! match until_decided(&mut session, 0, |seed, other| draw(other.unwrap_or(prompt), seed).map_err(|e| e.to_string()))? {
//!     MemberOutcome::Released(picture) => std::fs::write("cat.png", picture.encode_png()?)?,
//!     kept_back => eprintln!("{}", kept_back.decision().message),
//! }
//! # Ok(()) }
//! ```

use std::sync::Arc;

use cluegate_gate::{
    DecisionLog, Gate, GateError, JudgeProvider, MemberOutcome, Policies, PolicyError, Session,
};
use cluegate_perception::Picture;
use thiserror::Error;

pub mod block_on_violation;
pub mod notify;
pub mod redact_on_violation;
pub mod regenerate_on_violation;
pub mod shadow;

/// The tenant of a gate that a ready hook makes.
pub const TENANT: &str = "default";

/// The templates of the ready hooks, by name: texts of policy files.
pub const READY: [(&str, &str); 4] = [
    (block_on_violation::NAME, block_on_violation::TEMPLATE),
    (regenerate_on_violation::NAME, regenerate_on_violation::TEMPLATE),
    (redact_on_violation::NAME, redact_on_violation::TEMPLATE),
    (shadow::NAME, shadow::TEMPLATE),
];

/// A gate could not be made of a ready hook.
#[derive(Debug, Error)]
pub enum HookError {
    /// The constitution's name makes no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The constitution or the judge cannot be used.
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// Draws picture `member` until the gate has decided about it. `draw` makes a picture from a seed and, where the prompt was
/// rewritten, from another prompt than the request's; what it says of a failure completes "the generator failed: ...", and
/// withholds.
///
/// # Errors
/// If the session has no such picture, or it is decided already.
pub fn until_decided(
    session: &mut Session,
    member: usize,
    mut draw: impl FnMut(u64, Option<&str>) -> Result<Picture, String>,
) -> Result<MemberOutcome, GateError> {
    let (mut seed, mut prompt) = (session.first_seed(member), None);
    loop {
        session.start_attempt(member)?;
        let instruction = match draw(seed, prompt.as_deref()) {
            Ok(picture) => session.finished(member, picture)?,
            Err(why) => session.generator_failed(member, &why)?,
        };
        match instruction.into_outcome() {
            Ok(outcome) => return Ok(outcome),
            Err(again) => (seed, prompt) = (again.seed, again.prompt),
        }
    }
}

/// A gate for the one tenant [`TENANT`] under the template `name`, with the rules of `constitution`: one that ships
/// (`scene`, `general`), or a file.
fn gate_of(
    (name, template): (&str, &str),
    constitution: &str,
    judges: Arc<dyn JudgeProvider>,
    log: Arc<dyn DecisionLog>,
) -> Result<Gate, HookError> {
    // A text in JSON is a text in TOML.
    let constitution = serde_json::Value::from(constitution);
    let policy =
        format!("{template}\n[tenant.{TENANT}]\nextends = \"{name}\"\nconstitution = {constitution}\n");
    Ok(Gate::new(&Policies::from_toml(&policy, name)?, judges, log)?)
}

#[cfg(test)]
mod tests;
