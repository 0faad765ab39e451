//! Checksums as the hub gives them: the name of a blob says what its bytes are.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{HubError, Result};

/// How much is read at a time while a file is hashed.
const CHUNK: usize = 1 << 20;

/// The checksum of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// Git's identifier of a small file: SHA-1 over `blob SIZE`, a zero byte and the content.
    Git([u8; 20]),
    /// Of a large file (Git LFS, Xet): SHA-256 over the content.
    Sha256([u8; 32]),
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Git(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Digest {
    type Err = HubError;

    /// From the name of a blob or a field of the hub's answer: 40 or 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        match (hex::<20>(text), hex::<32>(text)) {
            (Some(bytes), _) => Ok(Self::Git(bytes)),
            (_, Some(bytes)) => Ok(Self::Sha256(bytes)),
            _ => {
                let shown: String = text.chars().take(80).collect();
                Err(HubError::answer(format!(
                    "expected a checksum of 40 (git) or 64 (SHA-256) hexadecimal digits, got {shown:?}"
                )))
            }
        }
    }
}

impl Digest {
    /// SHA-256 of these bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Self::Sha256([0; 32]), bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Git's identifier of a file with these bytes.
    pub fn git(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Self::Git([0; 20]), bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// From an `ETag` header, which quotes it and may call it weak.
    pub(crate) fn from_etag(header: &str) -> Result<Self> {
        header.trim().trim_start_matches("W/").trim_matches('"').parse()
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Computes a [`Digest`] of the kind that is expected while bytes come.
pub(crate) enum Hasher {
    Git(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    /// For a file of `size` bytes whose checksum should be `expected`.
    pub(crate) fn new(expected: Digest, size: u64) -> Self {
        match expected {
            Digest::Git(_) => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {size}\0"));
                Self::Git(hasher)
            }
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Git(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// Adds what a reader gives, and tells how far it is after each part.
    pub(crate) fn update_from(
        &mut self,
        mut reader: impl Read,
        mut told: impl FnMut(u64),
    ) -> std::io::Result<u64> {
        let (mut buffer, mut total) = (vec![0; CHUNK], 0);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.update(&buffer[..count]);
            total += count as u64;
            told(count as u64);
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Git(hasher) => Digest::Git(hasher.finalize().into()),
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
        }
    }
}

/// The checksum of a file on disk, of the kind of `expected`.
pub(crate) fn hash_file(path: &Path, expected: Digest, told: impl FnMut(u64)) -> Result<Digest> {
    let failed = |error: std::io::Error| HubError::io("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut hasher = Hasher::new(expected, size);
    hasher.update_from(file, told).map_err(failed)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Values of `git hash-object` and `sha256sum`.
    #[test]
    fn checksums_are_those_of_git_and_sha256sum() {
        assert_eq!(Digest::git(b"hello\n").to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(Digest::sha256(b"hello\n").to_string(), sha256);
    }

    #[test]
    fn etags_are_unquoted() {
        let name = "ce013625030ba8dba906f756967f9e9ca394464a";
        for header in [name.to_owned(), format!("\"{name}\""), format!("W/\"{name}\"")] {
            assert_eq!(Digest::from_etag(&header).unwrap().to_string(), name);
        }
        for bad in ["", "\"\"", "../../etc/passwd", "ce01", &name.to_uppercase(), &format!("{name}/")] {
            assert!(Digest::from_etag(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_written(text in "[0-9a-fA-F]{0,70}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
