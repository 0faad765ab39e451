//! Whether what is in the cache is what was fetched.

use std::fs;

use serde::Serialize;

use crate::cache::{Entry, HubCache, entries};
use crate::digest::{Digest, hash_file};
use crate::error::Result;
use crate::names::{Commit, RepoId};
use crate::transfer::{Event, Progress};

/// What was found about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FileState {
    /// Its bytes have the checksum that they were fetched by.
    Good,
    /// They have another one.
    Damaged {
        /// The checksum in the name of the blob.
        expected: Digest,
        /// That of the bytes.
        found: Digest,
    },
    /// The configuration asks for it, or a link leads to it, and it is not there.
    Missing,
    /// It is there, and nothing says what its checksum should be.
    Unknown,
}

/// A file of a snapshot, looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The repository.
    pub repo: RepoId,
    /// The commit.
    pub commit: Commit,
    /// Path in the snapshot.
    pub file: String,
    /// Bytes; none if it is not there.
    pub bytes: Option<u64>,
    /// What was found.
    #[serde(flatten)]
    pub state: FileState,
}

impl HubCache {
    /// Reads every file of a snapshot and compares it with the checksum that its blob is named by.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn verify(&self, repo: &RepoId, commit: &Commit, progress: &dyn Progress) -> Result<Vec<Finding>> {
        let finding = |file: &str, bytes: Option<u64>, state: FileState| Finding {
            repo: repo.clone(),
            commit: commit.clone(),
            file: file.to_owned(),
            bytes,
            state,
        };
        let folder = self.snapshot_folder(repo, commit);
        let mut findings = Vec::new();
        for entry in entries(&folder)? {
            progress.on(Event::Begin { file: &entry.name });
            let state = self.state(repo, &entry, progress)?;
            findings.push(finding(&entry.name, entry.bytes, state));
        }
        for name in self.missing(repo, commit)? {
            if !findings.iter().any(|found| found.file == name) {
                findings.push(finding(&name, None, FileState::Missing));
            }
        }
        Ok(findings)
    }

    fn missing(&self, repo: &RepoId, commit: &Commit) -> Result<Vec<String>> {
        let revisions = self.repo(repo)?.revisions;
        let found = revisions.into_iter().find(|found| found.commit == *commit);
        Ok(found.map_or_else(|| vec!["config.json".to_owned()], |found| found.missing))
    }

    fn state(&self, repo: &RepoId, entry: &Entry, progress: &dyn Progress) -> Result<FileState> {
        if entry.bytes.is_none() {
            return Ok(FileState::Missing);
        }
        let told = |count| progress.on(Event::Bytes(count));
        let Some(expected) = entry.blob.as_ref().and_then(|name| name.parse::<Digest>().ok()) else {
            return self.state_without_link(repo, entry, told);
        };
        // A link that leads elsewhere says nothing about where it should.
        let (path, blob) = (fs::canonicalize(&entry.path), fs::canonicalize(self.blob(repo, expected)));
        if !matches!((path, blob), (Ok(path), Ok(blob)) if path == blob) {
            return Ok(FileState::Unknown);
        }
        let found = hash_file(&entry.path, expected, told)?;
        Ok(if found == expected { FileState::Good } else { FileState::Damaged { expected, found } })
    }

    /// A file that is no link is good if a blob has its checksum; where links are refused, that is the same file.
    fn state_without_link(
        &self,
        repo: &RepoId,
        entry: &Entry,
        mut told: impl FnMut(u64),
    ) -> Result<FileState> {
        let large = hash_file(&entry.path, Digest::Sha256([0; 32]), &mut told)?;
        let small = hash_file(&entry.path, Digest::Git([0; 20]), |_| {})?;
        let known = [large, small].into_iter().any(|digest| self.blob(repo, digest).is_file());
        if known {
            return Ok(FileState::Good);
        }
        // Another name of a blob: then that blob says what it should be.
        for name in crate::cache::list(&self.repo_folder(repo).join("blobs"))? {
            let Some(expected) = name.to_str().and_then(|name| name.parse::<Digest>().ok()) else { continue };
            if same_file(&self.blob(repo, expected), &entry.path) {
                let found = if matches!(expected, Digest::Git(_)) { small } else { large };
                return Ok(FileState::Damaged { expected, found });
            }
        }
        Ok(FileState::Unknown)
    }
}

#[cfg(unix)]
pub(crate) fn same_file(a: &std::path::Path, b: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(a).is_some_and(|found| Some(found) == identity(b))
}

#[cfg(not(unix))]
pub(crate) fn same_file(_: &std::path::Path, _: &std::path::Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cache::Placing;
    use crate::transfer::Quiet;

    const BLOB: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    /// A snapshot whose config.json is the blob of `hello\n`.
    fn snapshot(placing: Placing) -> (tempfile::TempDir, HubCache, RepoId, Commit) {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path()).placing(placing);
        let (repo, commit) = ("a/b".parse().unwrap(), "0".repeat(40).parse().unwrap());
        let digest: Digest = BLOB.parse().unwrap();
        crate::cache::create_parent(&cache.blob(&repo, digest)).unwrap();
        fs::write(cache.blob(&repo, digest), "hello\n").unwrap();
        cache.place(&repo, &commit, &"config.json".parse().unwrap(), digest).unwrap();
        (folder, cache, repo, commit)
    }

    fn states(cache: &HubCache, repo: &RepoId, commit: &Commit) -> Vec<(String, FileState)> {
        let findings = cache.verify(repo, commit, &Quiet).unwrap();
        findings.into_iter().map(|found| (found.file, found.state)).collect()
    }

    #[cfg(unix)]
    #[test]
    fn damage_is_found_however_the_file_was_placed() {
        for placing in [Placing::Symlink, Placing::HardLink] {
            let (_folder, cache, repo, commit) = snapshot(placing);
            let config = || states(&cache, &repo, &commit).swap_remove(0).1;
            assert_eq!(config(), FileState::Good, "{placing:?}");
            fs::write(cache.blob(&repo, BLOB.parse().unwrap()), "hallo\n").unwrap();
            let FileState::Damaged { expected, found } = config() else { unreachable!("{placing:?}") };
            assert_eq!(expected.to_string(), BLOB);
            assert_ne!(found, expected);
            fs::remove_file(cache.blob(&repo, BLOB.parse().unwrap())).unwrap();
            let gone = if placing == Placing::Symlink { FileState::Missing } else { FileState::Unknown };
            assert_eq!(config(), gone, "{placing:?}");
        }
    }

    #[test]
    fn what_the_configuration_asks_for_is_missing() {
        let (_folder, cache, repo, commit) = snapshot(Placing::Symlink);
        let found = states(&cache, &repo, &commit);
        assert_eq!(found[1..], [("model.safetensors".to_owned(), FileState::Missing)]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_elsewhere_is_not_trusted() {
        let (folder, cache, repo, commit) = snapshot(Placing::Symlink);
        let outside = folder.path().join(BLOB);
        fs::write(&outside, "hello\n").unwrap();
        let link = cache.snapshot_folder(&repo, &commit).join("config.json");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        assert_eq!(states(&cache, &repo, &commit)[0].1, FileState::Unknown);
    }
}
