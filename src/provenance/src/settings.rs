//! What files are signed with.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest wait for a timestamp in milliseconds: a picture waits for it.
const MAX_TIMEOUT_MS: u64 = 60_000;

/// What files are signed with, for policies with `provenance = "c2pa"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningSettings {
    /// Certificate chain in PEM: the signer's own first, then each one's issuer. The root may be left out.
    pub certificate: PathBuf,
    /// Its private key in PEM (PKCS#8, not encrypted).
    pub key: PathBuf,
    /// How to sign; has to fit the key.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// A timestamp authority (RFC 3161) that is asked for a timestamp of every signature, so that it counts after the
    /// certificate has expired; http or https. A picture for which there is none is withheld. Without it, nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_url: Option<String>,
    /// Longest wait for a timestamp, in milliseconds. 1 to 60000.
    #[serde(default = "default_timeout_ms")]
    pub timestamp_timeout_ms: u64,
}

const fn default_timeout_ms() -> u64 {
    5000
}

/// The algorithms of the C2PA specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// Ed25519.
    Ed25519,
}

impl Algorithm {
    /// Name as in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "es256",
            Self::Es384 => "es384",
            Self::Es512 => "es512",
            Self::Ps256 => "ps256",
            Self::Ps384 => "ps384",
            Self::Ps512 => "ps512",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The keys that it signs with, for people.
    #[cfg(feature = "c2pa")]
    pub(crate) fn keys(self) -> &'static str {
        match self {
            Self::Es256 => "a P-256 key",
            Self::Es384 => "a P-384 key",
            Self::Es512 => "a P-521 key",
            Self::Ps256 | Self::Ps384 | Self::Ps512 => "an RSA key of 2048 bits or more",
            Self::Ed25519 => "an Ed25519 key",
        }
    }
}

impl SigningSettings {
    /// The settings with their paths in `folder`.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Self {
        Self { certificate: folder.join(self.certificate), key: folder.join(self.key), ..self }
    }

    /// Looks at the values, and not at the files.
    ///
    /// # Errors
    /// Key, what was expected, and what came.
    pub fn check(&self) -> Result<(), (&'static str, &'static str, String)> {
        for (key, file) in [("certificate", &self.certificate), ("key", &self.key)] {
            // Not to be quoted: it may be the key.
            if file.to_string_lossy().contains("-----BEGIN") {
                return Err((key, "the name of a file in PEM", "the text of one".to_owned()));
            }
        }
        let web = |url: &&String| url.starts_with("https://") || url.starts_with("http://");
        if let Some(url) = self.timestamp_url.as_ref().filter(|url| !web(url)) {
            return Err((
                "timestamp_url",
                "an address that begins with http:// or https://",
                format!("{url:?}"),
            ));
        }
        match self.timestamp_timeout_ms {
            1..=MAX_TIMEOUT_MS => Ok(()),
            other => Err(("timestamp_timeout_ms", "from 1 to 60000", other.to_string())),
        }
    }
}
