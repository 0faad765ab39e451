//! Models files that name commits of the hub instead of folders.

use std::fmt::Write as _;

use serde::Serialize;

use crate::error::{HubError, Result};
use crate::names::{RepoId, Revision};

/// A checkpoint that a models file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Name of the section, such as `judge`.
    pub section: String,
    /// The repository.
    pub repo: RepoId,
    /// The revision; a commit in files that `cluegate models pull` wrote.
    pub revision: Revision,
}

/// The text of a models file with these sections. `title` is a comment at its head, one line.
pub fn models_file(title: &str, pins: &[Pin]) -> String {
    let mut text = format!("# {}\n", title.replace(['\n', '\r'], " "));
    for Pin { section, repo, revision } in pins {
        // None of these names can hold a quotation mark.
        let _ = write!(text, "\n[{section}]\nrepo = \"{repo}\"\nrevision = \"{revision}\"\n");
    }
    text
}

/// The repositories that a models file names, by the names of the sections; those with a folder are left out.
///
/// # Errors
/// `Setting` if the text is no TOML, or a repository or revision no name of one.
pub fn pins(text: &str, path: &str) -> Result<Vec<Pin>> {
    let malformed = |detail: String| HubError::setting(format!("{path}: {detail}"));
    let table: toml::Table = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let mut pins = Vec::new();
    for (section, value) in &table {
        let Some(repo) = value.get("repo") else { continue };
        let name = |value: &toml::Value| {
            let name = value.as_str().map(str::to_owned);
            name.ok_or_else(|| malformed(format!("[{section}] expected a text, got {value}")))
        };
        let wrong = |error: HubError| malformed(format!("[{section}] {error}"));
        let repo: RepoId = name(repo)?.parse().map_err(wrong)?;
        let revision: Revision = match value.get("revision") {
            Some(revision) => name(revision)?.parse().map_err(wrong)?,
            None => Revision::main(),
        };
        pins.push(Pin { section: section.clone(), repo, revision });
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pin = |section: &str| Pin {
            section: section.to_owned(),
            repo: "a/b".parse().unwrap(),
            revision: "1".repeat(40).parse().unwrap(),
        };
        let text = models_file("written\nby", &[pin("relevance"), pin("judge")]);
        assert!(text.starts_with("# written by\n"), "{text}");
        let read = pins(&text, "m.toml").unwrap();
        assert_eq!(read, [pin("judge"), pin("relevance")]);
    }

    #[test]
    fn folders_are_left_out_and_bad_names_refused() {
        let read = pins("title = 3\n[judge]\nfolder = \"x\"\n[text]\nrepo = \"a/b\"\n", "m.toml").unwrap();
        assert_eq!((read.len(), read[0].revision.as_str()), (1, "main"));
        for bad in [
            "[judge]\nrepo = \"../x\"",
            "[judge]\nrepo = 3",
            "[judge]\nrepo = \"a/b\"\nrevision = \"../x\"",
            "[",
        ] {
            assert!(pins(bad, "m.toml").unwrap_err().to_string().starts_with("m.toml: "), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"(\[[a-z]{1,3}\]|\n|repo|revision|=|"[a-z./]{0,5}"|[0-9]){0,20}"#) {
            let _ = pins(&text, "m.toml");
        }
    }
}
