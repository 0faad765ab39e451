//! What can go wrong between a host and the gate. A picture that is withheld is no error.

use cluegate_constitution::{ConstitutionError, nearest};
use thiserror::Error;

use crate::LogError;
use crate::policy::{PolicyError, did_you_mean};
use crate::signing::SigningError;

/// A request or a call that the gate refuses. Nothing is released with it.
#[derive(Debug, Error)]
pub enum GateError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A tenant's constitution cannot be used.
    #[error("tenant {tenant}: {source}")]
    Constitution {
        /// The tenant.
        tenant: String,
        /// Why.
        source: Box<ConstitutionError>,
    },
    /// A tenant's constitution file cannot be read.
    #[error(
        "tenant {tenant}: cannot read the constitution {path}: {problem}; expected a shipped name, a file named from the \
         policy's folder, or a name that the store has"
    )]
    ConstitutionFile {
        /// The tenant.
        tenant: String,
        /// The file.
        path: String,
        /// What the system said.
        problem: String,
    },
    /// The thresholds of a tenant's previews cannot be used.
    #[error("tenant {tenant}: the preview thresholds {path} cannot be used: {problem}")]
    PreviewThresholds {
        /// The tenant.
        tenant: String,
        /// The file.
        path: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The judge cannot be prepared for a tenant's constitution.
    #[error("tenant {tenant}: the judge cannot be prepared: {problem}")]
    Prepare {
        /// The tenant.
        tenant: String,
        /// What the judge said.
        problem: String,
    },
    /// Extensions were put beside a judge that has some.
    #[error("the gate has extensions already; a gate takes them once")]
    ExtendedTwice,
    /// Somebody was named to draw parts of pictures anew where somebody does.
    #[error("the gate has somebody who draws parts of pictures anew; a gate takes one")]
    PaintedTwice,
    /// A request of a tenant without a policy.
    #[error("there is no policy for the tenant {tenant:?}{}", did_you_mean(nearest.as_deref()))]
    UnknownTenant {
        /// The tenant of the request.
        tenant: String,
        /// The tenant that is spelled most alike.
        nearest: Option<String>,
    },
    /// A request for more than the policy allows.
    #[error(
        "the request asks for {found} {what}, and the tenant {tenant} may have {allowed}; ask for less, or raise `limits` in the policy"
    )]
    Limit {
        /// The tenant.
        tenant: String,
        /// What is limited.
        what: &'static str,
        /// What the policy allows.
        allowed: u64,
        /// What the request asks for.
        found: u64,
    },
    /// A call about a picture that the request does not have.
    #[error("there is no picture {member}: the request is for {count}, counted from 0")]
    NoSuchMember {
        /// The index in the call.
        member: usize,
        /// Number of pictures in the request.
        count: usize,
    },
    /// A call about a picture whose decision is final.
    #[error(
        "the decision about picture {member} is final ({reason}); whatever is drawn for it now is not judged"
    )]
    AlreadyDecided {
        /// The index in the call.
        member: usize,
        /// Why it was decided so.
        reason: &'static str,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A picture cannot be written as a file.
    #[error("the picture cannot be encoded: {0}")]
    Encode(String),
    /// The file of a released picture cannot be signed.
    #[error(
        "the content credentials that the policy asks for could not be signed, and there is no file without them: {0}"
    )]
    Signing(SigningError),
    /// A policy that wants signed files, where nobody signs.
    #[error(
        "tenant {tenant}: `provenance = \"c2pa\"` wants files with signed content credentials; expected a program that was built \
         with them (`cargo build --release --features c2pa`) and a certificate and a key to sign with ([provenance] in the \
         gateway's configuration, which `generate` takes by --config), got none; with `provenance = \"text\"` files state the \
         same as a text (docs/provenance.md)"
    )]
    NoSigner {
        /// The tenant.
        tenant: String,
    },
}

impl GateError {
    /// A request of `tenant`, where there are policies for `known` only.
    pub(crate) fn unknown_tenant<'a>(tenant: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self::UnknownTenant { tenant: tenant.to_owned(), nearest: nearest(tenant, known).map(str::to_owned) }
    }
}
