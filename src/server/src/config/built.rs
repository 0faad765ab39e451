//! A configuration whose every value has been checked.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluegate_audit::LogSettings;
use cluegate_gate::policy::find_unknown_key;
use cluegate_perception::DecodeOptions;
use cluegate_provenance::SigningSettings;
use cluegate_telemetry::MetricsOptions;
use reqwest::Url;

use super::ConfigError;
use super::hosts::FetchHost;
use super::plugins::RawPlugins;
use super::raw::{
    FrontName, RawA1111, RawAdmin, RawComfyUi, RawConfig, RawMetrics, RawPictures, RawServerLimits, RawStore,
    RawTls, RawUpstream, UpstreamKind, WhenGone,
};

/// Longest configuration file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most requests in work: the runtime has 512 threads for them and for other things.
const MAX_IN_WORK: usize = 448;
/// Most predictions ahead, as many as a drawing may have steps.
const MAX_LOOK_AHEAD: u32 = 1000;
/// Most nodes of a ComfyUI workflow that can be allowed.
const MAX_NODES: usize = 2000;
/// Most tenants, or rules, with series of metrics of their own.
const MAX_SERIES: usize = 100_000;
/// Longest time that can be named: a year.
const MAX_MS: u64 = 365 * 86_400_000;

/// A gateway's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What addresses that clients are given begin with, if it is not what the client named.
    pub public_url: Option<Url>,
    /// The policy file.
    pub policy: Option<PathBuf>,
    /// The decision log, with paths that do not depend on the folder.
    pub log: LogSettings,
    /// Folder for pictures that wait for a person.
    pub review: PathBuf,
    /// The models that judge.
    pub models: Option<PathBuf>,
    /// Front ends to offer.
    pub fronts: Vec<FrontName>,
    /// File of hashed keys.
    pub keys: Option<PathBuf>,
    /// Tenant of those who bring no key.
    pub anonymous: Option<String>,
    /// The database that holds tenants, keys and usage.
    pub store: Option<StoreConfig>,
    /// How often policies and keys are looked at for changes; none for never.
    pub poll: Option<Duration>,
    /// The administration.
    pub admin: Option<AdminConfig>,
    /// How many series of metrics there may be.
    pub metrics: MetricsOptions,
    /// TLS.
    pub tls: Option<RawTls>,
    /// The text-to-image server.
    pub upstream: Option<UpstreamConfig>,
    /// What may be spent.
    pub limits: ServerLimits,
    /// How pictures are read.
    pub pictures: PictureOptions,
    /// The A1111 front end.
    pub a1111: RawA1111,
    /// The ComfyUI front end.
    pub comfyui: RawComfyUi,
    /// Plugins, with paths that do not depend on the folder.
    pub plugins: RawPlugins,
    /// What files are signed with, with paths that do not depend on the folder.
    pub provenance: Option<SigningSettings>,
}

/// The database that holds tenants, keys and usage.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreConfig {
    /// Where it is.
    pub address: StoreAddress,
    /// What happens while it is gone.
    pub when_gone: WhenGone,
    /// For how long it may be silent before it counts as gone.
    pub gone_after: Duration,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// `sqlite:PATH` or `postgres://...`.
    Url(String),
    /// A file that holds such an address.
    File(PathBuf),
}

/// The administration.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// File of hashed keys with roles.
    pub key_file: PathBuf,
    /// TLS.
    pub tls: Option<RawTls>,
}

/// The text-to-image server.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// What it speaks.
    pub kind: UpstreamKind,
    /// Its address, without a slash at the end; none for the generator in this process.
    pub url: Option<Url>,
    /// File that holds its key.
    pub key_file: Option<PathBuf>,
    /// Certificates to trust beside the system's.
    pub certificates: Option<PathBuf>,
    /// Most pictures in one call, at least 1.
    pub batch: u32,
    /// Longest wait for one call.
    pub timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Most bytes of one answer.
    pub answer_bytes: usize,
    /// How often it is asked how far it is.
    pub poll: Duration,
    /// A ComfyUI workflow for other front ends' requests.
    pub workflow: Option<PathBuf>,
    /// The model where a request names none.
    pub model: Option<String>,
    /// For the generator in this process: a diffusers folder in place of the models' own.
    pub generator: Option<PathBuf>,
    /// For the same: predictions that a preview takes beyond that of its step.
    pub look_ahead: Option<usize>,
}

/// What may be spent. See [`RawServerLimits`] for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Most connections.
    pub connections: usize,
    /// Most requests in work.
    pub in_work: usize,
    /// Most requests that wait.
    pub queue: usize,
    /// What an overloaded server asks clients to wait.
    pub retry_after: Duration,
    /// Most bytes of a body.
    pub body_bytes: usize,
    /// Most bytes of all bodies together.
    pub bodies_bytes: usize,
    /// Longest wait for a head.
    pub head_timeout: Duration,
    /// Longest wait for a body.
    pub body_timeout: Duration,
    /// Longest wait for a client that takes nothing of its answer.
    pub send_timeout: Duration,
    /// Longest life of a request.
    pub request_timeout: Duration,
    /// Longest silence about a session.
    pub session_idle: Duration,
    /// How long requests may go on at the end.
    pub drain: Duration,
    /// Wrong keys from one address within a minute.
    pub wrong_keys: u32,
    /// How long finished jobs are kept.
    pub keep: Duration,
    /// Most bytes of kept files.
    pub keep_bytes: usize,
}

/// How pictures are read.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureOptions {
    /// Limits, and whether to convert.
    pub decode: DecodeOptions,
    /// Hosts that pictures may be fetched from.
    pub fetch_hosts: Vec<FetchHost>,
    /// Longest time to fetch one picture.
    pub fetch_timeout: Duration,
}

impl Config {
    /// Reads a configuration file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// If the file cannot be read or used; the error names the file and the key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let fail = |problem: String| ConfigError::Read { path: path.to_path_buf(), problem };
        let size = fs::metadata(path).map_err(|source| fail(source.to_string()))?.len();
        if size > MAX_FILE_BYTES {
            return Err(fail(format!("it has {size} bytes, more than {MAX_FILE_BYTES}")));
        }
        let text = fs::read_to_string(path).map_err(|source| fail(source.to_string()))?;
        Self::parse(&text, &path.display().to_string(), path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a configuration from text; `origin` says in errors where it came from, `folder` is what its paths are
    /// relative to.
    ///
    /// # Errors
    /// If it cannot be used; the error names the key.
    pub fn parse(text: &str, origin: &str, folder: &Path) -> Result<Self, ConfigError> {
        let toml_error = |source: toml::de::Error| ConfigError::Toml {
            origin: origin.to_owned(),
            problem: source.to_string().trim_end().to_owned(),
        };
        let table: toml::Table = text.parse().map_err(toml_error)?;
        if let Some(toml::Value::String(file)) = table.get("log") {
            // As it was written before there was more to say of a log.
            let expected = format!("a table: write `[log]` and below it `file = {file:?}`");
            return Err(Check { origin }.error("log", &expected, "a text"));
        }
        if let Some(unknown) = find_unknown_key(&table, &Self::json_schema()) {
            return Err(ConfigError::UnknownKey {
                origin: origin.to_owned(),
                path: unknown.path,
                nearest: unknown.nearest,
                known: unknown.known,
            });
        }
        // Read again from the text, not from the table, so that errors name line and column.
        let raw: RawConfig = toml::from_str(text).map_err(toml_error)?;
        Self::build(raw, origin, folder)
    }

    /// Checks a raw configuration and builds it.
    ///
    /// # Errors
    /// If a value is out of range; the error names the key.
    pub fn build(raw: RawConfig, origin: &str, folder: &Path) -> Result<Self, ConfigError> {
        let check = Check { origin };
        let at = |path: PathBuf| folder.join(path);
        let listen = raw.listen.parse();
        let listen = listen.map_err(|_| {
            check.error("listen", "an address and a port, such as 127.0.0.1:7800", &raw.listen)
        })?;
        check.owners(&raw)?;
        let raw_store = raw.store.is_some();
        let tls = raw.tls.map(|tls| tls.in_folder(folder));
        // Models may also be named by preset, which is no path.
        let models = raw.models.map(|models| {
            let path = folder.join(&models);
            if path.exists() { path } else { models }
        });
        Ok(Self {
            listen,
            public_url: raw.public_url.map(|url| check.url("public_url", &url)).transpose()?,
            policy: raw.policy.map(at),
            log: check.log(raw.log, raw_store, folder)?,
            review: at(raw.review),
            models,
            fronts: raw.fronts,
            keys: raw.keys.file.map(at),
            anonymous: raw.keys.anonymous,
            store: raw.store.map(|store| check.store(store, folder)).transpose()?,
            poll: match raw.reload.poll_ms {
                0 => None,
                ms => Some(check.time("reload.poll_ms", ms)?),
            },
            admin: raw.admin.map(|admin| check.admin(admin, listen, folder)).transpose()?,
            metrics: check.metrics(raw.metrics)?,
            tls,
            upstream: raw.upstream.map(|upstream| check.upstream(upstream, folder)).transpose()?,
            limits: check.limits(&raw.limits)?,
            pictures: check.pictures(raw.pictures)?,
            a1111: raw.a1111,
            comfyui: check.comfyui(raw.comfyui)?,
            plugins: raw
                .plugins
                .built(folder)
                .map_err(|(key, expected, found)| check.error(&key, &expected, found))?,
            provenance: raw.provenance.map(|signing| check.provenance(signing, folder)).transpose()?,
        })
    }

    /// JSON Schema of the configuration file.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(RawConfig).to_value()
    }

    /// Whether `front` is offered.
    pub fn offers(&self, front: FrontName) -> bool {
        self.fronts.contains(&front)
    }
}

impl RawTls {
    fn in_folder(self, folder: &Path) -> Self {
        Self { certificate: folder.join(self.certificate), key: folder.join(self.key) }
    }
}

/// How the address of a file of SQLite begins.
const SQLITE: &str = "sqlite:";

/// The address of a store; the path of a file is relative to `folder`.
fn in_folder(url: &str, folder: &Path) -> String {
    match url.strip_prefix(SQLITE) {
        Some(path) => format!("{SQLITE}{}", folder.join(path).display()),
        None => url.to_owned(),
    }
}

impl StoreAddress {
    /// The address itself.
    ///
    /// # Errors
    /// If the file that holds it cannot be read, or is empty.
    pub fn url(&self) -> Result<String, ConfigError> {
        let file = match self {
            Self::Url(url) => return Ok(url.clone()),
            Self::File(file) => file,
        };
        let fail = |problem: String| ConfigError::Read { path: file.clone(), problem };
        let text = fs::read_to_string(file).map_err(|source| fail(source.to_string()))?;
        match text.trim() {
            "" => Err(fail("it is empty; expected the address of a store".to_owned())),
            url => Ok(in_folder(url, file.parent().unwrap_or(Path::new("")))),
        }
    }
}

struct Check<'a> {
    origin: &'a str,
}

impl Check<'_> {
    fn error(&self, path: &str, expected: &str, found: impl ToString) -> ConfigError {
        ConfigError::Value {
            origin: self.origin.to_owned(),
            path: path.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    fn positive(&self, path: &str, value: usize) -> Result<usize, ConfigError> {
        if value == 0 { Err(self.error(path, "1 or more", value)) } else { Ok(value) }
    }

    fn time(&self, path: &str, ms: u64) -> Result<Duration, ConfigError> {
        match ms {
            1..=MAX_MS => Ok(Duration::from_millis(ms)),
            _ => Err(self.error(path, "from 1 to a year of milliseconds", ms)),
        }
    }

    /// Somebody has to be able to ask, and who may is said in one place.
    fn owners(&self, raw: &RawConfig) -> Result<(), ConfigError> {
        let kept =
            "absent where there is a [store], which holds it; `cluegate tenants import` brings files into it";
        match &raw.store {
            None if raw.keys.file.is_none() && raw.keys.anonymous.is_none() => {
                let expected =
                    "present: `file` for API keys, or `anonymous` for the tenant of those who bring none";
                Err(self.error("keys", expected, "empty"))
            }
            Some(_) if raw.policy.is_some() => Err(self.error("policy", kept, "present")),
            Some(_) if raw.keys.file.is_some() => Err(self.error("keys.file", kept, "present")),
            _ => Ok(()),
        }
    }

    fn log(&self, raw: LogSettings, has_store: bool, folder: &Path) -> Result<LogSettings, ConfigError> {
        if raw.database && !has_store {
            let expected = "false without a [store], whose database it means";
            return Err(self.error("log.database", expected, "true"));
        }
        let log = raw.resolve(folder);
        log.check().map_err(|error| ConfigError::Toml {
            origin: self.origin.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(log)
    }

    fn store(&self, raw: RawStore, folder: &Path) -> Result<StoreConfig, ConfigError> {
        let address = match (raw.url, raw.url_file) {
            (Some(url), None) => StoreAddress::Url(in_folder(&url, folder)),
            (None, Some(file)) => StoreAddress::File(folder.join(file)),
            (url, _) => {
                let expected = "an address such as sqlite:gate.db in `url`, or the name of a file that holds one in \
                                `url_file`, and not both";
                return Err(self.error("store", expected, if url.is_some() { "both" } else { "empty" }));
            }
        };
        let gone_after = self.time("store.gone_after_ms", raw.gone_after_ms)?;
        Ok(StoreConfig { address, when_gone: raw.when_gone, gone_after })
    }

    fn provenance(&self, raw: SigningSettings, folder: &Path) -> Result<SigningSettings, ConfigError> {
        raw.check()
            .map_err(|(key, expected, found)| self.error(&format!("provenance.{key}"), expected, found))?;
        Ok(raw.in_folder(folder))
    }

    fn metrics(&self, raw: RawMetrics) -> Result<MetricsOptions, ConfigError> {
        for (path, value) in [("metrics.tenants", raw.tenants), ("metrics.rules", raw.rules)] {
            if value > MAX_SERIES {
                return Err(self.error(path, &format!("at most {MAX_SERIES}"), value));
            }
        }
        Ok(MetricsOptions { tenants: raw.tenants, rules: raw.rules })
    }

    fn admin(&self, raw: RawAdmin, public: SocketAddr, folder: &Path) -> Result<AdminConfig, ConfigError> {
        let listen: SocketAddr = raw.listen.parse().map_err(|_| {
            self.error("admin.listen", "an address and a port, such as 127.0.0.1:7801", &raw.listen)
        })?;
        if listen == public && listen.port() != 0 {
            let expected = "another address or port than `listen`: clients must not reach the administration";
            return Err(self.error("admin.listen", expected, listen));
        }
        Ok(AdminConfig {
            listen,
            key_file: folder.join(raw.key_file),
            tls: raw.tls.map(|tls| tls.in_folder(folder)),
        })
    }

    fn upstream(&self, raw: RawUpstream, folder: &Path) -> Result<UpstreamConfig, ConfigError> {
        Ok(UpstreamConfig {
            kind: raw.kind,
            key_file: raw.key_file.map(|path| folder.join(path)),
            certificates: raw.certificates.map(|path| folder.join(path)),
            batch: u32::try_from(self.positive("upstream.batch", raw.batch as usize)?).unwrap_or(u32::MAX),
            timeout: self.time("upstream.timeout_ms", raw.timeout_ms)?,
            connect_timeout: self.time("upstream.connect_timeout_ms", raw.connect_timeout_ms)?,
            answer_bytes: self.positive("upstream.answer_bytes", raw.answer_bytes)?,
            poll: self.time("upstream.poll_ms", raw.poll_ms)?,
            workflow: raw.workflow.map(|path| folder.join(path)),
            model: raw.model,
            generator: match (raw.kind, raw.generator) {
                (_, None) => None,
                (UpstreamKind::BuiltIn, Some(path)) => Some(folder.join(path)),
                (_, Some(path)) => {
                    let expected = "absent: only the built-in generator has a folder";
                    return Err(self.error("upstream.generator", expected, path.display()));
                }
            },
            look_ahead: match (raw.kind, raw.look_ahead) {
                (_, None) => None,
                (UpstreamKind::BuiltIn, Some(count @ 0..=MAX_LOOK_AHEAD)) => Some(count as usize),
                (UpstreamKind::BuiltIn, Some(count)) => {
                    return Err(self.error("upstream.look_ahead", "from 0 to 1000", count));
                }
                (_, Some(count)) => {
                    let expected = "absent: only the built-in generator can look ahead";
                    return Err(self.error("upstream.look_ahead", expected, count));
                }
            },
            // Last, since nothing stands in for it while the others are looked at.
            url: match (raw.kind, raw.url) {
                (UpstreamKind::BuiltIn, None) => None,
                (UpstreamKind::BuiltIn, Some(url)) => {
                    return Err(self.error("upstream.url", "absent for the built-in generator", url));
                }
                (_, url) => Some(self.url("upstream.url", url.as_deref().unwrap_or_default())?),
            },
        })
    }

    fn url(&self, path: &str, text: &str) -> Result<Url, ConfigError> {
        let expected = "an address such as http://127.0.0.1:7860, without user, query or fragment";
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host().is_some()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        url.ok_or_else(|| self.error(path, expected, format!("{text:?}")))
    }

    fn in_work(&self, value: usize) -> Result<usize, ConfigError> {
        match value {
            1..=MAX_IN_WORK => Ok(value),
            _ => Err(self.error(
                "limits.in_work",
                &format!("from 1 to {MAX_IN_WORK}, as each has a thread"),
                value,
            )),
        }
    }

    fn limits(&self, raw: &RawServerLimits) -> Result<ServerLimits, ConfigError> {
        let seconds = raw.retry_after_s.saturating_mul(1000);
        Ok(ServerLimits {
            connections: self.positive("limits.connections", raw.connections)?,
            in_work: self.in_work(raw.in_work)?,
            queue: raw.queue,
            retry_after: self.time("limits.retry_after_s", seconds)?,
            body_bytes: self.positive("limits.body_bytes", raw.body_bytes)?,
            bodies_bytes: self.positive("limits.bodies_bytes", raw.bodies_bytes)?,
            head_timeout: self.time("limits.head_timeout_ms", raw.head_timeout_ms)?,
            body_timeout: self.time("limits.body_timeout_ms", raw.body_timeout_ms)?,
            send_timeout: self.time("limits.send_timeout_ms", raw.send_timeout_ms)?,
            request_timeout: self.time("limits.request_timeout_ms", raw.request_timeout_ms)?,
            session_idle: self.time("limits.session_idle_ms", raw.session_idle_ms)?,
            drain: self.time("limits.drain_ms", raw.drain_ms)?,
            wrong_keys: raw.wrong_keys.max(1),
            keep: self.time("limits.keep_ms", raw.keep_ms)?,
            keep_bytes: self.positive("limits.keep_bytes", raw.keep_bytes)?,
        })
    }

    fn comfyui(&self, raw: RawComfyUi) -> Result<RawComfyUi, ConfigError> {
        if !(1..=MAX_NODES).contains(&raw.max_nodes) {
            return Err(self.error("comfyui.max_nodes", "from 1 to 2000", raw.max_nodes));
        }
        self.positive("comfyui.sockets", raw.sockets)?;
        self.positive("comfyui.socket_queue", raw.socket_queue)?;
        self.time("comfyui.socket_idle_ms", raw.socket_idle_ms)?;
        Ok(raw)
    }

    fn pictures(&self, raw: RawPictures) -> Result<PictureOptions, ConfigError> {
        let max_bytes = self.positive("pictures.max_bytes", raw.max_bytes)?;
        self.positive("pictures.max_pixels", usize::try_from(raw.max_pixels).unwrap_or(usize::MAX))?;
        let decode = DecodeOptions { max_bytes, max_pixels: raw.max_pixels, convert: raw.convert };
        let expected = "hosts such as cdn.example.com, 10.1.2.3 or 10.1.2.3:8080, without scheme and path";
        let fetch_hosts = raw.fetch_hosts.iter().map(|text| {
            FetchHost::parse(text)
                .ok_or_else(|| self.error("pictures.fetch_hosts", expected, format!("{text:?}")))
        });
        Ok(PictureOptions {
            decode,
            fetch_hosts: fetch_hosts.collect::<Result<_, _>>()?,
            fetch_timeout: self.time("pictures.fetch_timeout_ms", raw.fetch_timeout_ms)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LEAST: &str = "[keys]\nanonymous = \"default\"\n";

    fn problem(text: &str) -> String {
        Config::parse(text, "gate.toml", Path::new("/etc/gate")).unwrap_err().to_string()
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let text = format!(
            "policy = \"policy.toml\"\n{LEAST}[upstream]\nkind = \"a1111\"\nurl = \"http://127.0.0.1:7860\"\n"
        );
        let config = Config::parse(&text, "gate.toml", Path::new("/etc/gate")).unwrap();
        assert_eq!(config.policy.as_deref(), Some(Path::new("/etc/gate/policy.toml")));
        assert_eq!(config.log.file.as_deref(), Some(Path::new("/etc/gate/decisions.jsonl")));
        assert_eq!(config.upstream.unwrap().batch, 4);
        assert_eq!(config.fronts.len(), FrontName::ALL.len());
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        assert!(problem("").contains("`keys` must be present"));
        let old = problem(&format!("log = \"decisions.jsonl\"\n{LEAST}"));
        assert!(
            old.contains("`log` must be a table: write `[log]` and below it `file = \"decisions.jsonl\"`"),
            "{old}"
        );
        assert!(problem(&format!("{LEAST}[log]\ndatabase = true\n")).contains("false without a [store]"));
        assert!(problem(&format!("{LEAST}[log]\nqueue = 0\n")).contains("queue"));
        assert!(problem(&format!("lisen = \"x\"\n{LEAST}")).contains("did you mean `listen`?"));
        assert!(problem(&format!("listen = \"localhost\"\n{LEAST}")).contains("`listen` must be an address"));
        for url in
            ["pictures.example.com", "https://a@pictures.example.com", "https://pictures.example.com/?a"]
        {
            assert!(
                problem(&format!("public_url = \"{url}\"\n{LEAST}")).contains("`public_url` must be"),
                "{url}"
            );
        }
        let upstream = |rest: &str| problem(&format!("{LEAST}[upstream]\n{rest}"));
        assert!(upstream("kind = \"a1111\"").contains("`upstream.url` must be an address"));
        for url in ["ftp://x", "http://u:p@x", "x", "http://x?a=1"] {
            assert!(
                upstream(&format!("kind = \"openai\"\nurl = \"{url}\"")).contains("`upstream.url`"),
                "{url}"
            );
        }
        assert!(upstream("kind = \"builtin\"\nurl = \"http://x\"").contains("must be absent"));
        let folder = "kind = \"a1111\"\nurl = \"http://x\"\ngenerator = \"sdxl\"";
        assert!(upstream(folder).contains("upstream.generator"));
        let ahead = "kind = \"a1111\"\nurl = \"http://x\"\nlook_ahead = 2";
        assert!(upstream(ahead).contains("`upstream.look_ahead` must be absent"));
        let far = "kind = \"builtin\"\nlook_ahead = 1001";
        assert!(upstream(far).contains("`upstream.look_ahead` must be from 0 to 1000"));
        assert!(
            problem(&format!("{LEAST}[limits]\nin_work = 0"))
                .contains("`limits.in_work` must be from 1 to 448")
        );
    }
}
