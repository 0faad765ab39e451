//! One exchange with an endpoint: a request over HTTP, and what the answer's status means.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Response, StatusCode, redirect};
use serde_json::Value;

use crate::client::{Answer, Request};
use crate::endpoints::Endpoint;
use crate::error::{RemoteError, RemoteErrorKind};
use crate::options::RemoteOptions;

/// Characters of an engine's own words that are shown.
const SHOWN: usize = 300;
/// How long an idle connection is kept: less than the five seconds after which vLLM (uvicorn) closes its end, so that no
/// request is written into a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// An attempt that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RemoteError,
    /// How long the engine wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the endpoint is to blame, and not the request or the load: it has to show again what it is.
    pub(crate) endpoint: bool,
}

impl Failure {
    fn of(error: RemoteError, endpoint: bool) -> Self {
        Self { error, retry_after: None, endpoint }
    }
}

/// Connections, and what every request carries.
#[derive(Debug)]
pub(crate) struct Http {
    http: reqwest::Client,
    key: Option<HeaderValue>,
    answer_bytes: usize,
}

impl Http {
    /// # Errors
    /// `Options` for a key or certificates that cannot be used.
    pub(crate) fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        let refuse = |what: &str, e: String| RemoteError::new(RemoteErrorKind::Options, what, e);
        let key = options.key()?.map(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal()))
                .map_err(|_| refuse("key-file", "expected a key of visible ASCII characters".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, RemoteError>(value)
        });
        // Another part of the program may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
            .pool_idle_timeout(IDLE)
            // An engine that sends us elsewhere would get the key and the picture there.
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &options.certificates {
            let shown = path.display().to_string();
            let pem = std::fs::read(path).map_err(|e| refuse(&shown, e.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|e| refuse(&shown, format!("expected certificates in PEM: {e}")))?;
            http = http.tls_certs_merge(certificates);
        }
        let http = http.build().map_err(|e| refuse("the HTTP client", chain(&e)))?;
        Ok(Self { http, key: key.transpose()?, answer_bytes: options.answer_bytes })
    }

    /// Sends a request and reads the answer, however long that takes.
    ///
    /// # Errors
    /// Whatever is no answer with status 200 and JSON.
    pub(crate) async fn exchange(&self, request: &Request, endpoint: &Endpoint) -> Result<Answer, Failure> {
        let address = format!("{}{}", endpoint.url.as_str().trim_end_matches('/'), request.path);
        let request_id = uuid::Uuid::now_v7().simple().to_string();
        let mut http = match &request.body {
            Some(body) => {
                let json = self.http.post(address).header(CONTENT_TYPE, "application/json");
                json.body(reqwest::Body::wrap(body.clone()))
            }
            None => self.http.get(address),
        };
        http = http.header("x-request-id", &request_id);
        if let Some(key) = &self.key {
            http = http.header(AUTHORIZATION, key.clone());
        }
        let lost = |error: reqwest::Error| Failure::of(unreachable(endpoint, &error), true);
        let response = http.send().await.map_err(lost)?;
        endpoint.heard();
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.body(response, endpoint).await?;
        if status != StatusCode::OK {
            return Err(Failure {
                error: refusal(endpoint, status, &self.told(&body)),
                retry_after: retry_after.map(Duration::from_secs),
                endpoint: blames_endpoint(status),
            });
        }
        let json = serde_json::from_slice(&body).map_err(|e| {
            let message = format!("expected JSON, got {} bytes that are none: {e}", body.len());
            Failure::of(malformed(endpoint, message), false)
        })?;
        Ok(Answer { json, request_id, endpoint: endpoint.url.to_string() })
    }

    /// What an engine says of its refusal, without the key, which a proxy may echo.
    fn told(&self, body: &[u8]) -> String {
        let text = told(body);
        let key = self.key.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        shortened(key.map_or_else(|| text.clone(), |key| text.replace(key, "[key]")))
    }

    /// An answer's bytes, not more than may be.
    async fn body(&self, mut response: Response, endpoint: &Endpoint) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| {
                let message = format!("the answer breaks off after {} bytes: {}", body.len(), chain(&error));
                Failure::of(malformed(endpoint, message), true)
            })?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > self.answer_bytes {
                let message =
                    format!("expected at most {} bytes (answer-bytes), got more", self.answer_bytes);
                let error = RemoteError::new(RemoteErrorKind::Refused, &endpoint.url, message);
                return Err(Failure::of(error, false));
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// Whether a status says something of the endpoint, not of this request or the load: it has failed, or has no such key or
/// model for anybody.
fn blames_endpoint(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404)
        || status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE
}

fn malformed(endpoint: &Endpoint, message: String) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Malformed, &endpoint.url, message)
}

fn unreachable(endpoint: &Endpoint, error: &reqwest::Error) -> RemoteError {
    let told = chain(error);
    let (kind, advice) = if told.contains("certificate") {
        let advice = "; if it is signed by an authority of your own, name its certificate as `certificates`";
        (RemoteErrorKind::Untrusted, advice)
    } else if error.is_connect() {
        (RemoteErrorKind::Unreachable, "; see whether the engine runs there and the address is right")
    } else {
        (RemoteErrorKind::Unreachable, "")
    };
    RemoteError::new(kind, &endpoint.url, format!("{told}{advice}"))
}

/// An error and what caused it, without the address, which may be long.
fn chain(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push(error.to_string());
        cause = error.source();
    }
    words.dedup();
    if words.is_empty() { "the connection failed".to_owned() } else { words.join(": ") }
}

/// What a status other than 200 means.
fn refusal(endpoint: &Endpoint, status: StatusCode, told: &str) -> RemoteError {
    let (kind, advice) = match status.as_u16() {
        401 | 403 => (RemoteErrorKind::Unauthorised, "; name a file with its key as key-file"),
        404 => (
            RemoteErrorKind::UnknownModel,
            "; see GET /v1/models for the names, and write the address without /v1",
        ),
        408 | 429 | 503 => (RemoteErrorKind::Overloaded, ""),
        500.. => (RemoteErrorKind::Failed, ""),
        300..=399 => {
            (RemoteErrorKind::Refused, "; redirects are not followed, write the address that it leads to")
        }
        _ => (RemoteErrorKind::Refused, ""),
    };
    RemoteError::new(kind, &endpoint.url, format!("status {status}: {told}{advice}"))
}

/// What an engine says of its refusal: `error.message`, `message` or `detail` of its JSON, else its text.
fn told(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let words = json.as_ref().and_then(|json| {
        ["/error/message", "/message", "/detail", "/error"].iter().find_map(|at| json.pointer(at)?.as_str())
    });
    let text = words.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shortened(text: String) -> String {
    if text.is_empty() {
        return "without a reason".to_owned();
    }
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
