//! One try to hand over a batch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig};

use crate::error::{AuditError, Result};
use crate::keys::Keyring;
use crate::settings::WebhookSettings;

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 64 << 10;

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// The receiver has the batch.
    Accepted,
    /// It does not take this batch: it is too large, or something in it is not to its liking.
    Unacceptable(String),
    /// It may take it later; not before this long, if it said so.
    Later(String, Option<Duration>),
}

/// The way to the receiver.
pub(super) struct Sender {
    agent: Agent,
    url: String,
    keys: Keyring,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.certificates {
            let pem = std::fs::read(path).map_err(AuditError::io(path, "read"))?;
            let items = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = items.collect();
            if certificates.is_empty() {
                return Err(AuditError::content(path, "there is no certificate in it; PEM was expected"));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A signed batch goes to the address that was named, and nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(timeout))
            .tls_config(tls.build())
            .build()
            .new_agent();
        Ok(Self { agent, url: settings.url.clone(), keys: Keyring::load(&settings.key_file)? })
    }

    /// Sends a batch once.
    pub(super) fn send(&self, id: &str, body: &str) -> Sent {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let request = self
            .agent
            .post(&self.url)
            .content_type("application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature(&self.keys, id, now, body));
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(problem) => return Sent::Later(problem.to_string(), None),
        };
        let status = response.status();
        if status.is_success() {
            return Sent::Accepted;
        }
        let retry = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry = retry.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let said = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().unwrap_or_default();
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        let problem = format!("it answered {status} {said}").trim_end().to_owned();
        match status.as_u16() {
            400 | 413 | 422 => Sent::Unacceptable(problem),
            _ => Sent::Later(problem, retry),
        }
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`, for each key, with blanks between.
fn signature(keys: &Keyring, id: &str, timestamp: u64, body: &str) -> String {
    let sign = |key: &crate::keys::Key| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.secret()));
        for part in [id, ".", &timestamp.to_string(), ".", body] {
            context.update(part.as_bytes());
        }
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}
