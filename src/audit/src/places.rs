//! The places where a log is kept, for whoever reads it or removes from it beside its writer.

use std::future::Future;
use std::path::{Path, PathBuf};

use cluegate_store::Database;
use tokio::runtime::Handle;

use crate::database::LogTables;
use crate::error::{AuditError, Result};
use crate::keys::Keyring;
use crate::log::{Labels, labels};
use crate::pictures::PictureStore;
use crate::settings::LogSettings;

/// A log's files, tables, pictures and keys. Reads beside a gateway that is running, in the same process or another.
#[derive(Debug, Clone)]
pub struct LogPlaces {
    pub(crate) file: Option<PathBuf>,
    pub(crate) maintenance: Option<PathBuf>,
    pub(crate) tables: Option<LogTables>,
    pub(crate) pictures: Option<PictureStore>,
    pub(crate) head_keys: Option<Keyring>,
    pub(crate) subject_keys: Option<Keyring>,
    pub(crate) instance: String,
    pub(crate) labels: Labels,
    runtime: Option<Handle>,
}

impl LogPlaces {
    /// Opens what `settings` name (resolved, [`LogSettings::resolve`]). `database` comes with the runtime that it was opened
    /// in.
    ///
    /// # Errors
    /// If a setting cannot be used or a key file cannot be read.
    pub fn open(settings: &LogSettings, database: Option<(Database, Handle)>) -> Result<Self> {
        settings.check()?;
        let load = |path: &Option<PathBuf>| path.as_deref().map(Keyring::load).transpose();
        let head_keys = load(&settings.head_key_file)?;
        let (database, runtime) = database.unzip();
        let tables = match (settings.database, database) {
            (true, Some(database)) => Some(LogTables { database, keys: head_keys.clone() }),
            (true, None) => {
                let problem = "is on, and there is no database: set `store.url`".to_owned();
                return Err(AuditError::Setting { key: "database", problem });
            }
            (false, _) => None,
        };
        let instance = settings.instance_name()?;
        Ok(Self {
            maintenance: settings.file.as_deref().map(maintenance_path),
            file: settings.file.clone(),
            tables,
            pictures: settings.pictures.as_ref().map(PictureStore::open).transpose()?,
            head_keys,
            subject_keys: load(&settings.subject_key_file)?,
            labels: labels(settings, &instance),
            instance,
            runtime,
        })
    }

    /// One log file, wherever it came from: to read it, or to verify it.
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            maintenance: Some(maintenance_path(&path)),
            file: Some(path),
            tables: None,
            pictures: None,
            head_keys: None,
            subject_keys: None,
            instance: String::new(),
            labels: Labels::new(),
            runtime: None,
        }
    }

    /// The pictures that were kept.
    pub fn pictures(&self) -> Option<&PictureStore> {
        self.pictures.as_ref()
    }

    /// What may stand in the log for an end user of `tenant`, by each key of the key file.
    ///
    /// # Errors
    /// If there is no key: the log then holds no end users.
    pub fn subjects(&self, tenant: &str, subject: &str) -> Result<Vec<String>> {
        let keys = self.subject_keys.as_ref().ok_or_else(|| {
            let problem =
                "is not set, so the log holds no end users; it cannot be searched by them".to_owned();
            AuditError::Setting { key: "subject_key_file", problem }
        })?;
        Ok(keys.iter().map(|key| crate::log::masked_subject(key, tenant, subject)).collect())
    }

    /// The files of the log: decisions, and beside them what was removed.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.file.iter().chain(&self.maintenance).map(PathBuf::as_path)
    }

    /// Waits for the database.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(AuditError::Closed),
        }
    }
}

/// The file for what removing leaves in the log: its writer is whoever removes, not the gateway.
pub(crate) fn maintenance_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".maintenance");
    name.into()
}

/// The chain in which removals from files are named.
pub(crate) fn file_maintenance(instance: &str) -> String {
    format!("{instance}.file-maintenance")
}

/// The chain in which removals from the database are named.
pub(crate) fn tables_maintenance(instance: &str) -> String {
    format!("{instance}.database-maintenance")
}
