//! One request: its endpoint, its attempts, its deadline.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cluegate_perception::{Call, ContentHash, PerceptionError};
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Response, StatusCode, redirect};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::endpoints::{Endpoint, Endpoints};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::options::RemoteOptions;
use crate::retry::Retries;

/// How often a waiting caller is asked whether it still waits.
const LOOK: Duration = Duration::from_millis(10);
/// Characters of an engine's own words that are shown.
const SHOWN: usize = 300;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Path below the endpoint's address.
    pub(crate) path: &'static str,
    /// JSON; nothing for a GET.
    pub(crate) body: Option<Value>,
    /// The picture that it is about: requests about one go to one endpoint.
    pub(crate) picture: Option<ContentHash>,
}

/// An answer with status 200.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) json: Value,
    /// What the request was called.
    pub(crate) request_id: String,
    /// Where it came from, for messages.
    pub(crate) endpoint: String,
}

/// Connections to the endpoints of one model.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    endpoints: Endpoints,
    retries: Retries,
    key: Option<HeaderValue>,
    permits: Semaphore,
    timeout: Duration,
    answer_bytes: usize,
}

impl Client {
    /// # Errors
    /// `Options` for options that cannot be used.
    pub(crate) fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        options.check()?;
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("cluegate-remote")
            .enable_all()
            .build()
            .map_err(|e| refuse("threads for requests", e.to_string()))?;
        let shared = Shared {
            http,
            endpoints: Endpoints::new(options.addresses()?),
            retries: Retries::new(options.retry.clone()),
            key: key.transpose()?,
            permits: Semaphore::new(options.concurrency.min(Semaphore::MAX_PERMITS)),
            timeout: options.timeout(),
            answer_bytes: options.answer_bytes,
        };
        Ok(Self { shared: Arc::new(shared), runtime: Some(runtime) })
    }

    /// The addresses, for messages.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.shared.endpoints.all().iter().map(|endpoint| endpoint.url.to_string()).collect()
    }

    /// Sends all requests at once and returns what `read` makes of each answer, in their order. Each is repeated where
    /// that may help, within the call's deadline; an answer that `read` refuses with a passing error too.
    ///
    /// # Errors
    /// The first that cannot be helped; the rest is called off then.
    pub(crate) fn all<T: Send + 'static>(
        &self,
        requests: Vec<Request>,
        call: &Call,
        read: impl Fn(usize, &Answer) -> Result<T, RemoteError> + Send + Sync + 'static,
    ) -> Result<Vec<T>, PerceptionError> {
        let runtime = self.handle()?;
        let count = requests.len();
        let (send, receive) = channel();
        let read = Arc::new(read);
        // Dropped with this function, whichever way it ends: then nothing goes on.
        let mut tasks = JoinSet::new();
        for (index, request) in requests.into_iter().enumerate() {
            let (shared, send, read) = (Arc::clone(&self.shared), send.clone(), Arc::clone(&read));
            let deadline = call.deadline();
            let task = async move {
                let read = |answer: &Answer| read(index, answer);
                let answer = shared.send(&request, None, deadline, read).await;
                // Nobody listens any more if another request failed.
                let _ = send.send((index, answer));
            };
            tasks.spawn_on(task, runtime.handle());
        }
        drop(send);
        let mut answers: Vec<Option<T>> = (0..count).map(|_| None).collect();
        let mut missing = count;
        while missing > 0 {
            match receive.recv_timeout(LOOK) {
                Ok((index, answer)) => {
                    answers[index] = Some(answer?);
                    missing -= 1;
                }
                Err(RecvTimeoutError::Timeout) => call.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(gone(&format!("{missing} requests ended without an answer")).into());
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The same of one request to a certain endpoint.
    pub(crate) fn one_at<T: Send + 'static>(
        &self,
        endpoint: usize,
        request: Request,
        read: impl Fn(usize, &Answer) -> Result<T, RemoteError> + Send + Sync + 'static,
    ) -> Result<T, RemoteError> {
        let shared = Arc::clone(&self.shared);
        let deadline = Some(Instant::now() + self.shared.timeout);
        let (send, receive) = channel();
        let task = async move {
            let answer = shared.send(&request, Some(endpoint), deadline, |answer| read(0, answer)).await;
            let _ = send.send(answer);
        };
        // Waited for by a channel: a runtime's own wait panics on threads of another one.
        self.handle()?.spawn(task);
        receive.recv().map_err(|_| gone("a request ended without an answer"))?
    }

    fn handle(&self) -> Result<&Runtime, RemoteError> {
        self.runtime.as_ref().ok_or_else(|| gone("the threads for requests have ended"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Waiting for threads is forbidden on threads of another runtime, on which a client may well be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn gone(message: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Failed, "requests", message)
}

/// An attempt that failed.
struct Failure {
    error: RemoteError,
    /// How long the engine wants to be left alone.
    retry_after: Option<Duration>,
    /// Whether the endpoint is to blame, and not the request or the load.
    endpoint: bool,
}

impl Shared {
    async fn send<T>(
        &self,
        request: &Request,
        endpoint: Option<usize>,
        deadline: Option<Instant>,
        read: impl Fn(&Answer) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        self.retries.begin();
        let mut attempts = 0;
        let mut failed_at = None;
        loop {
            let failure = {
                let permit = self.permits.acquire().await;
                let _permit = permit.map_err(|_| gone("no more requests are sent"))?;
                let place = match endpoint {
                    Some(fixed) => self.endpoints.at(fixed),
                    None => self.endpoints.place(request.picture, failed_at),
                };
                attempts += 1;
                let failure = match self.attempt(request, place.endpoint, deadline).await {
                    Ok(answer) => {
                        place.endpoint.answered();
                        match read(&answer) {
                            Ok(value) => return Ok(value),
                            Err(error) => Failure { error, retry_after: None, endpoint: false },
                        }
                    }
                    Err(failure) => {
                        if failure.endpoint {
                            place.endpoint.failed();
                        }
                        failure
                    }
                };
                // Whatever it was: another endpoint may be better off (one that loads, drains or is behind).
                failed_at = Some(place.index);
                failure
            };
            if !failure.error.is_passing() {
                return Err(failure.error.after(attempts));
            }
            // A move away from an endpoint that is gone burdens nobody who is in trouble.
            let moves = failure.endpoint && endpoint.is_none() && self.endpoints.any_rested();
            let Some(wait) = self.retries.next(attempts, failure.retry_after, moves) else {
                return Err(failure.error.after(attempts));
            };
            if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
                // Another attempt would come too late.
                return Err(failure.error.after(attempts));
            }
            tracing::debug!(error = %failure.error, attempts, ?wait, "asking again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        endpoint: &Endpoint,
        deadline: Option<Instant>,
    ) -> Result<Answer, Failure> {
        let left =
            deadline.map_or(self.timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = left.min(self.timeout);
        match tokio::time::timeout(limit, self.exchange(request, endpoint)).await {
            Ok(done) => done,
            Err(_) if limit < self.timeout => Err(Failure {
                error: RemoteError::new(
                    RemoteErrorKind::Timeout,
                    &endpoint.url,
                    "no answer before the deadline",
                ),
                retry_after: None,
                endpoint: false,
            }),
            Err(_) => Err(Failure {
                error: RemoteError::new(
                    RemoteErrorKind::Failed,
                    &endpoint.url,
                    format!(
                        "no answer within {} ms; see whether the engine hangs, or raise timeout-ms",
                        limit.as_millis()
                    ),
                ),
                retry_after: None,
                endpoint: true,
            }),
        }
    }

    async fn exchange(&self, request: &Request, endpoint: &Endpoint) -> Result<Answer, Failure> {
        let address = format!("{}{}", endpoint.url.as_str().trim_end_matches('/'), request.path);
        let request_id = uuid::Uuid::now_v7().simple().to_string();
        let mut http = match &request.body {
            Some(body) => self.http.post(address).json(body),
            None => self.http.get(address),
        };
        http = http.header("x-request-id", &request_id);
        if let Some(key) = &self.key {
            http = http.header(AUTHORIZATION, key.clone());
        }
        let lost = |error: reqwest::Error| Failure {
            error: unreachable(endpoint, &error),
            retry_after: None,
            endpoint: true,
        };
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
                endpoint: status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE,
            });
        }
        let json = serde_json::from_slice(&body).map_err(|e| Failure {
            error: malformed(endpoint, format!("expected JSON, got {} bytes that are none: {e}", body.len())),
            retry_after: None,
            endpoint: false,
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
            let chunk = response.chunk().await.map_err(|error| Failure {
                error: malformed(
                    endpoint,
                    format!("the answer breaks off after {} bytes: {}", body.len(), chain(&error)),
                ),
                retry_after: None,
                endpoint: true,
            })?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > self.answer_bytes {
                let message =
                    format!("expected at most {} bytes (answer-bytes), got more", self.answer_bytes);
                let error = RemoteError::new(RemoteErrorKind::Refused, &endpoint.url, message);
                return Err(Failure { error, retry_after: None, endpoint: false });
            }
            body.extend_from_slice(&chunk);
        }
    }
}

fn malformed(endpoint: &Endpoint, message: String) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Malformed, &endpoint.url, message)
}

fn unreachable(endpoint: &Endpoint, error: &reqwest::Error) -> RemoteError {
    let told = chain(error);
    let advice = if told.contains("certificate") {
        "; if it is signed by an authority of your own, name its certificate as `certificates`"
    } else if error.is_connect() {
        "; see whether the engine runs there and the address is right"
    } else {
        ""
    };
    RemoteError::new(RemoteErrorKind::Unreachable, &endpoint.url, format!("{told}{advice}"))
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
