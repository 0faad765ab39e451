//! `cluegate constitution`: the tools of who writes rules.

pub(crate) mod args;
mod check;
pub(crate) mod compile;
mod diff;
mod examine;
mod explain;
mod reviewing;
mod sarif;
pub(crate) mod templates;
mod trial;

use std::path::{Path, PathBuf};

use anyhow::Context;
use cluegate_constitution::{Constitution, format, json_schema, shipped_names};

use self::args::{ConstitutionCommand, FmtArgs};
use super::{Exit, say, say_json, write_file};

pub(super) fn run(command: &ConstitutionCommand) -> anyhow::Result<Exit> {
    match command {
        ConstitutionCommand::List => list()?,
        ConstitutionCommand::Show { name, prose } => show(name, *prose)?,
        ConstitutionCommand::Check(arguments) => return check::run(arguments),
        ConstitutionCommand::Compile(arguments) => return compile::run(arguments),
        ConstitutionCommand::Templates(command) => templates::run(command)?,
        ConstitutionCommand::Diff(arguments) => return diff::run(arguments),
        ConstitutionCommand::Explain(arguments) => explain::run(arguments)?,
        ConstitutionCommand::Fmt(arguments) => return fmt(arguments),
        ConstitutionCommand::Try(arguments) => return trial::run(arguments),
        ConstitutionCommand::Schema => say_json(&json_schema())?,
    }
    Ok(Exit::Clean)
}

fn list() -> anyhow::Result<()> {
    for name in shipped_names() {
        let constitution = Constitution::shipped(name)?;
        let (rules, about) = (constitution.rules().len(), constitution.description());
        say(format_args!("{name:22} {rules:2} rules  {about}"))?;
    }
    Ok(())
}

fn show(name: &str, prose: bool) -> anyhow::Result<()> {
    let text = Constitution::shipped_text(name).with_context(|| {
        let names = shipped_names().collect::<Vec<_>>().join(", ");
        format!("no constitution {name:?} ships with the program; expected one of {names}")
    })?;
    let text = if prose {
        let names = shipped_names().filter(|name| Constitution::shipped_prose(name).is_some());
        Constitution::shipped_prose(name).with_context(|| {
            let names = names.collect::<Vec<_>>().join(", ");
            format!("the constitution {name:?} ships without prose; expected one that has it: {names}")
        })?
    } else {
        text
    };
    Ok(say(text.trim_end())?)
}

/// A constitution's text, and what messages call it.
pub(super) struct Source {
    pub(super) text: String,
    pub(super) origin: String,
}

impl Source {
    /// The text of a shipped name, or of a file.
    pub(super) fn load(name: &str) -> anyhow::Result<Self> {
        if let Some(text) = Constitution::shipped_text(name) {
            return Ok(Self { text: text.to_owned(), origin: format!("{name}.toml (shipped)") });
        }
        let shipped = shipped_names().collect::<Vec<_>>().join(", ");
        let text = std::fs::read_to_string(name).with_context(|| {
            format!("cannot read the constitution {name:?}; expected a file, or a shipped name ({shipped})")
        })?;
        Ok(Self { text, origin: name.to_owned() })
    }
}

/// Brings files into the canonical form. All are read before the first is written.
fn fmt(arguments: &FmtArgs) -> anyhow::Result<Exit> {
    let mut changed: Vec<(&PathBuf, String)> = Vec::new();
    for path in &arguments.files {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let formatted = format(&text, &path.display().to_string())?;
        if formatted != text {
            changed.push((path, formatted));
        }
    }
    for (path, formatted) in &changed {
        if arguments.check {
            say(format_args!(
                "{}: not in the canonical form; run `cluegate constitution fmt` on it",
                path.display()
            ))?;
        } else {
            write_file(path, formatted.as_bytes())?;
            say(format_args!("{}: formatted", path.display()))?;
        }
    }
    Ok(if arguments.check && !changed.is_empty() { Exit::Violation } else { Exit::Clean })
}

/// Picture files directly in a folder, by name.
fn pictures_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    const KNOWN: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];
    let entries =
        folder.read_dir().with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if KNOWN.iter().any(|known| known.eq_ignore_ascii_case(ending)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
