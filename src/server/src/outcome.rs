//! What a client learns about one of its pictures.

use std::sync::Arc;

use axum::http::HeaderValue;
use cluegate_gate::{DecisionRecord, MemberOutcome, Outcome as Fate, Reason};
use serde_json::{Value, json};

use crate::pictures::{Format, Shown};
use crate::problem::{Problem, ProblemKind};
use crate::upstream::UpstreamError;

/// Header with id and reason code of every decision of a response, in order:
/// `ID;outcome=released;reason=safe, ID;outcome=withheld;reason=violation`.
pub(crate) const DECISION_HEADER: &str = "x-cluegate-decision";

/// What became of one picture, as far as the client may know.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    decision: Arc<DecisionRecord>,
    shown: Option<Shown>,
    evidence: bool,
}

impl Outcome {
    /// Encodes what the client gets of `outcome`; `evidence` says whether it may see the judge's. A released picture that
    /// cannot be encoded is not shown, and nothing stands in for it.
    pub(crate) fn new(outcome: &MemberOutcome, format: Format, evidence: bool) -> Self {
        let shown = match outcome {
            MemberOutcome::Released(picture) => Some(Shown::released(picture, format)),
            MemberOutcome::Withheld(withheld) => {
                withheld.placeholder().map(|placeholder| Shown::placeholder(placeholder, format))
            }
            MemberOutcome::Held(held) => {
                held.placeholder().map(|placeholder| Shown::placeholder(placeholder, format))
            }
        };
        let shown = shown.and_then(|shown| {
            shown.inspect_err(|problem| tracing::error!(%problem, "a picture is not shown")).ok()
        });
        Self { decision: Arc::clone(outcome.decision()), shown, evidence }
    }

    /// What became of a picture that was told of before, or of one that never came.
    pub(crate) fn decided(decision: Arc<DecisionRecord>, evidence: bool) -> Self {
        Self { decision, shown: None, evidence }
    }

    /// Whether the client gets its picture, redacted or not.
    pub(crate) fn is_released(&self) -> bool {
        self.decision.outcome == Fate::Released && self.shown.is_some()
    }

    /// Why it was decided so.
    pub(crate) fn reason(&self) -> Reason {
        self.decision.reason
    }

    /// Index of the picture in the request.
    pub(crate) fn member(&self) -> usize {
        self.decision.member as usize
    }

    /// Id of the decision in the log.
    pub(crate) fn decision_id(&self) -> &str {
        &self.decision.decision_id
    }

    /// The decision, for fronts that read figures from it. What of it may be told is in [`Outcome::report`].
    pub(crate) fn decision(&self) -> &DecisionRecord {
        &self.decision
    }

    /// The picture, or what stands in for it; nothing if the policy wants nothing to.
    pub(crate) fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// Seed of the attempt that was decided.
    pub(crate) fn seed(&self) -> u64 {
        let last = self.decision.attempts.last();
        last.map_or(self.decision.request.seed.wrapping_add(self.member() as u64), |attempt| attempt.seed)
    }

    /// A sentence for the client. The rules' own words are evidence, and told only to those who may see it.
    pub(crate) fn message(&self) -> String {
        if self.evidence {
            return self.decision.message.clone();
        }
        let general = match self.decision.reason {
            Reason::Safe | Reason::Allowed | Reason::Shadow | Reason::Preview => "the picture is released",
            Reason::Redacted => "the picture is released with regions hidden",
            Reason::Unjudged => "the picture is released without a verdict, as the policy says",
            Reason::HeldForReview => "the picture is kept for a person to look at",
            Reason::Violation | Reason::TriesExhausted | Reason::RedactionFailed => {
                "the picture is against the policy and was withheld"
            }
            Reason::JudgeError => {
                "the picture could not be judged and was withheld; this is no verdict on it"
            }
            Reason::JudgeTimeout => "the judge gave no verdict in time; the picture was withheld",
            Reason::GeneratorFailure => "the generator gave no usable picture",
            Reason::RequestTimeout => "the request took too long; the picture was withheld",
            Reason::Limit => "the picture is over a limit of the policy and was withheld",
            Reason::LogFailure => "the decision could not be recorded; the picture was withheld",
            Reason::SigningFailure => {
                "the picture's content credentials could not be signed and it was withheld; this is no violation"
            }
            Reason::NotFinished => "the picture was not finished",
            Reason::Cancelled => "the request was called off",
        };
        general.to_owned()
    }

    /// What the client may know, as JSON: `decision_id`, `member`, `outcome`, `reason`, `message`, `seed`, the number of
    /// `attempts`, what they `cost`, and the picture's `fidelity` to the prompt, null where it was not measured; and, if it may see
    /// evidence, `violated`, `action`, `evidence` (the judge's, of the last verdict) and, where plugins looked at the picture,
    /// `plugins` (what they say of it).
    pub(crate) fn report(&self) -> Value {
        let mut report = json!({
            "decision_id": self.decision_id(),
            "member": self.member(),
            "outcome": self.decision.outcome,
            "reason": self.reason().as_str(),
            "message": self.message(),
            "seed": self.seed(),
            "attempts": self.decision.attempts.len(),
            "cost": self.decision.cost,
            "fidelity": self.decision.fidelity,
        });
        if self.evidence {
            let attempt = self.decision.attempts.last();
            let judgment = attempt.and_then(|attempt| attempt.judgment.as_ref());
            report["violated"] = json!(self.decision.violated);
            report["action"] = json!(self.decision.action);
            report["evidence"] = judgment.and_then(|judgment| judgment.evidence.clone()).unwrap_or_default();
            if let Some(attempt) = attempt.filter(|attempt| !attempt.plugins.is_empty()) {
                report["plugins"] = json!(attempt.plugins);
            }
        }
        report
    }

    /// The problem that this is for a request of which nothing else came: none for a picture that was released, and none
    /// for one that was withheld because of what it shows, which is an answer and no failure.
    pub(crate) fn problem(&self) -> Option<ProblemKind> {
        match self.decision.reason {
            Reason::GeneratorFailure | Reason::NotFinished => Some(ProblemKind::UpstreamFailed),
            Reason::JudgeError => Some(ProblemKind::JudgeFailed),
            Reason::JudgeTimeout | Reason::RequestTimeout => Some(ProblemKind::DeadlineExceeded),
            Reason::Cancelled => Some(ProblemKind::Cancelled),
            Reason::LogFailure | Reason::SigningFailure => Some(ProblemKind::Internal),
            _ if self.decision.outcome == Fate::Released && self.shown.is_none() => {
                Some(ProblemKind::Internal)
            }
            _ => None,
        }
    }
}

/// All pictures of a request, in order, as many as were asked for.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) outcomes: Vec<Outcome>,
    /// What the upstream said the first time that it failed.
    pub(crate) failure: Option<UpstreamError>,
}

impl Finished {
    /// The problem of a request of which nothing came but failures. A request with at least one picture that was
    /// released, or withheld for what it shows, has none: there each picture speaks for itself.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let kinds: Option<Vec<ProblemKind>> = self.outcomes.iter().map(Outcome::problem).collect();
        let (kind, first) = (*kinds?.first()?, self.outcomes.first()?);
        Some(match &self.failure {
            Some(failure) if kind == ProblemKind::UpstreamFailed => failure.clone().into(),
            _ => Problem::new(kind, first.message()),
        })
    }
}

/// The value of [`DECISION_HEADER`] for these outcomes.
pub(crate) fn decision_header<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Option<HeaderValue> {
    let told = outcomes.into_iter().map(|outcome| {
        let fate = match outcome.decision.outcome {
            Fate::Released => "released",
            Fate::Withheld => "withheld",
            Fate::Held => "held",
        };
        format!("{};outcome={fate};reason={}", outcome.decision_id(), outcome.reason().as_str())
    });
    let told = told.collect::<Vec<_>>().join(", ");
    (!told.is_empty()).then(|| HeaderValue::try_from(told).ok()).flatten()
}
