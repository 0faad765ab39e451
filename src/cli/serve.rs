//! `cluegate serve`: the gateway.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cluegate::{Engine, open_generator};
use cluegate_audit::{AuditLog, LogPlaces};
use cluegate_gate::{DecisionLog, Gate, Generator};
use cluegate_plugin_host::PluginSet;
use cluegate_server::config::{Config, UpstreamKind};
use cluegate_server::upstream::{self, DrivenUpstream};
use cluegate_server::{App, Loaded, PolicySource, Server, Services, Upstream};
use cluegate_store::{Database, DatabaseOptions, Store};
use cluegate_telemetry::{MeasuredLog, Metrics};
use tokio::runtime::{Handle, Runtime};

use super::args::ServeArgs;
use super::{Exit, open_engine, say};

/// Most names of tenants that `--check` prints.
const SHOWN: usize = 20;
/// How long threads that nobody waits for may go on when the server ends.
const LAST_THREADS: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: &ServeArgs) -> anyhow::Result<Exit> {
    let config = read_config(arguments)?;
    if !arguments.check {
        cluegate_server::keep_memory();
    }
    let runtime = Runtime::new().context("cannot start the threads of the server")?;
    let served = runtime.block_on(async {
        let foundation = Foundation::open(&config).await?;
        // What is wrong with a policy is said before the models are read, which takes a while.
        let engine = Arc::new(open_models(&config, arguments)?);
        match arguments.check {
            true => check(config, foundation, &engine).await,
            false => serve(config, arguments, foundation, &engine).await,
        }
    });
    runtime.shutdown_timeout(LAST_THREADS);
    served.map(|()| Exit::Clean)
}

/// Where policies and keys come from, and what was read there.
struct Foundation {
    source: PolicySource,
    loaded: Loaded,
    database: Option<Database>,
}

impl Foundation {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let (source, database) = match &config.store {
            None => (PolicySource::files(config), None),
            Some(store) => {
                let database = Database::open(&store.address.url()?, DatabaseOptions::default()).await?;
                (PolicySource::store(Store::new(database.clone())), Some(database))
            }
        };
        let loaded = source.load().await?;
        Ok(Self { source, loaded, database })
    }

    /// Where decisions are kept, to be read.
    fn decisions(&self, config: &Config) -> anyhow::Result<LogPlaces> {
        let database = self.database.clone().map(|database| (database, Handle::current()));
        Ok(LogPlaces::open(&config.log, database)?)
    }
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
async fn check(config: Config, foundation: Foundation, engine: &Engine) -> anyhow::Result<()> {
    // Opens keys and folders that the log would need, and writes nothing.
    let decisions = Some(foundation.decisions(&config)?);
    let Foundation { source, loaded, .. } = foundation;
    let log = Arc::new(cluegate_gate::MemoryLog::new(0));
    let (plugins, signer) = (open_plugins(&config).await?, super::provenance::signer(&config)?);
    let gate = Gate::with_signer(loaded.policies(), Arc::new(engine.judges(false)), log, signer)?;
    let gate = Arc::new(gate.with_extensions(Arc::<PluginSet>::clone(&plugins))?);
    let checked = Arc::clone(&gate);
    // It waits for models.
    tokio::task::spawn_blocking(move || checked.prepare_all()).await??;
    let upstream = open_upstream(&config, engine, &plugins)?;
    let drawn_by =
        upstream.as_ref().map_or_else(|| "nobody".to_owned(), |upstream| upstream.fingerprint().to_owned());
    let (listen, tenants) = (config.listen, some(&gate.tenants()));
    let administered =
        config.admin.as_ref().map_or_else(String::new, |admin| format!("; administered on {}", admin.listen));
    App::open(config, gate, Services { source, loaded, upstream, decisions })?;
    Ok(say(format_args!(
        "ok: would listen on {listen}; drawn by {drawn_by}; tenants {tenants}{administered}"
    ))?)
}

/// The first names of a list, and how many more there are.
fn some(names: &[Arc<str>]) -> String {
    let shown = names.iter().take(SHOWN).map(|name| &**name).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Opens the plugins on a thread that may wait for them.
async fn open_plugins(config: &Config) -> anyhow::Result<Arc<PluginSet>> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || super::plugins::open(&config)).await?
}

fn open_upstream(
    config: &Config,
    engine: &Engine,
    plugins: &Arc<PluginSet>,
) -> anyhow::Result<Option<Arc<dyn Upstream>>> {
    let pipeline = super::plugins::pipeline(plugins, config)?;
    let Some(named) = &config.upstream else { return Ok(None) };
    let generator: Option<Arc<dyn Generator>> = match (named.kind, pipeline) {
        (_, Some(pipeline)) => Some(Arc::new(pipeline)),
        (UpstreamKind::BuiltIn, None) => {
            let generator = match &named.generator {
                Some(folder) => open_generator(folder)?,
                None => engine.generator()?,
            };
            Some(Arc::new(match named.look_ahead {
                Some(predictions) => generator.with_look_ahead(predictions),
                None => generator,
            }))
        }
        _ => None,
    };
    Ok(Some(upstream::open(named, generator)?))
}

async fn serve(
    config: Config,
    arguments: &ServeArgs,
    foundation: Foundation,
    engine: &Arc<Engine>,
) -> anyhow::Result<()> {
    // First, so that no signal finds the server without ears.
    let (stop, hangups) = (stop_signal()?, hangups()?);
    // Whoever cannot be asked for metrics records none.
    let metrics = config.admin.as_ref().map(|_| Metrics::install(config.metrics)).transpose()?;
    let decisions = Some(foundation.decisions(&config)?);
    let Foundation { source, loaded, database } = foundation;
    let log: Arc<dyn DecisionLog> = Arc::new(AuditLog::open(&config.log, database).await?);
    let log: Arc<dyn DecisionLog> = match &metrics {
        Some(metrics) => Arc::new(MeasuredLog::new(log, Arc::clone(metrics))),
        None => log,
    };
    let (plugins, signer) = (open_plugins(&config).await?, super::provenance::signer(&config)?);
    let gate = Gate::with_signer(loaded.policies(), Arc::new(engine.judges(false)), log, signer)?;
    let gate = gate.with_extensions(Arc::<PluginSet>::clone(&plugins))?;
    let upstream = open_upstream(&config, engine, &plugins)?;
    let gate = Arc::new(match upstream.as_ref().zip(config.upstream.as_ref()) {
        // Who draws the pictures draws parts of them anew.
        Some((upstream, named)) => {
            let driven = DrivenUpstream::new(Arc::clone(upstream), Handle::current(), named.timeout);
            gate.with_painter(Arc::new(driven))?
        }
        None => gate,
    });
    gate.warm_up();
    let scheme = |tls: bool| if tls { "https" } else { "http" };
    let public = scheme(config.tls.is_some());
    let private = scheme(config.admin.as_ref().is_some_and(|admin| admin.tls.is_some()));
    let app = App::open(config, gate, Services { source, loaded, upstream, decisions })?;
    if let Some(metrics) = &metrics {
        app.measure(metrics);
        let engine = Arc::downgrade(engine);
        metrics.collect(move |_| {
            if let Some(engine) = engine.upgrade() {
                super::metrics::record(&engine.statistics());
            }
        });
    }
    let server = Server::bind(Arc::clone(&app)).await?;
    let unsaid = "the system does not say where the server listens";
    let address = server.local_addr().context(unsaid)?;
    if let Some(address) = server.admin_addr().context(unsaid)? {
        // Whoever reads our standard error may be gone; the server is not there for them.
        let _ = writeln!(io::stderr(), "administered on {private}://{address}");
    }
    let _ = writeln!(io::stderr(), "listening on {public}://{address}");
    let reloads = tokio::spawn(reload_when_told(app, plugins, arguments.config.clone(), hangups));
    server.run(stop).await;
    reloads.abort();
    let _ = writeln!(io::stderr(), "stopped");
    Ok(())
}

/// Reads policies and keys again whenever the process is told to, and which plugins the configuration at `file` names.
#[cfg(unix)]
async fn reload_when_told(app: Arc<App>, plugins: Arc<PluginSet>, file: PathBuf, mut hangups: Hangups) {
    while hangups.recv().await.is_some() {
        let _ = match app.reload("SIGHUP").await {
            Ok(()) => writeln!(io::stderr(), "reloaded"),
            Err(error) => writeln!(io::stderr(), "not reloaded, what is in use stays: {error}"),
        };
        let (plugins, file) = (Arc::clone(&plugins), file.clone());
        let replaced = move || super::plugins::replace(&plugins, &Config::load(&file)?);
        let _ = match tokio::task::spawn_blocking(replaced).await {
            Ok(Ok(opened)) if opened.is_empty() => Ok(()),
            Ok(Ok(opened)) => writeln!(io::stderr(), "opened the plugins {}", opened.join(", ")),
            Ok(Err(error)) => writeln!(io::stderr(), "plugins not reloaded, what is in use stays: {error:#}"),
            Err(panic) => writeln!(io::stderr(), "plugins not reloaded, what is in use stays: {panic}"),
        };
    }
}

/// There is nothing that tells the process.
#[cfg(not(unix))]
async fn reload_when_told(_: Arc<App>, _: Arc<PluginSet>, _: PathBuf, (): Hangups) {}

/// What tells the process to read policies and keys again.
#[cfg(unix)]
type Hangups = tokio::signal::unix::Signal;
#[cfg(not(unix))]
type Hangups = ();

/// Listens for SIGHUP.
#[cfg(unix)]
fn hangups() -> anyhow::Result<Hangups> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup()).context("cannot listen to signals")
}

#[cfg(not(unix))]
fn hangups() -> anyhow::Result<Hangups> {
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
