//! One call of the judge: on its own thread, with a deadline, and written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_constitution::{Constitution, Revision};
use cluegate_judge::{Glance, Report};
use cluegate_perception::{Call, Detection, Picture};

use crate::Reason;
use crate::inspector::{InspectionError, Inspector, Unfinished};
use crate::record::{FailureRecord, Judgment, JudgmentRecord};
use crate::released::{check_fit, check_glance};
use crate::session::{Session, milliseconds};
use crate::watchdog::{Pending, Stopped, Watchdog};

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: &'static str,
    message: String,
    timed_out: bool,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), timed_out: false }
    }

    /// Time ran out.
    pub(crate) fn late(message: impl Into<String>) -> Self {
        Self { kind: "timeout", message: message.into(), timed_out: true }
    }

    /// [`Reason::JudgeTimeout`] or [`Reason::JudgeError`].
    pub(crate) fn reason(&self) -> Reason {
        if self.timed_out { Reason::JudgeTimeout } else { Reason::JudgeError }
    }

    /// Its kind, for the log.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether time ran out.
    pub(crate) fn is_timeout(&self) -> bool {
        self.timed_out
    }

    /// A sentence for people.
    pub(crate) fn message(&self) -> String {
        if self.timed_out {
            format!("the judge gave no verdict in time: {}", self.message)
        } else {
            format!("the judge failed ({}): {}", self.kind, self.message)
        }
    }

    fn record(&self) -> FailureRecord {
        FailureRecord { kind: self.kind.to_owned(), message: self.message.clone() }
    }
}

impl From<InspectionError> for Failure {
    fn from(error: InspectionError) -> Self {
        Self { kind: error.kind(), timed_out: error.is_timeout(), message: error.to_string() }
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::TimedOut(deadline) => Self {
                kind: "timeout",
                message: format!("it was given {} ms", deadline.as_millis()),
                timed_out: true,
            },
            Stopped::Panicked(message) => Self::new("panic", format!("it panicked: {message}")),
            Stopped::Busy(late) => {
                Self::new("busy", format!("{late} earlier judgments are still running past their deadline"))
            }
            Stopped::NoThread(problem) => Self::new("busy", format!("no thread could be started: {problem}")),
        }
    }
}

/// What a call of the judge gave, and the log's account of it.
pub(crate) struct Judged {
    pub(crate) record: JudgmentRecord,
    pub(crate) result: Result<Report, Failure>,
}

impl Judged {
    pub(crate) fn failed(failure: Failure) -> Self {
        let record = JudgmentRecord {
            verdict: Judgment::Error,
            violated: Vec::new(),
            action: None,
            error: Some(failure.record()),
            evidence: None,
            passes: None,
            ms: 0.0,
        };
        Self { record, result: Err(failure) }
    }

    fn reached(report: Report) -> Self {
        // Evidence that cannot be written down would leave a decision without its grounds.
        let evidence = match serde_json::to_value(&report) {
            Ok(evidence) => evidence,
            Err(source) => return Self::failed(Failure::new("evidence", source.to_string())),
        };
        let violated = report.violated().to_vec();
        let verdict = if violated.is_empty() { Judgment::Safe } else { Judgment::Unsafe };
        let record = JudgmentRecord {
            verdict,
            violated,
            action: None,
            error: None,
            evidence: Some(evidence),
            passes: Some(*report.passes()),
            ms: 0.0,
        };
        Self { record, result: Ok(report) }
    }
}

/// What a judge is asked.
pub(crate) struct Asked<'a> {
    /// What it must judge by.
    pub(crate) constitution: &'a Constitution,
    /// What the picture is, if it is no finished one.
    pub(crate) unfinished: Option<Unfinished>,
    /// What is asked of a preview that is to be judged at a glance.
    pub(crate) glance: Option<Glance>,
    /// Longest wait for the answer, the judge's preparation included.
    pub(crate) patience: Duration,
    /// Since when it lasts.
    pub(crate) began: Instant,
}

/// What a judge's thread comes back with: its answer, and what that took in milliseconds.
type Answer = (Result<Report, InspectionError>, f64);

/// A call of the judge that was begun. Dropped, it is called off.
pub(crate) struct Judging {
    /// Why it was not even begun, if it was not.
    pending: Result<Pending<Answer>, Failure>,
    call: Call,
    picture: Picture,
    revision: Revision,
    glanced: bool,
    whole: bool,
    patience: Duration,
    began: Instant,
}

impl Drop for Judging {
    fn drop(&mut self) {
        // Nobody waits for what is still running.
        self.call.cancel();
    }
}

impl Judging {
    /// Waits for the verdict, until its deadline.
    pub(crate) fn wait(&self) -> Judged {
        self.judged(match &self.pending {
            Ok(pending) => pending.wait().map_err(|stopped| self.unheard(stopped)),
            Err(failure) => Err(failure.clone()),
        })
    }

    /// The verdict, if it is there or will not come any more.
    pub(crate) fn poll(&self) -> Option<Judged> {
        let answer = match &self.pending {
            Ok(pending) => pending.poll()?.map_err(|stopped| self.unheard(stopped)),
            Err(failure) => Err(failure.clone()),
        };
        Some(self.judged(answer))
    }

    /// The verdict, if it is there. If not, none because of `why`, and what it took so far.
    pub(crate) fn give_up(&self, why: &str) -> Judged {
        self.poll().unwrap_or_else(|| self.judged(Err(Failure::new("given-up", why))))
    }

    /// What it took to prepare the judge is part of the wait for a verdict.
    fn unheard(&self, stopped: Stopped) -> Failure {
        Failure::from(match stopped {
            Stopped::TimedOut(_) => Stopped::TimedOut(self.patience),
            other => other,
        })
    }

    /// Only a complete verdict on this picture under the constitution asked for counts as one.
    fn judged(&self, answer: Result<Answer, Failure>) -> Judged {
        let (result, ms) = match answer {
            Ok((answer, ms)) => (answer.map_err(Failure::from), ms),
            Err(failure) => (Err(failure), milliseconds(self.began)),
        };
        let fit = result.and_then(|report| {
            let fit = if self.glanced {
                check_glance(&self.picture, &report, self.revision)
            } else {
                check_fit(&self.picture, &report, self.revision, self.whole)
            };
            fit.map(|()| report).map_err(|problem| Failure::new("unfit-verdict", problem))
        });
        let mut judged = fit.map_or_else(Judged::failed, Judged::reached);
        judged.record.ms = ms;
        judged
    }
}

impl Session {
    /// Longest wait for one call of the judge: never beyond the life of the request.
    pub(crate) fn patience(&self) -> Duration {
        self.grounds.policy.limits.judge_deadline.min(self.time_left())
    }

    /// A call of a model that is given `deadline` from now and ends with the request. To call it off leaves the request
    /// as it is.
    pub(crate) fn model_call(&self, deadline: Duration) -> Call {
        Call::together([self.call.clone()]).until(Instant::now() + deadline)
    }

    /// The judge that decides, prepared at its first use.
    pub(crate) fn deciding(&mut self, call: &Call) -> Result<Arc<dyn Inspector>, Failure> {
        if let Some(ready) = &self.inspector {
            return Ok(Arc::clone(ready));
        }
        let ready = self.services.judges.get(&self.grounds.constitution, call)?;
        self.inspector = Some(Arc::clone(&ready));
        Ok(ready)
    }

    /// Judges `picture` under the constitution that decides.
    pub(crate) fn judge(
        &mut self,
        member: usize,
        picture: &Picture,
        unfinished: Option<Unfinished>,
    ) -> Judged {
        let judged = self.begin_to_judge(member, picture, unfinished, None).wait();
        self.add_cost(member, &judged.record);
        judged
    }

    /// Begins to judge `picture` under the constitution that decides, a preview perhaps at a glance. A judge that nobody used
    /// before is prepared first; that is waited for. Whoever hears the verdict counts what it took.
    pub(crate) fn begin_to_judge(
        &mut self,
        member: usize,
        picture: &Picture,
        unfinished: Option<Unfinished>,
        glance: Option<Glance>,
    ) -> Judging {
        let about = match unfinished {
            None => "picture",
            Some(Unfinished::Preview) => "preview",
            Some(Unfinished::Redacted) => "redaction",
        };
        let attempt = self.members.get(member).map_or(0, |state| state.current.attempt);
        let _span = tracing::info_span!(target: "cluegate::trace", "judge", member, attempt, about).entered();
        let (began, patience) = (Instant::now(), self.patience());
        let judge = match self.pixel_problem(picture) {
            None => self.deciding(&self.model_call(patience)),
            Some(problem) => Err(Failure::new("limit", format!("the {about}: {problem}"))),
        };
        let (constitution, services) = (Arc::clone(&self.grounds.constitution), Arc::clone(&self.services));
        let asked = Asked { constitution: &constitution, unfinished, glance, patience, began };
        self.begin_to_judge_with(judge, picture, asked, &services.watchdog)
    }

    /// Counts what a judgment took.
    pub(crate) fn add_cost(&mut self, member: usize, judgment: &JudgmentRecord) {
        self.spent.add(judgment);
        if let Some(state) = self.members.get_mut(member) {
            state.timings.judging += judgment.ms;
        }
    }

    /// Begins to judge `picture` on a thread of `watchdog`'s.
    pub(crate) fn begin_to_judge_with(
        &self,
        judge: Result<Arc<dyn Inspector>, Failure>,
        picture: &Picture,
        asked: Asked<'_>,
        watchdog: &Watchdog,
    ) -> Judging {
        let Asked { constitution, unfinished, glance, patience, began } = asked;
        let left = patience.saturating_sub(began.elapsed());
        let (copy, glanced, call) = (picture.clone(), glance.is_some(), self.model_call(left));
        let work = call.clone();
        // A request without words, such as a picture that is to be judged alone, tells nothing of what it was made from.
        let prompt = Some(self.request.prompt.clone()).filter(|prompt| !prompt.trim().is_empty());
        let whole = !self.grounds.policy.prefilter || unfinished.is_some();
        let pending = judge.and_then(|judge| {
            let judges = move || {
                let answer = match (glance, unfinished) {
                    (Some(glance), _) => judge.glance(&copy, &glance, prompt.as_deref(), &work),
                    (None, None) if whole => judge.inspect_whole(&copy, prompt.as_deref(), &work),
                    (None, None) => judge.inspect(&copy, prompt.as_deref(), &work),
                    (None, Some(kind)) => judge.inspect_unfinished(&copy, kind, prompt.as_deref(), &work),
                };
                (answer, milliseconds(began))
            };
            Ok(watchdog.begin(left, judges)?)
        });
        let (picture, revision) = (picture.clone(), constitution.revision());
        Judging { pending, call, picture, revision, glanced, whole, patience, began }
    }

    /// Where `words` are in `picture`.
    pub(crate) fn locate(
        &mut self,
        picture: &Picture,
        words: Vec<String>,
    ) -> Result<Vec<Detection>, Failure> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = self.patience();
        let min_confidence = self.grounds.policy.redaction.min_confidence as f32;
        let call = self.model_call(deadline);
        let (inspector, copy) = (self.deciding(&call)?, picture.clone());
        let work = call.clone();
        let located = self.services.watchdog.run(deadline, move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            inspector.locate(&copy, &words, min_confidence, &work)
        });
        call.cancel();
        Ok(located.map_err(Failure::from)??)
    }
}
