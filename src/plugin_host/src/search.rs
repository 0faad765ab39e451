//! Where libraries lie, and which of them may be loaded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::{HostError, Result};

/// The environment's own folders of plugins, in the form of PATH.
pub const PATH_VARIABLE: &str = "CLUEGATE_PLUGIN_PATH";
/// Largest library in bytes.
const MAX_BYTES: u64 = 4 << 30;
/// Most files that are looked at in one folder.
const MAX_FILES: usize = 10_000;

/// Where plugins are looked for, and which may be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    folders: Vec<PathBuf>,
    allow: BTreeSet<String>,
    allow_unlisted: bool,
}

/// A library that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundLibrary {
    /// Its file.
    pub path: PathBuf,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Whether it may be loaded.
    pub allowed: bool,
}

impl Search {
    /// Looks into `folders`, in order, and allows the libraries of these SHA-256.
    pub fn new(folders: Vec<PathBuf>, allow: impl IntoIterator<Item = String>) -> Self {
        let allow = allow.into_iter().map(|sha256| sha256.to_ascii_lowercase()).collect();
        Self { folders, allow, allow_unlisted: false }
    }

    /// Looks into the folders of `CLUEGATE_PLUGIN_PATH` too, after the others.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        if let Some(path) = std::env::var_os(PATH_VARIABLE) {
            self.folders.extend(std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()));
        }
        self
    }

    /// Allows every library, whatever its SHA-256: for those who build them.
    #[must_use]
    pub fn allowing_all(mut self, all: bool) -> Self {
        self.allow_unlisted = all;
        self
    }

    /// The folders, in order.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The library `name`: a path if it has a folder, else a file's name, or what stands between `lib` and `.so` in one.
    ///
    /// # Errors
    /// [`HostError::NotFound`] with all places, if there is none.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let named = Path::new(name);
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let folders: &[PathBuf] = &self.folders;
        let places: Vec<PathBuf> = if named.components().count() > 1 {
            vec![named.to_path_buf()]
        } else {
            let plain = name.replace('-', "_");
            let names =
                [name.to_owned(), format!("{prefix}{name}{suffix}"), format!("{prefix}{plain}{suffix}")];
            folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
        };
        if let Some(found) = places.iter().find(|place| place.is_file()) {
            return found
                .canonicalize()
                .map_err(|error| HostError::Read { path: found.clone(), problem: error.to_string() });
        }
        let searched = match places.is_empty() {
            true => vec![format!("nothing: neither `plugins.path` nor {PATH_VARIABLE} names a folder")],
            false => places.iter().map(|place| place.display().to_string()).collect(),
        };
        Err(HostError::NotFound { library: name.to_owned(), searched })
    }

    /// The SHA-256 of the library at `path`, if it may be loaded.
    ///
    /// # Errors
    /// If it cannot be read, or may not be loaded.
    pub fn allowed(&self, path: &Path) -> Result<String> {
        let sha256 = sha256_of(path)?;
        if self.allow_unlisted || self.allow.contains(&sha256) {
            Ok(sha256)
        } else {
            Err(HostError::NotAllowed { path: path.to_path_buf(), sha256 })
        }
    }

    /// All shared libraries in the folders, in order. Nothing of them is run.
    ///
    /// # Errors
    /// If a folder or a file cannot be read.
    pub fn list(&self) -> Result<Vec<FoundLibrary>> {
        let mut found = Vec::new();
        for folder in &self.folders {
            let unreadable =
                |error: std::io::Error| HostError::Read { path: folder.clone(), problem: error.to_string() };
            let mut paths: Vec<PathBuf> = Vec::new();
            for entry in folder.read_dir().map_err(unreadable)?.take(MAX_FILES) {
                let path = entry.map_err(unreadable)?.path();
                let library = path.extension().is_some_and(|end| end == std::env::consts::DLL_EXTENSION);
                if library && path.is_file() {
                    paths.push(path);
                }
            }
            paths.sort();
            for path in paths {
                let sha256 = sha256_of(&path)?;
                let allowed = self.allow_unlisted || self.allow.contains(&sha256);
                found.push(FoundLibrary { path, sha256, allowed });
            }
        }
        Ok(found)
    }
}

/// The SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// If it cannot be read, or is larger than 4 GiB.
pub fn sha256_of(path: &Path) -> Result<String> {
    let unreadable =
        |error: std::io::Error| HostError::Read { path: path.to_path_buf(), problem: error.to_string() };
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MAX_BYTES {
        let problem = format!("it has {size} bytes, expected at most {MAX_BYTES}");
        return Err(HostError::Read { path: path.to_path_buf(), problem });
    }
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn libraries_are_found_by_name_and_allowed_by_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let path = folder.path().join(format!("{prefix}two_words{suffix}"));
        std::fs::write(&path, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let search = |allow: &[&str]| {
            Search::new(vec![folder.path().to_path_buf()], allow.iter().map(|one| (*one).to_owned()))
        };
        let found = path.canonicalize().unwrap();
        for name in
            ["two-words", "two_words", path.to_str().unwrap(), path.file_name().unwrap().to_str().unwrap()]
        {
            assert_eq!(search(&[]).find(name).unwrap(), found, "{name}");
        }
        let missing = search(&[]).find("three").unwrap_err().to_string();
        assert!(missing.contains(&format!("{prefix}three{suffix}")), "{missing}");
        let nowhere = Search::default().find("three").unwrap_err().to_string();
        assert!(nowhere.contains("CLUEGATE_PLUGIN_PATH"), "{nowhere}");
        let refused = search(&["00"]).allowed(&path).unwrap_err();
        assert!(refused.to_string().contains(abc), "{refused}");
        assert_eq!(search(&[&abc.to_uppercase()]).allowed(&path).unwrap(), abc);
        assert_eq!(search(&[]).allowing_all(true).allowed(&path).unwrap(), abc);
        let listed = search(&[abc]).list().unwrap();
        assert_eq!(listed, [FoundLibrary { path, sha256: abc.to_owned(), allowed: true }]);
    }
}
