//! Files of released pictures that state where they come from, in a way that can be checked: the seam at which a signer of
//! content credentials stands. The gate knows none.

use std::sync::Arc;

use bytes::Bytes;
use cluegate_perception::{FileFormat, Picture};
use thiserror::Error;

use crate::policy::{Policies, Provenance};
use crate::record::{ConstitutionRecord, DecisionRecord, Outcome, Reason};
use crate::released::Permit;
use crate::session::Session;
use crate::watchdog::guard;
use crate::{GateError, Stamp};

/// What became of a picture before it came to the gate, as far as its host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A model drew it.
    #[default]
    Drawn,
    /// A model drew it from another picture.
    Reworked,
    /// Whoever asks brought it; where it comes from is not known.
    Brought,
}

/// What a signed file states of the decision about its picture. It names no tenant, nobody who asked, no prompt, and no rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Version of the gate.
    pub version: &'static str,
    /// What the picture was judged by.
    pub constitution: ConstitutionRecord,
    /// The decision's id in the log.
    pub decision_id: String,
    /// When it was taken, RFC 3339 in UTC.
    pub decided_at: String,
    /// Whether regions of the picture were hidden.
    pub redacted: bool,
    /// Where the picture comes from.
    pub origin: Origin,
}

impl Statement {
    /// What there is to state of a decision.
    pub(crate) fn of(decision: &DecisionRecord, origin: Origin) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            constitution: decision.constitution.clone(),
            decision_id: decision.decision_id.clone(),
            decided_at: decision.timestamp.clone(),
            redacted: decision.reason == Reason::Redacted,
            origin,
        }
    }
}

/// A file that could not be signed: why, and what to do. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SigningError(pub String);

/// Signs files of released pictures, for policies with `provenance = "c2pa"`. May panic; has to end by itself.
pub trait Signer: Send + Sync {
    /// The file `file` with `statement` in it and a signature over both. The pixels stay as they are.
    ///
    /// # Errors
    /// If it cannot be signed. The picture is withheld then.
    fn sign(&self, file: &[u8], format: FileFormat, statement: &Statement) -> Result<Vec<u8>, SigningError>;
}

/// What the file of a released picture states.
#[derive(Clone)]
pub(crate) enum Stated {
    /// Nothing.
    Nothing,
    /// A line of text.
    Text(Stamp),
    /// What is signed. Copies of the picture share it.
    Signed(Arc<Signed>),
}

/// A signed file, and what it takes to sign another of the same picture.
pub(crate) struct Signed {
    signer: Arc<dyn Signer>,
    statement: Statement,
    format: FileFormat,
    file: Bytes,
}

impl std::fmt::Debug for Stated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Text(stamp) => f.debug_tuple("Text").field(stamp).finish(),
            Self::Signed(signed) => f.debug_tuple("Signed").field(&signed.statement).finish(),
        }
    }
}

impl Stated {
    /// The one place where the file of a released picture is made.
    pub(crate) fn file(&self, picture: &Picture, format: FileFormat) -> Result<Bytes, GateError> {
        match self {
            Self::Nothing => encode(picture, format),
            Self::Text(stamp) => stamp.on(encode(picture, format)?, format),
            Self::Signed(signed) if signed.format == format => Ok(signed.file.clone()),
            Self::Signed(signed) => {
                sign(&*signed.signer, picture, format, &signed.statement).map_err(GateError::Signing)
            }
        }
    }
}

impl Session {
    /// What the file of the picture of `permit` is to state of `record`. A signed file is signed now, before the decision is
    /// logged: one that cannot be signed was never released.
    pub(crate) fn stated(&self, permit: &Permit, record: &DecisionRecord) -> Result<Stated, SigningError> {
        // Only a picture that a verdict lets out says where it comes from.
        if !matches!(permit.reason(), Reason::Safe | Reason::Allowed | Reason::Redacted) {
            return Ok(Stated::Nothing);
        }
        match self.grounds.policy.provenance {
            Provenance::None => Ok(Stated::Nothing),
            Provenance::Text => Ok(Stated::Text(Stamp::of(record))),
            Provenance::C2pa => {
                let signer =
                    self.services.signer.clone().ok_or_else(|| SigningError(NO_SIGNER.to_owned()))?;
                let statement = Statement::of(record, self.request.origin);
                let format = self.request.file;
                let file = sign(&*signer, permit.picture(), format, &statement)?;
                Ok(Stated::Signed(Arc::new(Signed { signer, statement, format, file })))
            }
        }
    }

    /// The decision about a picture that would have been released, had its file been signed.
    pub(crate) fn unsigned(record: DecisionRecord, error: &SigningError) -> DecisionRecord {
        let message = format!(
            "no rule stands against it, but the content credentials that the policy asks for could not be signed, and without \
             them it is not released; this is no violation: {error}"
        );
        DecisionRecord {
            outcome: Outcome::Withheld,
            reason: Reason::SigningFailure,
            message,
            released_picture: None,
            ..record
        }
    }
}

/// What is missing where nobody signs.
const NO_SIGNER: &str = "nobody signs here";

/// Refuses policies that want signed files where nobody signs.
///
/// # Errors
/// [`GateError::NoSigner`] for the first of them.
pub fn check_signer(policies: &Policies, signer: Option<&Arc<dyn Signer>>) -> Result<(), GateError> {
    if signer.is_some() {
        return Ok(());
    }
    let unsigned = |policy: &&crate::Policy| policy.provenance == Provenance::C2pa;
    let mut all = policies.all().values().flat_map(|tenant| tenant.all()).map(|policy| &**policy);
    match all.find(unsigned) {
        Some(policy) => Err(GateError::NoSigner { tenant: policy.to_string() }),
        None => Ok(()),
    }
}

fn encode(picture: &Picture, format: FileFormat) -> Result<Bytes, GateError> {
    picture.encode(format).map_err(|source| GateError::Encode(source.to_string()))
}

fn sign(
    signer: &dyn Signer,
    picture: &Picture,
    format: FileFormat,
    statement: &Statement,
) -> Result<Bytes, SigningError> {
    let file = encode(picture, format).map_err(|error| SigningError(error.to_string()))?;
    match guard(|| signer.sign(&file, format, statement)) {
        Ok(signed) => signed.map(Bytes::from),
        Err(panic) => Err(SigningError(format!("the signer panicked: {panic}"))),
    }
}
