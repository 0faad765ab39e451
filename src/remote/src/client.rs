//! One request: its endpoint, its attempts, its deadline.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cluegate_perception::{Call, ContentHash, PerceptionError};
use serde_json::Value;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::body::Body;
use crate::endpoints::{Endpoint, Endpoints};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::exchange::{Failure, Http};
use crate::options::RemoteOptions;
use crate::retry::Retries;

/// How often a waiting caller is asked whether it still waits.
const LOOK: Duration = Duration::from_millis(10);

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Path below the endpoint's address.
    pub(crate) path: &'static str,
    /// Nothing for a GET.
    pub(crate) body: Option<Body>,
    /// The picture that it is about: requests about one go to one endpoint.
    pub(crate) picture: Option<ContentHash>,
}

impl Request {
    /// A request without a picture.
    pub(crate) fn new(path: &'static str, json: Value) -> Result<Self, RemoteError> {
        Ok(Self { path, body: Some(Body::new(None, |_| json)?), picture: None })
    }
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

impl Answer {
    /// # Errors
    /// `Mixed` for an answer of another model, or to another request at an engine whose answers are `named`.
    pub(crate) fn refuse_mixed(&self, model: &str, named: bool) -> Result<(), RemoteError> {
        let mixed = |message| Err(RemoteError::new(RemoteErrorKind::Mixed, &self.endpoint, message));
        let said = |name: &str| self.json.get(name).and_then(Value::as_str);
        if let Some(other) = said("model").filter(|other| *other != model) {
            return mixed(format!("expected an answer of the model {model:?}, got one of {other:?}"));
        }
        if named && !self.is_named() {
            let (request, id) = (&self.request_id, said("id"));
            return mixed(format!("expected the answer to request {request}, got that to {id:?}"));
        }
        Ok(())
    }

    /// Whether it carries the name of its request.
    pub(crate) fn is_named(&self) -> bool {
        self.json.get("id").and_then(Value::as_str).is_some_and(|id| id.contains(&self.request_id))
    }
}

/// Whether an endpoint is what is needed; asked before it gets its first question, and again whenever it has failed.
pub(crate) type Check = dyn Fn(&Link, usize) -> Result<(), RemoteError> + Send + Sync;

/// Connections to the endpoints of one model.
#[derive(Debug)]
pub(crate) struct Client {
    link: Link,
    runtime: Option<Runtime>,
}

/// A way to ask a certain endpoint from an ordinary thread.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    handle: Handle,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    endpoints: Endpoints,
    retries: Retries,
    permits: Semaphore,
    timeout: Duration,
}

impl Client {
    /// Checks every endpoint. Those that do not pass are left out until they do, which is looked for as long as this lives.
    ///
    /// # Errors
    /// `Options` for options that cannot be used; `Mixed` if an endpoint contradicts another one; why the first endpoint did
    /// not pass if none did.
    pub(crate) fn open(
        options: &RemoteOptions,
        check: impl Fn(&Link, usize) -> Result<(), RemoteError> + Send + Sync + 'static,
    ) -> Result<Self, RemoteError> {
        options.check()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("cluegate-remote")
            .enable_all()
            .build()
            .map_err(|e| RemoteError::new(RemoteErrorKind::Options, "threads for requests", e.to_string()))?;
        let shared = Arc::new(Shared {
            http: Http::new(options)?,
            endpoints: Endpoints::new(options.addresses()?),
            retries: Retries::new(options.retry.clone()),
            permits: Semaphore::new(options.concurrency.min(Semaphore::MAX_PERMITS)),
            timeout: options.timeout(),
        });
        let link = Link { shared, handle: runtime.handle().clone() };
        let client = Self { link, runtime: Some(runtime) };
        let check: Arc<Check> = Arc::new(check);
        client.link.first_checks(check.as_ref())?;
        for index in 0..client.link.shared.endpoints.all().len() {
            let link = client.link.clone();
            client.link.handle.spawn(link.watch(index, options.health(), Arc::clone(&check)));
        }
        Ok(client)
    }

    /// The addresses, for messages.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.link.shared.endpoints.all().iter().map(|endpoint| endpoint.url.to_string()).collect()
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
        let count = requests.len();
        let (send, receive) = channel();
        let read = Arc::new(read);
        // Dropped with this function, whichever way it ends: then nothing goes on.
        let mut tasks = JoinSet::new();
        for (index, request) in requests.into_iter().enumerate() {
            let (shared, send, read) = (Arc::clone(&self.link.shared), send.clone(), Arc::clone(&read));
            let deadline = call.deadline();
            let task = async move {
                let answer = shared.send(&request, deadline, |answer| read(index, answer)).await;
                // Nobody listens any more if another request failed.
                let _ = send.send((index, answer));
            };
            tasks.spawn_on(task, &self.link.handle);
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
}

impl Drop for Client {
    fn drop(&mut self) {
        // Waiting for threads is forbidden on threads of another runtime, on which a client may well be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Link {
    /// An endpoint's address, for messages.
    pub(crate) fn address(&self, endpoint: usize) -> &reqwest::Url {
        &self.shared.endpoints.all()[endpoint].url
    }

    /// Asks a certain endpoint, whatever is known of it, within the time of one attempt.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        endpoint: usize,
        request: Request,
        read: impl Fn(&Answer) -> Result<T, RemoteError> + Send + Sync + 'static,
    ) -> Result<T, RemoteError> {
        let shared = Arc::clone(&self.shared);
        let deadline = Some(Instant::now() + self.shared.timeout);
        let (send, receive) = channel();
        let task = async move {
            let answer = shared.send_to(endpoint, &request, deadline, read).await;
            let _ = send.send(answer);
        };
        // Waited for by a channel: a runtime's own wait panics on threads of another one.
        self.handle.spawn(task);
        receive.recv().map_err(|_| gone("a request ended without an answer"))?
    }

    /// One endpoint after the other until one has passed, by which the others are measured, and these at the same time.
    fn first_checks(&self, check: &Check) -> Result<(), RemoteError> {
        let count = self.shared.endpoints.all().len();
        let mut refused = Vec::new();
        let mut tell = |index: usize, outcome: Result<(), RemoteError>| {
            refused.extend(outcome.as_ref().err().cloned());
            self.shared.endpoints.checked(index, outcome);
        };
        let mut left = 0..count;
        for index in left.by_ref() {
            tell(index, check(self, index));
            if self.shared.endpoints.any_fit() {
                break;
            }
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = left.map(|index| (index, scope.spawn(move || check(self, index)))).collect();
            for (index, other) in others {
                tell(index, other.join().unwrap_or_else(|_| Err(gone("a check panicked"))));
            }
        });
        let all_refuse = !self.shared.endpoints.any_fit();
        // A dead endpoint is missed by nobody; two that contradict each other are for the user to tell apart.
        let fatal = |error: &RemoteError| all_refuse || error.kind() == RemoteErrorKind::Mixed;
        match refused.into_iter().find(fatal) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Checks an endpoint whenever it has failed, and lets it back when it passes; looks every `health` whether it is still
    /// there, so that one that is started anew is checked anew although nobody asked it meanwhile.
    async fn watch(self, index: usize, health: Duration, check: Arc<Check>) {
        let endpoint = &self.shared.endpoints.all()[index];
        loop {
            if tokio::time::timeout(health, endpoint.due()).await.is_err() {
                if endpoint.is_fit()
                    && let Err(error) = self.shared.is_there(index).await
                    && error.kind() != RemoteErrorKind::Overloaded
                {
                    endpoint.failed(error);
                }
                continue;
            }
            let (link, check) = (self.clone(), Arc::clone(&check));
            let outcome = self.handle.spawn_blocking(move || check(&link, index)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(gone("a check panicked")));
            self.shared.endpoints.checked(index, outcome);
        }
    }
}

fn gone(message: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Failed, "requests", message)
}

impl Shared {
    /// Asks any fit endpoint, and another one where that may help.
    async fn send<T>(
        &self,
        request: &Request,
        deadline: Option<Instant>,
        read: impl Fn(&Answer) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        self.retries.begin();
        let (mut attempts, mut refusals) = (0, 0);
        let mut failed_at = None;
        loop {
            let mut checks = self.endpoints.checks();
            let permit = self.permits.acquire().await.map_err(|_| gone("no more requests are sent"))?;
            let failure = if let Some(place) = self.endpoints.place(request.picture, failed_at) {
                let failure = match self.attempt(request, place.endpoint, deadline, &read).await {
                    Ok(value) => {
                        place.endpoint.answered();
                        return Ok(value);
                    }
                    Err(failure) => failure,
                };
                if failure.endpoint {
                    place.endpoint.failed(failure.error.clone());
                }
                // Whatever it was: another endpoint may be better off (one that loads, drains or is behind).
                failed_at = Some(place.index);
                failure
            } else {
                drop(permit);
                // One may have passed in between, or while its check was waited for.
                let Some((error, due)) = self.endpoints.why_none() else { continue };
                if due <= Instant::now() + self.retries.longest_backoff() {
                    self.wait_for_check(&mut checks, deadline).await;
                    if self.endpoints.any_fit() {
                        continue;
                    }
                }
                Failure { error, retry_after: None, endpoint: true }
            };
            let moves = failure.endpoint && self.endpoints.any_fit();
            if !failure.error.is_passing() {
                // An endpoint that refuses everybody says nothing about the others.
                if moves && refusals < self.endpoints.all().len() {
                    refusals += 1;
                    continue;
                }
                return Err(failure.error.after(attempts + 1));
            }
            attempts += 1;
            self.pause(failure, attempts, moves, deadline).await?;
        }
    }

    /// Asks a certain endpoint, and again where that may help.
    async fn send_to<T>(
        &self,
        endpoint: usize,
        request: &Request,
        deadline: Option<Instant>,
        read: impl Fn(&Answer) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        self.retries.begin();
        let mut attempts = 0;
        loop {
            let failure = {
                let place = self.endpoints.at(endpoint);
                match self.attempt(request, place.endpoint, deadline, &read).await {
                    Ok(value) => return Ok(value),
                    Err(failure) => failure,
                }
            };
            attempts += 1;
            if !failure.error.is_passing() {
                return Err(failure.error.after(attempts));
            }
            self.pause(failure, attempts, false, deadline).await?;
        }
    }

    /// Whether an endpoint shows its models.
    async fn is_there(&self, endpoint: usize) -> Result<(), RemoteError> {
        let request = Request { path: "/v1/models", body: None, picture: None };
        self.send_to(endpoint, &request, Some(Instant::now() + self.timeout), |_| Ok(())).await
    }

    /// Waits before another attempt.
    ///
    /// # Errors
    /// The failure, if it was the last attempt or the next one would come too late.
    async fn pause(
        &self,
        failure: Failure,
        attempts: u32,
        moves: bool,
        deadline: Option<Instant>,
    ) -> Result<(), RemoteError> {
        let wait = self.retries.next(attempts, failure.retry_after, moves);
        let in_time = |wait: &Duration| deadline.is_none_or(|deadline| Instant::now() + *wait < deadline);
        let Some(wait) = wait.filter(in_time) else { return Err(failure.error.after(attempts)) };
        tracing::debug!(error = %failure.error, attempts, ?wait, "asking again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Waits until a check of some endpoint has ended, not longer than an attempt may take.
    async fn wait_for_check(&self, checks: &mut watch::Receiver<u64>, deadline: Option<Instant>) {
        // Whoever waits looks again, whatever has come of it.
        let _ = tokio::time::timeout(self.limit(deadline), checks.changed()).await;
    }

    /// How long an attempt may take.
    fn limit(&self, deadline: Option<Instant>) -> Duration {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.unwrap_or(self.timeout).min(self.timeout)
    }

    async fn attempt<T>(
        &self,
        request: &Request,
        endpoint: &Endpoint,
        deadline: Option<Instant>,
        read: impl Fn(&Answer) -> Result<T, RemoteError>,
    ) -> Result<T, Failure> {
        let limit = self.limit(deadline);
        let Ok(answer) = tokio::time::timeout(limit, self.http.exchange(request, endpoint)).await else {
            let hangs = limit >= self.timeout;
            let (kind, message) = if hangs {
                let message = format!(
                    "no answer within {} ms; see whether the engine hangs, or raise timeout-ms",
                    limit.as_millis()
                );
                (RemoteErrorKind::Failed, message)
            } else {
                (RemoteErrorKind::Timeout, "no answer before the deadline".to_owned())
            };
            let error = RemoteError::new(kind, &endpoint.url, message);
            return Err(Failure { error, retry_after: None, endpoint: hangs });
        };
        read(&answer?).map_err(|error| {
            // It may serve another model now.
            let endpoint = error.kind() == RemoteErrorKind::Mixed;
            Failure { error, retry_after: None, endpoint }
        })
    }
}
