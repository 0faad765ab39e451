//! `[log]` of the gateway's configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{AuditError, Result};

/// Where the log is kept if nothing is said.
const DEFAULT_FILE: &str = "decisions.jsonl";

/// The decision log. A decision is on disk, or in the database, before its picture is released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// The log file, one JSON object a line; `decisions.jsonl` if neither this nor `database` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Whether decisions are kept in the database of `[store]`.
    pub database: bool,
    /// Name of this gateway in the log: each has a hash chain of its own. The host's name if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Labels that every entry carries, such as a region.
    pub labels: BTreeMap<String, String>,
    /// Key file that signs the head of the chain, so that whoever cannot read it cannot forge one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_key_file: Option<PathBuf>,
    /// Key file that hides end users in the log; without it the log does not hold them, and nothing can be erased by
    /// end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_key_file: Option<PathBuf>,
    /// Most decisions that wait to be written; the next one waits for a place. 1 to 100000.
    pub queue: usize,
    /// Longest wait for a decision to be written, in milliseconds; its picture is withheld then. 100 to 600000.
    pub timeout_ms: u64,
    /// Pause in seconds between two sweeps of a running gateway for what is older than its tenant's retention allows; the
    /// first is at the start. 0 for none, at most 604800.
    pub expire_every_s: u64,
    /// A server that is told of every decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSettings>,
    /// Where pictures are kept that a tenant's retention asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pictures: Option<PictureSettings>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            file: None,
            database: false,
            instance: None,
            labels: BTreeMap::new(),
            head_key_file: None,
            subject_key_file: None,
            queue: 4096,
            timeout_ms: 10_000,
            expire_every_s: 3600,
            webhook: None,
            pictures: None,
        }
    }
}

/// A server that is told of every decision, in order, at least once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where batches are sent by POST. `https`, or `http` to this machine.
    pub url: String,
    /// Key file whose keys sign the batches.
    pub key_file: PathBuf,
    /// Sends over plain `http` to other machines too.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// Whether prompts, end users and the other erasable parts are sent. Left out, the receiver never has what would have
    /// to be erased there.
    #[serde(default)]
    pub erasable_parts: bool,
    /// Most decisions in one batch, 1 to 1000.
    #[serde(default = "defaults::batch")]
    pub batch: usize,
    /// Most bytes of one batch; one larger decision goes alone. 1024 to 64 MiB.
    #[serde(default = "defaults::batch_bytes")]
    pub batch_bytes: usize,
    /// Longest wait for an answer, in milliseconds, 100 to 600000.
    #[serde(default = "defaults::timeout_ms")]
    pub timeout_ms: u64,
    /// How often a batch is tried before it goes to the dead letters, 1 to 1000.
    #[serde(default = "defaults::attempts")]
    pub attempts: u32,
    /// Longest pause between two tries, in milliseconds; pauses begin with a second and double, by chance shorter.
    #[serde(default = "defaults::backoff_ms")]
    pub backoff_ms: u64,
    /// Folder for what must outlive a restart: how far the receiver has come, and `dead-letters.jsonl` with what it
    /// would not take. `webhook` beside the log file if not set; needed where there is no log file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Most bytes of dead letters; delivery waits when they are full.
    #[serde(default = "defaults::dead_letter_bytes")]
    pub dead_letter_bytes: u64,
    /// Certificates in PEM to trust instead of the built-in ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<PathBuf>,
}

/// Where pictures are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PictureSettings {
    /// The folder, open to its owner only.
    pub folder: PathBuf,
    /// Key file whose first key encrypts new pictures (AES-256-GCM); older keys in it still read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

mod defaults {
    pub(super) fn batch() -> usize {
        100
    }
    pub(super) fn batch_bytes() -> usize {
        4 << 20
    }
    pub(super) fn timeout_ms() -> u64 {
        10_000
    }
    pub(super) fn attempts() -> u32 {
        12
    }
    pub(super) fn backoff_ms() -> u64 {
        300_000
    }
    pub(super) fn dead_letter_bytes() -> u64 {
        1 << 30
    }
}

impl LogSettings {
    /// A log in one file and nowhere else.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// The same with every path relative to `folder` and what is left open filled in.
    #[must_use]
    pub fn resolve(mut self, folder: &Path) -> Self {
        if self.file.is_none() && !self.database {
            self.file = Some(DEFAULT_FILE.into());
        }
        let below = |path: &mut Option<PathBuf>| {
            if let Some(path) = path {
                *path = folder.join(&*path);
            }
        };
        below(&mut self.file);
        below(&mut self.head_key_file);
        below(&mut self.subject_key_file);
        if let Some(webhook) = &mut self.webhook {
            webhook.key_file = folder.join(&webhook.key_file);
            below(&mut webhook.certificates);
            below(&mut webhook.folder);
            if webhook.folder.is_none() {
                webhook.folder = self.file.as_ref().map(|file| file.with_file_name("webhook"));
            }
        }
        if let Some(pictures) = &mut self.pictures {
            pictures.folder = folder.join(&pictures.folder);
            below(&mut pictures.key_file);
        }
        self
    }

    /// Refuses values out of range and settings that do not go together.
    ///
    /// # Errors
    /// The first such setting.
    pub fn check(&self) -> Result<()> {
        within("queue", self.queue as u64, 1, 100_000)?;
        within("timeout_ms", self.timeout_ms, 100, 600_000)?;
        within("expire_every_s", self.expire_every_s, 0, 604_800)?;
        if let Some(instance) = &self.instance {
            check_instance(instance)?;
        }
        for label in ["tenant", "product", "version"] {
            if self.labels.contains_key(label) {
                let problem = format!("may not name `{label}`, which the log sets itself");
                return Err(AuditError::Setting { key: "labels", problem });
            }
        }
        self.webhook.as_ref().map_or(Ok(()), WebhookSettings::check)
    }

    /// The instance's name.
    ///
    /// # Errors
    /// If none is set and the host has no usable name.
    pub(crate) fn instance_name(&self) -> Result<String> {
        let name = match &self.instance {
            Some(name) => name.clone(),
            None => host_name(),
        };
        check_instance(&name)?;
        Ok(name)
    }
}

impl WebhookSettings {
    fn check(&self) -> Result<()> {
        within("webhook.batch", self.batch as u64, 1, 1000)?;
        within("webhook.batch_bytes", self.batch_bytes as u64, 1024, 64 << 20)?;
        within("webhook.timeout_ms", self.timeout_ms, 100, 600_000)?;
        within("webhook.attempts", self.attempts.into(), 1, 1000)?;
        within("webhook.backoff_ms", self.backoff_ms, 1, 86_400_000)?;
        let problem = |problem: &str| AuditError::Setting { key: "webhook.url", problem: problem.to_owned() };
        let uri: ureq::http::Uri = self
            .url
            .parse()
            .map_err(|_| problem("must be an address such as https://logs.example.com/decisions"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if loopback || self.allow_plain_http => Ok(()),
            Some("http") => Err(problem(
                "would send decisions unencrypted to another machine; use https, or set `log.webhook.allow_plain_http`",
            )),
            _ => Err(problem("must begin with https:// or, to this machine, http://")),
        }
    }
}

fn within(key: &'static str, value: u64, low: u64, high: u64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(AuditError::Setting { key, problem: format!("must be from {low} to {high}, not {value}") })
}

/// A name that can stand in a cursor and a command line.
fn check_instance(name: &str) -> Result<()> {
    let fits = (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fits {
        return Ok(());
    }
    let problem = format!("must have 1 to 128 letters, digits, dots, `-` or `_`, not {name:?}");
    Err(AuditError::Setting { key: "instance", problem })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(100)
        .collect();
    if name.is_empty() { "gateway".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn webhook(url: &str) -> WebhookSettings {
        serde_json::from_value(serde_json::json!({ "url": url, "key_file": "hook.key" })).unwrap()
    }

    #[test]
    fn plain_http_goes_to_this_machine_only_unless_told() {
        for fine in
            ["https://logs.example.com/d", "http://127.0.0.1:9/d", "http://[::1]:9", "http://localhost"]
        {
            webhook(fine).check().unwrap();
        }
        for wrong in [
            "http://logs.example.com",
            "ftp://localhost/",
            "logs.example.com",
            "http://127.0.0.1.example.com",
        ] {
            assert!(webhook(wrong).check().is_err(), "{wrong}");
        }
        let told = WebhookSettings { allow_plain_http: true, ..webhook("http://logs.example.com") };
        told.check().unwrap();
    }

    #[test]
    fn paths_are_below_the_folder_and_defaults_are_filled_in() {
        let folder = Path::new("/etc/gate");
        let settings = LogSettings::default().resolve(folder);
        assert_eq!(settings.file.as_deref(), Some(Path::new("/etc/gate/decisions.jsonl")));
        let settings =
            LogSettings { webhook: Some(webhook("https://a.example")), ..LogSettings::in_file("l/d.jsonl") };
        let settings = settings.resolve(folder);
        let hook = settings.webhook.unwrap();
        assert_eq!(hook.folder.unwrap(), Path::new("/etc/gate/l/webhook"));
        assert_eq!(hook.key_file, Path::new("/etc/gate/hook.key"));
        let settings = LogSettings { database: true, ..LogSettings::default() }.resolve(folder);
        assert_eq!(settings.file, None);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let wrong = LogSettings { queue: 0, ..LogSettings::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("log.queue"));
        let wrong = LogSettings { instance: Some("a b".into()), ..LogSettings::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("log.instance"));
        let wrong = LogSettings { labels: [("tenant".into(), "x".into())].into(), ..LogSettings::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("log.labels"));
    }
}
