//! API keys: a file of hashes, each with its tenant.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// How a hash begins in the file.
const SCHEME: &str = "sha256:";
/// How a key begins, so that people and scanners for secrets know one.
const PREFIX: &str = "cg_";
/// Longest key file in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A key file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the key file {origin}: {problem}")]
pub struct KeyError {
    origin: String,
    problem: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawKeyFile {
    #[serde(default)]
    key: Vec<RawKey>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    /// Name of the key, for logs.
    id: String,
    /// Whose policy applies.
    tenant: String,
    /// `sha256:` and 64 hexadecimal digits, over the key's bytes.
    hash: String,
}

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// Name of the key, for logs.
    pub id: String,
    /// The tenant.
    pub tenant: String,
}

/// Hashed keys with their owners. A key has 256 bits of chance, so that a hash without salt and stretching cannot be
/// guessed, and looking one up costs microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFile {
    owners: HashMap<[u8; 32], KeyOwner>,
}

impl KeyFile {
    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, is not of the form `[[key]]` with `id`, `tenant` and `hash`, or has a key or an id twice.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let fail = |problem: String| KeyError { origin: path.display().to_string(), problem };
        let size = std::fs::metadata(path).map_err(|source| fail(source.to_string()))?.len();
        if size > MAX_FILE_BYTES {
            return Err(fail(format!("it has {size} bytes, more than {MAX_FILE_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(|source| fail(source.to_string()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads keys from text; `origin` says in errors where it came from.
    ///
    /// # Errors
    /// As [`KeyFile::load`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, KeyError> {
        let fail = |problem: String| KeyError { origin: origin.to_owned(), problem };
        // The parser's message quotes the line, which may hold a key that somebody wrote in place of its hash.
        let raw: RawKeyFile = toml::from_str(text).map_err(|source| fail(source.message().to_owned()))?;
        let mut owners: HashMap<[u8; 32], KeyOwner> = HashMap::new();
        let mut ids = std::collections::HashSet::new();
        for RawKey { id, tenant, hash } in raw.key {
            let digest = parse_hash(&hash).ok_or_else(|| {
                fail(format!(
                    "the key {id:?}: expected `hash` to be {SCHEME} and 64 hexadecimal digits (`cluegate keys new` \
                     prints them); a key itself does not belong here"
                ))
            })?;
            if !ids.insert(id.clone()) {
                return Err(fail(format!("there are two keys with the id {id:?}; give each its own")));
            }
            if let Some(other) = owners.get(&digest) {
                return Err(fail(format!("{id:?} and {:?} are the same key; make a new one", other.id)));
            }
            owners.insert(digest, KeyOwner { id, tenant });
        }
        Ok(Self { owners })
    }

    /// The owner of `key`. Looked up by hash: how long it takes says nothing about other keys.
    pub fn owner(&self, key: &str) -> Option<&KeyOwner> {
        self.owners.get(&digest(key))
    }

    /// All owners.
    pub fn owners(&self) -> impl Iterator<Item = &KeyOwner> {
        self.owners.values()
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

    /// Its entry in the key file.
    pub fn entry(&self, id: &str, tenant: &str) -> String {
        let mut hash = SCHEME.to_owned();
        for byte in digest(&self.key) {
            // Writing to a string cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let quoted = |text: &str| toml::Value::from(text).to_string();
        format!("[[key]]\nid = {}\ntenant = {}\nhash = \"{hash}\"\n", quoted(id), quoted(tenant))
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
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

    #[test]
    fn a_new_key_is_found_and_no_other() {
        let (kids, news) = (NewKey::generate(), NewKey::generate());
        let text = kids.entry("kids-1", "kids") + &news.entry("n \"1\"", "news");
        assert!(!text.contains(kids.reveal()));
        let keys = KeyFile::parse(&text, "keys.toml").unwrap();
        assert_eq!(keys.owner(kids.reveal()).unwrap().tenant, "kids");
        assert_eq!(keys.owner(news.reveal()).unwrap().id, "n \"1\"");
        assert_eq!(keys.owner(NewKey::generate().reveal()), None);
        assert_eq!(keys.owner(""), None);
    }

    #[test]
    fn files_that_cannot_be_used_say_why_and_show_no_secret() {
        let key = NewKey::generate();
        let plain = format!("[[key]]\nid = \"a\"\ntenant = \"t\"\nhash = \"{}\"\n", key.reveal());
        let error = KeyFile::parse(&plain, "keys.toml").unwrap_err().to_string();
        assert!(error.contains("\"a\"") && !error.contains(key.reveal()), "{error}");
        let torn = format!("[[key]]\nid = \"a\"\nhash = {}\n", key.reveal());
        let error = KeyFile::parse(&torn, "keys.toml").unwrap_err().to_string();
        assert!(!error.contains(key.reveal()), "{error}");
        let twice = key.entry("a", "t") + &key.entry("b", "u");
        assert!(KeyFile::parse(&twice, "keys.toml").unwrap_err().to_string().contains("same key"));
        let same = key.entry("a", "t") + &NewKey::generate().entry("a", "u");
        assert!(KeyFile::parse(&same, "keys.toml").unwrap_err().to_string().contains("two keys"));
    }
}
