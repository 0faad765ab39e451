//! One server and the calls that this gateway has open there.
//!
//! The web UI names its tasks: every call brings a `force_task_id`, and `POST /internal/progress` tells whether that one
//! is drawn, waits, or is done. So progress, previews and the word to stop belong to our own call, also beside people who
//! use the web UI. A server without that route (`--nowebui`) tells only what it draws at all, and its `/interrupt` ends
//! whatever that is: as soon as one is known to be so, it gets one call at a time, and is asked and told only while there
//! is no other, which is right as long as the server is the gateway's alone.
//!
//! A call that nobody waits for any more stays open until the server answers, so that it is counted until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluegate_gate::policy::PreviewSchedule;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::wire::{Reply, without_prefix};
use crate::upstream::http::Http;
use crate::upstream::{Order, Progress, Unjudged, UpstreamError, UpstreamErrorKind as Kind};

/// Longest wait for the answer whether the server is ready.
pub(super) const READY: Duration = Duration::from_secs(5);
/// Longest wait for news of a call, and for the server to hear that it should stop.
pub(super) const NEWS: Duration = Duration::from_secs(10);
/// What progress is counted in where the number of steps is the server's own: hundredths.
const PERCENT: u32 = 100;

/// The server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) http: Http,
    /// How often it is asked how far it is.
    pub(super) poll: Duration,
    /// Longest life of a call.
    timeout: Duration,
    /// Calls of this gateway that it has not answered.
    open: Arc<AtomicUsize>,
    /// Whether it is known to have no names for tasks.
    nameless: Arc<AtomicBool>,
    /// Taken by a call to a server without names.
    turn: Arc<Semaphore>,
}

/// The right to call a server that has no names for tasks.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// Counts a call for as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A call that the server is to answer.
pub(super) struct Drawing {
    server: Server,
    /// Its name at the server.
    task: String,
    answer: JoinHandle<Result<Reply, UpstreamError>>,
}

impl Drawing {
    /// The answer.
    ///
    /// # Errors
    /// If there is none, or it makes no sense.
    pub(super) async fn reply(&mut self) -> Result<Reply, UpstreamError> {
        let lost = |_| self.server.http.error(Kind::Failed, "the gateway's side of the call ended");
        (&mut self.answer).await.unwrap_or_else(|e| Err(lost(e)))
    }

    /// Makes the server stop drawing it, when its turn comes or at once. Nobody waits for that.
    pub(super) fn stop(mut self) {
        tokio::spawn(async move {
            tokio::select! {
                _ = &mut self.answer => {}
                () = self.server.stop(&self.task) => {
                    // Stays counted until the server has let go of it.
                    let _ = self.answer.await;
                }
            }
        });
    }
}

/// What `POST /internal/progress` answers (Forge `modules/progress.py`, `ProgressResponse`).
#[derive(Debug, Deserialize)]
struct Task {
    active: bool,
    #[serde(default)]
    completed: bool,
    progress: Option<f64>,
    live_preview: Option<String>,
    id_live_preview: Option<i64>,
}

/// What `GET /sdapi/v1/progress` answers.
#[derive(Debug, Deserialize)]
struct Anything {
    progress: f64,
    current_image: Option<String>,
}

/// What was seen of a call.
#[derive(Debug)]
pub(super) struct Seen {
    previews: PreviewSchedule,
    shows: bool,
    wants: bool,
    steps: Option<u32>,
    /// The step of the last preview.
    step: u32,
    preview: i64,
}

impl Seen {
    pub(super) fn new(order: &Order) -> Self {
        Self {
            previews: order.previews.clone(),
            shows: order.show_previews,
            wants: order.wants_previews(),
            steps: order.request.steps.filter(|steps| *steps > 0),
            step: 0,
            preview: -1,
        }
    }

    /// All steps, or the hundredths that stand for them.
    pub(super) fn total(&self) -> u32 {
        self.steps.unwrap_or(PERCENT)
    }

    fn progress(&self, fraction: f64) -> Progress {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        let step = self.steps.map(|steps| (fraction * f64::from(steps)).round() as u32);
        Progress { fraction, step, steps: self.steps }
    }

    /// The step that a preview at `fraction` stands for: of those that the policy names, the last one that passed since
    /// the preview before. Asking from time to time, one does not meet the very step.
    fn due(&mut self, fraction: f64) -> Option<u32> {
        let total = self.total();
        let step = ((fraction.clamp(0.0, 1.0) * f64::from(total)).floor() as u32).min(total);
        let named = (self.step + 1..=step).rev().find(|step| self.previews.is_due(*step, total));
        let due = named.or((self.shows && step > self.step).then_some(step));
        if due.is_some() {
            self.step = step;
        }
        due
    }
}

/// News of a call.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) progress: Option<Progress>,
    /// With the step that it stands for.
    pub(super) preview: Option<(u32, Unjudged)>,
}

impl Server {
    pub(super) fn new(http: Http, poll: Duration, timeout: Duration) -> Self {
        let (open, nameless, turn) = (Arc::default(), Arc::default(), Arc::new(Semaphore::new(1)));
        Self { http, poll, timeout, open, nameless, turn }
    }

    /// Waits until a call may be sent: where a server has names for tasks, at once.
    pub(super) async fn turn(&self) -> Turn {
        if !self.nameless.load(Ordering::SeqCst) {
            return None;
        }
        // It is never closed.
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }

    /// Sends a call, whose `turn` it is.
    pub(super) fn begin(
        &self,
        path: &'static str,
        call: (String, Map<String, Value>),
        turn: Turn,
    ) -> Drawing {
        let (task, payload) = call;
        self.open.fetch_add(1, Ordering::SeqCst);
        let (open, server) = (Open(Arc::clone(&self.open)), self.clone());
        let answer = async move {
            let _open = (open, turn);
            let deadline = Instant::now() + server.timeout;
            server.http.json(server.http.post(path).json(&payload), deadline).await
        };
        let answer = tokio::spawn(answer.in_current_span());
        Drawing { server: self.clone(), task, answer }
    }

    /// Asks how far a call is.
    ///
    /// # Errors
    /// If the server does not say.
    pub(super) async fn look(&self, task: &str, seen: &mut Seen) -> Result<Told, UpstreamError> {
        match self.task(task, seen).await {
            Err(error) if is_missing(&error) => {}
            told => return told,
        }
        if !self.is_alone() {
            return Ok(Told::default());
        }
        let path = format!("/sdapi/v1/progress?skip_current_image={}", !seen.wants);
        let told: Anything = self.http.json(self.http.get(&path), Instant::now() + NEWS).await?;
        // A call that began meanwhile may be the one that this tells of.
        Ok(if self.is_alone() { news(seen, told.progress, told.current_image) } else { Told::default() })
    }

    async fn task(&self, task: &str, seen: &mut Seen) -> Result<Told, UpstreamError> {
        let now = self.state(task, seen.wants, seen.preview).await?;
        if !now.active {
            return Ok(Told::default());
        }
        seen.preview = now.id_live_preview.unwrap_or(seen.preview);
        Ok(news(seen, now.progress.unwrap_or(0.0), now.live_preview))
    }

    async fn state(&self, task: &str, preview: bool, last: i64) -> Result<Task, UpstreamError> {
        let asked = json!({ "id_task": task, "live_preview": preview, "id_live_preview": last });
        if self.nameless.load(Ordering::SeqCst) {
            return Err(self.http.error(Kind::Refused, "it has no names for tasks"));
        }
        let told =
            self.http.json(self.http.post("/internal/progress").json(&asked), Instant::now() + NEWS).await;
        if told.as_ref().is_err_and(is_missing) {
            tracing::info!("the server has no names for tasks: it gets one call at a time");
            self.nameless.store(true, Ordering::SeqCst);
        }
        told
    }

    fn is_alone(&self) -> bool {
        self.open.load(Ordering::SeqCst) == 1
    }

    /// Tells the server to stop `task` as soon as that is what it draws. Returns when it was told, or cannot be.
    async fn stop(&self, task: &str) {
        loop {
            match self.state(task, false, -1).await {
                Ok(state) if state.active => break,
                Ok(state) if state.completed => return,
                Ok(_) => {}
                Err(error) if is_missing(&error) && self.is_alone() => break,
                Err(error) if is_missing(&error) => {}
                Err(error) => tracing::warn!(%error, "the server does not say whether it still draws"),
            }
            tokio::time::sleep(self.poll).await;
        }
        let told = self.http.send(self.http.post("/sdapi/v1/interrupt"), Instant::now() + NEWS).await;
        if let Err(error) = told {
            tracing::warn!(%error, "the server was not stopped");
        }
    }
}

/// Whether the server has no such route.
fn is_missing(error: &UpstreamError) -> bool {
    error.kind() == Kind::Refused
}

fn news(seen: &mut Seen, fraction: f64, picture: Option<String>) -> Told {
    let progress = seen.progress(fraction);
    let picture = picture.filter(|_| seen.wants).and_then(|text| {
        // A preview that cannot be read shows nobody anything.
        base64_simd::STANDARD.decode_to_vec(without_prefix(&text)).ok()
    });
    let preview = picture.and_then(|bytes| Some((seen.due(progress.fraction)?, Unjudged::encoded(bytes))));
    Told { progress: Some(progress), preview }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn seen(previews: &str, shows: bool, steps: Option<u32>) -> Seen {
        let text = format!("[tenant.t]\npreviews = {previews}\n");
        let policies = cluegate_gate::Policies::from_toml(&text, "policy").unwrap();
        let previews = policies.iter().next().unwrap().previews.clone();
        let wants = shows || !previews.is_empty();
        Seen { previews, shows, wants, steps, step: 0, preview: -1 }
    }

    #[test]
    fn a_preview_stands_for_the_last_step_that_the_policy_names() {
        let mut seen = seen("[5, 0.5]", false, Some(20));
        assert_eq!((seen.due(0.2), seen.due(0.36), seen.due(0.4)), (None, Some(5), None));
        // Both passed at once would be one preview; after the last step there is none.
        assert_eq!((seen.due(0.9), seen.due(1.0)), (Some(10), None));
        assert_eq!(seen.progress(f64::NAN).fraction, 0.0);
        assert_eq!(seen.progress(0.5).step, Some(10));
    }

    #[test]
    fn every_preview_counts_for_a_client_who_sees_them() {
        let mut seen = seen("[]", true, None);
        assert_eq!((seen.due(0.1), seen.due(0.105), seen.due(0.3)), (Some(10), None, Some(30)));
    }
}
