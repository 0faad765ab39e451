//! What the fronts share that judge pictures which a client brings.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cluegate_gate::{FindingRecord, Judgment, JudgmentRecord, OnUnsafe, Reason};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::de::DeserializeOwned;

use crate::app::{App, Brought};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::outcome::{DECISION_HEADER, Outcome, decision_header};
use crate::pictures::Format;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;

/// Pictures of one request that are in work at the same time. Each takes a place of its own, and a request with many is
/// not to crowd out others.
const AT_ONCE: usize = 4;

/// A problem, and the decisions that were taken before it.
#[derive(Debug)]
pub(super) struct Failed {
    problem: Problem,
    decided: Vec<Outcome>,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self { problem, decided: Vec::new() }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        with_decisions(self.problem.into_response(), &self.decided)
    }
}

/// Who asks, under which name, and until when.
pub(super) struct Asking<'a> {
    pub(super) app: &'a App,
    pub(super) client: &'a Client,
    pub(super) id: &'a RequestId,
    pub(super) deadline: Deadline,
    /// On behalf of whom, as far as the body says.
    pub(super) subject: Option<String>,
}

impl Asking<'_> {
    /// Judges a picture that is named as in [`crate::fetch::Fetcher::read`].
    ///
    /// # Errors
    /// If it cannot be read, or there is no verdict on it.
    async fn judge_named(&self, named: &str) -> Result<Outcome, Failed> {
        let picture = self.app.fetcher.read(named, self.deadline).await?;
        let (prompt, model, subject) = (String::new(), None, self.subject.clone());
        self.judge(Brought { picture, prompt, model, subject, format: Format::Png }).await
    }

    /// Judges a picture.
    ///
    /// # Errors
    /// If it is no picture, or there is no verdict on it.
    pub(super) async fn judge(&self, brought: Brought) -> Result<Outcome, Failed> {
        let outcome = self.app.judge(self.client, self.id.as_str(), self.deadline, brought).await?;
        match no_verdict(&outcome) {
            Some(kind) => Err(Failed {
                problem: Problem::new(kind, message_without_verdict(&outcome)),
                decided: vec![outcome],
            }),
            None => Ok(outcome),
        }
    }

    /// Judges all pictures, in order. One that cannot be judged fails the whole: a list with a gap has no place for it.
    ///
    /// # Errors
    /// If there are more than the tenant's policy allows, and as [`Asking::judge_named`].
    pub(super) async fn judge_all(&self, named: &[&str]) -> Result<Vec<Outcome>, Failed> {
        let most = self.policy(None)?.limits.max_pictures as usize;
        if named.len() > most {
            let message = format!("expected at most {most} pictures in one request, got {}", named.len());
            return Err(Problem::bad_request(message).into());
        }
        // Boxed one by one: of a closure the compiler cannot tell that it works for every lifetime.
        let mut judged: Vec<BoxFuture<'_, Result<Outcome, Failed>>> = Vec::new();
        for named in named {
            judged.push(Box::pin(self.judge_named(named)));
        }
        stream::iter(judged).buffered(AT_ONCE).try_collect().await
    }

    /// The tenant's policy for pictures of this model.
    ///
    /// # Errors
    /// `Forbidden` if it has none.
    pub(super) fn policy(&self, model: Option<&str>) -> Result<Arc<cluegate_gate::Policy>, Problem> {
        self.app.policy(&self.client.tenant, model)
    }
}

/// What the judge said of the picture as it came, before anything was hidden; none if it was not judged.
pub(super) fn judgment(outcome: &Outcome) -> Option<&JudgmentRecord> {
    let judgment = outcome.decision().attempts.last()?.judgment.as_ref()?;
    (judgment.verdict != Judgment::Error).then_some(judgment)
}

/// What the surest of the plugins that count says against the picture as it came; none if they let it pass.
pub(super) fn against_by_plugins(outcome: &Outcome) -> Option<&FindingRecord> {
    let found = outcome.decision().attempts.last()?.plugins.iter();
    let flagged = found.filter(|finding| finding.flagged && finding.on_unsafe != OnUnsafe::Note);
    flagged.max_by(|a, b| a.score.total_cmp(&b.score))
}

/// The verdict on the picture as it came, by the judge and by plugins; none if there is none.
pub(super) fn verdict(outcome: &Outcome) -> Option<Judgment> {
    if against_by_plugins(outcome).is_some() {
        return Some(Judgment::Unsafe);
    }
    judgment(outcome).map(|judgment| judgment.verdict)
}

/// The problem of a picture without a verdict. What a policy releases without one is no problem here.
fn no_verdict(outcome: &Outcome) -> Option<ProblemKind> {
    match outcome.reason() {
        Reason::Safe | Reason::Allowed | Reason::Shadow | Reason::Redacted | Reason::Unjudged => {
            // Released, but it could not be encoded.
            (!outcome.is_released()).then_some(ProblemKind::Internal)
        }
        Reason::Violation | Reason::TriesExhausted | Reason::RedactionFailed | Reason::HeldForReview => {
            verdict(outcome).is_none().then_some(ProblemKind::Internal)
        }
        Reason::JudgeError => Some(ProblemKind::JudgeFailed),
        Reason::JudgeTimeout | Reason::RequestTimeout | Reason::Cancelled => {
            Some(ProblemKind::DeadlineExceeded)
        }
        Reason::GeneratorFailure => Some(ProblemKind::BadRequest),
        Reason::Limit => Some(ProblemKind::TooLarge),
        Reason::LogFailure | Reason::SigningFailure | Reason::NotFinished | Reason::Preview => {
            Some(ProblemKind::Internal)
        }
    }
}

fn message_without_verdict(outcome: &Outcome) -> String {
    match outcome.reason() {
        // The client drew it, or whoever gave it to the client.
        Reason::GeneratorFailure => {
            "the picture shows nothing: it is one colour throughout, as a generator that failed leaves it"
                .to_owned()
        }
        Reason::Limit => "the picture has more pixels than the policy allows; send a smaller one".to_owned(),
        _ => outcome.message(),
    }
}

/// Names the decisions in the header of an answer.
pub(super) fn with_decisions<'a>(
    mut response: Response,
    outcomes: impl IntoIterator<Item = &'a Outcome>,
) -> Response {
    if let Some(header) = decision_header(outcomes) {
        response.headers_mut().insert(DECISION_HEADER, header);
    }
    response
}

/// Whether a body is of this type.
pub(super) fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let stated = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    stated.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

/// Reads a JSON body.
///
/// # Errors
/// `UnsupportedType`, `TooLarge`, and `BadRequest` if it is not of this form.
pub(super) async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    if !is_of_type(request.headers(), "application/json") {
        let message = "expected a body with `Content-Type: application/json`";
        return Err(Problem::new(ProblemKind::UnsupportedType, message));
    }
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| {
        let kind = match rejection.status().as_u16() {
            413 => ProblemKind::TooLarge,
            408 => ProblemKind::RequestTimeout,
            _ => ProblemKind::BadRequest,
        };
        Problem::new(kind, format!("the body could not be read: {}", rejection.body_text()))
    })?;
    // The parser's words name keys, types and places; a value that they quote is the client's own and is cut short.
    serde_json::from_slice(&body).map_err(|error| {
        let words: String = error.to_string().chars().take(300).collect();
        Problem::bad_request(format!("the body is not the JSON that is expected here: {words}"))
    })
}
