//! What the store keeps. Policies and constitutions are texts here; what they mean is the gate's business.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// Longest name of anything, and longest author, in bytes.
pub const MAX_NAME_BYTES: usize = 200;
/// Longest policy, and longest constitution, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Longest note on a key, in bytes.
pub const MAX_NOTE_BYTES: usize = 1000;

/// What the store keeps by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A policy that others extend.
    Template,
    /// A policy of somebody.
    Tenant,
    /// Rules.
    Constitution,
    /// What a client shows.
    Key,
}

impl Kind {
    /// As in the database and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Tenant => "tenant",
            Self::Constitution => "constitution",
            Self::Key => "key",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::Template, Self::Tenant, Self::Constitution, Self::Key]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| StoreError::Unknown { what: "kind", value: text.to_owned() })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy that tenants and other templates extend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// The keys of its table in a policy file, as TOML.
    pub policy: String,
    /// Counts its changes, from 1.
    pub version: i64,
    /// Who changed it last.
    pub changed_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub changed_ms: i64,
}

/// What the policy of a tenant or a template said from one change to the next; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// The store's number after the change; 0 for what was there before versions were kept.
    pub generation: i64,
    /// The version of the tenant or the template. It begins anew with one that was removed and added again.
    pub version: i64,
    /// The keys of its table in a policy file, as TOML.
    pub policy: String,
    /// Who changed it.
    pub changed_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub changed_ms: i64,
}

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantState {
    /// Yes.
    Active,
    /// Not now; everything about it is kept.
    Suspended,
}

impl TenantState {
    /// As in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "active" => Ok(Self::Active),
            "suspended" => Ok(Self::Suspended),
            _ => Err(StoreError::Unknown { what: "state", value: text.to_owned() }),
        }
    }
}

/// A tenant with its policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// The keys of its table in a policy file, as TOML.
    pub policy: String,
    /// Whether it is served.
    pub state: TenantState,
    /// Counts its changes, from 1.
    pub version: i64,
    /// Who changed it last.
    pub changed_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub changed_ms: i64,
}

/// A name of a constitution, with the revision that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constitution {
    /// Its name.
    pub name: String,
    /// The current revision.
    pub revision: String,
    /// The text of that revision.
    pub text: String,
    /// Counts the changes of the current revision, from 1.
    pub version: i64,
    /// Who changed it last.
    pub changed_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub changed_ms: i64,
}

/// A revision of a constitution; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The constitution's name.
    pub name: String,
    /// What this revision is called: the hash of what the constitution says.
    pub revision: String,
    /// The constitution, as TOML.
    pub text: String,
    /// Who added it.
    pub added_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub added_ms: i64,
}

/// The SHA-256 of an API key: all that is kept of it. Written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of `key`.
    pub fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        // A SHA-256 has 32 bytes.
        hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl FromStr for KeyHash {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let invalid = || StoreError::Invalid {
            what: "hash of a key",
            problem: "expected 64 lower-case hexadecimal digits".into(),
        };
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for KeyHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An API key. Times are milliseconds since 1970 (UTC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Whose it is.
    pub tenant: String,
    /// Its name among the tenant's keys, for logs.
    pub id: String,
    /// What is kept of it.
    pub sha256: KeyHash,
    /// What a person wrote on it.
    pub note: String,
    /// When it was added.
    pub created_ms: i64,
    /// It is valid from then on.
    pub not_before_ms: i64,
    /// It is valid until just before then; for ever if none.
    pub expires_ms: Option<i64>,
    /// It was revoked then, whatever the clock says now.
    pub revoked_ms: Option<i64>,
}

/// Whether a key opens the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Yes.
    Valid,
    /// Not yet.
    TooEarly,
    /// Not any more.
    Expired,
    /// Never again.
    Revoked,
}

impl Key {
    /// What it is worth at `now_ms`, by the clock of whoever asks. A clock that jumps back makes an expired key valid again
    /// and a young one too early; a revoked one stays revoked.
    pub fn state(&self, now_ms: i64) -> KeyState {
        if self.revoked_ms.is_some() {
            KeyState::Revoked
        } else if now_ms < self.not_before_ms {
            KeyState::TooEarly
        } else if self.expires_ms.is_some_and(|expires| now_ms >= expires) {
            KeyState::Expired
        } else {
            KeyState::Valid
        }
    }
}

/// A key to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Its name among the tenant's keys.
    pub id: String,
    /// Its hash.
    pub sha256: KeyHash,
    /// What a person writes on it; may be empty.
    pub note: String,
    /// Valid from then on; from now on if none.
    pub not_before_ms: Option<i64>,
    /// Valid until just before then; for ever if none.
    pub expires_ms: Option<i64>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The store's number after it.
    pub generation: i64,
    /// What was changed.
    pub kind: Kind,
    /// Whose key it is; else the name again.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// What was done: `put`, `remove`, `suspend`, `resume`, `add`, `revoke`, `expire`, `current`.
    pub action: String,
    /// Who did it.
    pub changed_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub changed_ms: i64,
}

/// Refuses names that logs, terminals or a database would garble.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), StoreError> {
    let invalid = |problem: String| Err(StoreError::Invalid { what, problem });
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return invalid(format!("expected a name of 1 to {MAX_NAME_BYTES} bytes, found {}", name.len()));
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return invalid(format!(
            "the name {name:?} begins or ends with a space, or has a control character in it"
        ));
    }
    Ok(())
}

/// Refuses what is too long, and NULs, which PostgreSQL cannot keep.
pub(crate) fn check_text(what: &'static str, text: &str, limit: usize) -> Result<(), StoreError> {
    let invalid = |problem: String| Err(StoreError::Invalid { what, problem });
    if text.len() > limit {
        return invalid(format!("it has {} bytes, more than {limit}", text.len()));
    }
    if let Some(place) = text.find('\0') {
        return invalid(format!("there is a NUL at byte {place}"));
    }
    Ok(())
}
