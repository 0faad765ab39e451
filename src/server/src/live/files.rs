//! Policies and keys in files, and whether the files have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cluegate_gate::Policies;
use cluegate_gate::policy::ConstitutionSource;

use super::{Loaded, ReloadError};
use crate::keys::{KeyFile, KeyKind, KeyRing};

/// The files that a gateway without a store reads.
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) policy: Option<PathBuf>,
    pub(super) keys: Option<PathBuf>,
}

/// What files looked like: their lengths, times and places on the disk. A file that is not there has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Looks(BTreeMap<PathBuf, Option<(u64, Option<SystemTime>, u64)>>);

impl Looks {
    /// How the same files look now.
    pub(super) fn again(&self) -> Self {
        Self(self.0.keys().map(|file| (file.clone(), look(file))).collect())
    }

    /// The files of `other`, those that are known here as they are known here.
    pub(super) fn with(self, mut other: Self) -> Self {
        for (file, known) in self.0 {
            if let Some(look) = other.0.get_mut(&file) {
                *look = known;
            }
        }
        other
    }
}

impl Looks {
    /// These, and how one more file looks now.
    pub(super) fn and(mut self, file: Option<&Path>) -> Self {
        if let Some(file) = file {
            self.0.insert(file.to_path_buf(), look(file));
        }
        self
    }
}

fn look(file: &Path) -> Option<(u64, Option<SystemTime>, u64)> {
    let found = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    let place = std::os::unix::fs::MetadataExt::ino(&found);
    #[cfg(not(unix))]
    let place = 0;
    Some((found.len(), found.modified().ok(), place))
}

impl Files {
    /// Reads all of them.
    ///
    /// # Errors
    /// If one cannot be read or used.
    pub(super) fn load(&self) -> Result<Loaded, ReloadError> {
        let policies = match &self.policy {
            Some(file) => Policies::load(file).map_err(ReloadError::policies)?,
            None => Policies::shipped_default().map_err(ReloadError::policies)?,
        };
        let keys = match &self.keys {
            Some(file) => KeyFile::load(file, KeyKind::Client).map_err(ReloadError::keys)?,
            None => KeyRing::default(),
        };
        let loaded = Loaded { policies, keys, generation: None, suspended: Arc::default() };
        let origin = self.keys.as_ref().map_or_else(String::new, |file| file.display().to_string());
        loaded.check_keys(&origin)?;
        Ok(loaded)
    }

    /// How the files look now: those themselves, and the constitutions that these policies name.
    pub(super) fn looks(&self, policies: &Policies) -> Looks {
        let folder = self.policy.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let mut files: BTreeSet<PathBuf> =
            [&self.policy, &self.keys].into_iter().flatten().cloned().collect();
        for tenant in policies.tenants().filter_map(|tenant| policies.tenant(tenant)) {
            for policy in tenant.all() {
                let canary = policy.canary.as_ref().map(|canary| &canary.constitution);
                for source in [Some(&policy.constitution), canary].into_iter().flatten() {
                    if let ConstitutionSource::Named(name) = source {
                        files.insert(folder.join(name));
                    }
                }
            }
        }
        Looks(files.into_iter().map(|file| (look(&file), file)).map(|(look, file)| (file, look)).collect())
    }
}
