//! From a repository's name to a folder that can be loaded.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::{HubCache, entries};
use crate::choose::{choose, shards};
use crate::client::{Client, Limits};
use crate::digest::Digest;
use crate::error::{HubError, HubErrorKind, Result};
use crate::info::{RemoteFile, RepoInfo};
use crate::names::{Commit, FileName, RepoId, Revision};
use crate::settings::Settings;
use crate::space::{bytes, free_bytes};
use crate::transfer::{Progress, Quiet, Transfer, check_stored};

/// A hub and the cache that it is fetched to.
#[derive(Debug)]
pub struct Hub {
    cache: HubCache,
    /// `None` where the network is switched off.
    client: Option<Client>,
    free: fn(&Path) -> Result<u64>,
}

/// A file that a model needs.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedFile {
    /// Path in the repository.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// Checksum.
    pub digest: Digest,
    /// Bytes that are in the cache already, whole or of an unfinished download.
    pub have: u64,
}

/// What a pull will fetch.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The repository.
    pub repo: RepoId,
    /// As it was asked for.
    pub revision: Revision,
    /// The commit that it is.
    pub commit: Commit,
    /// Licence by the model card.
    pub licence: Option<String>,
    /// All files that the model needs, weights last.
    pub files: Vec<PlannedFile>,
}

/// A checkpoint that is in the cache, whole.
#[derive(Debug, Clone, Serialize)]
pub struct Pulled {
    /// The repository.
    pub repo: RepoId,
    /// The commit.
    pub commit: Commit,
    /// Licence by the model card.
    pub licence: Option<String>,
    /// The folder to load from.
    pub folder: PathBuf,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that came over the network now.
    pub fetched_bytes: u64,
}

impl Plan {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes that are still to come.
    pub fn missing_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size.saturating_sub(file.have)).sum()
    }
}

impl Hub {
    /// The hub and the cache that the settings name.
    pub fn new(settings: &Settings, limits: Limits) -> Self {
        let cache = HubCache::from_settings(settings);
        let client = (!settings.offline).then(|| Client::new(settings, limits));
        Self { cache, client, free: free_bytes }
    }

    /// The same with another answer to how many bytes are free on the disk of a path, for quotas and tests.
    #[must_use]
    pub fn with_free_space(mut self, free: fn(&Path) -> Result<u64>) -> Self {
        self.free = free;
        self
    }

    /// The cache.
    pub fn cache(&self) -> &HubCache {
        &self.cache
    }

    /// Finds out what is to be fetched. Indices of shards are fetched on the way, because they say what else is needed.
    ///
    /// # Errors
    /// What the hub refuses; `Unsuitable` if the repository has no weights that can be read; `Offline` if the network is
    /// switched off and the cache lacks something.
    pub fn plan(&self, repo: &RepoId, revision: &Revision) -> Result<Plan> {
        let Some(client) = &self.client else { return self.plan_offline(repo, revision) };
        let info = client.info(repo, revision)?;
        if revision.commit().is_some_and(|asked| asked != info.commit) {
            return Err(HubError::answer(format!(
                "{repo}: asked for the commit {revision}, the server answered with {}",
                info.commit
            )));
        }
        let choice = choose(repo, &info.files)?;
        let plan = |name: &FileName| self.planned(client, repo, &info, name);
        let mut files = choice.files.iter().map(plan).collect::<Result<Vec<_>>>()?;
        let mut shard_names = BTreeSet::new();
        let transfer = Transfer { client, cache: &self.cache, repo, commit: &info.commit, progress: &Quiet };
        for index in &choice.indices {
            let mut file = plan(index)?;
            if file.size > client.limits.description {
                return Err(HubError::answer(format!("{index} of {repo} claims {}", bytes(file.size))));
            }
            transfer.fetch(&file)?;
            file.have = file.size;
            let path = self.cache.snapshot_folder(repo, &info.commit).join(index.as_str());
            let content = fs::read(&path).map_err(|error| HubError::io("read", &path, &error))?;
            shard_names.extend(shards(index, &content, &info.files)?);
            files.push(file);
        }
        files.extend(shard_names.iter().map(plan).collect::<Result<Vec<_>>>()?);
        // What is small comes first, so that a refusal is known before anything large is fetched.
        files.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
        let total = files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size));
        if total.is_none() {
            return Err(HubError::answer(format!("{repo}: the sizes of its files add up to no number")));
        }
        Ok(Plan {
            repo: repo.clone(),
            revision: revision.clone(),
            commit: info.commit.clone(),
            licence: info.licence.clone(),
            files,
        })
    }

    fn planned(
        &self,
        client: &Client,
        repo: &RepoId,
        info: &RepoInfo,
        name: &FileName,
    ) -> Result<PlannedFile> {
        let listed = info.files.iter().find(|file| file.name == *name);
        let (size, digest) = match listed {
            Some(RemoteFile { size: Some(size), digest: Some(digest), .. }) => (*size, *digest),
            _ => client.head(repo, &info.commit, name)?,
        };
        if size > client.limits.file {
            return Err(HubError::answer(format!(
                "{name} of {repo} claims {}, expected {} at most",
                bytes(size),
                bytes(client.limits.file)
            )));
        }
        let stored = self.cache.stored(repo, &info.commit, name, (size, digest)).map(|_| size);
        let partial =
            || fs::metadata(self.cache.incomplete(repo, digest)).ok().map(|found| found.len().min(size));
        let have = stored.or_else(partial).unwrap_or(0);
        Ok(PlannedFile { name: name.clone(), size, digest, have })
    }

    /// What the cache has, if that is all that is needed.
    fn plan_offline(&self, repo: &RepoId, revision: &Revision) -> Result<Plan> {
        let folder = self.cache.snapshot(repo, revision).map_err(|error| {
            HubError::new(
                HubErrorKind::Offline,
                format!("{error}. The network is switched off: HF_HUB_OFFLINE is set; unset it to fetch what is missing"),
            )
        })?;
        let Some(commit) = self.cache.commit_of(repo, revision)? else {
            return Err(HubError::new(
                HubErrorKind::NotPulled,
                format!("{repo} at {revision} is not in the cache"),
            ));
        };
        let files = entries(&folder)?.into_iter().filter_map(|entry| {
            let (size, digest) = (entry.bytes?, entry.blob?.parse().ok()?);
            Some(PlannedFile { name: entry.name.parse().ok()?, size, digest, have: size })
        });
        let files = files.collect();
        Ok(Plan { repo: repo.clone(), revision: revision.clone(), commit, licence: None, files })
    }

    /// Refuses plans for which the disk has no room, all together.
    ///
    /// # Errors
    /// `Disk` with the figures.
    pub fn check_room(&self, plans: &[Plan]) -> Result<()> {
        let needed = plans.iter().fold(0_u64, |sum, plan| sum.saturating_add(plan.missing_bytes()));
        let free = (self.free)(self.cache.folder())?;
        if needed > free {
            return Err(HubError::no_room(self.cache.folder().to_path_buf(), needed, free));
        }
        Ok(())
    }

    /// Fetches what is missing, checks all of it, and notes the revision. What is there is read once to check it; what is
    /// damaged is fetched anew. May be called again after any failure, and by several processes at a time.
    ///
    /// # Errors
    /// What the hub refuses; `Network` after the attempts that the limits allow; `Checksum`; `Disk`; `Offline` if the
    /// network is switched off and something is damaged.
    pub fn fetch(&self, plan: &Plan, progress: &dyn Progress) -> Result<Pulled> {
        let mut fetched_bytes = 0;
        for file in &plan.files {
            match &self.client {
                Some(client) => {
                    let Plan { repo, commit, .. } = plan;
                    fetched_bytes +=
                        Transfer { client, cache: &self.cache, repo, commit, progress }.fetch(file)?;
                }
                None if check_stored(&self.cache, &plan.repo, &plan.commit, file, progress)? => {}
                None => {
                    return Err(HubError::new(
                        HubErrorKind::Offline,
                        format!(
                            "{} of {} was damaged and is removed, and the network is switched off: unset HF_HUB_OFFLINE \
                             and start the same command again",
                            file.name, plan.repo
                        ),
                    ));
                }
            }
        }
        self.cache.write_ref(&plan.repo, &plan.revision, &plan.commit)?;
        let folder = self.cache.snapshot(&plan.repo, &plan.commit.clone().into())?;
        Ok(Pulled {
            repo: plan.repo.clone(),
            commit: plan.commit.clone(),
            licence: plan.licence.clone(),
            folder,
            bytes: plan.bytes(),
            fetched_bytes,
        })
    }
}
