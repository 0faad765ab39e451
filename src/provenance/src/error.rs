//! Why files cannot be signed with what the settings name.

use std::path::PathBuf;

use thiserror::Error;

/// A certificate and a key that cannot be used. Nothing in it quotes the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The program was built without signing.
    #[error(
        "this program was built without content credentials; expected a build with them: `cargo build --release --features c2pa` \
         (docs/provenance.md)"
    )]
    NotBuilt,
    /// A file cannot be read.
    #[error("{what}: expected {expected}, but {} cannot be read: {problem}", path.display())]
    Read {
        /// `certificate` or `key`.
        what: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// A file holds something else.
    #[error("{what}: expected {expected}, but {} holds {found}", path.display())]
    Content {
        /// `certificate` or `key`.
        what: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The certificate is not valid now.
    #[error(
        "certificate: expected one that is valid now, but that of {} in {} {when}; get a new one and name its files",
        subject, path.display()
    )]
    NotValidNow {
        /// Whose it is.
        subject: String,
        /// The file.
        path: PathBuf,
        /// `expired at ...` or `is valid from ...`.
        when: String,
    },
    /// The certificate's key is not of the algorithm.
    #[error(
        "algorithm: {algorithm} signs with {expected}, but the certificate in {} is of {found}; name the algorithm of that key, \
         or another certificate",
        path.display()
    )]
    Algorithm {
        /// The algorithm of the settings.
        algorithm: &'static str,
        /// The keys that it signs with.
        expected: &'static str,
        /// What the certificate has.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error(
        "key: expected the private key of the first certificate in {}, but that in {} belongs to another",
        certificate.display(), key.display()
    )]
    Mismatch {
        /// The certificates.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// They belong together, and are no credentials for files all the same.
    #[error(
        "certificate: expected one that C2PA takes (version 3, not self-signed, with an authority key identifier, the key usage \
         digitalSignature, and an extended key usage such as emailProtection or documentSigning), but with that in {} no picture \
         could be signed: {problem}",
        path.display()
    )]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}
