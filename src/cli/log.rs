//! `cluegate log`: query, export, verify, erase and expire decisions.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use cluegate_audit::entry::Position;
use cluegate_audit::{
    Entry, Erasure, ExportFormat, LogPlaces, LogSettings, Place, Query, Removed, VerifyOptions, export,
    parse_time,
};
use cluegate_gate::Policies;
use cluegate_server::PolicySource;
use cluegate_store::{Database, DatabaseOptions, Store};
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{Exit, PART, progress, say, say_json};

/// Decisions that `query` shows unless told otherwise.
const DEFAULT_LIMIT: u64 = 50;
/// How often a count on long work is drawn anew.
const DRAW_EVERY: u64 = 1000;

const QUERY_EXAMPLES: &str = "Examples:\n  \
    cluegate log query --config gate.toml --tenant kids --since 24h --outcome withheld\n  \
    cluegate log query --config gate.toml --all-tenants --rule sword --json\n  \
    cluegate log query --file decisions.jsonl --tenant kids --decision 0199...";
const ERASE_EXAMPLES: &str = "Examples:\n  \
    cluegate log erase --config gate.toml --tenant kids --subject user-17\n  \
    cluegate log erase --config gate.toml --tenant kids --decision 0199...";

/// The decision log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show decisions, oldest first.
    #[command(after_help = QUERY_EXAMPLES)]
    Query(QueryArgs),
    /// Write decisions as JSON lines in OPA's shape, or as CSV.
    Export(ExportArgs),
    /// Check every hash, every link and the ends, and name the first entry that is not as it was written.
    Verify(VerifyArgs),
    /// Remove what is known of an end user, of a decision, or of all decisions of a tenant; the log still verifies.
    #[command(after_help = ERASE_EXAMPLES)]
    Erase(EraseArgs),
    /// Remove the pictures and decisions that are older than their tenant's policy allows.
    Expire(ExpireArgs),
}

/// Where the log is.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("source").required(true).multiple(true).args(["config", "file"]))]
pub(crate) struct LogSource {
    /// The gateway's configuration, whose [log] and [store] say where its log is.
    #[arg(long, value_name = "FILE", env = "CLUEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// A log file; those that were rotated away are read too if they lie beside it and are not compressed.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Which decisions.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// The tenant whose decisions these are.
    #[arg(long, value_name = "NAME", required_unless_present = "all_tenants")]
    tenant: Option<String>,
    /// Decisions of all tenants.
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    /// Not before: a time (2026-11-22T10:00:00Z), a day (2026-11-22), or so long ago (90s, 15m, 24h, 7d).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: as for --since.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A rule that was violated.
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// What became of the picture: released, withheld or held.
    #[arg(long, value_name = "NAME", value_parser = ["released", "withheld", "held"])]
    outcome: Option<String>,
    /// Why, such as violation or judge-timeout.
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
    /// Id of the request.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Id of the decision.
    #[arg(long, value_name = "ID")]
    decision: Option<String>,
    /// The generation model.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The end user, as the client names them; needs the key file of the log and a tenant.
    #[arg(long, value_name = "NAME", requires = "tenant")]
    subject: Option<String>,
    /// Begin behind this place, which the end of an earlier answer names.
    #[arg(long, value_name = "PLACE")]
    cursor: Option<Place>,
    /// Most decisions.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Arguments of `log query`.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    source: LogSource,
    #[command(flatten)]
    filter: Filter,
    /// Also what the log says of itself: erasures, expiries, recoveries.
    #[arg(long, requires = "all_tenants")]
    log_entries: bool,
    /// One JSON object a line, and last `{"next": PLACE}`.
    #[arg(long)]
    json: bool,
}

/// Forms of export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportName {
    /// One JSON object a line, as in the log.
    Jsonl,
    /// Comma-separated values with a line of names.
    Csv,
}

/// Arguments of `log export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    source: LogSource,
    #[command(flatten)]
    filter: Filter,
    /// The form.
    #[arg(long = "format", value_enum, default_value = "jsonl")]
    form: ExportName,
    /// The file to write; standard output if not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Arguments of `log verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    source: LogSource,
    /// An entry that is known from elsewhere, as INSTANCE:NUMBER:HASH: it must be there, and what stands before it is not
    /// looked at. May be given several times.
    #[arg(long = "anchor", value_name = "ANCHOR", value_parser = parse_anchor)]
    anchors: Vec<Position>,
    /// Key file that heads are signed with, for --file.
    #[arg(long, value_name = "FILE", requires = "file")]
    head_key: Option<PathBuf>,
    /// Also open every picture that was kept.
    #[arg(long)]
    pictures: bool,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Arguments of `log erase`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["subject", "decision", "whole_tenant"]))]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    source: LogSource,
    /// The tenant whose decisions these are.
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// The end user, as the client names them.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Id of one decision.
    #[arg(long, value_name = "ID")]
    decision: Option<String>,
    /// All decisions of the tenant.
    #[arg(long)]
    whole_tenant: bool,
    /// Key file that end users are hidden with, for --file.
    #[arg(long, value_name = "FILE", requires = "file")]
    subject_key: Option<PathBuf>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Arguments of `log expire`.
#[derive(Debug, Args)]
pub(crate) struct ExpireArgs {
    #[command(flatten)]
    source: LogSource,
    /// The policy file whose tenants' retention applies; the configuration's if not given.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// One tenant only.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// What of a configuration concerns the log.
#[derive(Debug, Default, Deserialize)]
struct Excerpt {
    policy: Option<PathBuf>,
    models: Option<PathBuf>,
    log: Option<toml::Value>,
    store: Option<StoreTable>,
}

#[derive(Debug, Deserialize)]
struct StoreTable {
    url: Option<String>,
    url_file: Option<PathBuf>,
}

/// A log that was opened to be read, with what lives as long.
pub(super) struct OpenLog {
    pub(super) places: LogPlaces,
    /// The policy file that the configuration names.
    pub(super) policy: Option<PathBuf>,
    /// The models that the configuration names.
    pub(super) models: Option<PathBuf>,
    /// Whether a configuration was named at all.
    configured: bool,
    /// The database, whose connections live in the runtime.
    store: Option<(Database, Runtime)>,
}

impl OpenLog {
    /// The policies of the file `named`, or else those that the gateway uses.
    pub(super) fn policies(&self, named: Option<&Path>) -> anyhow::Result<Policies> {
        match (named.or(self.policy.as_deref()), &self.store) {
            (Some(file), _) => Ok(Policies::load(file)?),
            (None, Some((database, runtime))) => {
                let source = PolicySource::store(Store::new(database.clone()));
                Ok(runtime.block_on(source.load())?.policies().clone())
            }
            (None, None) if self.configured => Ok(Policies::shipped_default()?),
            (None, None) => bail!("whose policies? name the file with --policy"),
        }
    }
}

impl LogSource {
    /// Opens the log; `change` may add to the settings of a single file.
    pub(super) fn open(&self, change: impl FnOnce(&mut LogSettings)) -> anyhow::Result<OpenLog> {
        if let Some(file) = &self.file {
            if !file.exists() {
                bail!("there is no log file {}", file.display());
            }
            let mut settings = LogSettings::in_file(file);
            change(&mut settings);
            let places = LogPlaces::open(&settings, None)?;
            return Ok(OpenLog { places, policy: None, models: None, configured: false, store: None });
        }
        let path = self.config.as_deref().ok_or_else(|| anyhow!("name the log with --config or --file"))?;
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let excerpt: Excerpt = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let settings = match excerpt.log {
            None => LogSettings::default(),
            // The one line that names a file.
            Some(toml::Value::String(file)) => LogSettings::in_file(file),
            Some(table) => table.try_into().with_context(|| format!("{}: [log]", path.display()))?,
        };
        let settings = settings.resolve(folder);
        let below = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        let store = match excerpt.store {
            Some(store) => {
                let runtime = Runtime::new().context("cannot start the threads of the database")?;
                let database =
                    runtime.block_on(Database::open(&store.url(folder)?, DatabaseOptions::default()))?;
                Some((database, runtime))
            }
            None => None,
        };
        let database = store.as_ref().map(|(database, runtime)| (database.clone(), runtime.handle().clone()));
        let places = LogPlaces::open(&settings, database)?;
        let (policy, models) = (below(excerpt.policy), below(excerpt.models));
        Ok(OpenLog { places, policy, models, configured: true, store })
    }
}

impl StoreTable {
    fn url(&self, folder: &Path) -> anyhow::Result<String> {
        match (&self.url, &self.url_file) {
            (Some(url), _) => Ok(resolve_url(url, folder)),
            (None, Some(file)) => {
                let file = folder.join(file);
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                Ok(resolve_url(text.trim(), file.parent().unwrap_or(folder)))
            }
            (None, None) => bail!("[store] names neither `url` nor `url_file`"),
        }
    }
}

/// A file of SQLite is named relative to the configuration.
fn resolve_url(url: &str, folder: &Path) -> String {
    match url.strip_prefix("sqlite:") {
        Some(path) if Path::new(path).is_relative() => format!("sqlite:{}", folder.join(path).display()),
        _ => url.to_owned(),
    }
}

impl Filter {
    pub(super) fn query(&self, places: &LogPlaces) -> anyhow::Result<Query> {
        let base = match &self.tenant {
            Some(tenant) => Query::for_tenant(tenant),
            None => Query::for_operator(),
        };
        let subjects = match (&self.tenant, &self.subject) {
            (Some(tenant), Some(subject)) => places.subjects(tenant, subject)?,
            _ => Vec::new(),
        };
        let time = |text: &Option<String>| text.as_deref().map(parse_time).transpose();
        Ok(Query {
            since: time(&self.since)?,
            until: time(&self.until)?,
            rule: self.rule.clone(),
            outcome: self.outcome.clone(),
            reason: self.reason.clone(),
            request: self.request.clone(),
            decision: self.decision.clone(),
            model: self.model.clone(),
            subjects,
            cursor: self.cursor.clone(),
            limit: self.limit,
            ..base
        })
    }

    /// The tenant, where one is named.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

pub(super) fn run(command: &LogCommand) -> anyhow::Result<Exit> {
    match command {
        LogCommand::Query(arguments) => query(arguments),
        LogCommand::Export(arguments) => write_export(arguments),
        LogCommand::Verify(arguments) => verify(arguments),
        LogCommand::Erase(arguments) => erase(arguments),
        LogCommand::Expire(arguments) => expire(arguments),
    }
}

fn query(arguments: &QueryArgs) -> anyhow::Result<Exit> {
    let log = arguments.source.open(|_| {})?;
    let mut query = arguments.filter.query(&log.places)?;
    if arguments.log_entries {
        query = query.with_log_entries();
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    query.limit = Some(limit);
    let (mut count, mut last) = (0, None);
    log.places.query(&query, &mut |entry| {
        count += 1;
        last = Some(Place::of(&entry));
        if arguments.json {
            let line = serde_json::to_string(&entry).map_err(io::Error::from)?;
            say(line)?;
        } else {
            say(summary(&entry))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let next = last.filter(|_| count == limit).map(|place| place.to_string());
    if arguments.json {
        say(json!({ "next": next }))?;
    } else if let Some(next) = next {
        writeln!(io::stderr(), "{count} decisions; for the next ones add --cursor {next}")?;
    }
    Ok(Exit::Clean)
}

/// One line for people.
fn summary(entry: &Entry) -> String {
    let text = |pointer: &str| entry.result.pointer(pointer).and_then(|value| value.as_str()).unwrap_or("-");
    let violated = entry.result.get("violated").and_then(|value| value.as_array());
    let violated: Vec<&str> = violated.into_iter().flatten().filter_map(|rule| rule.as_str()).collect();
    let request = entry.input.pointer("/request/id").and_then(|value| value.as_str()).unwrap_or("-");
    let (time, tenant, id) = (&entry.timestamp, entry.tenant().unwrap_or("-"), &entry.decision_id);
    if entry.path != cluegate_audit::entry::DECISION {
        return format!("{time}  {tenant}  {}  {id}", entry.path);
    }
    let violated = if violated.is_empty() { "-".to_owned() } else { violated.join(",") };
    format!("{time}  {tenant}  {}  {}  {violated}  {request}  {id}", text("/outcome"), text("/reason"))
}

fn write_export(arguments: &ExportArgs) -> anyhow::Result<Exit> {
    let log = arguments.source.open(|_| {})?;
    let query = arguments.filter.query(&log.places)?;
    let format = match arguments.form {
        ExportName::Jsonl => ExportFormat::Jsonl,
        ExportName::Csv => ExportFormat::Csv,
    };
    let bar = progress::counter("exporting");
    let mut drawn = |count: u64| {
        if count.is_multiple_of(DRAW_EVERY) {
            bar.set_position(count);
        }
    };
    let Some(out) = &arguments.out else {
        let to = io::BufWriter::new(io::stdout().lock());
        export(&log.places, &query, format, to, &mut drawn)?;
        bar.finish_and_clear();
        return Ok(Exit::Clean);
    };
    // Whole or not at all.
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(PART);
    let part = out.with_file_name(name);
    let file = std::fs::File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let count = export(&log.places, &query, format, io::BufWriter::new(file), &mut drawn)?;
    std::fs::rename(&part, out).with_context(|| format!("cannot write {}", out.display()))?;
    bar.finish_and_clear();
    writeln!(io::stderr(), "{count} decisions in {}", out.display())?;
    Ok(Exit::Clean)
}

/// `INSTANCE:NUMBER:HASH`.
fn parse_anchor(text: &str) -> Result<Position, String> {
    let parse = || {
        let mut parts = text.rsplitn(3, ':');
        let (hash, seq, instance) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let whole = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        whole.then(|| Position { instance: instance.to_owned(), seq, hash: hash.to_owned() })
    };
    parse().ok_or_else(|| "expected INSTANCE:NUMBER:HASH with a hash of 64 hexadecimal digits".to_owned())
}

fn verify(arguments: &VerifyArgs) -> anyhow::Result<Exit> {
    let log = arguments.source.open(|settings| settings.head_key_file.clone_from(&arguments.head_key))?;
    let options = VerifyOptions { anchors: arguments.anchors.clone(), pictures: arguments.pictures };
    let bar = progress::counter("verifying");
    let verified = log.places.verify(&options, &mut |count| {
        if count.is_multiple_of(DRAW_EVERY) {
            bar.set_position(count);
        }
    })?;
    bar.finish_and_clear();
    let exit = if verified.broken.is_none() { Exit::Clean } else { Exit::Violation };
    if arguments.json {
        let mut document = serde_json::to_value(&verified)?;
        document["message"] = json!(verified.broken.as_ref().map(ToString::to_string));
        say_json(&document)?;
        return Ok(exit);
    }
    for chain in &verified.chains {
        let cluegate_audit::ChainReport { place, instance, first, last, entries, erased, removed, .. } =
            chain;
        let head = match chain.head {
            None => "no head: a missing end would not be seen".to_owned(),
            Some(signature) => {
                format!("head signature: {}", serde_json::to_value(signature)?.as_str().unwrap_or(""))
            }
        };
        say(format_args!(
            "{place}: {instance}: entries {first} to {} ({entries} checked, {erased} with parts erased, {removed} removed \
             whole), {head}\n  anchor {instance}:{}:{}",
            last.seq, last.seq, last.hash
        ))?;
        if *first > 1 {
            say(format_args!(
                "  entries before {first} are not here; verify the files that they were moved to"
            ))?;
        }
    }
    match &verified.broken {
        Some(broken) => say(format_args!("BROKEN: {broken}"))?,
        None => say("ok")?,
    }
    Ok(exit)
}

fn erase(arguments: &EraseArgs) -> anyhow::Result<Exit> {
    let log =
        arguments.source.open(|settings| settings.subject_key_file.clone_from(&arguments.subject_key))?;
    let tenant = arguments.tenant.clone();
    let erasure = match (&arguments.subject, &arguments.decision) {
        (Some(subject), _) => Erasure::Subject { tenant, subject: subject.clone() },
        (None, Some(id)) => Erasure::Decision { tenant, id: id.clone() },
        (None, None) => Erasure::Tenant { tenant },
    };
    let removed = log.places.erase(&erasure)?;
    tell(removed, "erased from", arguments.json)
}

fn tell(removed: Removed, what: &str, json: bool) -> anyhow::Result<Exit> {
    if json {
        say_json(&removed)?;
    } else {
        say(format_args!("{what} {} entries, and {} pictures removed", removed.entries, removed.pictures))?;
    }
    Ok(Exit::Clean)
}

fn expire(arguments: &ExpireArgs) -> anyhow::Result<Exit> {
    let log = arguments.source.open(|_| {})?;
    let policies = log.policies(arguments.policy.as_deref())?;
    let mut all = Removed::default();
    let wanted = policies
        .iter()
        .filter(|policy| arguments.tenant.as_deref().is_none_or(|tenant| *policy.tenant == *tenant));
    let wanted: Vec<_> = wanted.collect();
    if let Some(tenant) = arguments.tenant.as_deref().filter(|_| wanted.is_empty()) {
        policies.require(tenant)?;
    }
    let bar = progress::bar(wanted.len() as u64, "expiring");
    for policy in wanted {
        let removed = log.places.expire(&policy.tenant, &policy.retention)?;
        all.entries += removed.entries;
        all.pictures += removed.pictures;
        bar.inc(1);
    }
    bar.finish_and_clear();
    tell(all, "removed", arguments.json)
}
