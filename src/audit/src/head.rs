//! The head of a chain: its last entry, kept beside the log so that a log whose end was cut off is found out.
//!
//! Whoever can write the log can also write its head, and put back an older head together with an older log. With a key
//! they cannot make a new head, but an old one stays valid: only a head that was copied elsewhere (the database beside the
//! file, the receiver of a webhook, a printed line) proves that nothing newer is missing.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::entry::Position;
use crate::error::{AuditError, Result};
use crate::keys::Keyring;

/// Bytes of a head file: one write that the kernel does not split.
const BYTES: usize = 1024;
/// How often the head is brought to the disk; after a power cut it may be older by this much.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The last entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The entry.
    #[serde(flatten)]
    pub position: Position,
    /// Name of the key that signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// HMAC-SHA256 over instance, number and hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What is known of a head's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// There is none, and no key to expect one by.
    None,
    /// It was made with one of the keys.
    Valid,
    /// There is a key, and the signature is missing or was not made with it.
    Invalid,
    /// There is a signature, and no key to check it with.
    Unchecked,
}

impl Head {
    /// Signs with the current key, if there is one.
    pub(crate) fn new(position: Position, keys: Option<&Keyring>) -> Self {
        let key = keys.map(Keyring::current);
        let signature = key.map(|key| key.hmac(&[&signed(&position)]));
        Self { position, key: key.map(|key| key.id().to_owned()), signature }
    }

    /// Checks the signature.
    pub fn signature(&self, keys: Option<&Keyring>) -> Signature {
        match (keys, &self.key, &self.signature) {
            (None, _, None) => Signature::None,
            (None, _, Some(_)) => Signature::Unchecked,
            (Some(keys), Some(id), Some(signature)) => {
                let made = keys.get(id).map(|key| key.hmac(&[&signed(&self.position)]));
                // Not secret here: whoever verifies holds the key.
                if made.as_ref() == Some(signature) { Signature::Valid } else { Signature::Invalid }
            }
            (Some(_), _, _) => Signature::Invalid,
        }
    }
}

/// `cluegate head`, the instance, the number and the hash, a line each.
fn signed(position: &Position) -> Vec<u8> {
    format!("cluegate head\n{}\n{}\n{}\n", position.instance, position.seq, position.hash).into_bytes()
}

/// The file with the head of a log file's chain.
#[derive(Debug)]
pub(crate) struct HeadFile {
    path: PathBuf,
    file: File,
    synced: Instant,
}

/// Where the head of a log file is kept.
pub(crate) fn path_of(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

/// The head beside a log file; none if there is no such file. A head that cannot be read is none either, with a warning:
/// a crash of the machine may have left half of it.
pub(crate) fn read(log: &Path) -> Result<Option<Head>> {
    let path = path_of(log);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AuditError::io(&path, "opened")(source)),
    };
    let mut text = Vec::new();
    file.by_ref().take(2 * BYTES as u64).read_to_end(&mut text).map_err(AuditError::io(&path, "read"))?;
    // Made when the log was opened, and nothing was written since.
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let head = serde_json::from_slice(text.trim_ascii());
    if let Err(problem) = &head {
        tracing::warn!(file = %path.display(), %problem, "the head of the decision log cannot be read");
    }
    Ok(head.ok())
}

impl HeadFile {
    pub(crate) fn open(log: &Path) -> Result<Self> {
        let path = path_of(log);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(AuditError::io(&path, "opened"))?;
        Ok(Self { path, file, synced: Instant::now() })
    }

    /// Keeps `head`, which outlives this process at once and the machine within a second.
    pub(crate) fn write(&mut self, head: &Head) -> Result<()> {
        let fail = AuditError::io(&self.path, "written");
        let mut text = serde_json::to_vec(head).map_err(|source| AuditError::Entry(source.to_string()))?;
        text.resize(BYTES.max(text.len() + 1) - 1, b' ');
        text.push(b'\n');
        write_at(&self.file, &text, 0).map_err(fail)?;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// Brings the head to the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(AuditError::io(&self.path, "written"))
    }
}

#[cfg(unix)]
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
pub(crate) fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Seek as _, SeekFrom, Write as _};
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn position(seq: u64) -> Position {
        Position { instance: "gate-1".into(), seq, hash: "ab".repeat(32) }
    }

    #[test]
    fn a_head_is_read_back_and_a_shorter_one_leaves_nothing_of_a_longer() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("d.jsonl");
        assert_eq!(read(&log).unwrap(), None);
        let mut file = HeadFile::open(&log).unwrap();
        for seq in [u64::MAX, 7] {
            let head = Head::new(position(seq), None);
            file.write(&head).unwrap();
            assert_eq!(read(&log).unwrap(), Some(head));
        }
        std::fs::write(path_of(&log), "{\"inst").unwrap();
        assert_eq!(read(&log).unwrap(), None);
    }

    #[test]
    fn signatures_tell_a_forged_head() {
        let keys = Keyring::parse(&format!("b:{}\na:{}", "22".repeat(32), "11".repeat(32))).unwrap();
        let head = Head::new(position(3), Some(&keys));
        assert_eq!(head.signature(Some(&keys)), Signature::Valid);
        assert_eq!(head.signature(None), Signature::Unchecked);
        let forged = Head { position: position(2), ..head.clone() };
        assert_eq!(forged.signature(Some(&keys)), Signature::Invalid);
        assert_eq!(Head::new(position(3), None).signature(Some(&keys)), Signature::Invalid);
        assert_eq!(Head::new(position(3), None).signature(None), Signature::None);
        let older = Keyring::parse(&format!("a:{}", "11".repeat(32))).unwrap();
        assert_eq!(Head::new(position(3), Some(&older)).signature(Some(&keys)), Signature::Valid);
    }
}
