//! `cluegate policy`: defaults, check, schema.

use cluegate_gate::Policies;

use super::args::PolicyCommand;
use super::{Exit, say, say_json};

pub(super) fn run(command: &PolicyCommand) -> anyhow::Result<Exit> {
    match command {
        PolicyCommand::Defaults => say(Policies::with_defaults_toml().trim_end())?,
        PolicyCommand::Check { file } => {
            let policies = Policies::load(file)?;
            for policy in policies.iter() {
                let constitution = policies.constitution(policy)?;
                let (name, rules) = (constitution.name(), constitution.rules().len());
                say(format_args!(
                    "{}: {name}, {rules} rules, revision {}",
                    policy.tenant,
                    constitution.revision()
                ))?;
            }
        }
        PolicyCommand::Schema => say_json(&Policies::json_schema())?,
    }
    Ok(Exit::Clean)
}
