//! How much room there is.

use std::path::{Path, PathBuf};

use crate::error::{HubError, Result};

/// Free bytes, for this user, on the disk of `path` or of the first folder above it that exists.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let existing = path.ancestors().find(|folder| folder.is_dir());
    // A relative path whose first part does not exist ends in an empty one.
    let existing = existing
        .filter(|folder| !folder.as_os_str().is_empty())
        .map_or(PathBuf::from("."), Path::to_path_buf);
    fs4::available_space(&existing)
        .map_err(|error| HubError::io("ask for the free space of", &existing, &error))
}

/// Bytes of memory that this process may use at most: the machine's, or the limit of its container if that is lower.
/// `None` where the system does not say.
pub fn total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    Some(limit.map_or(machine, |limit| machine.min(limit)))
}

/// A number of bytes for people: `599 MB`, `16.6 GB`. Powers of ten, as the hub's pages and disks count.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sizes_read_well() {
        let cases = [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (598_641_000, "599 MB")];
        let large = [(16_582_751_232, "16.6 GB"), (999_960_000_000, "1.0 TB"), (u64::MAX, "18447 PB")];
        for (count, text) in cases.into_iter().chain(large) {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn the_space_of_a_folder_to_come_is_that_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(&folder.path().join("not/there/yet")).unwrap() > 0);
        assert!(free_bytes(Path::new("not-there-either")).unwrap() > 0);
    }
}
