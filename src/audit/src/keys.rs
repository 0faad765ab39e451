//! Key files: the keys that sign heads and webhook calls, hide subjects and encrypt pictures.

use std::path::Path;

use ring::hmac;

use crate::canonical::{hex, unhex};
use crate::error::{AuditError, Result};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Longest key file in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// One secret of 32 bytes and its public name.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: String,
    secret: [u8; KEY_BYTES],
}

/// The keys of one file: the first is used for what is new, the others for what was made with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring(Vec<Key>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// Its name: letters, digits, `-` and `_`, at most 32.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    /// HMAC-SHA256 over the parts, one after the other.
    pub(crate) fn hmac(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret));
        parts.iter().for_each(|part| context.update(part));
        hex(context.sign().as_ref())
    }
}

impl Keyring {
    /// Reads a key file: a line `ID:KEY` for each key, KEY being 64 hexadecimal digits; lines that begin with `#` and
    /// empty ones are left out. The first key is the current one.
    ///
    /// # Errors
    /// If the file cannot be read, has no key, or has a line of another form; the error says how to make a key and
    /// never shows one.
    pub fn load(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(AuditError::io(path, "read"))?.len();
        if size > MAX_FILE_BYTES {
            return Err(AuditError::content(
                path,
                format!("{size} bytes are more than a key file's {MAX_FILE_BYTES}"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(AuditError::io(path, "read"))?;
        warn_if_open(path);
        Self::parse(&text).map_err(|problem| AuditError::content(path, problem))
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        const FORM: &str = "expected lines of the form ID:KEY with KEY of 64 hexadecimal digits; make one with \
                            `echo k1:$(openssl rand -hex 32)`";
        let mut keys: Vec<Key> = Vec::new();
        let lines = text.lines().map(str::trim).enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || format!("line {} is no key: {FORM}", number + 1);
            let (id, secret) = line.split_once(':').ok_or_else(wrong)?;
            let named = (1..=32).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let secret = unhex(&secret.trim().to_ascii_lowercase()).and_then(|bytes| bytes.try_into().ok());
            let secret: [u8; KEY_BYTES] = secret.filter(|_| named).ok_or_else(wrong)?;
            if keys.iter().any(|key| key.id == id) {
                return Err(format!(
                    "line {} names the key {id} again: each needs a name of its own",
                    number + 1
                ));
            }
            keys.push(Key { id: id.to_owned(), secret });
        }
        if keys.is_empty() { Err(format!("there is no key: {FORM}")) } else { Ok(Self(keys)) }
    }

    /// The key that is used for what is new.
    pub fn current(&self) -> &Key {
        // Made by `parse` only, which refuses a file without a key.
        &self.0[0]
    }

    /// The key of that name.
    pub fn get(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// All keys, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

#[cfg(unix)]
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|found| found.permissions().mode()).unwrap_or_default();
    if mode & 0o007 != 0 {
        tracing::warn!(file = %path.display(), "everyone on this machine can open the key file; chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_path: &Path) {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_are_read_and_never_shown() {
        let text = format!("# ours\n\nnew:{}\nold:{}\n", "ab".repeat(32), "CD".repeat(32));
        let keys = Keyring::parse(&text).unwrap();
        assert_eq!(keys.current().id(), "new");
        assert_eq!(keys.get("old").unwrap().secret(), &[0xcd; 32]);
        assert_eq!(keys.get("none"), None);
        assert!(!format!("{keys:?}").contains("abab"));
        for wrong in ["", "new", "new:ab", "n w:".to_owned().as_str(), &format!(":{}", "ab".repeat(32))] {
            assert!(Keyring::parse(wrong).unwrap_err().contains("openssl rand"), "{wrong}");
        }
        let twice = format!("a:{0}\na:{0}", "ab".repeat(32));
        let error = Keyring::parse(&twice).unwrap_err();
        assert!(error.contains("again") && !error.contains("abab"), "{error}");
    }

    /// RFC 4231, test case 2, with the key filled up with zeros, which HMAC does too.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let keys = Keyring::parse(&format!("k:{}{}", hex(b"Jefe"), "00".repeat(28))).unwrap();
        assert_eq!(
            keys.current().hmac(&[b"what do ya want ", b"for nothing?"]),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
