//! API keys: hashes with their owners, and from when to when each of them holds.
//!
//! A tenant has as many keys as it likes. A key is rotated by giving out a second one and letting the first expire.

mod file;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use file::{KeyEdit, KeyFile, edit_key_file, rotated};

/// How a hash begins in a file.
const SCHEME: &str = "sha256:";
/// How a key begins, so that people and scanners for secrets know one.
const PREFIX: &str = "cg_";
/// Longest id of a key in characters.
const LONGEST_ID: usize = 128;
/// Longest note in characters.
const LONGEST_NOTE: usize = 1000;

/// Keys that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the keys of {origin}: {problem}")]
pub struct KeyError {
    origin: String,
    problem: String,
}

impl KeyError {
    /// Keys from `origin` cannot be used; `problem` continues "the keys of ORIGIN: ...".
    pub(crate) fn new(origin: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { origin: origin.into(), problem: problem.into() }
    }
}

/// What the owner of an administration key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything, change nothing.
    Read,
    /// Change everything.
    Write,
}

impl Role {
    /// Name as in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Which doors a set of keys opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The gateway's own: each key belongs to a tenant.
    Client,
    /// The administration's: each key has a role, and may be limited to one tenant.
    Admin,
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Name of the key, for logs; no two keys of a tenant share one.
    pub id: String,
    /// Whose policy applies; of an administration key, the only tenant that it may see, or none for all.
    pub tenant: Option<String>,
    /// Of an administration key, what it may do.
    pub role: Option<Role>,
    /// SHA-256 over the key's bytes.
    pub hash: [u8; 32],
    /// When it begins to hold; none means always.
    pub not_before: Option<Timestamp>,
    /// When it ceases to hold; none means never.
    pub expires: Option<Timestamp>,
    /// Since when it is revoked.
    pub revoked: Option<Timestamp>,
    /// A word on it, for people.
    pub note: Option<String>,
}

impl Key {
    /// What keeps the key from holding at `now`; none if it holds.
    pub fn lapse(&self, now: Timestamp) -> Option<Lapse> {
        if let Some(since) = self.revoked {
            return Some(Lapse::Revoked(since));
        }
        if let Some(since) = self.expires.filter(|expires| *expires <= now) {
            return Some(Lapse::Expired(since));
        }
        self.not_before.filter(|begin| *begin > now).map(Lapse::NotYet)
    }

    /// Its entry in a key file.
    pub fn entry(&self) -> String {
        file::entry(self)
    }
}

/// Why a known key does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It begins to hold then.
    NotYet(Timestamp),
    /// It ceased to hold then.
    Expired(Timestamp),
    /// It was revoked then.
    Revoked(Timestamp),
}

impl std::fmt::Display for Lapse {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotYet(begin) => write!(out, "holds from {begin:.0}"),
            Self::Expired(end) => write!(out, "expired at {end:.0}"),
            Self::Revoked(since) => write!(out, "was revoked at {since:.0}"),
        }
    }
}

/// Why a presented key opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Nobody has this key.
    Unknown,
    /// It is somebody's, and does not hold now.
    Lapsed(Lapse),
}

/// Hashed keys with their owners, cheap to clone. A key has 256 bits of chance, so that a hash without salt and stretching
/// cannot be guessed, and looking one up costs microseconds, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: Arc<HashMap<[u8; 32], Arc<Key>>>,
    hashes: Arc<HashMap<KeyName, [u8; 32]>>,
}

/// A tenant, or none, and the id of a key among the tenant's.
type KeyName = (Option<Arc<str>>, Arc<str>);

impl KeyRing {
    /// Brings keys together; `origin` says in errors where they came from.
    ///
    /// # Errors
    /// If two of a tenant share an id, or two are one key, or one does not fit `kind`: a client's needs a tenant and has no
    /// role, an administration's needs a role.
    pub fn new(keys: impl IntoIterator<Item = Key>, kind: KeyKind, origin: &str) -> Result<Self, KeyError> {
        Self::default().with_changes(&[], keys, kind, origin)
    }

    /// These keys without those of some tenants and ids, and with others.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn with_changes(
        &self,
        removed: &[(String, String)],
        added: impl IntoIterator<Item = Key>,
        kind: KeyKind,
        origin: &str,
    ) -> Result<Self, KeyError> {
        let mut ring = self.clone();
        let (keys, hashes) = (Arc::make_mut(&mut ring.keys), Arc::make_mut(&mut ring.hashes));
        for (tenant, id) in removed {
            if let Some(hash) = hashes.remove(&(Some(tenant.as_str().into()), id.as_str().into())) {
                keys.remove(&hash);
            }
        }
        for key in added {
            let fail = |problem| Err(KeyError::new(origin, problem));
            let id = &key.id;
            if let Some(problem) = misfit(&key, kind) {
                return fail(format!("the key {id:?}: {problem}"));
            }
            let name = (key.tenant.as_deref().map(Arc::from), id.as_str().into());
            if hashes.insert(name, key.hash).is_some() {
                return fail(format!("there are two keys with the id {id:?}; give each its own"));
            }
            if let Some(other) = keys.get(&key.hash) {
                return fail(format!("{id:?} and {:?} are the same key; make a new one", other.id));
            }
            keys.insert(key.hash, Arc::new(key));
        }
        Ok(ring)
    }

    /// The key that `presented` is, if it holds at `now`. Looked up by hash: how long it takes says nothing about other
    /// keys.
    ///
    /// # Errors
    /// Why it opens nothing. Whoever presents a key that has lapsed holds it, and may be told so.
    pub fn check(&self, presented: &str, now: Timestamp) -> Result<&Arc<Key>, KeyRefusal> {
        let key = self.keys.get(&digest(presented)).ok_or(KeyRefusal::Unknown)?;
        match key.lapse(now) {
            Some(lapse) => Err(KeyRefusal::Lapsed(lapse)),
            None => Ok(key),
        }
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.values()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A time as people name it: `2027-01-01T00:00:00Z`, or how long from now, such as `90d` or `12h`.
///
/// # Errors
/// If it is neither.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    moment_from(text, Timestamp::now())
}

fn moment_from(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative());
    let length = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    length.and_then(|length| now.checked_add(length).ok()).ok_or_else(|| {
        "expected a time such as 2027-01-01T00:00:00Z, or a length of time such as 90d or 12h".to_owned()
    })
}

/// What is wrong with a key for a ring of this kind.
fn misfit(key: &Key, kind: KeyKind) -> Option<String> {
    let length = key.id.chars().count();
    if length == 0 || length > LONGEST_ID || key.id.chars().any(char::is_control) {
        return Some(format!("expected an id of 1 to {LONGEST_ID} printable characters"));
    }
    if key.note.as_ref().is_some_and(|note| note.chars().count() > LONGEST_NOTE) {
        return Some(format!("expected a note of at most {LONGEST_NOTE} characters"));
    }
    match (kind, key.tenant.as_deref(), key.role) {
        (KeyKind::Client, None | Some(""), _) => Some("expected `tenant`, whose policy applies".to_owned()),
        (KeyKind::Client, _, Some(_)) => {
            Some("`role` is for the keys of the administration, which stand in `admin.key_file`".to_owned())
        }
        (KeyKind::Admin, _, None) => {
            Some("expected `role`, \"read\" or \"write\", as every key of the administration has".to_owned())
        }
        (KeyKind::Admin, Some(""), _) => Some("expected `tenant` to name one, or to be left out".to_owned()),
        _ => None,
    }
}

/// A fresh key: shown once, then only its hash is kept.
#[derive(Clone)]
pub struct NewKey {
    key: String,
}

impl NewKey {
    /// Makes a key of 256 bits of chance.
    pub fn generate() -> Self {
        Self { key: format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())) }
    }

    /// The key itself.
    pub fn reveal(&self) -> &str {
        &self.key
    }

    /// SHA-256 over its bytes.
    pub fn hash(&self) -> [u8; 32] {
        digest(&self.key)
    }

    /// What is kept of it, for a client of `tenant`: it holds from now on and for ever.
    pub fn of_tenant(&self, id: &str, tenant: &str) -> Key {
        Key {
            id: id.to_owned(),
            tenant: Some(tenant.to_owned()),
            role: None,
            hash: self.hash(),
            not_before: None,
            expires: None,
            revoked: None,
            note: None,
        }
    }

    /// Its entry in the key file.
    pub fn entry(&self, id: &str, tenant: &str) -> String {
        self.of_tenant(id, tenant).entry()
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn hash_text(hash: &[u8; 32]) -> String {
    hash.iter().fold(SCHEME.to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads `sha256:` and 64 hexadecimal digits.
pub(crate) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(SCHEME)?.as_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = u8::try_from(nibble(*high)? * 16 + nibble(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_key_is_found_and_no_other() {
        let (kids, news) = (NewKey::generate(), NewKey::generate());
        let ring = KeyRing::new(
            [kids.of_tenant("kids-1", "kids"), news.of_tenant("n", "news")],
            KeyKind::Client,
            "keys.toml",
        );
        let (ring, now) = (ring.unwrap(), Timestamp::now());
        assert_eq!(ring.check(kids.reveal(), now).unwrap().tenant.as_deref(), Some("kids"));
        assert_eq!(ring.check(news.reveal(), now).unwrap().id, "n");
        assert_eq!(ring.check(NewKey::generate().reveal(), now), Err(KeyRefusal::Unknown));
        assert_eq!(ring.check("", now), Err(KeyRefusal::Unknown));
    }

    #[test]
    fn a_key_holds_from_its_begin_until_its_end() {
        let new = NewKey::generate();
        let (begin, end) = (at("2026-03-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        let key = Key { not_before: Some(begin), expires: Some(end), ..new.of_tenant("a", "t") };
        for (now, lapse) in [
            ("2026-02-28T23:59:59Z", Some(Lapse::NotYet(begin))),
            ("2026-03-01T00:00:00Z", None),
            ("2026-03-31T23:59:59.999Z", None),
            // The clock jumps: what counts is what it says now.
            ("2026-04-01T00:00:00Z", Some(Lapse::Expired(end))),
            ("2026-03-02T00:00:00Z", None),
        ] {
            assert_eq!(key.lapse(at(now)), lapse, "{now}");
        }
        let revoked = Key { revoked: Some(begin), ..key };
        assert_eq!(revoked.lapse(at("2026-03-02T00:00:00Z")), Some(Lapse::Revoked(begin)));
        let ring = KeyRing::new([revoked], KeyKind::Client, "keys").unwrap();
        assert_eq!(ring.check(new.reveal(), begin), Err(KeyRefusal::Lapsed(Lapse::Revoked(begin))));
        assert_eq!(Lapse::Revoked(begin).to_string(), "was revoked at 2026-03-01T00:00:00Z");
    }

    #[test]
    fn a_time_is_named_by_itself_or_from_now() {
        let now = at("2026-03-01T00:00:00Z");
        for (text, time) in [
            ("2027-01-01T00:00:00+01:00", Some("2026-12-31T23:00:00Z")),
            ("90d", Some("2026-05-30T00:00:00Z")),
            ("36h", Some("2026-03-02T12:00:00Z")),
            ("2w", Some("2026-03-15T00:00:00Z")),
            ("0s", Some("2026-03-01T00:00:00Z")),
            ("", None),
            ("-1d", None),
            ("2027-01-01", None),
            ("1mo", None),
            ("99999999999999d", None),
        ] {
            assert_eq!(moment_from(text, now).ok(), time.map(at), "{text}");
        }
    }

    #[test]
    fn two_of_one_and_keys_of_another_kind_are_refused() {
        let (key, other) = (NewKey::generate(), NewKey::generate());
        let problem = |keys: Vec<Key>, kind| KeyRing::new(keys, kind, "keys").unwrap_err().to_string();
        let twice = vec![key.of_tenant("a", "t"), key.of_tenant("b", "u")];
        assert!(problem(twice, KeyKind::Client).contains("\"b\" and \"a\" are the same key"));
        let same = vec![key.of_tenant("a", "t"), other.of_tenant("a", "t")];
        assert!(problem(same, KeyKind::Client).contains("two keys with the id \"a\""));
        assert!(problem(vec![key.of_tenant("a", "t")], KeyKind::Admin).contains("expected `role`"));
        let admin = Key { role: Some(Role::Read), ..key.of_tenant("a", "t") };
        assert!(problem(vec![admin.clone()], KeyKind::Client).contains("`role` is for"));
        assert_eq!(KeyRing::new([admin], KeyKind::Admin, "keys").unwrap().len(), 1);
        assert!(problem(vec![key.of_tenant("", "t")], KeyKind::Client).contains("1 to 128 printable"));
    }
}
