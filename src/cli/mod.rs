//! Thin commands over the library: parse, call, print. Exit codes are a contract, see [`Exit`].

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use cluegate::{Engine, EngineOptions};
use cluegate_cache::Cache;
use cluegate_constitution::Constitution;
use cluegate_telemetry::{TARGET, TraceError, Traces};
use serde::Serialize;
use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use self::args::LogFormat;

pub(crate) mod args;
mod calibrate;
mod compute;
mod config;
mod constitution;
pub(crate) mod demo;
mod doctor;
mod drawing;
mod eval;
mod generate;
mod health;
mod judge;
mod keys;
mod log;
mod metrics;
mod models;
mod plugins;
mod policy;
mod probe;
mod progress;
mod provenance;
mod replay;
mod serve;
mod store;
mod student;
mod tenants;

pub(crate) use eval::in_words as eval_words;
#[cfg(test)]
pub(crate) use eval::table_of as eval_table;
pub(crate) use judge::decided as judge_words;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All pictures safe, or released; nothing found.
    Clean = 0,
    /// Something violated a rule, or was withheld for it; a check found something, or two things differ.
    Violation = 1,
    /// An error: bad input, a failed model. Stands above a violation.
    Error = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Opens the models that the arguments name, or the embedded suite. What they compute from texts alone is kept on disk,
/// so that the next command starts sooner.
pub(crate) fn open_engine(models: &args::ModelArgs) -> anyhow::Result<Engine> {
    Ok(Engine::open_with(models.models.as_deref(), &engine_options(&models.compute)?)?)
}

/// What commands open an engine with.
pub(crate) fn engine_options(compute: &args::ComputeArgs) -> anyhow::Result<EngineOptions> {
    let cache = cluegate_cache::default_folder().map_or_else(Cache::in_memory, Cache::open);
    Ok(EngineOptions { cache, models: compute.load_options()?, ..EngineOptions::default() })
}

/// Runs a command and turns its outcome into an exit code.
pub(crate) fn run(cli: args::Cli) -> ExitCode {
    let traces = match start_log(&cli.command) {
        Ok(traces) => traces,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            return Exit::Error.into();
        }
    };
    let unread = if_nobody_reads_on(&cli.command);
    let ended = dispatch(cli.command);
    if let Some(traces) = traces {
        traces.end();
    }
    match ended {
        Ok(exit) => exit.into(),
        // Whoever read our output has enough of it, such as `head`.
        Err(error) if is_broken_pipe(&error) => unread.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            Exit::Error.into()
        }
    }
}

/// Logs to standard error what `RUST_LOG` asks for. A gateway also exports its spans where the environment names a
/// collector.
fn start_log(command: &args::Command) -> Result<Option<Traces>, TraceError> {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let (format, serves) = match command {
        args::Command::Serve(arguments) => (arguments.log_format, !arguments.check),
        _ => (LogFormat::Text, false),
    };
    // What the HTTP client tells in detail holds tokens and signed addresses, whatever is asked for. Spans are for
    // collectors, and for machines that read what belongs together.
    let harmless = filter_fn(move |record| {
        (!record.target().starts_with("ureq") || *record.level() <= Level::WARN)
            && (format == LogFormat::Json || record.target() != TARGET)
    });
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(colours()).boxed(),
        LogFormat::Json => layer.with_ansi(false).json().flatten_event(true).with_span_list(false).boxed(),
    };
    let traces = if serves { Traces::from_env()? } else { None };
    let exported = traces.as_ref().map(Traces::layer);
    tracing_subscriber::registry().with(layer.with_filter(asked.and(harmless))).with(exported).init();
    Ok(traces)
}

/// What a command says that was cut short because nobody reads its output any more. Where [`Exit::Clean`] means that
/// every picture is safe, it must not be said of pictures that were not judged.
fn if_nobody_reads_on(command: &args::Command) -> Exit {
    match command {
        args::Command::Judge(_)
        | args::Command::Generate(_)
        | args::Command::Plugins(_)
        | args::Command::Log(log::LogCommand::Verify(_))
        | args::Command::Replay(_) => Exit::Error,
        args::Command::Constitution(
            constitution::args::ConstitutionCommand::Check(_)
            | constitution::args::ConstitutionCommand::Compile(_)
            | constitution::args::ConstitutionCommand::Diff(_)
            | constitution::args::ConstitutionCommand::Fmt(_)
            | constitution::args::ConstitutionCommand::Try(_),
        ) => Exit::Error,
        _ => Exit::Clean,
    }
}

fn dispatch(command: args::Command) -> anyhow::Result<Exit> {
    use args::Command;
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Judge(arguments) => judge::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Models(command) => models::run(&command),
        Command::Eval(command) => eval::run(&command),
        Command::Label(arguments) => student::label(&arguments),
        Command::Distill(arguments) => student::distill(&arguments),
        Command::Calibrate(command) => calibrate::run(&command),
        Command::Constitution(command) => constitution::run(&command),
        Command::Policy(command) => policy::run(&command),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Log(command) => log::run(&command),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Keys(command) => keys::run(&command),
        Command::Tenants(command) => tenants::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Plugins(command) => plugins::run(&command),
        Command::PluginWorker => plugins::work(),
        Command::Health(arguments) => health::run(&arguments),
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
    let source = constitution::Source::load(name)?;
    Ok(Constitution::parse(&source.text, &source.origin)?)
}

/// What the name of a file ends with while it is written.
const PART: &str = ".part";

/// Writes a file whole or not at all: under another name first, then renamed.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(PART);
    let part = path.with_file_name(name);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        // May never have been made; the error that matters is the first one.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[test]
    fn a_file_is_written_whole_or_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write_file(&folder.path().join("whole"), b"all").unwrap();
        assert_eq!(std::fs::read(folder.path().join("whole")).unwrap(), b"all");
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = write_file(&taken, b"all").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        let mut left: Vec<_> =
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["taken", "whole"]);
    }

    #[test]
    fn verdicts_that_nobody_read_are_not_called_safe() {
        let cut_short = |line: &[&str]| if_nobody_reads_on(&args::Cli::parse_from(line).command);
        assert_eq!(cut_short(&["cluegate", "judge", "a.png", "b.png"]), Exit::Error);
        assert_eq!(cut_short(&["cluegate", "generate", "--prompt", "a cat", "--out", "o"]), Exit::Error);
        assert_eq!(cut_short(&["cluegate", "constitution", "list"]), Exit::Clean);
    }
}
