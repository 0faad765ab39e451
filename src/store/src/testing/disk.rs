//! A disk that is soon full, or takes no writes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::TestingError;

/// A file system in memory with little room, mounted for as long as this value lives.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `mib` MiB below the system's folder for temporary files; none where this process may not mount, so
    /// that such tests need root.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn mount(mib: u32) -> Result<Option<Self>, TestingError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("cluegate-disk-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|source| TestingError::new("make a folder", source))?;
        let disk = Self { folder };
        let mounted = run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"], &disk.folder);
        Ok(mounted.then_some(disk))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes no more writes.
    ///
    /// # Errors
    /// If a file of it is open for writing.
    pub fn read_only(&self) -> Result<(), TestingError> {
        if run("mount", &["-o", "remount,ro"], &self.folder) {
            return Ok(());
        }
        Err(TestingError::new("forbid writes", "the disk is in use"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a connection that is being closed may still hold a file.
        run("umount", &["-l"], &self.folder);
        let _ = std::fs::remove_dir(&self.folder);
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).arg(folder).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
