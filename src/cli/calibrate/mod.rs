//! `cluegate calibrate`: what is cheap, fitted to what is right.

pub(super) mod args;
mod previews;
mod prompts;

use super::Exit;
use args::CalibrateCommand;
pub(super) use prompts::{Prompts, embedded as embedded_prompts, read as read_prompts};

/// Runs one of the calibrations.
pub(super) fn run(command: &CalibrateCommand) -> anyhow::Result<Exit> {
    match command {
        CalibrateCommand::Previews(arguments) => previews::run(arguments),
    }
}
