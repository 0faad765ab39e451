//! `cluegate serve` and `cluegate keys`: the gateway.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cluegate::Engine;
use cluegate_gate::{Gate, Generator, JsonlLog, Policies};
use cluegate_server::config::{Config, UpstreamKind};
use cluegate_server::{App, KeyFile, NewKey, Server, Upstream, upstream};
use tokio::runtime::Runtime;

use super::args::{KeysCommand, NewKeyArgs, ServeArgs};
use super::{Exit, PART, open_engine, say};

/// How long threads that nobody waits for may go on when the server ends.
const LAST_THREADS: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: &ServeArgs) -> anyhow::Result<Exit> {
    let config = read_config(arguments)?;
    let policies = match &config.policy {
        Some(file) => Policies::load(file)?,
        None => Policies::shipped_default()?,
    };
    if arguments.check {
        return check(config, &policies, arguments);
    }
    let engine = open_models(&config, arguments)?;
    cluegate_server::keep_memory();
    let runtime = Runtime::new().context("cannot start the threads of the server")?;
    let served = runtime.block_on(serve(config, &policies, &engine));
    runtime.shutdown_timeout(LAST_THREADS);
    served.map(|()| Exit::Clean)
}

fn read_config(arguments: &ServeArgs) -> anyhow::Result<Config> {
    let mut config = Config::load(&arguments.config)?;
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    Ok(config)
}

/// The models that the command line names, else those of the configuration.
fn open_models(config: &Config, arguments: &ServeArgs) -> anyhow::Result<Engine> {
    let mut models = arguments.models.clone();
    models.models = models.models.or_else(|| config.models.clone());
    open_engine(&models)
}

/// Reads and opens all that the server would, and listens on nothing. The decision log is not touched.
fn check(config: Config, policies: &Policies, arguments: &ServeArgs) -> anyhow::Result<Exit> {
    let engine = open_models(&config, arguments)?;
    let log = Arc::new(cluegate_gate::MemoryLog::new(0));
    let gate = Arc::new(Gate::new(policies, Arc::new(engine.judges(false)), log)?);
    gate.prepare_all()?;
    let upstream = open_upstream(&config, &engine)?;
    let drawn_by =
        upstream.as_ref().map_or_else(|| "nobody".to_owned(), |upstream| upstream.fingerprint().to_owned());
    let (listen, tenants) = (config.listen, gate.tenants().join(", "));
    App::new(config, Arc::clone(&gate), upstream)?;
    say(format_args!("ok: would listen on {listen}; drawn by {drawn_by}; tenants {tenants}"))?;
    Ok(Exit::Clean)
}

fn open_upstream(config: &Config, engine: &Engine) -> anyhow::Result<Option<Arc<dyn Upstream>>> {
    let Some(named) = &config.upstream else { return Ok(None) };
    let generator: Option<Arc<dyn Generator>> = match named.kind {
        UpstreamKind::BuiltIn => Some(Arc::new(engine.generator()?)),
        _ => None,
    };
    Ok(Some(upstream::open(named, generator)?))
}

async fn serve(config: Config, policies: &Policies, engine: &Engine) -> anyhow::Result<()> {
    // First, so that no signal finds the server without ears.
    let stop = stop_signal()?;
    let log = Arc::new(JsonlLog::open(&config.log)?.durable(true));
    let gate = Gate::new(policies, Arc::new(engine.judges(false)), log)?;
    gate.warm_up();
    let upstream = open_upstream(&config, engine)?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let server = Server::bind(App::new(config, Arc::new(gate), upstream)?).await?;
    let address = server.local_addr().context("the system does not say where the server listens")?;
    // Whoever reads our standard error may be gone; the server is not there for them.
    let _ = writeln!(io::stderr(), "listening on {scheme}://{address}");
    server.run(stop).await;
    let _ = writeln!(io::stderr(), "stopped");
    Ok(())
}

/// Ready when the process is told to end: by SIGTERM, or by an interrupt from the terminal.
#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).context("cannot listen to signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = writeln!(io::stderr(), "stopping: requests in work may end, no further one is taken");
    })
}

/// Ready when the process is interrupted.
#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

pub(super) fn keys(command: &KeysCommand) -> anyhow::Result<Exit> {
    let KeysCommand::New(NewKeyArgs { tenant, id, file }) = command;
    let key = NewKey::generate();
    let entry = key.entry(id, tenant);
    match file {
        Some(file) => {
            append(file, &entry)?;
            say(key.reveal())?;
        }
        None => say(format_args!(
            "# The key, shown once: give it to the client.\n# {}\n# Its entry for the key file:\n{}",
            key.reveal(),
            entry.trim_end()
        ))?,
    }
    Ok(Exit::Clean)
}

/// Adds an entry to a key file, or makes one. The file is whole at any time, and of two who add at once one is refused.
fn append(file: &Path, entry: &str) -> anyhow::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(PART);
    let part = file.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    // For the owner only, unless the file that it replaces says otherwise.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&part).with_context(|| match part.exists() {
        true => format!(
            "{} is there: another command is adding a key, or one was cut short; if none is, remove it",
            part.display()
        ),
        false => format!("cannot write {}", part.display()),
    })?;
    let added = with_entry(file, entry).and_then(|text| {
        out.write_all(text.as_bytes())?;
        if let Ok(old) = std::fs::metadata(file) {
            out.set_permissions(old.permissions())?;
        }
        out.sync_all()?;
        Ok(std::fs::rename(&part, file)?)
    });
    if added.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&part);
    }
    added.with_context(|| format!("cannot add the key to {}", file.display()))
}

/// The text of a key file with one more entry.
fn with_entry(file: &Path, entry: &str) -> anyhow::Result<String> {
    let mut text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    if !text.is_empty() {
        text.truncate(text.trim_end().len());
        text.push_str("\n\n");
    }
    text.push_str(entry);
    // An id that is there already is refused, and so is a file that the server could not read.
    KeyFile::parse(&text, &file.display().to_string())?;
    Ok(text)
}
