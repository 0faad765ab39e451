//! Thin commands over the library: parse, call, print. Exit codes are a contract, see [`Exit`].

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use cluegate_constitution::Constitution;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

pub(crate) mod args;
mod constitution;
pub(crate) mod demo;
mod doctor;
mod eval;
mod generate;
mod judge;
mod policy;
mod probe;
mod progress;

pub(crate) use judge::decided as judge_words;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All pictures safe, or released.
    Clean = 0,
    /// Something violated a rule, or was withheld for it.
    Violation = 1,
    /// An error: bad input, a failed model. Stands above a violation.
    Error = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs a command and turns its outcome into an exit code.
pub(crate) fn run(cli: args::Cli) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours()).init();
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        // Whoever read our output has enough of it, such as `head`.
        Err(error) if is_broken_pipe(&error) => Exit::Clean.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            Exit::Error.into()
        }
    }
}

fn dispatch(command: args::Command) -> anyhow::Result<Exit> {
    use args::Command;
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Judge(arguments) => judge::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Eval(args::EvalCommand::Osbench(arguments)) => eval::osbench(&arguments),
        Command::Constitution(command) => constitution::run(&command),
        Command::Policy(command) => policy::run(&command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions { shell } => {
            // Written to memory first: the library panics where a write fails, as when nobody reads on.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::Cli::command(), "cluegate", &mut script);
            io::stdout().lock().write_all(&script)?;
            Ok(Exit::Clean)
        }
    }
}

/// Whether to colour what goes to standard error.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints one line to standard output.
fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Prints a JSON document for people and programs.
fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(say(serde_json::to_string_pretty(value)?)?)
}

/// The constitution of a shipped name, or of a file.
fn load_constitution(name: &str) -> anyhow::Result<Constitution> {
    if cluegate_constitution::shipped_names().any(|shipped| shipped == name) {
        return Ok(Constitution::shipped(name)?);
    }
    let shipped = cluegate_constitution::shipped_names().collect::<Vec<_>>().join(", ");
    let text = std::fs::read_to_string(name).with_context(|| {
        format!("cannot read the constitution {name:?}; expected a file, or a shipped name ({shipped})")
    })?;
    Ok(Constitution::parse(&text, name)?)
}

/// Writes a file whole or not at all: under another name first, then renamed.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
