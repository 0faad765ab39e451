//! `cluegate constitution templates`: the prompts of the compiler, to be read or to start one's own from.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Subcommand;
use cluegate_compiler::Templates;

use super::super::{say, write_file};

/// The prompts of the compiler.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplatesCommand {
    /// Name the templates with their variables, or print one.
    Show {
        /// Name of a template, such as revise.txt.
        name: Option<String>,
    },
    /// Write all templates to a folder, to be changed there; none that is there is replaced.
    Write {
        /// The folder; made if need be.
        folder: PathBuf,
    },
}

pub(super) fn run(command: &TemplatesCommand) -> anyhow::Result<()> {
    match command {
        TemplatesCommand::Show { name: None } => {
            for file in Templates::files() {
                let variables = Templates::variables(file).iter().map(|(name, required)| {
                    format!("{{{{ {name} }}}}{}", if *required { "" } else { " (may be left out)" })
                });
                say(format_args!("{file:18} {}", variables.collect::<Vec<_>>().join(", ")))?;
            }
            say(
                "\nLooked for, first to last: compile --templates DIR, `templates` in [text] of the models file, the program.",
            )?;
        }
        TemplatesCommand::Show { name: Some(name) } => {
            let known = || Templates::files().collect::<Vec<_>>().join(", ");
            let text = Templates::shipped_text(name)
                .with_context(|| format!("expected the name of a template ({}), got {name:?}", known()))?;
            say(text.trim_end())?;
        }
        TemplatesCommand::Write { folder } => write(folder)?,
    }
    Ok(())
}

fn write(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for file in Templates::files() {
        let path = folder.join(file);
        ensure!(
            !path.exists(),
            "{} is there already: nothing is replaced; name an empty folder",
            path.display()
        );
    }
    for file in Templates::files() {
        write_file(&folder.join(file), Templates::shipped_text(file).unwrap_or_default().as_bytes())?;
    }
    say(format_args!("written to {}; use them with compile --templates {0}", folder.display()))?;
    Ok(())
}
