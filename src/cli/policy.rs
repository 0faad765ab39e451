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
                say(format_args!("{}: {:?}", policy.tenant, policy.constitution))?;
            }
        }
        PolicyCommand::Schema => say_json(&Policies::json_schema())?,
    }
    Ok(Exit::Clean)
}
