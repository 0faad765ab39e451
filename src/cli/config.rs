//! `cluegate config`: what a gateway's configuration says, who said so, and all that is wrong with it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cluegate_gate::{Policies, check_signer};
use cluegate_server::config::{Config, Finding, KeySetting, RawConfig, UpstreamKind, mask_address};
use cluegate_server::keys::{KeyFile, KeyKind};
use cluegate_server::{Stored, upstream};
use cluegate_store::{Database, DatabaseOptions, Store};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::args::{ConfigCheckArgs, ConfigCommand, ConfigShowArgs, Format};
use super::{Exit, say, say_json};

/// Beginnings of the names of variables that this program, and what is built into it, reads.
const VARIABLES: [&str; 8] =
    ["CLUEGATE_", "HF_", "OTEL_", "RAYON_NUM_THREADS", "RUST_LOG", "NO_COLOR", "HTTPS_PROXY", "https_proxy"];
/// Parts of names of variables that hold secrets.
const SECRETS: [&str; 4] = ["TOKEN", "HEADERS", "PASSWORD", "SECRET"];

pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Show(arguments) => show(arguments),
        ConfigCommand::Check(arguments) => check(arguments),
        ConfigCommand::Schema => {
            say_json(&Config::json_schema())?;
            Ok(Exit::Clean)
        }
    }
}

/// One key with its value and who set it.
#[derive(Debug, Serialize)]
struct Shown {
    key: String,
    value: Option<Value>,
    default: Option<Value>,
    source: String,
}

fn show(arguments: &ConfigShowArgs) -> anyhow::Result<Exit> {
    let Some(file) = &arguments.config else {
        match arguments.format {
            Format::Text => say(RawConfig::with_defaults_toml().trim_end())?,
            Format::Json => say_json(&shown(&RawConfig::default(), "", Path::new(""), arguments))?,
        }
        return Ok(Exit::Clean);
    };
    let text = read(file)?;
    // What cannot be used is refused with the words that `serve` would have for it.
    Config::parse(&text, &file.display().to_string(), file.parent().unwrap_or(Path::new("")))?;
    let raw: RawConfig = toml::from_str(&text)?;
    let shown = shown(&raw, &text, file, arguments);
    match arguments.format {
        Format::Json => say_json(&shown)?,
        Format::Text => {
            for line in lines(&shown, arguments.sources) {
                say(line)?;
            }
            if arguments.sources {
                for (name, value) in variables() {
                    say(format_args!("# environment: {name}={value}"))?;
                }
            }
        }
    }
    Ok(Exit::Clean)
}

/// Every key, with what the command line and the environment put in place of the file's word.
fn shown(raw: &RawConfig, text: &str, file: &Path, arguments: &ConfigShowArgs) -> Vec<Shown> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = |setting: &KeySetting| match setting.line {
        Some(line) => format!("{name}:{line}"),
        None if setting.value.is_some() => "default".to_owned(),
        None => "not set".to_owned(),
    };
    let told = raw.settings(text).into_iter();
    let mut shown: Vec<Shown> = told
        .map(|setting| Shown {
            source: source(&setting),
            key: setting.key,
            value: setting.value,
            default: setting.default,
        })
        .collect();
    let mut replace = |key: &str, value: Option<String>, source: String| {
        if let (Some(value), Some(own)) = (value, shown.iter_mut().find(|own| own.key == key)) {
            (own.value, own.source) = (Some(Value::from(value)), source);
        }
    };
    replace("listen", arguments.listen.map(|listen: SocketAddr| listen.to_string()), "--listen".to_owned());
    let named = std::env::args().any(|argument| argument == "--models" || argument.starts_with("--models="));
    let models = arguments.models.as_ref().map(|models| models.display().to_string());
    let source = if named { "--models" } else { "environment CLUEGATE_MODELS" };
    replace("models", models, source.to_owned());
    shown
}

/// The keys as TOML: what is in force, and what is not set as a comment.
fn lines(shown: &[Shown], sources: bool) -> Vec<String> {
    let (mut lines, mut table) = (Vec::new(), String::new());
    // Keys of a table have to stand before the tables in it.
    let (plain, in_tables): (Vec<&Shown>, Vec<&Shown>) = shown.iter().partition(|own| !own.key.contains('.'));
    for own in plain.into_iter().chain(in_tables) {
        let (above, name) = own.key.rsplit_once('.').unwrap_or(("", &own.key));
        if above != table {
            lines.push(format!("\n[{above}]"));
            table = above.to_owned();
        }
        let line = match &own.value {
            Some(value) => format!("{name} = {}", inline(value)),
            None => format!("# {name}"),
        };
        let default = own.default.as_ref().filter(|default| own.value.as_ref() != Some(*default));
        let default = default.map_or_else(String::new, |default| format!("; default {}", inline(default)));
        lines.push(if sources { format!("{line}  # {}{default}", own.source) } else { line });
    }
    lines
}

/// A value as it may stand behind an equals sign in TOML.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{} = {}", Value::from(name.as_str()), inline(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        // A string of JSON is one of TOML too.
        other => other.to_string(),
    }
}

/// The variables of the environment that have a say, without secrets.
fn variables() -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| VARIABLES.iter().any(|own| name.starts_with(own)))
        .map(|(name, value)| {
            let secret = SECRETS.iter().any(|word| name.contains(word));
            let value = if secret { "***".to_owned() } else { mask_address(&value) };
            (name, value)
        })
        .collect();
    variables.sort();
    variables
}

/// Something wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Problem {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    message: String,
}

/// What `config check --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    problems: Vec<Problem>,
}

fn check(arguments: &ConfigCheckArgs) -> anyhow::Result<Exit> {
    let file = &arguments.file;
    let text = read(file)?;
    let origin = file.display().to_string();
    let (config, findings) = Config::examine(&text, &origin, file.parent().unwrap_or(Path::new("")));
    let told = |Finding { line, key, message }| Problem { file: origin.clone(), line, key, message };
    let mut problems: Vec<Problem> = findings.into_iter().map(told).collect();
    if let Some(config) = &config {
        let mut examined = Examined { config, origin: &origin, problems: Vec::new() };
        examined.all(arguments.connect);
        problems.append(&mut examined.problems);
    }
    let ok = problems.is_empty();
    match (arguments.json, ok) {
        (true, _) => say_json(&Report { ok, problems })?,
        (false, true) => say(format_args!("{origin}: ok"))?,
        (false, false) => {
            for Problem { file, line, message, .. } in &problems {
                let line = line.map_or_else(String::new, |line| format!(":{line}"));
                say(format_args!("{file}{line}: {message}"))?;
            }
        }
    }
    Ok(if ok { Exit::Clean } else { Exit::Violation })
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What a configuration names, looked at without starting anything.
struct Examined<'a> {
    config: &'a Config,
    origin: &'a str,
    problems: Vec<Problem>,
}

impl Examined<'_> {
    fn all(&mut self, connect: bool) {
        // A store holds policies and keys, which are looked at where it is.
        if self.config.store.is_none() {
            let tenants = self.policy();
            self.keys(tenants.as_ref());
        }
        self.store(connect);
        self.admin();
        self.files();
        self.models();
        self.plugins();
        self.provenance();
        self.upstream();
    }

    /// The certificate and the key that sign files.
    fn provenance(&mut self) {
        if let Err(error) = super::provenance::open(self.config) {
            self.found("provenance", error);
        }
    }

    /// Whether the plugins' libraries are there and allowed. None of them is loaded.
    fn plugins(&mut self) {
        for (name, error) in super::plugins::missing(self.config) {
            self.found("plugins.use", format_args!("the plugin {name}: {error}"));
        }
    }

    fn found(&mut self, key: &str, message: impl std::fmt::Display) {
        let (file, key) = (self.origin.to_owned(), Some(key.to_owned()));
        self.problems.push(Problem { file, line: None, key, message: message.to_string() });
    }

    /// Reads the policies and the constitution of every tenant; the names of the tenants if the policies can be read.
    fn policy(&mut self) -> Option<BTreeSet<String>> {
        let policies = match &self.config.policy {
            Some(file) => Policies::load(file),
            None => Policies::shipped_default(),
        };
        let policies = match policies {
            Ok(policies) => policies,
            Err(error) => {
                self.found("policy", error);
                return None;
            }
        };
        for policy in policies.iter() {
            if let Err(error) = policies.constitution(policy) {
                self.found("policy", error);
            }
        }
        if self.config.provenance.is_none()
            && let Err(error) = check_signer(&policies, None)
        {
            self.found("policy", error);
        }
        Some(policies.iter().map(|policy| policy.tenant.to_string()).collect())
    }

    fn keys(&mut self, tenants: Option<&BTreeSet<String>>) {
        let file = self.config.keys.as_ref().map(|file| (file.clone(), KeyFile::load(file, KeyKind::Client)));
        let mut named: Vec<(String, String)> = Vec::new();
        match &file {
            Some((_, Err(error))) => self.found("keys.file", error),
            Some((file, Ok(keys))) => named.extend(keys.iter().filter_map(|key| {
                Some((format!("{}: the key {:?}", file.display(), key.id), key.tenant.as_deref()?.to_owned()))
            })),
            None => {}
        }
        let anonymous = self.config.anonymous.iter();
        named.extend(anonymous.map(|tenant| ("`keys.anonymous`".to_owned(), tenant.clone())));
        let Some(tenants) = tenants else { return };
        for (who, tenant) in named.iter().filter(|(_, tenant)| !tenants.contains(tenant)) {
            let known = tenants.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
            self.found(
                "keys",
                format_args!("{who}: expected a tenant with a policy ({known}), got {tenant:?}"),
            );
        }
    }

    /// The administration's keys and certificate.
    fn admin(&mut self) {
        let Some(admin) = &self.config.admin else { return };
        match KeyFile::load(&admin.key_file, KeyKind::Admin) {
            Ok(keys) if keys.is_empty() => {
                self.found(
                    "admin.key_file",
                    "there is no key in it; `cluegate keys new --role write` adds one",
                );
            }
            Ok(_) => {}
            Err(error) => self.found("admin.key_file", error),
        }
        if let Some(Err(error)) = admin.tls.as_ref().map(cluegate_server::check_tls) {
            self.found("admin.tls", error);
        }
    }

    /// The store's address; and, if asked, whether it answers, and what is in it can be used.
    fn store(&mut self, connect: bool) {
        let Some(store) = &self.config.store else { return };
        let url = match store.address.url() {
            Ok(url) if connect => url,
            Ok(_) => return,
            Err(error) => return self.found("store", error),
        };
        let looked = Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
            runtime.block_on(async {
                let database = Database::open(&url, DatabaseOptions::default()).await?;
                Stored::new(Store::new(database)).check(Vec::new()).await?;
                anyhow::Ok(())
            })
        });
        if let Err(error) = looked {
            self.found("store", format_args!("{error:#}"));
        }
    }

    /// Certificates, and whether what is written can be.
    fn files(&mut self) {
        if let Some(Err(error)) = self.config.tls.as_ref().map(cluegate_server::check_tls) {
            self.found("tls", error);
        }
        if let Some(log) = self.config.log.file.clone() {
            let beside = log.parent().map(Path::to_path_buf).unwrap_or_default();
            if let Err(problem) = writable(&log, &beside) {
                self.found("log", problem);
            }
        }
        let review = self.config.review.clone();
        let folder = if review.is_dir() {
            review.clone()
        } else {
            review.parent().map(Path::to_path_buf).unwrap_or_default()
        };
        if let Err(problem) = writable(&review, &folder) {
            self.found("review", problem);
        }
    }

    /// The models file and the checkpoints that it names, unread.
    fn models(&mut self) {
        if let Err(error) = cluegate::engine::open_suite(self.config.models.as_deref()) {
            self.found("models", error);
        }
    }

    fn upstream(&mut self) {
        let Some(named) = self.config.upstream.as_ref().filter(|named| named.kind != UpstreamKind::BuiltIn)
        else {
            return;
        };
        if let Err(error) = upstream::open(named, None) {
            self.found("upstream", error);
        }
    }
}

/// Whether `file` can be appended to if it is there, and files can be made in `folder` if it is not.
fn writable(file: &Path, folder: &Path) -> Result<(), String> {
    let fail = |what: &Path, error: std::io::Error| format!("cannot write to {}: {error}", what.display());
    if file.is_file() {
        return OpenOptions::new().append(true).open(file).map(drop).map_err(|error| fail(file, error));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let probe: PathBuf = folder.join(format!(".cluegate-check-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe);
    made.map_err(|error| fail(folder, error))?;
    fs::remove_file(&probe).map_err(|error| fail(&probe, error))
}
