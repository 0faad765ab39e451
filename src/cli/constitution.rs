//! `cluegate constitution`: list, show, check, schema.

use anyhow::Context;
use cluegate_constitution::{Constitution, json_schema, shipped_names};

use super::args::ConstitutionCommand;
use super::{Exit, load_constitution, say, say_json};

pub(super) fn run(command: &ConstitutionCommand) -> anyhow::Result<Exit> {
    match command {
        ConstitutionCommand::List => {
            for name in shipped_names() {
                let constitution = Constitution::shipped(name)?;
                say(format_args!(
                    "{name:10} {:2} rules  {}",
                    constitution.rules().len(),
                    constitution.description()
                ))?;
            }
        }
        ConstitutionCommand::Show { name } => {
            let text = Constitution::shipped_text(name).with_context(|| {
                let names = shipped_names().collect::<Vec<_>>().join(", ");
                format!("no constitution {name:?} ships with the program; expected one of {names}")
            })?;
            say(text.trim_end())?;
        }
        ConstitutionCommand::Check { constitution } => {
            let constitution = load_constitution(constitution)?;
            let statements: usize = constitution
                .rules()
                .iter()
                .flat_map(|rule| &rule.preconditions)
                .map(|link| link.any.len())
                .sum();
            say(format_args!(
                "{}: {} rules, {statements} statements, revision {}",
                constitution.name(),
                constitution.rules().len(),
                constitution.revision()
            ))?;
        }
        ConstitutionCommand::Schema => say_json(&json_schema())?,
    }
    Ok(Exit::Clean)
}
