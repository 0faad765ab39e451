//! Draws a picture that violates a rule again, with another seed.

use std::sync::Arc;

use cluegate_gate::{DecisionLog, Gate, JudgeProvider};

use crate::{HookError, gate_of};

/// The hook's name, by which a policy extends it.
pub const NAME: &str = "regenerate-on-violation";
/// What it says, as a template of a policy file.
pub const TEMPLATE: &str = include_str!("../../ready/regenerate-on-violation.toml");

/// A gate that does so, for the tenant [`TENANT`](crate::TENANT) under the rules of `constitution`.
///
/// # Errors
/// If there is no such constitution, or the judge cannot be prepared for it.
pub fn gate(
    constitution: &str,
    judges: Arc<dyn JudgeProvider>,
    log: Arc<dyn DecisionLog>,
) -> Result<Gate, HookError> {
    gate_of((NAME, TEMPLATE), constitution, judges, log)
}
