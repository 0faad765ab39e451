//! What all routes share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_gate::{DrawAgain, Gate, MemberOutcome, RequestInfo};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::body::Room;
use crate::client::{Authenticator, Client};
use crate::config::{Config, ConfigError};
use crate::deadline::Deadline;
use crate::drawing::{self, Drawing, Setting};
use crate::fetch::Fetcher;
use crate::keys::KeyFile;
use crate::listen::ServerError;
use crate::outcome::Outcome;
use crate::pictures::Format;
use crate::problem::{Problem, ProblemKind};
use crate::request::PictureRequest;
use crate::review::Review;
use crate::running::{Canceller, Entry, Running};
use crate::upstream::{Progress, Unjudged, Upstream};

/// For how long the upstream's word on whether it is ready counts. Anybody may ask, and must not keep it busy.
const READINESS: Duration = Duration::from_secs(1);
/// How long the upstream may take for that word.
const READINESS_WAIT: Duration = Duration::from_secs(5);

/// The gateway's state: made once, shared by all requests.
pub struct App {
    pub(crate) config: Config,
    pub(crate) gate: Arc<Gate>,
    pub(crate) upstream: Option<Arc<dyn Upstream>>,
    pub(crate) authenticator: Authenticator,
    pub(crate) admission: Admission,
    /// The requests for pictures in work.
    pub(crate) running: Running,
    pub(crate) room: Room,
    /// The judgments in work.
    judging: Running,
    pub(crate) fetcher: Fetcher,
    review: Arc<Review>,
    readiness: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl App {
    /// A gateway that judges with `gate` and draws with `upstream`.
    ///
    /// # Errors
    /// If the keys cannot be read, or a key or the anonymous client belongs to a tenant without a policy.
    pub fn new(
        config: Config,
        gate: Arc<Gate>,
        upstream: Option<Arc<dyn Upstream>>,
    ) -> Result<Arc<Self>, ServerError> {
        let keys = config.keys.as_ref().map_or_else(|| Ok(KeyFile::default()), KeyFile::load)?;
        let file = config.keys.as_ref().map_or_else(String::new, |file| file.display().to_string());
        let named = keys.owners().map(|owner| {
            (format!("{file}: the key {:?}", owner.id), "tenant".to_owned(), owner.tenant.as_str())
        });
        let anonymous = config
            .anonymous
            .iter()
            .map(|tenant| ("the configuration".to_owned(), "keys.anonymous".to_owned(), tenant.as_str()));
        for (origin, path, tenant) in named.chain(anonymous) {
            if gate.policy(tenant).is_none() {
                let known = gate.tenants().join(", ");
                let expected = format!("a tenant with a policy ({known})");
                let found = format!("{tenant:?}");
                return Err(ServerError::Config(ConfigError::Value { origin, path, expected, found }));
            }
        }
        let limits = config.limits;
        Ok(Arc::new(Self {
            authenticator: Authenticator::new(keys, config.anonymous.clone(), limits.wrong_keys),
            admission: Admission::new(limits.in_work, limits.queue, limits.retry_after),
            running: Running::default(),
            room: Room::new(limits),
            judging: Running::default(),
            readiness: tokio::sync::Mutex::default(),
            fetcher: Fetcher::new(&config.pictures, limits.in_work)?,
            review: Arc::new(Review::new(config.review.clone())),
            config,
            gate,
            upstream,
        }))
    }

    /// Begins to draw: waits for a place, opens a session of the gate and starts its thread. Pictures come back encoded
    /// as `format` says.
    ///
    /// # Errors
    /// If there is no upstream, it cannot express the request, the policy refuses it as a whole, or there is no place.
    pub(crate) async fn draw(
        &self,
        client: &Client,
        request_id: &str,
        deadline: Deadline,
        request: PictureRequest,
        format: Format,
    ) -> Result<Drawing, Problem> {
        let upstream = self.upstream()?;
        if request.count == 0 {
            return Err(Problem::bad_request("expected at least 1 picture, got a request for 0"));
        }
        request.refuse_hidden_parameters()?;
        request.refuse_bombs(&self.config.pictures.decode)?;
        upstream.check(&request)?;
        let place = self.admission.admit(&client.tenant, deadline).await?;
        // Seeds below 2^32 are taken by every server.
        let seed = request.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let info = RequestInfo {
            id: Some(request_id.to_owned()),
            generator: Some(upstream.fingerprint().to_owned()),
            size: request.size,
            deadline: Some(deadline.0),
            ..RequestInfo::new(&*client.tenant, request.prompt.as_str(), seed, request.count)
        };
        let session = self.gate.session(info)?;
        let (token, progress) = (CancellationToken::new(), watch::Sender::new(Progress::default()));
        let listed = self.running.list(Entry {
            tenant: Arc::clone(&client.tenant),
            request_id: request_id.to_owned(),
            count: request.count,
            progress: progress.subscribe(),
            canceller: Canceller::new(session.call().clone(), token.clone()),
        });
        let setting = Setting {
            upstream: Arc::clone(upstream),
            request: Arc::new(request),
            // The policy may allow less than the client.
            deadline: Deadline(session.call().deadline().map_or(deadline.0, |policy| policy.min(deadline.0))),
            decode: self.config.pictures.decode,
            format,
            review: Arc::clone(&self.review),
            token,
            progress,
            place,
            listed,
        };
        Ok(drawing::begin(session, setting))
    }

    /// Judges a picture that the client brought, in its tenant's name and by its policy. There is no generator: what
    /// would be drawn again is withheld, or redacted where the policy says so after the last try.
    ///
    /// # Errors
    /// If there is no place, the bytes are no picture within the limits, or the judging thread died.
    pub(crate) async fn judge(
        &self,
        client: &Client,
        request_id: &str,
        deadline: Deadline,
        brought: Brought,
    ) -> Result<Outcome, Problem> {
        let Brought { picture, prompt, format } = brought;
        let place = self.admission.admit(&client.tenant, deadline).await?;
        let decode = self.config.pictures.decode;
        // What is no picture needs no decision.
        let decoded = tokio::task::spawn_blocking(move || picture.decode(&decode));
        let picture = decoded.await.map_err(|panic| died(&panic))??;
        let info = RequestInfo {
            id: Some(request_id.to_owned()),
            deadline: Some(deadline.0),
            max_tries: Some(1),
            ..RequestInfo::new(&*client.tenant, prompt, 0, 1)
        };
        let mut session = self.gate.session(info)?;
        let canceller = Canceller::new(session.call().clone(), CancellationToken::new());
        let listed = self.judging.list(Entry {
            tenant: Arc::clone(&client.tenant),
            request_id: request_id.to_owned(),
            count: 1,
            progress: watch::channel(Progress::default()).1,
            canceller: canceller.clone(),
        });
        // If the client goes away, this is dropped, and so is the judgment.
        let _off = OnDrop(canceller);
        let review = Arc::clone(&self.review);
        let judging = tokio::task::spawn_blocking(move || {
            let evidence = session.policy().client.evidence;
            let outcome = session.finished(0, picture)?.into_outcome();
            drop((listed, place));
            let outcome = outcome.map_err(|DrawAgain { .. }| {
                Problem::new(ProblemKind::Internal, "the gate asked for another try where there is none")
            })?;
            if let MemberOutcome::Held(held) = &outcome {
                review.keep(held);
            }
            Ok::<_, Problem>(Outcome::new(&outcome, format, evidence))
        });
        judging.await.map_err(|panic| died(&panic))?
    }

    /// Calls off all that is in work, of all tenants.
    pub(crate) fn call_off(&self) {
        self.running.cancel_all();
        self.judging.cancel_all();
    }

    /// Waits until the server is stopping and nothing is in work: then WebSockets are to be closed.
    pub(crate) async fn over(&self) {
        self.admission.draining().await;
        self.admission.idle().await;
    }

    /// Whether the upstream would draw now, or there is none. It is asked once a second at most, however many ask here.
    pub(crate) async fn upstream_is_ready(&self) -> bool {
        let Some(upstream) = &self.upstream else { return true };
        let mut known = self.readiness.lock().await;
        if let Some((asked, ready)) = *known
            && asked.elapsed() < READINESS
        {
            return ready;
        }
        let ready = match tokio::time::timeout(READINESS_WAIT, upstream.ready()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the upstream is not ready");
                false
            }
            Err(_) => {
                tracing::warn!("the upstream did not say in time whether it is ready");
                false
            }
        };
        *known = Some((Instant::now(), ready));
        ready
    }

    /// The upstream.
    ///
    /// # Errors
    /// `NotFound` if this gateway only judges.
    pub(crate) fn upstream(&self) -> Result<&Arc<dyn Upstream>, Problem> {
        self.upstream.as_ref().ok_or_else(|| {
            let message = "this gateway draws no pictures: its configuration names no `upstream`";
            Problem::new(ProblemKind::NotFound, message)
        })
    }
}

fn died(panic: &tokio::task::JoinError) -> Problem {
    tracing::error!(%panic, "a judging thread ended");
    let message = "the judging thread ended without an answer; nothing is released";
    Problem::new(ProblemKind::Internal, message)
}

/// A picture that a client wants judged.
#[derive(Debug)]
pub(crate) struct Brought {
    /// The picture.
    pub(crate) picture: Unjudged,
    /// What it was drawn for, as far as the client says; empty if it does not. For the log.
    pub(crate) prompt: String,
    /// How a released picture is encoded.
    pub(crate) format: Format,
}

/// Calls its request off when it is dropped.
struct OnDrop(Canceller);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
