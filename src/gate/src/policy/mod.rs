//! Policies: per tenant, which constitution judges and what follows from a verdict.
//!
//! The tables of tenants and templates are read from a file or from the rows of a store, merged along `extends`, read into
//! raw types ([`RawPolicy`]), checked, and built into [`Policies`]. Only built policies reach the gate.

mod built;
mod check;
mod entries;
mod explain;
mod glob;
mod keys;
mod policies;
mod raw;
mod regenerate;
mod service;

use std::path::PathBuf;

pub use built::{
    Actions, Canary, ConstitutionSource, Limits, Policy, PreviewSchedule, Redaction, TenantPolicy, Terms,
};
pub use entries::{PieceKind, PolicyPiece};
pub use explain::Explained;
pub use glob::Glob;
pub use keys::{UnknownKey, find_unknown as find_unknown_key};
pub use policies::Policies;
pub use raw::{
    Action, AfterTries, OnError, PlaceholderKind, PreviewJudgment, PreviewPoint, Provenance, RawActions,
    RawClient, RawLimits, RawPolicies, RawPolicy, RawRedaction, RawSetting, RawSeverityActions,
    RawThresholds, RedactedObjects, RedactionMethod,
};
pub use regenerate::{
    Fidelity, PromptCheck, PromptReader, RawPromptCheck, RawRegenerate, SafetyGuidance, Strategy,
};
pub use service::{CanaryDecides, Mode, RawCanary, RawQuota, RawRetention, RetainedPictures};

/// The default policy file, every key with its default and a word on it.
const DEFAULT_TOML: &str = include_str!("../../policies/default.toml");
/// The two tenants of the demonstration.
const DEMO_TOML: &str = include_str!("../../policies/demo.toml");

/// A policy file that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy file {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// The text is not TOML, or a value has the wrong type.
    #[error("{origin}: {problem}")]
    Toml {
        /// Where the text came from.
        origin: String,
        /// What the parser said, with line and column.
        problem: String,
    },
    /// A key that nothing reads.
    #[error("{origin}: unknown key `{path}`{}; known here: {}", did_you_mean(nearest.as_deref()), known.join(", "))]
    UnknownKey {
        /// Where the text came from.
        origin: String,
        /// Dotted path of the key.
        path: String,
        /// The known key that is spelled most alike.
        nearest: Option<String>,
        /// All known keys of the table.
        known: Vec<String>,
    },
    /// A value out of range.
    #[error("{origin}: `{path}` must be {expected}, not {found}")]
    Value {
        /// Where the text came from.
        origin: String,
        /// Dotted path of the key.
        path: String,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Two tables of one name.
    #[error("`{place}` is there twice: in {first}, and in {second}; rename or remove one")]
    Twice {
        /// The table, such as `template.base`.
        place: String,
        /// Where the first came from.
        first: String,
        /// Where the second came from.
        second: String,
    },
    /// A template that there is none of.
    #[error("{origin}: `extends` names the template `{template}`, which is not there{} ({chain})", did_you_mean(nearest.as_deref()))]
    UnknownTemplate {
        /// Where the table came from that names it.
        origin: String,
        /// The tables up to it, each extended by the one before: `tenant.kids -> template.base`.
        chain: String,
        /// The template.
        template: String,
        /// The template that is spelled most alike.
        nearest: Option<String>,
    },
    /// Templates that build on themselves.
    #[error("{origin}: `extends` runs in a circle ({chain}); remove one of them")]
    Cycle {
        /// Where the last table of the chain came from.
        origin: String,
        /// The tables, each extended by the one before.
        chain: String,
    },
    /// More templates one upon the other than are followed.
    #[error("{origin}: `extends` goes over more than {most} tables ({chain})")]
    ChainTooLong {
        /// Where the last table of the chain came from.
        origin: String,
        /// The tables, each extended by the one before.
        chain: String,
        /// Most tables of a chain.
        most: usize,
    },
    /// A file without tenants.
    #[error("{origin}: no tenant; add a table [tenant.NAME]")]
    NoTenant {
        /// Where the text came from.
        origin: String,
    },
    /// A rule that the tenant's constitution does not have.
    #[error("tenant {tenant}: `{key}` names the rule `{rule}`, which the constitution {constitution} does not have{}", did_you_mean(nearest.as_deref()))]
    UnknownRule {
        /// The tenant.
        tenant: String,
        /// The key that names it.
        key: &'static str,
        /// The rule named in the policy.
        rule: String,
        /// The constitution's name.
        constitution: String,
        /// The rule that is spelled most alike.
        nearest: Option<String>,
    },
}

/// A half sentence that names the nearest known word, or nothing.
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |word| format!(" (did you mean `{word}`?)"))
}

impl Policies {
    /// The text of the shipped default policy: one tenant, `default`, with every key at its default.
    pub fn with_defaults_toml() -> &'static str {
        DEFAULT_TOML
    }

    /// The text of the demonstration's policy.
    pub fn demo_toml() -> &'static str {
        DEMO_TOML
    }

    /// The shipped default policy: one tenant, `default`.
    ///
    /// # Errors
    /// Never for the shipped file, which the tests read.
    pub fn shipped_default() -> Result<Self, PolicyError> {
        Self::from_toml(DEFAULT_TOML, "the shipped default policy")
    }

    /// The demonstration's policy: the tenants `kids` and `newsroom`.
    ///
    /// # Errors
    /// Never for the shipped file, which the tests read.
    pub fn demo() -> Result<Self, PolicyError> {
        Self::from_toml(DEMO_TOML, "the demonstration's policy")
    }

    /// JSON Schema of the policy file, as published in `schema/policy.schema.json`.
    pub fn json_schema() -> serde_json::Value {
        entries::schema_of_file().clone()
    }
}

#[cfg(test)]
mod tests;
