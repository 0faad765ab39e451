//! Where the cache lies unless something else is said.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder of the cache: `CLUEGATE_CACHE_DIR`, else `cluegate` in `XDG_CACHE_HOME`, else `~/.cache/cluegate`.
/// `None` if none of the variables nor `HOME` is set. A variable that is empty counts as not set, and so does an
/// `XDG_CACHE_HOME` that is no absolute path (XDG Base Directory Specification).
pub fn default_folder() -> Option<PathBuf> {
    resolve(|name| std::env::var_os(name))
}

fn resolve(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("CLUEGATE_CACHE_DIR")
        .or_else(|| {
            path("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("cluegate"))
        })
        .or_else(|| path("HOME").map(|home| home.join(Path::new(".cache/cluegate"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usable_variable_counts() {
        let folder = |set: &[(&str, &str)]| {
            resolve(|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
        };
        let all = [("CLUEGATE_CACHE_DIR", "own"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/a")];
        assert_eq!(folder(&all), Some("own".into()));
        assert_eq!(folder(&all[1..]), Some("/xdg/cluegate".into()));
        assert_eq!(folder(&all[2..]), Some("/home/a/.cache/cluegate".into()));
        assert_eq!(folder(&[]), None);
        let unusable = [("CLUEGATE_CACHE_DIR", ""), ("XDG_CACHE_HOME", "xdg"), ("HOME", "/home/a")];
        assert_eq!(folder(&unusable), Some("/home/a/.cache/cluegate".into()));
        assert_eq!(folder(&unusable[..2]), None);
    }
}
