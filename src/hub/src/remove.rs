//! Freeing room.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cache::{HubCache, entries, list};
use crate::digest::Digest;
use crate::error::{HubError, HubErrorKind, Result};
use crate::names::{Commit, RepoId};

/// What was removed.
#[derive(Debug, Clone, Serialize)]
pub struct Removed {
    /// The repository.
    pub repo: RepoId,
    /// Its commits that are gone.
    pub commits: Vec<Commit>,
    /// Bytes that are free now.
    pub freed_bytes: u64,
    /// Bytes of these commits that stay, because other commits use them.
    pub shared_bytes: u64,
}

impl HubCache {
    /// Removes one commit of a repository, or all of it: the snapshots, the references to them, and the blobs that no
    /// other snapshot uses.
    ///
    /// # Errors
    /// `NotPulled` if there is no such commit; `InUse` if a blob is being fetched; `Io` if something cannot be removed.
    pub fn remove(&self, repo: &RepoId, commit: Option<&Commit>) -> Result<Removed> {
        let root = self.repo_folder(repo);
        let all = self.commits(repo)?;
        let going: Vec<Commit> = match commit {
            Some(commit) => all.iter().filter(|found| *found == commit).cloned().collect(),
            None => all.clone(),
        };
        if !root.is_dir() || (commit.is_some() && going.is_empty()) {
            let what = commit.map_or_else(String::new, |commit| format!(" at {commit}"));
            return Err(HubError::new(
                HubErrorKind::NotPulled,
                format!(
                    "{repo}{what} is not in {}: `cluegate models list` shows what is",
                    self.folder().display()
                ),
            ));
        }
        let staying: Vec<&Commit> = all.iter().filter(|found| !going.contains(found)).collect();
        let mut used = BTreeSet::new();
        // Whether a snapshot that stays has files that are no links: then a blob of the same size may be one of them.
        let mut plain_sizes = BTreeSet::new();
        for commit in &staying {
            for entry in entries(&self.snapshot_folder(repo, commit))? {
                match (entry.blob, entry.bytes) {
                    (Some(blob), _) => drop(used.insert(blob)),
                    (None, Some(bytes)) => drop(plain_sizes.insert(bytes)),
                    (None, None) => {}
                }
            }
        }
        let blobs = root.join("blobs");
        let (mut removable, mut shared_bytes) = (Vec::new(), 0);
        for name in list(&blobs)? {
            let name = name.to_string_lossy().into_owned();
            let bytes = fs::symlink_metadata(blobs.join(&name)).map_or(0, |found| found.len());
            if used.contains(&name) || plain_sizes.contains(&bytes) {
                shared_bytes += bytes;
            } else if staying.is_empty() || !name.ends_with(".incomplete") {
                removable.push((name, bytes));
            }
        }
        // Held until the end, so that nobody begins to fetch what is being removed.
        let _locks = self.lock_blobs(repo, &removable)?;
        let mut freed_bytes = 0;
        for commit in &going {
            let folder = self.snapshot_folder(repo, commit);
            freed_bytes += plain_bytes(&folder, &blobs)?;
            remove_tree(&folder)?;
        }
        for (name, commit) in self.refs(repo)? {
            if going.contains(&commit) {
                remove_file(&root.join("refs").join(name))?;
            }
        }
        for (name, bytes) in &removable {
            remove_file(&blobs.join(name))?;
            freed_bytes += bytes;
        }
        if staying.is_empty() {
            remove_tree(&root)?;
        }
        Ok(Removed { repo: repo.clone(), commits: going, freed_bytes, shared_bytes })
    }

    fn lock_blobs(&self, repo: &RepoId, blobs: &[(String, u64)]) -> Result<Vec<fs::File>> {
        let folder = self.folder().join(".locks").join(repo.folder_name());
        let mut locks = Vec::new();
        for (name, _) in blobs {
            let digest = name.trim_end_matches(".incomplete");
            let path = folder.join(format!("{digest}.lock"));
            if digest.parse::<Digest>().is_err() || !path.is_file() {
                continue;
            }
            let file = fs::File::open(&path).map_err(|error| HubError::io("lock", &path, &error))?;
            if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
                // A blob and what is left of another attempt may share the lock that is already held here.
                if locks.iter().any(|(held, _)| held == digest) {
                    continue;
                }
                return Err(HubError::new(
                    HubErrorKind::InUse,
                    format!(
                        "{repo} is being fetched by another process; nothing was removed. Wait for it or end it"
                    ),
                ));
            }
            locks.push((digest.to_owned(), file));
        }
        Ok(locks.into_iter().map(|(_, file)| file).collect())
    }
}

/// Bytes of the files of a snapshot that are neither links nor other names of blobs.
fn plain_bytes(snapshot: &Path, blobs: &Path) -> Result<u64> {
    let names = list(blobs)?;
    let is_blob = |path: &Path| names.iter().any(|name| crate::verify::same_file(&blobs.join(name), path));
    let plain = entries(snapshot)?.into_iter().filter(|entry| entry.blob.is_none() && !is_blob(&entry.path));
    Ok(plain.filter_map(|entry| entry.bytes).sum())
}

fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|error| HubError::io("remove", path, &error))
}

fn remove_tree(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(|error| HubError::io("remove", path, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cache::{Placing, create_parent};
    use crate::names::Revision;

    const SHARED: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn digest(of: u8) -> Digest {
        Digest::Sha256([of; 32])
    }

    /// Two commits that share config.json, and an unfinished download.
    fn cache(placing: Placing) -> (tempfile::TempDir, HubCache, RepoId, [Commit; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path()).placing(placing);
        let repo: RepoId = "a/b".parse().unwrap();
        let commits: [Commit; 2] = ["1", "2"].map(|digit| digit.repeat(40).parse().unwrap());
        let write = |digest: Digest, content: &str| {
            create_parent(&cache.blob(&repo, digest)).unwrap();
            fs::write(cache.blob(&repo, digest), content).unwrap();
        };
        write(SHARED.parse().unwrap(), "hello\n");
        for (index, commit) in commits.iter().enumerate() {
            let own = digest(index as u8);
            write(own, &"x".repeat(100 * (index + 1)));
            cache.place(&repo, commit, &"model.safetensors".parse().unwrap(), own).unwrap();
            cache.place(&repo, commit, &"config.json".parse().unwrap(), SHARED.parse().unwrap()).unwrap();
        }
        cache.write_ref(&repo, &Revision::main(), &commits[1]).unwrap();
        fs::write(cache.incomplete(&repo, digest(9)), "part").unwrap();
        (folder, cache, repo, commits)
    }

    #[test]
    fn blobs_of_other_commits_stay() {
        for placing in [Placing::Symlink, Placing::HardLink] {
            let (_folder, cache, repo, [first, second]) = cache(placing);
            let removed = cache.remove(&repo, Some(&first)).unwrap();
            assert_eq!((removed.commits, removed.freed_bytes), (vec![first], 100), "{placing:?}");
            assert!(removed.shared_bytes >= 6);
            assert!(cache.snapshot(&repo, &Revision::main()).is_ok());
            let removed = cache.remove(&repo, Some(&second)).unwrap();
            assert_eq!(removed.freed_bytes, 200 + 6 + 4, "{placing:?}");
            assert!(!cache.repo_folder(&repo).exists());
        }
    }

    #[test]
    fn all_of_a_repository_goes() {
        let (_folder, cache, repo, commits) = cache(Placing::Symlink);
        let removed = cache.remove(&repo, None).unwrap();
        assert_eq!((removed.commits.as_slice(), removed.freed_bytes), (&commits[..], 310));
        assert!(cache.repos().unwrap().is_empty());
        assert_eq!(cache.remove(&repo, None).unwrap_err().kind(), HubErrorKind::NotPulled);
    }

    #[test]
    fn what_is_being_fetched_stays() {
        let (_folder, cache, repo, commits) = cache(Placing::Symlink);
        let lock = cache.lock(&repo, digest(0), || {}).unwrap();
        let error = cache.remove(&repo, Some(&commits[0])).unwrap_err();
        assert_eq!(error.kind(), HubErrorKind::InUse);
        assert_eq!(cache.commits(&repo).unwrap(), commits);
        drop(lock);
        cache.remove(&repo, Some(&commits[0])).unwrap();
    }
}
