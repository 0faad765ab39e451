//! `M(None, c)`: what the model answers without a picture. It depends on the model, the statement template and the
//! statement only, so it is asked once and kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cluegate_perception::Fingerprint;

/// What a prior depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PriorKey {
    pub(crate) model: Fingerprint,
    /// Hash of the statement template.
    pub(crate) template: String,
    pub(crate) statement: String,
}

/// The priors known so far, in memory. A cache on disk belongs here, behind these two methods: the key is already
/// what must name its entries.
#[derive(Debug, Default)]
pub(crate) struct Priors(Mutex<HashMap<PriorKey, f64>>);

impl Priors {
    pub(crate) fn get(&self, key: &PriorKey) -> Option<f64> {
        // A map of plain numbers is never left half-written, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    pub(crate) fn insert(&self, key: PriorKey, prior: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, prior);
    }
}
