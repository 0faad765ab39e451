//! Where the files of a model come from: a folder, or a tree of files compiled into the program.
//!
//! Every loader of this crate reads through [`FileTree`], so that an embedded suite and a checkpoint in a folder
//! take the same path.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::error::{ModelError, Result};

/// A file's content.
#[derive(Debug)]
pub enum FileBytes {
    /// Compiled into the program.
    Static(&'static [u8]),
    /// Read from disk.
    Owned(Vec<u8>),
    /// Mapped from disk.
    Mapped(memmap2::Mmap),
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

#[derive(Debug, Clone)]
enum Source {
    Folder(PathBuf),
    /// Files by their whole name, and the part of it (empty, or ending in `/`) that leads to this tree.
    Embedded {
        label: Arc<str>,
        files: &'static [(&'static str, &'static [u8])],
        prefix: String,
    },
}

/// A read-only tree of files. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct FileTree(Source);

impl FileTree {
    /// The tree below a folder on disk.
    ///
    /// # Errors
    /// `MissingFile` if `path` is not a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            Ok(Self(Source::Folder(path.to_path_buf())))
        } else {
            Err(ModelError::MissingFile { path: path.display().to_string(), what: "folder" })
        }
    }

    /// A tree compiled into the program: names with `/` and their bytes. `label` stands for the root in messages.
    pub fn embedded(label: &str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self(Source::Embedded { label: label.into(), files, prefix: String::new() })
    }

    /// The tree below the folder `name`; `.` is this tree. On disk `name` may be an absolute path or hold `..`.
    ///
    /// # Errors
    /// `MissingFile` if there is none.
    pub fn folder(&self, name: &str) -> Result<Self> {
        if name == "." {
            return Ok(self.clone());
        }
        match &self.0 {
            Source::Folder(path) => Self::open(path.join(name)),
            Source::Embedded { label, files, prefix } => {
                let prefix = format!("{prefix}{}/", name.trim_end_matches('/'));
                if files.iter().any(|(file, _)| file.starts_with(&prefix)) {
                    Ok(Self(Source::Embedded { label: label.clone(), files, prefix }))
                } else {
                    Err(ModelError::MissingFile { path: self.path_of(name), what: "folder" })
                }
            }
        }
    }

    /// The content of the file `name`; a name may lead through folders (`unet/config.json`).
    ///
    /// # Errors
    /// `MissingFile`, or `Unreadable` with the system's reason.
    pub fn read(&self, name: &str) -> Result<FileBytes> {
        match &self.0 {
            Source::Folder(path) => match std::fs::read(path.join(name)) {
                Ok(bytes) => Ok(FileBytes::Owned(bytes)),
                Err(source) => Err(self.io_error(name, source)),
            },
            Source::Embedded { .. } => self.embedded_file(name).map(FileBytes::Static),
        }
    }

    /// Like [`Self::read`], without copying: a file on disk is mapped into memory. Meant for weights, which are
    /// read once and are not written while the program runs.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn map(&self, name: &str) -> Result<FileBytes> {
        let Source::Folder(folder) = &self.0 else { return self.embedded_file(name).map(FileBytes::Static) };
        let file = std::fs::File::open(folder.join(name)).map_err(|e| self.io_error(name, e))?;
        let length = file.metadata().map_err(|e| self.io_error(name, e))?.len();
        if length == 0 {
            // An empty file cannot be mapped on every system.
            return Ok(FileBytes::Owned(Vec::new()));
        }
        // SAFETY: the mapping is read-only and private to this process. What remains is that another process
        // truncates the file while it is mapped; weights are written once and replaced by renaming, and the loader
        // copies every tensor out of the mapping before the model runs.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| self.io_error(name, e))?;
        Ok(FileBytes::Mapped(map))
    }

    /// The file `name` as UTF-8 text.
    ///
    /// # Errors
    /// As [`Self::read`]; `Malformed` if it is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<String> {
        let bytes = self.read(name)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(ModelError::malformed(self.path_of(name), format!("not UTF-8 text: {e}"))),
        }
    }

    /// The file `name` parsed as JSON.
    ///
    /// # Errors
    /// As [`Self::read`]; `Malformed` with field, line and column.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.read(name)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| ModelError::malformed(self.path_of(name), format!("not the expected JSON: {e}")))
    }

    /// Whether there is a file `name`.
    pub fn exists(&self, name: &str) -> bool {
        match &self.0 {
            Source::Folder(path) => path.join(name).is_file(),
            Source::Embedded { .. } => self.embedded_file(name).is_ok(),
        }
    }

    /// Names of all files of the tree, with `/`, sorted.
    ///
    /// # Errors
    /// `Unreadable` if a folder cannot be listed.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        match &self.0 {
            Source::Folder(path) => self.list_folder(path, "", &mut names)?,
            Source::Embedded { files, prefix, .. } => {
                names.extend(
                    files.iter().filter_map(|(file, _)| Some(file.strip_prefix(prefix.as_str())?.to_owned())),
                );
            }
        }
        names.sort();
        Ok(names)
    }

    fn list_folder(&self, folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        for entry in entries.map_err(|e| self.io_error(prefix, e))? {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            if path.is_dir() {
                self.list_folder(&path, &format!("{name}/"), names)?;
            } else {
                names.push(name);
            }
        }
        Ok(())
    }

    /// How messages call the file or folder `name`.
    pub fn path_of(&self, name: &str) -> String {
        match &self.0 {
            Source::Folder(path) => path.join(name).display().to_string(),
            Source::Embedded { label, prefix, .. } => format!("{label}:{prefix}{name}"),
        }
    }

    /// The folder on disk; none for a tree that is compiled in.
    pub fn on_disk(&self) -> Option<&Path> {
        match &self.0 {
            Source::Folder(path) => Some(path),
            Source::Embedded { .. } => None,
        }
    }

    /// How messages call this tree.
    pub fn label(&self) -> String {
        match &self.0 {
            Source::Folder(path) => path.display().to_string(),
            Source::Embedded { label, prefix, .. } => format!("{label}:{}", prefix.trim_end_matches('/')),
        }
    }

    fn embedded_file(&self, name: &str) -> Result<&'static [u8]> {
        if let Source::Embedded { files, prefix, .. } = &self.0 {
            let found = files.iter().find(|(file, _)| file.strip_prefix(prefix.as_str()) == Some(name));
            if let Some((_, bytes)) = found {
                return Ok(bytes);
            }
        }
        Err(ModelError::MissingFile { path: self.path_of(name), what: "file" })
    }

    fn io_error(&self, name: &str, source: std::io::Error) -> ModelError {
        let path = self.path_of(name);
        if source.kind() == std::io::ErrorKind::NotFound {
            ModelError::MissingFile { path, what: "file" }
        } else {
            ModelError::Unreadable { path, source }
        }
    }
}

/// BLAKE3 over the names, lengths and bytes of those of `names` that exist, as lower-case hexadecimal: the identity
/// of a model for caches. The name of a folder stands for all files below it.
///
/// # Errors
/// `Unreadable` if one of them cannot be read.
pub fn fingerprint(tree: &FileTree, names: &[&str]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |name: &str| -> Result<()> {
        let bytes = tree.map(name)?;
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
        Ok(())
    };
    for name in names {
        if tree.exists(name) {
            add(name)?;
        } else if let Ok(folder) = tree.folder(name) {
            for file in folder.list()? {
                add(&format!("{name}/{file}"))?;
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
