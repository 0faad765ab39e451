//! Jobs: what is submitted, drawn, and kept for the tenant to fetch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluegate_gate::Reason;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::Decisions;
use crate::drawing::{Drawing, cut_short};
use crate::kept::Kept;
use crate::outcome::{Finished, Outcome, decision_header};
use crate::pictures::Format;
use crate::problem::Problem;

/// All tenants' jobs, each tenant's apart.
pub(super) struct Jobs {
    kept: Kept<Arc<Job>>,
    /// Of this process, for the marks in names.
    secret: [u8; 32],
}

/// Hexadecimal digits of chance in a job's name; as many of its mark follow.
const DIGITS: usize = 32;

/// One job.
pub(super) struct Job {
    tenant: Arc<str>,
    id: String,
    created: i64,
    /// Ends it, whether it waits or is drawn.
    pub(super) cancel: CancellationToken,
    state: Mutex<State>,
}

/// A job that somebody works on. Dropped before its end, it has failed.
pub(super) struct Unended(pub(super) Arc<Job>);

impl Drop for Unended {
    fn drop(&mut self) {
        self.0.end(End::from(&cut_short()));
    }
}

enum State {
    Queued,
    Generating { started: i64 },
    Ended { started: Option<i64>, completed: i64, end: End },
}

enum End {
    /// With at least one released picture.
    Completed(Vec<Outcome>),
    /// With none: code, words, and the outcomes if there are any.
    Failed(String, String, Vec<Outcome>),
    Cancelled,
}

/// What an outcome takes: its picture, and the decision with its evidence.
fn kept_bytes(outcome: &Outcome) -> usize {
    let decision = serde_json::to_vec(outcome.decision()).map_or(0, |text| text.len());
    decision + outcome.shown().map_or(0, |shown| shown.bytes().len())
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

impl Jobs {
    /// Ended jobs are kept for `keep`, with at most `bytes` of pictures in all.
    pub(super) fn new(keep: Duration, bytes: usize) -> Self {
        Self { kept: Kept::new(keep, bytes), secret: rand::random() }
    }

    /// A new job of `tenant`, with a name that cannot be guessed.
    pub(super) fn open(&self, tenant: &Arc<str>) -> Arc<Job> {
        let chance = format!("{:032x}", rand::random::<u128>());
        let job = Arc::new(Job {
            tenant: Arc::clone(tenant),
            id: format!("job_{chance}{}", self.mark(tenant, &chance)),
            created: now(),
            cancel: CancellationToken::new(),
            state: Mutex::new(State::Queued),
        });
        self.keep(&job, 0);
        job
    }

    pub(super) fn get(&self, tenant: &Arc<str>, id: &str) -> Option<Arc<Job>> {
        self.kept.get(tenant, id)
    }

    /// Whether a name was given to a job of `tenant` by this process. Told by the name alone, so that nothing is kept of
    /// jobs that are gone.
    pub(super) fn was_given(&self, tenant: &Arc<str>, id: &str) -> bool {
        let parts = id.strip_prefix("job_").and_then(|digits| digits.split_at_checked(DIGITS));
        parts.is_some_and(|(chance, mark)| mark == self.mark(tenant, chance))
    }

    fn mark(&self, tenant: &str, chance: &str) -> String {
        let mut hash = Sha256::new_with_prefix(self.secret);
        // The chance has one length, so that nothing of one part can pass for the other.
        hash.update(chance);
        hash.update(tenant);
        hash.finalize().iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where a job stands among those of its tenant that wait, from 1; 0 if it does not wait.
    pub(super) fn position(&self, job: &Job) -> usize {
        if !matches!(*job.lock(), State::Queued) {
            return 0;
        }
        let waiting = self.kept.of(&job.tenant).into_iter().filter(|(_, other)| {
            // Not its own lock, which is free again.
            matches!(*other.lock(), State::Queued)
        });
        waiting.take_while(|(id, _)| *id != job.id).count() + 1
    }

    /// A job that was refused before the client learned its name.
    pub(super) fn forget(&self, job: &Arc<Job>) {
        job.end(End::Cancelled);
    }

    /// Waits for the pictures of a job and keeps what was released of them.
    pub(super) async fn finish(&self, job: &Arc<Job>, begun: Result<Option<Drawing>, Problem>) {
        let end = match begun {
            Ok(Some(drawing)) => {
                job.begin();
                tokio::select! {
                    // Dropping the drawing calls it off.
                    () = job.cancel.cancelled() => End::Cancelled,
                    finished = drawing.finish() => match finished {
                        Ok(finished) => End::of(finished),
                        Err(problem) => End::from(&problem),
                    },
                }
            }
            Ok(None) => End::Cancelled,
            Err(problem) => End::from(&problem),
        };
        let bytes = end.outcomes().iter().map(kept_bytes).sum();
        if job.end(end) {
            self.keep(job, bytes);
        }
    }

    fn keep(&self, job: &Arc<Job>, bytes: usize) {
        self.kept.put(&job.tenant, job.id.as_str(), Arc::clone(job), bytes);
    }
}

impl Job {
    /// What a client is told of a job that it has just submitted.
    pub(super) fn submitted(&self) -> Value {
        json!({
            "id": self.id,
            "kind": "img_gen",
            "status": "queued",
            "created": self.created,
            "poll_url": format!("/sdcpp/v1/jobs/{}", self.id),
        })
    }

    /// Ends it, unless it has ended.
    pub(super) fn cancel(&self) {
        self.end(End::Cancelled);
        self.cancel.cancel();
    }

    /// `make_async_job_json` in `async_jobs.cpp`, and the decisions.
    pub(super) fn describe(&self, position: usize) -> (Value, Decisions) {
        let state = self.lock();
        let (status, started, completed, end) = match &*state {
            State::Queued => ("queued", None, None, None),
            State::Generating { started } => ("generating", Some(*started), None, None),
            State::Ended { started, completed, end } => (end.status(), *started, Some(*completed), Some(end)),
        };
        let mut body = json!({
            "id": self.id,
            "kind": "img_gen",
            "status": status,
            "created": self.created,
            "started": started,
            "completed": completed,
            "queue_position": position,
            "result": null,
            "error": null,
        });
        let Some(end) = end else { return (body, None) };
        match end {
            End::Completed(outcomes) => body["result"] = result(outcomes),
            End::Failed(code, message, _) => body["error"] = json!({ "code": code, "message": message }),
            End::Cancelled => {
                body["error"] = json!({ "code": "cancelled", "message": "job cancelled by client" });
            }
        }
        if !end.outcomes().is_empty() {
            body["cluegate"] = json!({
                "outcomes": end.outcomes().iter().map(Outcome::report).collect::<Vec<_>>(),
            });
        }
        (body, decision_header(end.outcomes()))
    }

    fn begin(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Queued) {
            *state = State::Generating { started: now() };
        }
    }

    /// Ends it, if nothing did before.
    fn end(&self, end: End) -> bool {
        let mut state = self.lock();
        let started = match &*state {
            State::Queued => None,
            State::Generating { started } => Some(*started),
            State::Ended { .. } => return false,
        };
        *state = State::Ended { started, completed: now(), end };
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    fn of(finished: Finished) -> Self {
        if let Some(problem) = finished.problem() {
            let (code, words) = (problem.kind().code().to_owned(), problem.message().to_owned());
            return Self::Failed(code, words, finished.outcomes);
        }
        let outcomes = finished.outcomes;
        if outcomes.iter().any(Outcome::is_released) {
            return Self::Completed(outcomes);
        }
        // The first picture that was withheld for what it shows speaks for all.
        let told = outcomes.iter().find(|outcome| outcome.reason().is_violation()).or(outcomes.first());
        let (code, words) = match told {
            Some(outcome) => {
                let moderated = outcome.reason().is_violation() || outcome.reason() == Reason::HeldForReview;
                let code = if moderated { "moderation_blocked" } else { outcome.reason().as_str() };
                (code.to_owned(), outcome.message())
            }
            None => ("internal_error".to_owned(), "the job has no pictures".to_owned()),
        };
        Self::Failed(code, words, outcomes)
    }

    fn from(problem: &Problem) -> Self {
        Self::Failed(problem.kind().code().to_owned(), problem.message().to_owned(), Vec::new())
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Failed(..) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn outcomes(&self) -> &[Outcome] {
        match self {
            Self::Completed(outcomes) | Self::Failed(_, _, outcomes) => outcomes,
            Self::Cancelled => &[],
        }
    }
}

/// The pictures that the client may have, by their index in the request. What stands in for a picture is one of them and
/// says so; a picture for which nothing does is left out.
fn result(outcomes: &[Outcome]) -> Value {
    let shown = || outcomes.iter().filter_map(|outcome| Some((outcome, outcome.shown()?)));
    let format = shown().next().map_or(Format::Png, |(_, shown)| shown.format());
    let images = shown().map(|(outcome, shown)| {
        let mut image = json!({
            "index": outcome.member(),
            "b64_json": null,
            "released": outcome.is_released(),
        });
        image["b64_json"] = Value::from(shown.base64());
        image
    });
    let name = match format {
        Format::Png => "png",
        Format::Jpeg(_) => "jpeg",
        Format::WebP => "webp",
    };
    let mut result = json!({ "output_format": name });
    // Moved, which the macro would not: they are nearly all of the answer.
    result["images"] = images.collect();
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_job_that_is_gone_is_known_to_its_tenant_alone() {
        let (kids, news): (Arc<str>, Arc<str>) = (Arc::from("kids"), Arc::from("news"));
        let jobs = Jobs::new(Duration::ZERO, 1 << 20);
        let id = jobs.open(&kids).id.clone();
        assert!(jobs.get(&kids, &id).is_none() && jobs.was_given(&kids, &id));
        assert!(!jobs.was_given(&news, &id));
        assert!(!Jobs::new(Duration::ZERO, 1).was_given(&kids, &id), "another process has other jobs");
        let turned = id.replace(&id[4..5], if &id[4..5] == "0" { "1" } else { "0" });
        for other in ["", "job_", "job_1", &id[..40], &format!("{id}0"), &turned, "job_\u{e9}\u{e9}"] {
            assert!(!jobs.was_given(&kids, other), "{other}");
        }
    }
}
