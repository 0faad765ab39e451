//! Names from outside that become parts of paths and addresses: each is checked once, here.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::error::HubError;

/// Longest name that is accepted, in bytes: what common file systems take.
const MAX_NAME: usize = 255;

/// A repository, `org/name` or `name`, as the hub allows them: letters, digits, `-`, `_` and `.`, no `--` and no `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RepoId(String);

impl RepoId {
    /// As in addresses: `org/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of its folder in the cache: `models--org--name`.
    pub fn folder_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The repository of a folder in the cache; `None` for a folder of something else.
    pub fn from_folder_name(name: &str) -> Option<Self> {
        let id: Self = name.strip_prefix("models--")?.replace("--", "/").parse().ok()?;
        (id.folder_name() == name).then_some(id)
    }
}

impl FromStr for RepoId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let part = |part: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
            part.starts_with(edge) && part.ends_with(edge) && part.chars().all(inner)
        };
        let parts = text.split('/').count();
        let well_formed = parts <= 2
            && text.len() <= 96
            && text.split('/').all(part)
            && !text.contains("--")
            && !text.contains("..");
        if well_formed {
            return Ok(Self(text.to_owned()));
        }
        Err(HubError::setting(format!(
            "expected a repository such as Qwen/Qwen2-VL-7B-Instruct, got {text:?}: one or two parts of letters, digits, \
             `-`, `_` and `.`, joined by `/`, 96 characters at most"
        )))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A commit: 40 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Commit(String);

impl Commit {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Commit {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        if text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(60).collect();
        Err(HubError::answer(format!(
            "expected a commit, 40 hexadecimal digits in lower case, got {shown:?}"
        )))
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A commit, a branch (`main`), a tag, or a reference such as `refs/pr/3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Revision(String);

impl Revision {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The commit, if the revision is one.
    pub fn commit(&self) -> Option<Commit> {
        self.0.parse().ok()
    }

    /// The branch that repositories begin with.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}

impl From<Commit> for Revision {
    fn from(commit: Commit) -> Self {
        Self(commit.0)
    }
}

impl FromStr for Revision {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        if is_relative_path(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(HubError::setting(format!(
            "expected a revision (a commit, a branch such as main, a tag, refs/pr/3), got {text:?}"
        )))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a file in a repository: a relative path with `/`, that leads nowhere but down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FileName(String);

impl FileName {
    /// As in the repository.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder, with a `/` at its end, and the name in it.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.0.rfind('/').map_or(("", &*self.0), |at| self.0.split_at(at + 1))
    }
}

impl FromStr for FileName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        if is_relative_path(text) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(120).collect();
        Err(HubError::answer(format!(
            "a file is named {shown:?}: expected a relative path without `..`, `\\`, `:` and control characters; nothing \
             of this repository is fetched"
        )))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` names something below a folder on every system: no part is empty, `.` or `..`, none holds what a
/// system takes for a separator, a drive or a wildcard.
fn is_relative_path(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= MAX_NAME
            && part != "."
            && part != ".."
            && !part.ends_with(['.', ' '])
            && !part.chars().any(|c| c.is_control() || r#"\:*?"<>|"#.contains(c))
    };
    text.len() <= 4 * MAX_NAME && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_hub_are_accepted_and_others_refused() {
        for good in ["Qwen/Qwen2-VL-7B-Instruct", "gpt2", "llava-hf/llava-v1.6-34b-hf", "a_b/c.d-e", "_x/y_"]
        {
            let id: RepoId = good.parse().unwrap();
            assert_eq!(RepoId::from_folder_name(&id.folder_name()), Some(id));
        }
        for bad in
            ["", "/", "a/", "/a", "a/b/c", "a b", "../x", "a/..", "a--b/c", "a/b\n", "-a/b", "a/.b", "ä/b"]
        {
            assert!(bad.parse::<RepoId>().is_err(), "{bad:?}");
        }
        for bad in ["models--", "datasets--a--b", "models--a----b", "models--..--b", "models--a--b--c"] {
            assert_eq!(RepoId::from_folder_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn revisions_are_told_apart() {
        let commit = "57c216476eefef5ab752ec549e440a49ae4ae5f3";
        assert_eq!(commit.parse::<Revision>().unwrap().commit().unwrap().as_str(), commit);
        for name in ["main", "refs/pr/15", "v1.0", &commit.to_uppercase(), &commit[1..]] {
            assert_eq!(name.parse::<Revision>().unwrap().commit(), None, "{name}");
        }
        for bad in ["", "/main", "../main", "a//b", "a/./b", "a\\b", "c:x", "main\0"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_file_name_stays_below_its_folder(text in r"[a./\\:\x00-\x7f]{0,12}|(\.\.?/?|/|a|[A-Z]:|\\){0,8}") {
            if let Ok(name) = text.parse::<FileName>() {
                let path = Path::new(name.as_str());
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{text:?}");
                prop_assert_eq!(path.components().count(), text.split('/').count());
            }
        }

        #[test]
        fn an_accepted_repository_is_one_folder(text in r"[a-z./\\_-]{0,14}") {
            if let Ok(id) = text.parse::<RepoId>() {
                prop_assert_eq!(Path::new(&id.folder_name()).components().count(), 1);
                prop_assert_eq!(RepoId::from_folder_name(&id.folder_name()), Some(id));
            }
        }
    }
}
