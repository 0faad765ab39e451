//! What all routes share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_audit::LogPlaces;
use cluegate_gate::{DrawAgain, Gate, MemberOutcome, Origin, Policy, RequestInfo, Session, Strategy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::Administration;
use crate::admission::{Admission, Standing};
use crate::body::Room;
use crate::client::{Authenticator, Client};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::drawing::{self, Drawing, Setting};
use crate::fetch::Fetcher;
use crate::listen::ServerError;
use crate::live::{Live, Loaded, PolicySource};
use crate::outcome::Outcome;
use crate::pictures::Format;
use crate::problem::{Problem, ProblemKind};
use crate::quota::{Quotas, Reservation};
use crate::request::PictureRequest;
use crate::review::Review;
use crate::running::{Canceller, Entry, Listed, Running};
use crate::sessions::{Previews, Sessions, Work};
use crate::upstream::{Progress, Unjudged, Upstream};

/// For how long the upstream's word on whether it is ready counts. Anybody may ask, and must not keep it busy.
const READINESS: Duration = Duration::from_secs(1);
/// How long the counters may take for what was spent last.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the upstream may take for that word.
const READINESS_WAIT: Duration = Duration::from_secs(5);

/// The gateway's state: made once, shared by all requests.
pub struct App {
    pub(crate) config: Config,
    pub(crate) gate: Arc<Gate>,
    pub(crate) upstream: Option<Arc<dyn Upstream>>,
    pub(crate) authenticator: Authenticator,
    pub(crate) admission: Admission,
    /// What tenants may spend.
    pub(crate) quotas: Arc<Quotas>,
    /// Policies and keys, which may change.
    pub(crate) live: Live,
    /// Who may administer, if anybody.
    pub(crate) administration: Option<Administration>,
    /// The decisions that were logged, for whoever may query them.
    pub(crate) decisions: Option<LogPlaces>,
    /// The requests for pictures in work.
    pub(crate) running: Running,
    pub(crate) room: Room,
    /// What hosts that draw by themselves have open.
    pub(crate) sessions: Sessions,
    /// The judgments in work.
    judging: Running,
    pub(crate) fetcher: Fetcher,
    review: Arc<Review>,
    readiness: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

/// What a gateway stands on beside its gate.
pub struct Services {
    /// Where policies and keys come from.
    pub source: PolicySource,
    /// What was loaded from there, which the gate was made of.
    pub loaded: Loaded,
    /// What draws, if anything does.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// Where decisions are kept, if they can be queried.
    pub decisions: Option<LogPlaces>,
}

impl App {
    /// A gateway that judges with `gate`, which was made of the policies that the configuration's files name, and draws
    /// with `upstream`.
    ///
    /// # Errors
    /// If the files cannot be used; as [`App::open`].
    pub fn new(
        config: Config,
        gate: Arc<Gate>,
        upstream: Option<Arc<dyn Upstream>>,
    ) -> Result<Arc<Self>, ServerError> {
        let source = PolicySource::files(&config);
        let loaded = source.load_files()?;
        Self::open(config, gate, Services { source, loaded, upstream, decisions: None })
    }

    /// A gateway that judges with `gate`, which was made of what `services` loaded.
    ///
    /// # Errors
    /// If the anonymous client's tenant has no policy, or the administration's keys cannot be used.
    pub fn open(config: Config, gate: Arc<Gate>, services: Services) -> Result<Arc<Self>, ServerError> {
        let Services { source, loaded, upstream, decisions } = services;
        loaded.check_anonymous(config.anonymous.as_deref())?;
        let limits = config.limits;
        let administration =
            config.admin.as_ref().map(|admin| Administration::open(&admin.key_file, limits)).transpose()?;
        Ok(Arc::new(Self {
            authenticator: Authenticator::new(loaded.keys().clone(), limits.wrong_keys),
            admission: Admission::new(limits.in_work, limits.queue, limits.retry_after),
            quotas: Arc::new(Quotas::open(&config, &source)),
            live: Live::new(&config, source, &loaded),
            administration,
            decisions,
            running: Running::default(),
            room: Room::new(limits),
            sessions: Sessions::new(limits.session_idle),
            judging: Running::default(),
            readiness: tokio::sync::Mutex::default(),
            fetcher: Fetcher::new(&config.pictures, limits.in_work)?,
            review: Arc::new(Review::new(config.review.clone())),
            config,
            gate,
            upstream,
        }))
    }

    /// Takes a request: looks whether it can be drawn, and reserves what it is likely to take. Whoever answers before the
    /// request has a place waits for this first, so that what is refused is refused at once.
    ///
    /// # Errors
    /// If there is no upstream, it cannot express the request, or the tenant's limits have no room for it.
    pub(crate) async fn order(&self, client: &Client, request: PictureRequest) -> Result<Ordered, Problem> {
        let upstream = self.upstream()?;
        if request.count == 0 {
            return Err(Problem::bad_request("expected at least 1 picture, got a request for 0"));
        }
        request.refuse_hidden_parameters()?;
        request.refuse_bombs(&self.config.pictures.decode)?;
        upstream.check(&request)?;
        let model = request.model.clone().or_else(|| self.config.upstream.as_ref()?.model.clone());
        let (standing, reservation) = self.reserve(client, model.as_deref(), request.count).await?;
        Ok(Ordered { request, model, standing, reservation })
    }

    /// Begins to draw: waits for a place, opens a session of the gate and starts its thread. Pictures come back encoded
    /// as `format` says.
    ///
    /// # Errors
    /// If the policy refuses the request as a whole, or there is no place.
    pub(crate) async fn draw(
        &self,
        client: &Client,
        request_id: &str,
        deadline: Deadline,
        ordered: Ordered,
        format: Format,
    ) -> Result<Drawing, Problem> {
        let Ordered { request, model, standing, reservation } = ordered;
        let upstream = self.upstream()?;
        let place = self.admission.admit(&client.tenant, standing, deadline).await?;
        // Seeds below 2^32 are taken by every server.
        let seed = request.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let info = RequestInfo {
            id: Some(request_id.to_owned()),
            generator: Some(upstream.fingerprint().to_owned()),
            model,
            requested_by: Some(client.key.to_string()),
            // The header is the client's own word; the body's may be one that it passes on.
            subject: client.subject.as_deref().map(str::to_owned).or_else(|| request.subject.clone()),
            size: request.size,
            deadline: Some(deadline.0),
            steps: request.steps,
            file: format,
            origin: if request.source.is_some() { Origin::Reworked } else { Origin::Drawn },
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
            reservation,
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
        let Brought { picture, prompt, model, subject, format } = brought;
        let (standing, reservation) = self.reserve(client, model.as_deref(), 1).await?;
        let place = self.admission.admit(&client.tenant, standing, deadline).await?;
        let decode = self.config.pictures.decode;
        // What is no picture needs no decision.
        let decoded = tokio::task::spawn_blocking(move || picture.decode(&decode));
        let picture = decoded.await.map_err(|panic| died(&panic))??;
        let info = RequestInfo {
            id: Some(request_id.to_owned()),
            deadline: Some(deadline.0),
            model,
            requested_by: Some(client.key.to_string()),
            subject: client.subject.as_deref().map(str::to_owned).or(subject),
            max_tries: Some(1),
            file: format,
            origin: Origin::Brought,
            ..RequestInfo::new(&*client.tenant, prompt, 0, 1)
        };
        let mut session = self.gate.session(info)?;
        let (canceller, listed) = self.list_judging(client, &session);
        // If the client goes away, this is dropped, and so is the judgment.
        let _off = OnDrop(canceller);
        let review = Arc::clone(&self.review);
        let judging = tokio::task::spawn_blocking(move || {
            let evidence = session.policy().client.evidence;
            let outcome = session.finished(0, picture)?.into_outcome();
            if let Some(decision) = session.decision(0) {
                reservation.note(decision);
            }
            drop((listed, reservation, place));
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

    /// Opens a session for a host that draws by itself: waits for a place, which the session keeps until it ends.
    ///
    /// # Errors
    /// If the policy refuses the request as a whole, the tenant's limits have no room for it, or there is no place.
    pub(crate) async fn open_session(
        &self,
        client: &Client,
        request_id: &str,
        deadline: Deadline,
        opening: Opening,
    ) -> Result<Opened, Problem> {
        let Opening { prompt, count, seed, size, model, generator, max_tries, steps } = opening;
        if count == 0 || max_tries == Some(0) {
            return Err(Problem::bad_request("expected `count` and `max_tries` of at least 1, got 0"));
        }
        let (standing, reservation) = self.reserve(client, model.as_deref(), count).await?;
        let place = self.admission.admit(&client.tenant, standing, deadline).await?;
        // Seeds below 2^32 are taken by every generator.
        let seed = seed.unwrap_or_else(|| rand::random::<u32>().into());
        let info = RequestInfo {
            id: Some(request_id.to_owned()),
            generator,
            model,
            requested_by: Some(client.key.to_string()),
            subject: client.subject.as_deref().map(str::to_owned),
            size,
            deadline: Some(deadline.0),
            max_tries,
            steps,
            drawn_by_client: true,
            ..RequestInfo::new(&*client.tenant, prompt, seed, count)
        };
        let session = self.gate.session(info)?;
        let strategies = session.strategies().to_vec();
        let policy = Arc::clone(session.policy());
        let seeds = (0..session.count()).map(|member| session.first_seed(member)).collect();
        let until = session.call().deadline().map_or(deadline.0, |policy| policy.min(deadline.0));
        let (canceller, listed) = self.list_judging(client, &session);
        let work = Work {
            session,
            reservation,
            decode: self.config.pictures.decode,
            review: Arc::clone(&self.review),
            previews: Previews::default(),
            listed,
            place,
        };
        let id = self.sessions.keep(&client.tenant, work, canceller, until);
        let lasts = until.saturating_duration_since(Instant::now());
        let tries = max_tries.map_or(policy.tries, |host| host.min(policy.tries));
        Ok(Opened { id, seeds, tries, strategies, lasts, policy })
    }

    /// Puts a session on the list of judgments, which are called off when the server stops.
    fn list_judging(&self, client: &Client, session: &Session) -> (Canceller, Listed) {
        let canceller = Canceller::new(session.call().clone(), CancellationToken::new());
        let listed = self.judging.list(Entry {
            tenant: Arc::clone(&client.tenant),
            request_id: session.request_id().to_owned(),
            count: u32::try_from(session.count()).unwrap_or(u32::MAX),
            progress: watch::channel(Progress::default()).1,
            canceller: canceller.clone(),
        });
        (canceller, listed)
    }

    /// Whether the tenant may ask for work now, and what is reserved for it.
    async fn reserve(
        &self,
        client: &Client,
        model: Option<&str>,
        pictures: u32,
    ) -> Result<(Standing, Reservation), Problem> {
        self.live.refuse_if_gone(self.config.limits.retry_after)?;
        let policy = self.policy(&client.tenant, model)?;
        let reservation = self.quotas.reserve(client, &policy, pictures).await?;
        let in_work = policy.quota.in_work.map(|most| most as usize);
        Ok((Standing { priority: policy.priority, in_work }, reservation))
    }

    /// The policy of a tenant for a generation model.
    ///
    /// # Errors
    /// `Forbidden` if it has none.
    pub(crate) fn policy(&self, tenant: &str, model: Option<&str>) -> Result<Arc<Policy>, Problem> {
        let missing = || Problem::new(ProblemKind::Forbidden, "this API key's tenant has no policy");
        self.gate.policy_for(tenant, model).ok_or_else(missing)
    }

    /// Calls off all that is in work, of all tenants.
    pub(crate) fn call_off(&self) {
        self.running.cancel_all();
        self.judging.cancel_all();
    }

    /// The last words of a server that ends: what was spent is counted, if it can be.
    pub(crate) async fn farewell(&self) {
        if tokio::time::timeout(FAREWELL, self.quotas.settled()).await.is_err() {
            tracing::error!("what was spent last is not counted");
        }
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

/// A request that was taken.
#[derive(Debug)]
pub(crate) struct Ordered {
    request: PictureRequest,
    model: Option<String>,
    standing: Standing,
    reservation: Reservation,
}

/// A picture that a client wants judged.
#[derive(Debug)]
pub(crate) struct Brought {
    /// The picture.
    pub(crate) picture: Unjudged,
    /// What it was drawn for, as far as the client says; empty if it does not. For the log.
    pub(crate) prompt: String,
    /// The model that drew it, as far as the client says. Its name chooses among the policy's `model` tables.
    pub(crate) model: Option<String>,
    /// On behalf of whom it was drawn, as far as the body says.
    pub(crate) subject: Option<String>,
    /// How a released picture is encoded.
    pub(crate) format: Format,
}

/// What a host is about to draw.
#[derive(Debug)]
pub(crate) struct Opening {
    /// What is drawn.
    pub(crate) prompt: String,
    /// Number of pictures.
    pub(crate) count: u32,
    /// Seed of the first picture; a random one if there is none.
    pub(crate) seed: Option<u64>,
    /// Width and height in pixels.
    pub(crate) size: Option<(u32, u32)>,
    /// The model that draws. Its name chooses among the policy's `model` tables.
    pub(crate) model: Option<String>,
    /// Identity of the generator, for the log.
    pub(crate) generator: Option<String>,
    /// Most attempts at one picture, where the host can make fewer than the policy allows.
    pub(crate) max_tries: Option<u32>,
    /// Steps of an attempt, where the host knows them.
    pub(crate) steps: Option<u32>,
}

/// A session that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its id.
    pub(crate) id: String,
    /// Seed of each picture's first attempt.
    pub(crate) seeds: Vec<u64>,
    /// Most attempts at one picture.
    pub(crate) tries: u32,
    /// What may be changed for further attempts.
    pub(crate) strategies: Vec<Strategy>,
    /// How long it lasts, if its host is heard of.
    pub(crate) lasts: Duration,
    /// The policy that decides.
    pub(crate) policy: Arc<Policy>,
}

/// Calls its request off when it is dropped.
struct OnDrop(Canceller);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
