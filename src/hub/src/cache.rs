//! The cache on disk, in the layout of `huggingface_hub`:
//!
//! ```text
//! models--org--name/refs/main                         the commit that `main` was when it was fetched
//! models--org--name/blobs/CHECKSUM                    each content once; CHECKSUM.incomplete while it is fetched
//! models--org--name/snapshots/COMMIT/config.json      -> ../../blobs/CHECKSUM
//! .locks/models--org--name/CHECKSUM.lock              held while that blob is fetched
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::choose::{is_pickle, missing};
use crate::digest::Digest;
use crate::error::{HubError, HubErrorKind, Result};
use crate::info::licence_of_readme;
use crate::names::{Commit, FileName, RepoId, Revision};
use crate::settings::Settings;

/// What the name of a blob ends with while it is fetched.
const INCOMPLETE: &str = ".incomplete";

/// Most bytes of a model card that are read for its licence.
const CARD_BYTES: u64 = 1 << 20;

/// How a file of a snapshot comes to the bytes of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placing {
    /// A relative symbolic link, as everywhere that they are allowed.
    Symlink,
    /// Another name of the same file, where they are not.
    HardLink,
    /// The file itself, which then is no blob any more, on file systems without any links.
    #[cfg_attr(not(test), expect(dead_code, reason = "what remains when the others fail"))]
    Move,
}

/// A cache of checkpoints. It need not exist.
#[derive(Debug, Clone)]
pub struct HubCache {
    folder: PathBuf,
    placing: Placing,
}

/// A repository in the cache.
#[derive(Debug, Clone, Serialize)]
pub struct CachedRepo {
    /// Its name.
    pub repo: RepoId,
    /// Bytes on disk, each blob once, those of unfinished downloads included.
    pub bytes: u64,
    /// Bytes of unfinished downloads.
    pub incomplete_bytes: u64,
    /// Its commits, sorted.
    pub revisions: Vec<CachedRevision>,
}

/// A commit in the cache.
#[derive(Debug, Clone, Serialize)]
pub struct CachedRevision {
    /// The commit.
    pub commit: Commit,
    /// Branches and tags that were this commit when they were fetched.
    pub refs: Vec<String>,
    /// Number of files.
    pub files: usize,
    /// Bytes of these files.
    pub bytes: u64,
    /// Files that its own configuration asks for and that are not there.
    pub missing: Vec<String>,
    /// Whether any weights are a Python pickle, in want of safetensors. It is read as data.
    pub pickled: bool,
    /// Licence by its model card; `None` if there is no card or it names none.
    pub licence: Option<String>,
}

/// A file of a snapshot.
pub(crate) struct Entry {
    /// Path in the snapshot, with `/`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Name of the blob that it links to.
    pub(crate) blob: Option<String>,
    /// Bytes; `None` if what it links to is not there.
    pub(crate) bytes: Option<u64>,
}

impl HubCache {
    /// The cache in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), placing: Placing::Symlink }
    }

    /// The cache that the settings name.
    pub fn from_settings(settings: &Settings) -> Self {
        let placing = if settings.symlinks { Placing::Symlink } else { Placing::HardLink };
        Self { folder: settings.cache.clone(), placing }
    }

    #[cfg(test)]
    pub(crate) fn placing(mut self, placing: Placing) -> Self {
        self.placing = placing;
        self
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn repo_folder(&self, repo: &RepoId) -> PathBuf {
        self.folder.join(repo.folder_name())
    }

    pub(crate) fn snapshot_folder(&self, repo: &RepoId, commit: &Commit) -> PathBuf {
        self.repo_folder(repo).join("snapshots").join(commit.as_str())
    }

    pub(crate) fn blob(&self, repo: &RepoId, digest: Digest) -> PathBuf {
        self.repo_folder(repo).join("blobs").join(digest.to_string())
    }

    /// Where a blob is written until it is whole.
    pub(crate) fn incomplete(&self, repo: &RepoId, digest: Digest) -> PathBuf {
        self.repo_folder(repo).join("blobs").join(format!("{digest}{INCOMPLETE}"))
    }

    /// The commit that a revision is in this cache, without asking the hub.
    ///
    /// # Errors
    /// If the file of the reference holds no commit.
    pub fn commit_of(&self, repo: &RepoId, revision: &Revision) -> Result<Option<Commit>> {
        if let Some(commit) = revision.commit() {
            return Ok(Some(commit));
        }
        let path = self.repo_folder(repo).join("refs").join(revision.as_str());
        match fs::read_to_string(&path) {
            Ok(text) => {
                let commit = text.trim().parse::<Commit>();
                commit.map(Some).map_err(|error| HubError::answer(format!("{}: {error}", path.display())))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(HubError::io("read", &path, &error)),
        }
    }

    /// The folder of a revision with all that its configuration asks for.
    ///
    /// # Errors
    /// `NotPulled` if it is not there or lacks files, with the command that fetches it.
    pub fn snapshot(&self, repo: &RepoId, revision: &Revision) -> Result<PathBuf> {
        self.snapshot_of(repo, revision, &format!("{repo} --revision {revision}"))
    }

    /// The same for a checkpoint that `cluegate models pull NAME` fetches, perhaps together with others.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub fn snapshot_of(&self, repo: &RepoId, revision: &Revision, name: &str) -> Result<PathBuf> {
        let not_pulled = |what: String| {
            HubError::new(
                HubErrorKind::NotPulled,
                format!(
                    "{repo} at {revision} {what} in {}: fetch it with `cluegate models pull {name}`",
                    self.folder.display()
                ),
            )
        };
        let Some(commit) = self.commit_of(repo, revision)? else {
            return Err(not_pulled("is not".to_owned()));
        };
        let folder = self.snapshot_folder(repo, &commit);
        if !folder.is_dir() {
            return Err(not_pulled("is not".to_owned()));
        }
        let missing = missing_in(&folder);
        if missing.is_empty() {
            return Ok(folder);
        }
        let more = if missing.len() > 3 { ", ..." } else { "" };
        let shown = missing.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        Err(not_pulled(format!("lacks {shown}{more}")))
    }

    /// Notes which commit a branch or tag is.
    pub(crate) fn write_ref(&self, repo: &RepoId, revision: &Revision, commit: &Commit) -> Result<()> {
        if revision.commit().is_some() {
            return Ok(());
        }
        let path = self.repo_folder(repo).join("refs").join(revision.as_str());
        if fs::read_to_string(&path).is_ok_and(|found| found == commit.as_str()) {
            return Ok(());
        }
        write_whole(&path, commit.as_str().as_bytes())
    }

    /// Takes the lock of a blob; `waiting` is called once if another process has it. Without locks on the file system the
    /// download goes on without one: the checksum tells if two processes got in each other's way.
    pub(crate) fn lock(&self, repo: &RepoId, digest: Digest, waiting: impl FnOnce()) -> Result<File> {
        let path = self.folder.join(".locks").join(repo.folder_name()).join(format!("{digest}.lock"));
        let failed = |error: io::Error| HubError::io("lock", &path, &error);
        create_parent(&path).map_err(failed)?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(failed)?;
            }
            Err(fs::TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock: two downloads of this file may disturb each other");
            }
        }
        Ok(file)
    }

    /// Where the bytes of a file of a commit lie, if they have its size.
    pub(crate) fn stored(
        &self,
        repo: &RepoId,
        commit: &Commit,
        file: &FileName,
        of: (u64, Digest),
    ) -> Option<PathBuf> {
        let whole =
            |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == of.0);
        let blob = Some(self.blob(repo, of.1)).filter(whole);
        let own = || {
            let path = self.snapshot_folder(repo, commit).join(file.as_str());
            let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
            Some(path).filter(|path| is_file && whole(path))
        };
        blob.or_else(own)
    }

    /// Lets the file of a snapshot be the blob.
    pub(crate) fn place(
        &self,
        repo: &RepoId,
        commit: &Commit,
        file: &FileName,
        digest: Digest,
    ) -> Result<()> {
        let (blob, pointer) =
            (self.blob(repo, digest), self.snapshot_folder(repo, commit).join(file.as_str()));
        if !blob.is_file() {
            // It was moved to the snapshot when it came.
            return Ok(());
        }
        let up = "../".repeat(2 + file.as_str().matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{digest}"));
        if fs::read_link(&pointer).is_ok_and(|found| found == target) && self.placing == Placing::Symlink {
            return Ok(());
        }
        let place = || {
            create_parent(&pointer)?;
            match fs::remove_file(&pointer) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut placed = Err(io::Error::from(ErrorKind::Unsupported));
            if self.placing <= Placing::Symlink {
                placed = symlink(&target, &pointer);
            }
            if placed.is_err() && self.placing <= Placing::HardLink {
                placed = fs::hard_link(&blob, &pointer);
            }
            match placed {
                // Another process was quicker.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                Err(_) => fs::rename(&blob, &pointer),
                Ok(()) => Ok(()),
            }
        };
        place().map_err(|error| HubError::io("write", &pointer, &error))
    }

    /// All repositories of models, sorted by name. Folders that are none are left out.
    ///
    /// # Errors
    /// If a folder cannot be listed.
    pub fn repos(&self) -> Result<Vec<CachedRepo>> {
        let mut repos = Vec::new();
        for name in list(&self.folder)? {
            if let Some(repo) = name.to_str().and_then(RepoId::from_folder_name) {
                repos.push(self.repo(&repo)?);
            }
        }
        repos.sort_by(|a, b| a.repo.cmp(&b.repo));
        Ok(repos)
    }

    /// What the cache has of a repository; without revisions if it has nothing.
    ///
    /// # Errors
    /// If a folder cannot be listed.
    pub fn repo(&self, repo: &RepoId) -> Result<CachedRepo> {
        let root = self.repo_folder(repo);
        let refs = self.refs(repo)?;
        let (mut bytes, mut incomplete_bytes) = (0, 0);
        for name in list(&root.join("blobs"))? {
            let size = fs::metadata(root.join("blobs").join(&name)).map_or(0, |found| found.len());
            bytes += size;
            if name.to_string_lossy().ends_with(INCOMPLETE) {
                incomplete_bytes += size;
            }
        }
        let mut revisions = Vec::new();
        for commit in self.commits(repo)? {
            let folder = self.snapshot_folder(repo, &commit);
            let entries = entries(&folder)?;
            // Files that are no links take room of their own, unless they are other names of blobs.
            let own = entries
                .iter()
                .filter(|entry| entry.blob.is_none())
                .filter_map(|entry| single_name_bytes(&entry.path));
            bytes += own.sum::<u64>();
            let of_commit = refs.iter().filter(|(_, found)| **found == commit);
            revisions.push(CachedRevision {
                refs: of_commit.map(|(name, _)| name.clone()).collect(),
                files: entries.len(),
                bytes: entries.iter().filter_map(|entry| entry.bytes).sum(),
                missing: missing_in(&folder),
                pickled: entries.iter().any(|entry| is_pickle(&entry.name)),
                licence: licence(&folder),
                commit,
            });
        }
        Ok(CachedRepo { repo: repo.clone(), bytes, incomplete_bytes, revisions })
    }

    /// The commits that have a snapshot, sorted.
    pub(crate) fn commits(&self, repo: &RepoId) -> Result<Vec<Commit>> {
        let names = list(&self.repo_folder(repo).join("snapshots"))?;
        let mut commits: Vec<Commit> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        commits.sort();
        Ok(commits)
    }

    /// The references of a repository; those that hold no commit are left out.
    pub(crate) fn refs(&self, repo: &RepoId) -> Result<BTreeMap<String, Commit>> {
        let found = entries(&self.repo_folder(repo).join("refs"))?;
        let read = |entry: Entry| {
            let commit = fs::read_to_string(&entry.path).ok()?.trim().parse().ok()?;
            Some((entry.name, commit))
        };
        Ok(found.into_iter().filter_map(read).collect())
    }
}

/// What a snapshot lacks of what its configuration asks for.
fn missing_in(folder: &Path) -> Vec<String> {
    // `is_file` follows links, and gives up where they go round in a circle.
    missing(&|name| folder.join(name).is_file(), &|name| fs::read(folder.join(name)).ok())
}

fn licence(folder: &Path) -> Option<String> {
    use io::Read as _;
    let mut text = Vec::new();
    File::open(folder.join("README.md")).ok()?.take(CARD_BYTES).read_to_end(&mut text).ok()?;
    licence_of_readme(&String::from_utf8_lossy(&text))
}

/// All files below a folder, sorted; folders that are links are not entered. A folder that is not there has none.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for name in list(&folder)? {
            let path = folder.join(&name);
            let name = format!("{prefix}{}", name.to_string_lossy());
            let kind = match fs::symlink_metadata(&path) {
                // Somebody's unfinished file, finished or removed since the folder was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found.map_err(|error| HubError::io("look at", &path, &error))?,
            };
            if kind.is_dir() {
                folders.push((path, format!("{name}/")));
                continue;
            }
            let target = fs::read_link(&path).ok();
            let blob = target.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()));
            let bytes = fs::metadata(&path).ok().filter(fs::Metadata::is_file).map(|found| found.len());
            found.push(Entry { name, path, blob, bytes });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Names in a folder; none if it is not there.
pub(crate) fn list(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| HubError::io("list", folder, &error)),
    }
}

/// Writes a small file, folders included. Whoever reads it at the same time finds all of the old one or all of the new one,
/// and several writers at once, be they threads or processes, do not get in each other's way.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let mut part = path.to_path_buf().into_os_string();
    part.push(format!(".{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let part = PathBuf::from(part);
    let write = || {
        create_parent(path)?;
        fs::write(&part, bytes)?;
        fs::rename(&part, path)
    };
    write().map_err(|error| {
        // The first error counts: what is left is small and is no file of the cache.
        let _ = fs::remove_file(&part);
        HubError::io("write", path, &error)
    })
}

pub(crate) fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Bytes of a file that has this name only.
fn single_name_bytes(path: &Path) -> Option<u64> {
    let found = fs::symlink_metadata(path).ok()?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&found) > 1 {
        return None;
    }
    Some(found.len())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const COMMIT: &str = "57c216476eefef5ab752ec549e440a49ae4ae5f3";
    const BLOB: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn cache(placing: Placing) -> (tempfile::TempDir, HubCache, RepoId, Commit) {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path().join("hub")).placing(placing);
        (folder, cache, "a/b".parse().unwrap(), COMMIT.parse().unwrap())
    }

    #[test]
    fn a_file_is_placed_whatever_links_there_are() {
        for placing in [Placing::Symlink, Placing::HardLink, Placing::Move] {
            let (_folder, cache, repo, commit) = cache(placing);
            let digest: Digest = BLOB.parse().unwrap();
            let file: FileName = "unet/config.json".parse().unwrap();
            create_parent(&cache.blob(&repo, digest)).unwrap();
            fs::write(cache.blob(&repo, digest), "hello\n").unwrap();
            for _ in 0..2 {
                cache.place(&repo, &commit, &file, digest).unwrap();
            }
            let path = cache.snapshot_folder(&repo, &commit).join("unet/config.json");
            assert_eq!(fs::read_to_string(&path).unwrap(), "hello\n");
            let target = fs::read_link(&path).ok();
            assert_eq!(
                target,
                (placing == Placing::Symlink).then(|| format!("../../../blobs/{BLOB}").into())
            );
            let stored = cache.stored(&repo, &commit, &file, (6, digest)).unwrap();
            assert_eq!(stored, if placing == Placing::Move { path } else { cache.blob(&repo, digest) });
            assert_eq!(cache.stored(&repo, &commit, &file, (7, digest)), None);
            assert_eq!(cache.repo(&repo).unwrap().bytes, 6, "{placing:?}");
        }
    }

    #[test]
    fn references_name_commits() {
        let (_folder, cache, repo, commit) = cache(Placing::Symlink);
        for name in ["main", "refs/pr/15", "v1.0"] {
            let revision: Revision = name.parse().unwrap();
            assert_eq!(cache.commit_of(&repo, &revision).unwrap(), None);
            cache.write_ref(&repo, &revision, &commit).unwrap();
            assert_eq!(cache.commit_of(&repo, &revision).unwrap(), Some(commit.clone()));
        }
        cache.write_ref(&repo, &commit.clone().into(), &commit).unwrap();
        assert_eq!(cache.refs(&repo).unwrap().keys().collect::<Vec<_>>(), ["main", "refs/pr/15", "v1.0"]);
        let path = cache.repo_folder(&repo).join("refs/main");
        for bad in ["", "main", "../../../../../../../../../../etc/passwd", "\u{0}"] {
            fs::write(&path, bad).unwrap();
            let error = cache.commit_of(&repo, &Revision::main()).unwrap_err();
            assert!(error.to_string().contains("refs/main"), "{error}");
        }
    }

    #[test]
    fn a_reference_that_many_write_at_once_is_always_whole() {
        let (_folder, cache, repo, commit) = cache(Placing::Symlink);
        let other: Commit = "f".repeat(40).parse().unwrap();
        let commits = [&commit, &other];
        cache.write_ref(&repo, &Revision::main(), &other).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (cache, repo) = (&cache, &repo);
                scope.spawn(move || {
                    for time in 0..200 {
                        let commit = commits[(writer + time) % 2];
                        cache.write_ref(repo, &Revision::main(), commit).unwrap();
                        let found = cache.commit_of(repo, &Revision::main()).unwrap();
                        assert!(found.is_some_and(|found| commits.contains(&&found)));
                        assert!(cache.refs(repo).unwrap().contains_key("main"));
                    }
                });
            }
        });
        assert_eq!(cache.refs(&repo).unwrap().keys().collect::<Vec<_>>(), ["main"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_are_missing_files() {
        let (_folder, cache, repo, commit) = cache(Placing::Symlink);
        let folder = cache.snapshot_folder(&repo, &commit);
        fs::create_dir_all(&folder).unwrap();
        symlink(Path::new("config.json"), &folder.join("config.json")).unwrap();
        symlink(Path::new("."), &folder.join("again")).unwrap();
        let found = cache.repo(&repo).unwrap();
        assert_eq!((found.revisions[0].files, found.revisions[0].bytes), (2, 0));
        assert_eq!(found.revisions[0].missing, ["config.json", "model.safetensors"]);
        let error = cache.snapshot(&repo, &commit.into()).unwrap_err();
        assert_eq!(error.kind(), HubErrorKind::NotPulled);
        assert!(error.to_string().contains("lacks config.json"), "{error}");
    }

    #[test]
    fn what_is_not_there_says_how_to_fetch_it() {
        let (_folder, cache, repo, commit) = cache(Placing::Symlink);
        assert!(cache.repos().unwrap().is_empty());
        for revision in [Revision::main(), commit.into()] {
            let error = cache.snapshot(&repo, &revision).unwrap_err();
            assert_eq!(error.kind(), HubErrorKind::NotPulled);
            assert!(
                error.to_string().contains(&format!("cluegate models pull a/b --revision {revision}")),
                "{error}"
            );
        }
    }
}
