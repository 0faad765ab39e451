//! Content credentials for pictures that the gate lets out: files signed after the C2PA specification, which state the gate,
//! the constitution and the decision, and which any reader of such files can check.
//!
//! The settings are always here, so that every build reads the same configuration. To sign takes c2pa-rs, a heavy tree of
//! crates, and so a feature, `c2pa`; without it [`open`] refuses every setting and says how to build with it.

mod error;
mod settings;

#[cfg(feature = "c2pa")]
mod credentials;
#[cfg(feature = "c2pa")]
mod manifest;
#[cfg(feature = "c2pa")]
mod signer;
#[cfg(feature = "c2pa")]
mod timestamp;

use std::sync::Arc;

use cluegate_gate::Signer;

pub use error::CredentialError;
#[cfg(feature = "c2pa")]
pub use manifest::{DECISION_LABEL, DECISION_SCHEMA};
pub use settings::{Algorithm, SigningSettings};

/// Who signs, ready to.
pub struct Opened {
    /// Signs files.
    pub signer: Arc<dyn Signer>,
    /// Whose certificate it is.
    pub subject: String,
    /// Until when the certificates are valid: the time at which the first of them expires.
    pub valid_until: String,
}

/// Reads the certificate and the key that `settings` name, checks that they belong together and can be used, and signs a picture
/// of one pixel to try them. Asks no server for anything.
///
/// # Errors
/// What is wrong with them, never quoting the key; [`CredentialError::NotBuilt`] in a build without the feature.
#[cfg(feature = "c2pa")]
pub fn open(settings: &SigningSettings) -> Result<Opened, CredentialError> {
    let (signer, valid) = signer::ContentSigner::open(settings)?;
    Ok(Opened { signer: Arc::new(signer), subject: valid.subject, valid_until: valid.until })
}

/// Refuses `settings`: this build cannot sign.
///
/// # Errors
/// [`CredentialError::NotBuilt`].
#[cfg(not(feature = "c2pa"))]
pub fn open(_settings: &SigningSettings) -> Result<Opened, CredentialError> {
    Err(CredentialError::NotBuilt)
}
