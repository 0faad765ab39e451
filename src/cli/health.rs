//! `cluegate health`: whether a gateway answers, for images that hold no other program to ask with.

use std::time::Duration;

use super::args::HealthArgs;
use super::{Exit, say};

pub(super) fn run(arguments: &HealthArgs) -> anyhow::Result<Exit> {
    let wait = Duration::from_millis(arguments.timeout_ms);
    let config = ureq::Agent::config_builder().timeout_global(Some(wait)).http_status_as_error(false);
    let agent: ureq::Agent = config.max_redirects(0).build().into();
    let answer = agent.get(&arguments.url).call()?;
    let healthy = answer.status().is_success();
    say(format_args!("{}: {}", arguments.url, answer.status()))?;
    Ok(if healthy { Exit::Clean } else { Exit::Violation })
}
