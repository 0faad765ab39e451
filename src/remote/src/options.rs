//! What a user says about an engine.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{RemoteError, RemoteErrorKind};
use crate::secret::Secret;

/// How an engine is asked for the log-probabilities of Yes and No.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Found out at start: token ids if the engine takes them, else the most probable tokens.
    #[default]
    Auto,
    /// `logprob_token_ids`: exactly the tokens that are asked for (vLLM from 2026 on).
    TokenIds,
    /// `top_logprobs`: the most probable tokens (every vLLM, SGLang, and others); what is not among them is bounded by
    /// the last of them.
    TopTokens,
}

/// Second and later attempts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryOptions {
    /// Attempts of one request at most, the first included.
    pub attempts: u32,
    /// Milliseconds before the second attempt; each later one waits twice as long, with jitter.
    pub backoff_ms: u64,
    /// Milliseconds between two attempts at most.
    pub longest_backoff_ms: u64,
    /// Share of requests that may be repeated, over all requests: an engine in trouble is not asked twice as often.
    pub budget: f64,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self { attempts: 4, backoff_ms: 100, longest_backoff_ms: 5_000, budget: 0.2 }
    }
}

/// A model behind one or several endpoints that serve the same weights.
///
/// ```toml
/// urls = ["http://gpu-1:8000", "http://gpu-2:8000"]   # up to and without /v1
/// model = "Qwen/Qwen2-VL-7B-Instruct"                 # as the engine calls it
/// key-file = "/run/secrets/engine-key"                # optional; sent as a bearer token
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RemoteOptions {
    /// Addresses of engines, up to and without `/v1`.
    pub urls: Vec<String>,
    /// The model's name at the engines.
    pub model: String,
    /// File that holds the key, if the engines want one.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// File with certificates in PEM that are trusted beside those of the system.
    #[serde(default)]
    pub certificates: Option<PathBuf>,
    /// How log-probabilities are asked for.
    #[serde(default)]
    pub dialect: Dialect,
    /// How many of the most probable tokens are asked for, where ids cannot be.
    #[serde(default = "default_top_tokens")]
    pub top_tokens: u32,
    /// By how much a score may be uncertain because a token is not among the most probable ones.
    #[serde(default = "default_uncertainty")]
    pub uncertainty: f64,
    /// Milliseconds for one attempt, from the first byte sent to the last one read.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// Milliseconds for a connection.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_ms: u64,
    /// Milliseconds between two looks whether an endpoint is still there (`GET /v1/models`).
    #[serde(default = "default_health")]
    pub health_ms: u64,
    /// Requests under way at a time, over all endpoints.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Bytes of an answer at most.
    #[serde(default = "default_answer_bytes")]
    pub answer_bytes: usize,
    /// Second and later attempts.
    #[serde(default)]
    pub retry: RetryOptions,
    /// Handed to the chat template of the engine; thinking is turned off unless this says otherwise.
    #[serde(default = "default_template_options")]
    pub template_options: serde_json::Map<String, serde_json::Value>,
}

fn default_top_tokens() -> u32 {
    20
}

fn default_uncertainty() -> f64 {
    1e-3
}

fn default_timeout() -> u64 {
    60_000
}

fn default_connect_timeout() -> u64 {
    5_000
}

fn default_health() -> u64 {
    5_000
}

fn default_concurrency() -> usize {
    512
}

fn default_answer_bytes() -> usize {
    8 << 20
}

fn default_template_options() -> serde_json::Map<String, serde_json::Value> {
    [("enable_thinking".to_owned(), false.into())].into_iter().collect()
}

impl RemoteOptions {
    /// A model at these addresses, everything else as it is by default.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>, model: impl Into<String>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            model: model.into(),
            key_file: None,
            certificates: None,
            dialect: Dialect::default(),
            top_tokens: default_top_tokens(),
            uncertainty: default_uncertainty(),
            timeout_ms: default_timeout(),
            connect_timeout_ms: default_connect_timeout(),
            health_ms: default_health(),
            concurrency: default_concurrency(),
            answer_bytes: default_answer_bytes(),
            retry: RetryOptions::default(),
            template_options: default_template_options(),
        }
    }

    /// Addresses without a closing slash, each of them once.
    pub(crate) fn addresses(&self) -> Result<Vec<reqwest::Url>, RemoteError> {
        let refuse = |message: String| RemoteError::new(RemoteErrorKind::Options, "urls", message);
        let mut addresses: Vec<reqwest::Url> = Vec::new();
        for written in &self.urls {
            let url = reqwest::Url::parse(written.trim_end_matches('/')).map_err(|e| {
                refuse(format!("expected an address such as http://host:8000, got {written:?}: {e}"))
            })?;
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return Err(refuse(format!("expected http:// or https:// and a host, got {written:?}")));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(refuse(
                    "expected no key in the address; put it into a file and name it as key-file".into(),
                ));
            }
            if url.query().is_some() || url.fragment().is_some() {
                return Err(refuse("expected an address without ? and #, which may hold a key".into()));
            }
            if url.path().trim_end_matches('/').ends_with("/v1") {
                return Err(refuse(format!("expected the address up to and without /v1, got {written:?}")));
            }
            if addresses.contains(&url) {
                return Err(refuse(format!("{written:?} is there twice")));
            }
            addresses.push(url);
        }
        if addresses.is_empty() {
            return Err(refuse("expected at least one address, got none".into()));
        }
        Ok(addresses)
    }

    /// The key, if there is one.
    pub(crate) fn key(&self) -> Result<Option<Secret>, RemoteError> {
        let Some(path) = &self.key_file else { return Ok(None) };
        let refuse = |message| RemoteError::new(RemoteErrorKind::Options, path.display(), message);
        let text = std::fs::read_to_string(path).map_err(|e| refuse(format!("expected a key file: {e}")))?;
        let key = text.trim();
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(refuse("expected one key on one line".to_owned()));
        }
        Ok(Some(Secret::new(key)))
    }

    pub(crate) fn check(&self) -> Result<(), RemoteError> {
        let refuse = |name: &str, expected: &str| {
            Err(RemoteError::new(RemoteErrorKind::Options, name, format!("expected {expected}")))
        };
        if self.model.trim().is_empty() {
            return refuse("model", "the name of a model, as GET /v1/models lists it; got a blank one");
        }
        if !(0.0..=0.5).contains(&self.uncertainty) {
            return refuse("uncertainty", "a number from 0 to 0.5");
        }
        let over_zero = [
            ("top-tokens", u64::from(self.top_tokens)),
            ("concurrency", self.concurrency as u64),
            ("retry.attempts", u64::from(self.retry.attempts)),
            ("timeout-ms", self.timeout_ms),
            ("health-ms", self.health_ms),
        ];
        if let Some((name, _)) = over_zero.iter().find(|(_, value)| *value == 0) {
            return refuse(name, "a number over zero, got 0");
        }
        if !(0.0..=1.0).contains(&self.retry.budget) {
            return refuse("retry.budget", "a share from 0 to 1");
        }
        Ok(())
    }

    pub(crate) fn health(&self) -> Duration {
        Duration::from_millis(self.health_ms)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_as_it_is_by_default() {
        let written =
            json!({"urls": ["http://gpu-1:8000"], "model": "m", "health-ms": 250, "retry": {"attempts": 2}});
        let read: RemoteOptions = serde_json::from_value(written).unwrap();
        let retry = RetryOptions { attempts: 2, ..RetryOptions::default() };
        assert_eq!(
            read,
            RemoteOptions { health_ms: 250, retry, ..RemoteOptions::new(["http://gpu-1:8000"], "m") }
        );
    }

    #[test]
    fn a_key_that_there_is_not_is_refused_with_those_that_there_are() {
        let written = json!({"urls": ["http://gpu-1:8000"], "modle": "m"});
        let error = serde_json::from_value::<RemoteOptions>(written).unwrap_err().to_string();
        assert!(error.contains("modle") && error.contains("`model`"), "{error}");
    }
}
