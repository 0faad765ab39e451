//! HTTP to an upstream: bounded in time and bytes, with errors that name what came and show nothing of it.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use cluegate_telemetry::propagation;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, RequestBuilder, Response, StatusCode, Url, redirect};
use serde_json::Value;

use super::{UpstreamError, UpstreamErrorKind as Kind};
use crate::config::{ConfigError, UpstreamConfig};

/// Most bytes of memory that are taken on an answer's word about its length.
const CLAIMED: usize = 1 << 20;

/// Connections to one upstream.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    timeout: Duration,
    answer_bytes: usize,
}

impl Http {
    /// Reads the key and the certificates that the configuration names.
    ///
    /// # Errors
    /// If they cannot be read or used.
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let refuse = |path: &str, expected: &str, found: String| ConfigError::Value {
            origin: "the configuration".to_owned(),
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let Some(base) = config.url.clone() else {
            return Err(refuse(
                "upstream.url",
                "an address such as http://127.0.0.1:7860",
                "absent".to_owned(),
            ));
        };
        // Another part of the program may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        if let Some(path) = &config.key_file {
            headers.insert(AUTHORIZATION, authorization(path)?);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(config.connect_timeout)
            // An upstream that sends us elsewhere would get the key and the prompt there.
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &config.certificates {
            let pem = read(path)?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|e| refuse("upstream.certificates", "certificates in PEM", e.to_string()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client =
            builder.build().map_err(|e| refuse("upstream", "usable for an HTTP client", e.to_string()))?;
        Ok(Self { client, base, timeout: config.timeout, answer_bytes: config.answer_bytes })
    }

    /// The server's address without secrets, for logs.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A GET of `path`, which begins with a slash and is our own: no part of it may come from a client unescaped.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    /// A POST to `path`.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// A GET of an address that the server named; none unless it is the server's own: same scheme, host and port, and
    /// no user. Another would get the key, and might be anything that this machine can reach.
    pub(crate) fn get_own(&self, address: &str) -> Option<RequestBuilder> {
        let address = self.base.join(address).ok()?;
        let own = address.origin() == self.base.origin()
            && address.username().is_empty()
            && address.password().is_none();
        own.then(|| self.client.get(address))
    }

    /// The address of `path` below the server's.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address())
    }

    /// Sends a request and returns the head of a successful answer; the body is still to come.
    ///
    /// # Errors
    /// `Unreachable`, `Timeout`; `Refused` for a status that blames the request (400, 404, 413, 422), `Failed` for any
    /// other that is no success.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        let left = deadline.saturating_duration_since(Instant::now()).min(self.timeout);
        if left.is_zero() {
            return Err(self.error(Kind::Timeout, "the request's deadline passed"));
        }
        let mut context = HeaderMap::new();
        propagation::pass_on(&mut context);
        let response = request.headers(context).timeout(left).send().await.map_err(|e| self.transport(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let kind = match status {
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Kind::Refused,
            _ => Kind::Failed,
        };
        // An error's body may be anything, a picture too: only a JSON error's own words are told.
        let body = self.bytes(response).await.unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&body).ok().and_then(|json| error_words(&json));
        Err(self.error_with(kind, &format!("it answered with status {status}"), &said.unwrap_or_default()))
    }

    /// The body of an answer.
    ///
    /// # Errors
    /// `Malformed` if it is larger than allowed, `Unreachable` if it breaks off, `Timeout`.
    pub(crate) async fn bytes(&self, mut response: Response) -> Result<Bytes, UpstreamError> {
        // A length is a claim: more than the start is taken only as it comes.
        let claimed = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = BytesMut::with_capacity(claimed.min(self.answer_bytes).min(CLAIMED));
        while let Some(chunk) = self.chunk(&mut response, body.len()).await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The next part of an answer of which `read` bytes were read before; none at its end.
    ///
    /// # Errors
    /// As [`Http::bytes`].
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
        read: usize,
    ) -> Result<Option<Bytes>, UpstreamError> {
        let chunk = response.chunk().await.map_err(|e| self.transport(&e))?;
        if chunk.as_ref().is_some_and(|chunk| read.saturating_add(chunk.len()) > self.answer_bytes) {
            let message = format!("its answer is larger than the {} bytes allowed", self.answer_bytes);
            return Err(self.error(Kind::Malformed, &message));
        }
        Ok(chunk)
    }

    /// Sends a request and reads its answer as JSON.
    ///
    /// # Errors
    /// As [`Http::send`] and [`Http::bytes`]; `Malformed` if it is no JSON of this form.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
        deadline: Instant,
    ) -> Result<T, UpstreamError> {
        let response = self.send(request, deadline).await?;
        let body = self.bytes(response).await?;
        serde_json::from_slice(&body).map_err(|e| self.nonsense(&e))
    }

    /// An answer that could not be read. The parser's words quote from it.
    pub(crate) fn nonsense(&self, error: &serde_json::Error) -> UpstreamError {
        self.error_with(Kind::Malformed, "its answer is not what was expected", &error.to_string())
    }

    /// An error of this server, in our words.
    pub(crate) fn error(&self, kind: Kind, what: &str) -> UpstreamError {
        self.error_with(kind, what, "")
    }

    /// An error of this server, in our words and in its own, of which clients learn less.
    pub(crate) fn error_with(&self, kind: Kind, what: &str, said: &str) -> UpstreamError {
        UpstreamError::of(kind, self.address(), what, said)
    }

    fn transport(&self, error: &reqwest::Error) -> UpstreamError {
        let (kind, what) = match error.is_timeout() {
            true => (Kind::Timeout, "it did not answer in time"),
            false => (Kind::Unreachable, "it cannot be reached, or broke off"),
        };
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            words = format!("{words}: {inner}");
            cause = inner.source();
        }
        self.error_with(kind, what, &words)
    }
}

/// What a JSON error says, in the forms that these servers use.
fn error_words(json: &Value) -> Option<String> {
    let places = ["/error/message", "/message", "/detail", "/error"];
    places.iter().find_map(|place| json.pointer(place)?.as_str()).map(str::to_owned)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|e| ConfigError::Read { path: path.to_path_buf(), problem: e.to_string() })
}

/// A bearer token, or HTTP Basic for `user:password`.
fn authorization(path: &Path) -> Result<HeaderValue, ConfigError> {
    let refuse = || ConfigError::Read {
        path: path.to_path_buf(),
        problem: "expected a key of visible ASCII characters on one line".to_owned(),
    };
    let key = String::from_utf8(read(path)?).map_err(|_| refuse())?;
    let key = key.trim();
    let value = if key.contains(':') {
        format!("Basic {}", BASE64_STANDARD.encode(key))
    } else {
        format!("Bearer {key}")
    };
    let mut value = HeaderValue::try_from(value).map_err(|_| refuse())?;
    value.set_sensitive(true);
    if key.is_empty() { Err(refuse()) } else { Ok(value) }
}
