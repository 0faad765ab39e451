//! What another policy would have made of the decisions in a log.
//!
//! From the stored evidence alone, thresholds, rules and actions can be changed: the judge's own fold runs over the
//! recorded scores, and where another threshold asks for what was never asked, that is said. From the kept pictures
//! anything can be changed, for they are judged anew. Both take the policy as if it were enforced.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use cluegate_constitution::{Constitution, Thresholds};
use cluegate_gate::policy::{Action, AfterTries, Policy};
use cluegate_gate::{DecisionRecord, Inspector, JudgmentRecord, Outcome, Reason};
use cluegate_judge::{Refolded, RuleEvidence, refold};
use cluegate_perception::Call;
use serde::Serialize;

use crate::entry::{Entry, PictureRole};
use crate::error::Result;
use crate::places::LogPlaces;
use crate::query::Query;

/// Reasons for which evidence does not suffice that are counted one by one.
const MOST_REASONS: usize = 50;

/// A policy on trial.
pub struct Candidate<'a> {
    /// The policy: its actions, tries, and what follows the last.
    pub policy: &'a Policy,
    /// The constitution with the policy's rules and thresholds in place.
    pub constitution: Arc<Constitution>,
    /// Thresholds of constitutions that decisions may have been taken under, by revision.
    pub known: &'a BTreeMap<String, Thresholds>,
    /// Judges kept pictures; without it, stored evidence is folded anew.
    pub inspector: Option<&'a dyn Inspector>,
    /// Most examples of each kind of change and of each rule.
    pub examples: usize,
}

/// What would become of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The same.
    Same,
    /// It was released, and would be withheld.
    NewlyBlocked,
    /// It was released or withheld, and would be held for a person.
    NewlyHeld,
    /// It was withheld or held, and would be released.
    NewlyReleased,
    /// It would be drawn again, and nobody knows with what result.
    Redrawn,
    /// Something in it would be hidden, and nobody knows with what result.
    Redacted,
    /// What was kept does not suffice to say.
    Undecided,
    /// Nothing was judged: the generator failed, or the request ended before.
    NotJudged,
}

impl Change {
    /// Name as in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::NewlyBlocked => "newly-blocked",
            Self::NewlyHeld => "newly-held",
            Self::NewlyReleased => "newly-released",
            Self::Redrawn => "redrawn",
            Self::Redacted => "redacted",
            Self::Undecided => "undecided",
            Self::NotJudged => "not-judged",
        }
    }
}

/// How one rule fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// Pictures that it was violated by.
    pub then: u64,
    /// Pictures that it would be violated by.
    pub now: u64,
    /// Of those, pictures that it was not violated by.
    pub newly: u64,
    /// Pictures that it was violated by, and would not be.
    pub no_longer: u64,
    /// Pictures of which that cannot be said.
    pub undecided: u64,
    /// Decisions about some of the pictures that differ.
    pub examples: Vec<String>,
}

/// A decision that would be another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The decision.
    pub decision_id: String,
    /// Its request.
    pub request: String,
    /// The rules that would be violated.
    pub violated: Vec<String>,
    /// The rules that were.
    pub violated_then: Vec<String>,
}

/// What a policy on trial would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Name of the constitution.
    pub constitution: String,
    /// Its revision, the policy's thresholds included.
    pub revision: String,
    /// Decisions that were looked at.
    pub decisions: u64,
    /// Decisions by what would become of their pictures.
    pub changes: BTreeMap<&'static str, u64>,
    /// The rules.
    pub rules: BTreeMap<String, RuleChange>,
    /// Some decisions that would be others, by change.
    pub examples: BTreeMap<&'static str, Vec<Example>>,
    /// Why decisions are undecided, and how many.
    pub undecided: BTreeMap<String, u64>,
    /// Decisions under a revision whose thresholds are not known: those by which objects count as found and as small were
    /// taken to be the same.
    pub assumed: u64,
}

impl Replay {
    /// Decisions that would come out differently.
    pub fn differing(&self) -> u64 {
        let differing = [
            Change::NewlyBlocked,
            Change::NewlyHeld,
            Change::NewlyReleased,
            Change::Redrawn,
            Change::Redacted,
        ];
        differing.iter().filter_map(|change| self.changes.get(change.as_str())).sum()
    }
}

/// How the rules come out for one picture.
#[derive(Debug, Default)]
struct Verdict {
    violated: Vec<String>,
    /// Rules of which that cannot be said, with what is missing.
    undecided: BTreeMap<String, String>,
}

/// What would be done.
enum Future {
    Ends(Change),
    Undecided(String),
}

impl LogPlaces {
    /// Takes the decisions that `query` names once more, under a policy on trial. `progress` is told of every decision.
    /// Blocks; never call it on a thread of an asynchronous runtime.
    ///
    /// # Errors
    /// If the log cannot be read. A picture that is gone, or that there is no verdict on, leaves its decision undecided.
    pub fn replay(
        &self,
        query: &Query,
        candidate: &Candidate<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Replay> {
        let mut replay = Replay {
            constitution: candidate.constitution.name().to_owned(),
            revision: candidate.constitution.revision().to_hex(),
            ..Replay::default()
        };
        self.query(query, &mut |entry| {
            // A preview releases no picture.
            let record = entry.record()?;
            if record.reason != Reason::Preview {
                replay.decisions += 1;
                self.replay_one(&entry, &record, candidate, &mut replay);
                progress(replay.decisions);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(replay)
    }

    fn replay_one(
        &self,
        entry: &Entry,
        record: &DecisionRecord,
        candidate: &Candidate<'_>,
        replay: &mut Replay,
    ) {
        let (future, verdict) = match candidate.inspector {
            Some(inspector) => self.by_picture(entry, record, candidate, inspector),
            None => {
                let known = candidate.known.contains_key(&record.constitution.revision);
                let same = candidate.constitution.revision().to_hex() == record.constitution.revision;
                replay.assumed += u64::from(!known && !same);
                by_evidence(record, candidate)
            }
        };
        if let Some(verdict) = &verdict {
            count_rules(record, verdict, candidate, replay);
        }
        let change = match future {
            Future::Ends(change) => change,
            Future::Undecided(why) => {
                let why = if replay.undecided.len() < MOST_REASONS || replay.undecided.contains_key(&why) {
                    why
                } else {
                    "other reasons".to_owned()
                };
                *replay.undecided.entry(why).or_default() += 1;
                Change::Undecided
            }
        };
        *replay.changes.entry(change.as_str()).or_default() += 1;
        if !matches!(change, Change::Same | Change::NotJudged) {
            let examples = replay.examples.entry(change.as_str()).or_default();
            if examples.len() < candidate.examples {
                examples.push(Example {
                    decision_id: record.decision_id.clone(),
                    request: record.request.id.clone(),
                    violated: verdict.map(|verdict| verdict.violated).unwrap_or_default(),
                    violated_then: record.violated.clone(),
                });
            }
        }
    }

    /// Judges the picture that was kept.
    fn by_picture(
        &self,
        entry: &Entry,
        record: &DecisionRecord,
        candidate: &Candidate<'_>,
        inspector: &dyn Inspector,
    ) -> (Future, Option<Verdict>) {
        let kept = entry.pictures().into_iter().find(|kept| kept.role == PictureRole::Judged);
        let (Some(kept), Some(store)) = (kept, &self.pictures) else {
            if record.attempts.last().is_none_or(|attempt| attempt.picture.is_none()) {
                return (Future::Ends(Change::NotJudged), None);
            }
            return (Future::Undecided("its picture was not kept".to_owned()), None);
        };
        let picture = match store.read(&record.tenant, &kept) {
            Ok(picture) => picture,
            Err(_) => return (Future::Undecided("its picture is gone or cannot be opened".to_owned()), None),
        };
        let prompt = record.request.prompt.as_deref().filter(|prompt| !prompt.trim().is_empty());
        match inspector.inspect(&picture, prompt, &Call::default()) {
            Ok(report) => {
                let verdict = Verdict { violated: report.violated().to_vec(), undecided: BTreeMap::new() };
                let attempt = record.attempts.last().map_or(1, |attempt| attempt.attempt);
                (future(record, candidate, attempt, action(&verdict, candidate)), Some(verdict))
            }
            Err(problem) => {
                (Future::Undecided(format!("the judge gave no verdict ({})", problem.kind())), None)
            }
        }
    }
}

/// Folds the evidence of every attempt until one ends the request.
fn by_evidence(record: &DecisionRecord, candidate: &Candidate<'_>) -> (Future, Option<Verdict>) {
    let mut judged = record
        .attempts
        .iter()
        .filter_map(|attempt| Some((attempt.attempt, attempt.judgment.as_ref()?)))
        .peekable();
    if judged.peek().is_none() {
        return (Future::Ends(Change::NotJudged), None);
    }
    while let Some((attempt, judgment)) = judged.next() {
        let verdict = match verdict(record, judgment, candidate) {
            Ok(verdict) => verdict,
            Err(why) => return (Future::Undecided(why), None),
        };
        let strictest = action(&verdict, candidate);
        if let Some(why) = undecidable(&verdict, strictest, candidate) {
            return (Future::Undecided(why), Some(verdict));
        }
        // What was drawn after it tells how it went on.
        let again = strictest == Some(Action::Regenerate) && attempt < candidate.policy.tries;
        if again && judged.peek().is_some() {
            continue;
        }
        return (future(record, candidate, attempt, strictest), Some(verdict));
    }
    (Future::Ends(Change::NotJudged), None)
}

/// How the rules come out of one judgment's evidence.
fn verdict(
    record: &DecisionRecord,
    judgment: &JudgmentRecord,
    candidate: &Candidate<'_>,
) -> std::result::Result<Verdict, String> {
    if judgment.error.is_some() {
        return Err("there was no verdict".to_owned());
    }
    let evidence = judgment.evidence.as_ref().ok_or("its evidence was not kept")?;
    let whole = evidence.get("stages").and_then(|stages| stages.as_object());
    if whole.is_some_and(|stages| stages.values().any(|on| on.as_bool() == Some(false))) {
        return Err("a stage of the method was switched off".to_owned());
    }
    let rules = evidence.get("rules").cloned().unwrap_or_default();
    let rules: Vec<RuleEvidence> =
        serde_json::from_value(rules).map_err(|_| "its evidence is of another form".to_owned())?;
    let revision = &record.constitution.revision;
    let judged_by = candidate.known.get(revision);
    let mut verdict = Verdict::default();
    for refolded in refold(&candidate.constitution, &rules, judged_by) {
        match refolded {
            Refolded::Decided(_) => {
                if refolded.violated() == Some(true) {
                    verdict.violated.push(refolded.id().to_owned());
                }
            }
            Refolded::Undecided { id, missing } => {
                let first = missing.into_iter().next().unwrap_or_default();
                verdict.undecided.insert(id, first);
            }
        }
    }
    Ok(verdict)
}

/// The strictest action for the violated rules.
fn action(verdict: &Verdict, candidate: &Candidate<'_>) -> Option<Action> {
    verdict.violated.iter().map(|id| action_of(id, candidate)).max()
}

fn action_of(id: &str, candidate: &Candidate<'_>) -> Action {
    // As the gate has it: a rule that cannot be looked up is blocked.
    candidate
        .constitution
        .rule(id)
        .map_or(Action::Block, |rule| candidate.policy.actions.of(id, rule.severity))
}

/// Why the action may be stricter than is known.
fn undecidable(verdict: &Verdict, strictest: Option<Action>, candidate: &Candidate<'_>) -> Option<String> {
    let least = strictest.unwrap_or(Action::Allow);
    let bearing = verdict.undecided.iter().find(|(id, _)| action_of(id, candidate) > least);
    bearing.map(|(id, missing)| format!("{id} needs {missing}"))
}

/// What becomes of a picture at its `attempt`, and how that differs from what became of it.
fn future(
    record: &DecisionRecord,
    candidate: &Candidate<'_>,
    attempt: u32,
    strictest: Option<Action>,
) -> Future {
    let policy = candidate.policy;
    let was_redacted = matches!(record.reason, Reason::Redacted | Reason::RedactionFailed);
    let change = match strictest {
        None | Some(Action::Allow) => match record.outcome {
            Outcome::Released if record.reason != Reason::Redacted => Change::Same,
            _ => Change::NewlyReleased,
        },
        Some(Action::Redact) => {
            if was_redacted {
                Change::Same
            } else {
                Change::Redacted
            }
        }
        Some(Action::Regenerate) if attempt < policy.tries => Change::Redrawn,
        Some(Action::Regenerate) if policy.after_tries == AfterTries::Redact => {
            if was_redacted {
                Change::Same
            } else {
                Change::Redacted
            }
        }
        Some(Action::Hold) => {
            if record.outcome == Outcome::Held {
                Change::Same
            } else {
                Change::NewlyHeld
            }
        }
        Some(Action::Regenerate | Action::Block) => match record.outcome {
            Outcome::Withheld => Change::Same,
            Outcome::Released | Outcome::Held => Change::NewlyBlocked,
        },
    };
    Future::Ends(change)
}

fn count_rules(record: &DecisionRecord, verdict: &Verdict, candidate: &Candidate<'_>, replay: &mut Replay) {
    for rule in candidate.constitution.rules() {
        let id = &rule.id;
        let change = replay.rules.entry(id.clone()).or_default();
        let (then, now) = (record.violated.contains(id), verdict.violated.contains(id));
        change.then += u64::from(then);
        if verdict.undecided.contains_key(id) {
            change.undecided += 1;
            continue;
        }
        change.now += u64::from(now);
        change.newly += u64::from(now && !then);
        change.no_longer += u64::from(then && !now);
        if now != then && change.examples.len() < candidate.examples {
            change.examples.push(record.decision_id.clone());
        }
    }
    // Rules that the constitution on trial does not have.
    for id in record.violated.iter().filter(|id| candidate.constitution.rule(id).is_none()) {
        let change = replay.rules.entry(id.clone()).or_default();
        change.then += 1;
        change.no_longer += 1;
    }
}
