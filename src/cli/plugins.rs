//! `cluegate plugins`: which libraries there are, what they are, and whether they work. Also what `serve` opens them with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use cluegate::gate::DrawSource;
use cluegate::perception::{Call, Picture};
use cluegate_perception::DecodeOptions;
use cluegate_plugin_host::{
    Change, Drawing, HostError, Isolation, JudgeRole, Plugin, PluginGenerator, PluginSet, Roles, Search,
    Spec, Unwatched, inspect,
};
use cluegate_server::config::{Config, RawPlugin, RawPlugins};
use image::{Rgb, RgbImage};
use serde::Serialize;
use serde_json::json;

use super::args::Format;
use super::judge::read_picture;
use super::{Exit, say, say_json};

/// Plugins.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginsCommand {
    /// Name the libraries of the search path with their SHA-256, and whether they may be loaded. Runs none of them.
    #[command(after_help = "Examples:\n  cluegate plugins list --config gate.toml\n  \
                            cluegate plugins list --path plugins --format json")]
    List(PlaceArgs),
    /// Load a library and print what it is, what it can, and the schema of its configuration.
    #[command(after_help = "Examples:\n  cluegate plugins inspect colours --config gate.toml\n  \
                            cluegate plugins inspect ./libcolours.so --allow-unlisted")]
    Inspect(InspectArgs),
    /// Open a plugin and try all that it says it can, with small pictures. Exit code 1 if something does not work.
    #[command(after_help = "Examples:\n  cluegate plugins test colours --config gate.toml\n  \
                            cluegate plugins test ./libcolours.so --allow-unlisted --set '{\"colour\": \"red\"}' --picture red.png")]
    Test(TestArgs),
}

/// Where libraries are looked for, and which may be loaded.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// The gateway's configuration, whose [plugins] count.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folders to look in, before those of the configuration and of CLUEGATE_PLUGIN_PATH.
    #[arg(long, value_name = "DIR")]
    path: Vec<PathBuf>,
    /// SHA-256 of a library that may be loaded, beside those of the configuration.
    #[arg(long, value_name = "SHA256")]
    allow: Vec<String>,
    /// Let any library be loaded.
    #[arg(long)]
    allow_unlisted: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `plugins inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The library: a path, a file's name, or what stands between `lib` and `.so` in one.
    #[arg(value_name = "LIBRARY")]
    dylib: String,
    /// Where to look.
    #[command(flatten)]
    place: PlaceArgs,
}

/// Arguments of `plugins test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A plugin of the configuration, or a library: a path, a file's name, or what stands between `lib` and `.so` in one.
    plugin: String,
    /// Its configuration, in place of the file's.
    #[arg(long, value_name = "JSON")]
    set: Option<String>,
    /// A statement to ask a judge that answers.
    #[arg(long, value_name = "TEXT", default_value = "a person is visible")]
    statement: String,
    /// A picture to try it with, in place of a small one that shows nothing.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Give it a process of its own.
    #[arg(long)]
    isolated: bool,
    /// Longest time for one call in milliseconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    deadline_ms: Option<u64>,
    /// Where to look.
    #[command(flatten)]
    place: PlaceArgs,
}

impl PlaceArgs {
    fn plugins(&self) -> anyhow::Result<RawPlugins> {
        Ok(match &self.config {
            Some(file) => Config::load(file)?.plugins,
            None => RawPlugins { folder: std::env::current_dir()?, ..RawPlugins::default() },
        })
    }

    fn search(&self, plugins: &RawPlugins) -> Search {
        let folders = self.path.iter().chain(&plugins.path).cloned().collect();
        let allow = self.allow.iter().chain(&plugins.allow).cloned();
        let all = self.allow_unlisted || plugins.allow_unlisted;
        Search::new(folders, allow).with_environment().allowing_all(all)
    }
}

/// The libraries of a configuration and of CLUEGATE_PLUGIN_PATH: those in the folders, and those that `use` names.
pub(super) fn libraries(config: Option<&Path>) -> anyhow::Result<BTreeSet<PathBuf>> {
    let place = PlaceArgs { config: config.map(Path::to_path_buf), ..PlaceArgs::default() };
    let plugins = place.plugins()?;
    let search = place.search(&plugins);
    let mut libraries: BTreeSet<PathBuf> = BTreeSet::new();
    for library in search.list()? {
        libraries.insert(library.path.canonicalize().unwrap_or(library.path));
    }
    for used in &plugins.used {
        libraries.insert(search.find(used.dylib.as_deref().unwrap_or(&used.name))?);
    }
    Ok(libraries)
}

pub(super) fn run(command: &PluginsCommand) -> anyhow::Result<Exit> {
    match command {
        PluginsCommand::List(arguments) => list(arguments),
        PluginsCommand::Inspect(arguments) => show(arguments),
        PluginsCommand::Test(arguments) => test(arguments),
    }
}

/// The process of a plugin; the gate starts it.
pub(super) fn work() -> anyhow::Result<Exit> {
    cluegate_plugin_host::run_worker().context("this command serves a plugin to the gate that starts it")?;
    Ok(Exit::Clean)
}

fn list(arguments: &PlaceArgs) -> anyhow::Result<Exit> {
    let search = arguments.search(&arguments.plugins()?);
    let found = search.list()?;
    match arguments.format {
        Format::Json => say_json(&found)?,
        Format::Text if found.is_empty() => {
            let folders: Vec<_> =
                search.folders().iter().map(|folder| folder.display().to_string()).collect();
            match folders.is_empty() {
                true => say("no folder to look in: name one with --path, --config or CLUEGATE_PLUGIN_PATH")?,
                false => say(format_args!("no libraries in {}", folders.join(", ")))?,
            }
        }
        Format::Text => {
            for library in found {
                let allowed = if library.allowed { "allowed    " } else { "not allowed" };
                say(format_args!("{}  {allowed}  {}", library.sha256, library.path.display()))?;
            }
        }
    }
    Ok(Exit::Clean)
}

fn show(arguments: &InspectArgs) -> anyhow::Result<Exit> {
    let search = arguments.place.search(&arguments.place.plugins()?);
    let (library, described) = inspect(&arguments.dylib, &search)?;
    if arguments.place.format == Format::Json {
        say_json(&json!({ "path": library.path, "sha256": library.sha256, "plugin": described }))?;
        return Ok(Exit::Clean);
    }
    say(format_args!("{} {}: {}", described.name, described.version, described.about))?;
    let from = if described.from_pictures { "; draws from pictures too" } else { "" };
    say(format_args!("can: {}{from}", described.abilities.join(", ")))?;
    let calls = if described.concurrent { "many at a time" } else { "one at a time" };
    say(format_args!("tables: version {}; calls: {calls}", described.abi))?;
    say(format_args!("library: {}\nSHA-256: {}", library.path.display(), library.sha256))?;
    say(format_args!("schema of its configuration:\n{}", serde_json::to_string_pretty(&described.schema)?))?;
    Ok(Exit::Clean)
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Tried {
    what: &'static str,
    ok: bool,
    ms: f64,
    said: String,
}

fn test(arguments: &TestArgs) -> anyhow::Result<Exit> {
    let plugins = arguments.place.plugins()?;
    let named = plugins.used.iter().find(|plugin| plugin.name == arguments.plugin);
    let mut spec = match named {
        Some(plugin) => spec_of(plugin, &plugins),
        None => Spec { folder: plugins.folder.clone(), ..Spec::new(&arguments.plugin, &arguments.plugin) },
    };
    if let Some(config) = &arguments.set {
        spec.config = serde_json::from_str(config).context("--set: expected a JSON object")?;
    }
    if arguments.isolated && spec.isolation.is_none() {
        spec.isolation = Some(Isolation::default());
    }
    spec.deadline = arguments.deadline_ms.map_or(spec.deadline, Duration::from_millis);
    let plugin = Plugin::open(spec, &arguments.place.search(&plugins))?;
    let picture = match &arguments.picture {
        Some(file) => read_picture(file, &DecodeOptions { convert: true, ..DecodeOptions::default() })
            .with_context(|| format!("cannot try it with {}", file.display()))?,
        None => Picture::new(RgbImage::from_fn(64, 48, |x, y| Rgb([(4 * x) as u8, (5 * y) as u8, 120]))),
    };
    let tried = tries(&plugin, &arguments.statement, &picture);
    if arguments.place.format == Format::Json {
        say_json(
            &json!({ "plugin": plugin.description(), "fingerprint": plugin.fingerprint(), "tried": tried }),
        )?;
    } else {
        let described = plugin.description();
        say(format_args!("{} {}, fingerprint {}", described.name, described.version, plugin.fingerprint()))?;
        for tried in &tried {
            let ok = if tried.ok { "ok    " } else { "failed" };
            say(format_args!("{ok}  {:<9} {:>9.3} ms  {}", tried.what, tried.ms, tried.said))?;
        }
    }
    Ok(if tried.iter().all(|tried| tried.ok) { Exit::Clean } else { Exit::Violation })
}

/// One try of a plugin: what it did, in a few words.
type Try<'a> = dyn Fn() -> Result<String, HostError> + 'a;

/// Tries all that a plugin can, with `picture`.
fn tries(plugin: &Plugin, statement: &str, picture: &Picture) -> Vec<Tried> {
    let call = Call::default();
    // Something of any picture, and not all of it.
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let region = [width / 8.0, height / 6.0, width * 0.375, height / 2.0];
    let change = || Change { regions: vec![region], prompt: "a cat".to_owned(), seed: 1 };
    let changed = |changed: &Picture| {
        let size = format!("{} x {} pixels", changed.width(), changed.height());
        if changed.hash() == picture.hash() { format!("{size}, nothing changed") } else { size }
    };
    let drawing =
        || Drawing { prompt: "a cat on a beach".to_owned(), seed: 1, steps: Some(2), ..Drawing::default() };
    let one = |what: &'static str, work: &Try<'_>| {
        let began = Instant::now();
        let said = work();
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let ok = said.is_ok();
        Tried { what, ok, ms, said: said.unwrap_or_else(|error| error.to_string()) }
    };
    let classified = || {
        plugin.classify(picture, &call).map(|found| {
            let opinion = if found.flagged { "unsafe" } else { "safe" };
            let mut labels: Vec<_> = found.labels.iter().collect();
            labels.sort_by(|a, b| b.score.total_cmp(&a.score));
            let surest: Vec<String> =
                labels.iter().take(3).map(|label| format!("{} {:.3}", label.name, label.score)).collect();
            let colon = if surest.is_empty() { "" } else { ": " };
            format!("{opinion} {:.3}, {} labels{colon}{}", found.score, labels.len(), surest.join(", "))
        })
    };
    let answered = || {
        plugin
            .answer(Some(picture), statement, &call)
            .map(|said| format!("yes {:.3}, no {:.3}", said.yes, said.no))
    };
    let drawn = || -> Result<String, HostError> {
        let size = |drawn: Option<Picture>| match drawn {
            Some(drawn) => format!("{} x {} pixels", drawn.width(), drawn.height()),
            None => "nothing, and nobody told it to stop".to_owned(),
        };
        let mut said = size(plugin.generate(drawing(), &call, &mut Unwatched)?);
        if plugin.description().from_pictures {
            let source = DrawSource { picture: picture.clone(), mask: None, strength: None };
            let drawn = plugin.generate_from(drawing(), &source, &call, &mut Unwatched)?;
            said.push_str(&format!(", from a picture {}", size(drawn)));
        }
        Ok(said)
    };
    let rewritten = || plugin.rewrite("a knight", &["a sword is visible".to_owned()], 2, &call);
    let published = || plugin.publish("{\"test\": true}".to_owned(), &call).map(|()| "told".to_owned());
    let redacted = || plugin.redact(picture, change(), &call).map(|picture| changed(&picture));
    let inpainted = || plugin.inpaint(picture, change(), &call).map(|picture| changed(&picture));
    let all: [(&'static str, &Try<'_>); 7] = [
        ("generate", &drawn),
        ("classify", &classified),
        ("answer", &answered),
        ("redact", &redacted),
        ("inpaint", &inpainted),
        ("rewrite", &rewritten),
        ("publish", &published),
    ];
    all.into_iter().filter(|(what, _)| plugin.can(what)).map(|(what, work)| one(what, work)).collect()
}

fn spec_of(plugin: &RawPlugin, plugins: &RawPlugins) -> Spec {
    let ms = Duration::from_millis;
    let isolation = Isolation {
        room: plugin.shared_bytes,
        rest: ms(plugin.rest_ms),
        longest_rest: ms(plugin.longest_rest_ms),
        ..Isolation::default()
    };
    Spec {
        name: plugin.name.clone(),
        dylib: plugin.dylib.clone().unwrap_or_else(|| plugin.name.clone()),
        config: plugin.config.clone().into_iter().collect(),
        folder: plugins.folder.clone(),
        open_deadline: ms(plugin.open_deadline_ms),
        deadline: ms(plugin.deadline_ms),
        isolation: plugin.isolated.then_some(isolation),
    }
}

/// What a configuration says of plugins, as the host takes it.
fn parts(plugins: &RawPlugins) -> (Vec<Spec>, Roles, Search) {
    let judges = plugins.judge.iter().map(|judge| JudgeRole {
        plugin: judge.plugin.clone(),
        statements: judge.statements.clone(),
        threshold: judge.threshold,
        on_unsafe: judge.on_unsafe,
        hide: judge.hide.clone(),
        log_labels: judge.log_labels,
    });
    let roles = Roles {
        judges: judges.collect(),
        redact: plugins.redact.clone(),
        inpaint: plugins.inpaint.clone(),
        rewrite: plugins.rewrite.clone(),
        publish: plugins.publish.clone(),
        pipeline: plugins.pipeline.clone(),
    };
    let search = Search::new(plugins.path.clone(), plugins.allow.iter().cloned());
    let search = search.with_environment().allowing_all(plugins.allow_unlisted);
    (plugins.used.iter().map(|plugin| spec_of(plugin, plugins)).collect(), roles, search)
}

/// The plugins of a configuration whose libraries are not there or not allowed. Loads none.
pub(super) fn missing(config: &Config) -> Vec<(String, HostError)> {
    let (specs, _, search) = parts(&config.plugins);
    let problem = |spec: Spec| {
        let allowed = search.find(&spec.dylib).and_then(|path| search.allowed(&path));
        Some((spec.name, allowed.err()?))
    };
    specs.into_iter().filter_map(problem).collect()
}

/// Opens the plugins of a configuration.
pub(super) fn open(config: &Config) -> anyhow::Result<Arc<PluginSet>> {
    let (specs, roles, search) = parts(&config.plugins);
    Ok(Arc::new(PluginSet::open(specs, roles, &search)?))
}

/// Puts the plugins of a configuration in place of those before; says which ones were opened.
pub(super) fn replace(set: &PluginSet, config: &Config) -> anyhow::Result<Vec<String>> {
    let (specs, roles, search) = parts(&config.plugins);
    Ok(set.replace(specs, roles, &search)?)
}

/// The generator of the configuration's pipeline, if it names one.
pub(super) fn pipeline(set: &Arc<PluginSet>, config: &Config) -> anyhow::Result<Option<PluginGenerator>> {
    let Some(name) = &config.plugins.pipeline else { return Ok(None) };
    let builtin = config
        .upstream
        .as_ref()
        .is_some_and(|upstream| upstream.kind == cluegate_server::config::UpstreamKind::BuiltIn);
    if !builtin {
        bail!(
            "`plugins.pipeline` draws in place of the built-in generator: set `upstream.kind = \"builtin\"`, or leave it out"
        );
    }
    Ok(Some(PluginGenerator::new(Arc::clone(set), name)?))
}
