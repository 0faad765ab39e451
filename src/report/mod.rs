//! The demonstration's report: one self-contained page with what was drawn, what the judge saw in it, and what became
//! of it.

pub(crate) mod measured;

use std::collections::BTreeMap;
use std::io::Cursor;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluegate_gate::{AttemptRecord, JudgmentRecord, MemberOutcome, PreviewRecord};
use cluegate_judge::{FoundRegion, Outcome, RuleEvidence, StatementEvidence};
use cluegate_perception::Picture;
use image::{ImageFormat, RgbImage};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::cli::judge_words;

/// The pictures of one request that the decision log does not hold, by attempt.
#[derive(Debug, Default)]
pub(crate) struct Drawings {
    /// Finished pictures.
    pub(crate) finished: BTreeMap<u32, Picture>,
    /// The last preview that was judged.
    pub(crate) previews: BTreeMap<u32, Picture>,
}

/// The whole page.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) tally: Vec<Tally>,
    pub(crate) cases: Vec<Case>,
}

/// How often something happened, and where first.
#[derive(Debug, Serialize)]
pub(crate) struct Tally {
    pub(crate) label: &'static str,
    pub(crate) count: usize,
    pub(crate) anchor: String,
}

/// One request for one picture.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    number: usize,
    prompt: String,
    tenant: String,
    outcome: &'static str,
    reason: &'static str,
    message: String,
    marks: Vec<String>,
    attempts: Vec<Attempt>,
    after: Option<String>,
    after_caption: String,
    decision_id: String,
    timings: String,
}

#[derive(Debug, Serialize)]
struct Attempt {
    title: String,
    caption: String,
    picture: Option<String>,
    width: u32,
    height: u32,
    boxes: Vec<FoundRegion>,
    violated: Vec<String>,
    rules: Vec<Rule>,
    skipped: Vec<String>,
    cost: String,
}

#[derive(Debug, Serialize)]
struct Rule {
    id: String,
    outcome: &'static str,
    /// What a consequence rule's model said is likely to follow.
    projection: Option<String>,
    relevance: Option<f32>,
    relevance_threshold: f32,
    preconditions: Vec<Precondition>,
}

#[derive(Debug, Serialize)]
struct Precondition {
    statements: Vec<Statement>,
}

/// A statement as a bar: `reject` and `accept` are where the undecided zone begins and ends, in per cent.
#[derive(Debug, Serialize)]
struct Statement {
    text: String,
    score: f64,
    prior: f64,
    reject: f64,
    accept: f64,
    decided: &'static str,
    rationale: Option<String>,
}

impl Case {
    /// Tells the story of one outcome from its decision and the pictures that were kept beside it.
    pub(crate) fn new(
        number: usize,
        prompt: &str,
        outcome: &MemberOutcome,
        drawings: &Drawings,
    ) -> anyhow::Result<Self> {
        let decision = outcome.decision();
        let attempts: Vec<Attempt> = decision
            .attempts
            .iter()
            .map(|record| Attempt::new(record, drawings))
            .collect::<anyhow::Result<_>>()?;
        let (after, after_caption) = match outcome {
            MemberOutcome::Released(picture) if picture.is_redacted() => (
                Some(data_uri(picture.pixels())?),
                "The objects are hidden, and the result was judged again.",
            ),
            MemberOutcome::Released(picture) => {
                (Some(data_uri(picture.pixels())?), "The picture as it was drawn.")
            }
            MemberOutcome::Withheld(withheld) => match withheld.placeholder() {
                Some(placeholder) => (Some(data_uri(placeholder.pixels())?), "A placeholder and the reason."),
                None => (None, "The reason, and no picture."),
            },
            MemberOutcome::Held(_) => (None, "Nothing yet: a person looks at it first."),
        };
        Ok(Self {
            number,
            prompt: prompt.to_owned(),
            tenant: decision.tenant.clone(),
            outcome: match outcome {
                MemberOutcome::Released(_) => "released",
                MemberOutcome::Withheld(_) => "withheld",
                MemberOutcome::Held(_) => "held",
            },
            reason: decision.reason.as_str(),
            message: decision.message.clone(),
            marks: marks(outcome),
            attempts,
            after,
            after_caption: after_caption.to_owned(),
            decision_id: decision.decision_id.clone(),
            timings: format!(
                "{:.1} s in all, {:.2} s of them judging; constitution {} at revision {}.",
                decision.timings_ms.total / 1e3,
                decision.timings_ms.judging / 1e3,
                decision.constitution.name,
                decision.constitution.revision.chars().take(12).collect::<String>(),
            ),
        })
    }
}

/// What was special on the way to the outcome.
pub(crate) fn marks(outcome: &MemberOutcome) -> Vec<String> {
    let attempts = &outcome.decision().attempts;
    let mut marks = Vec::new();
    if attempts.iter().any(|attempt| attempt.previews.iter().any(|preview| preview.aborted)) {
        marks.push("stopped at a preview".to_owned());
    }
    if attempts.len() > 1 {
        marks.push(format!("drawn {} times", attempts.len()));
    }
    marks
}

impl Attempt {
    fn new(record: &AttemptRecord, drawings: &Drawings) -> anyhow::Result<Self> {
        let title = format!("Attempt {}", record.attempt);
        let abort = record.previews.iter().find(|preview| preview.aborted);
        let (picture, judgment) = match abort {
            Some(preview) => (drawings.previews.get(&record.attempt), Some(&preview.judgment)),
            None => (drawings.finished.get(&record.attempt), record.judgment.as_ref()),
        };
        let rules = judgment.map(rules_of).transpose()?.unwrap_or_default();
        let (skipped, told): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.outcome == Outcome::Irrelevant);
        Ok(Self {
            caption: caption(&title, record, abort),
            title,
            picture: picture.map(|picture| data_uri(picture.pixels())).transpose()?,
            width: picture.map_or(1, Picture::width),
            height: picture.map_or(1, Picture::height),
            boxes: boxes(&told),
            violated: judgment.map(|judgment| judgment.violated.clone()).unwrap_or_default(),
            skipped: skipped.into_iter().map(|rule| rule.id).collect(),
            rules: told.into_iter().map(Rule::from).collect(),
            cost: judgment.map_or_else(String::new, |judgment| format!("Judged in {:.0} ms.", judgment.ms)),
        })
    }
}

fn caption(title: &str, record: &AttemptRecord, abort: Option<&PreviewRecord>) -> String {
    let seed = record.seed;
    match (abort, &record.failure) {
        (Some(preview), _) => format!(
            "{title}, seed {seed}: stopped after step {} of {}; this is the preview that was judged.",
            preview.step, preview.total
        ),
        (None, Some(failure)) => format!("{title}, seed {seed}: {failure}"),
        (None, None) => format!("{title}, seed {seed}, {:.1} s.", record.ms / 1e3),
    }
}

fn rules_of(judgment: &JudgmentRecord) -> anyhow::Result<Vec<RuleEvidence>> {
    let rules = judgment.evidence.as_ref().and_then(|evidence| evidence.get("rules")).cloned();
    rules.map_or(Ok(Vec::new()), |rules| {
        serde_json::from_value(rules).context("the evidence of a decision does not have the form of evidence")
    })
}

/// The boxes of what made rules violated, each once.
fn boxes(rules: &[RuleEvidence]) -> Vec<FoundRegion> {
    let mut boxes: Vec<FoundRegion> = Vec::new();
    let violated = rules.iter().filter(|rule| rule.outcome == Outcome::Violated);
    let statements = violated.flat_map(|rule| &rule.preconditions).flat_map(|link| &link.statements);
    for region in statements.filter(|statement| statement.holds == Some(true)).flat_map(|s| &s.region) {
        if !boxes.contains(region) {
            boxes.push(region.clone());
        }
    }
    boxes
}

impl From<RuleEvidence> for Rule {
    fn from(rule: RuleEvidence) -> Self {
        let preconditions = rule.preconditions.into_iter().chain(rule.unless).filter_map(|precondition| {
            let statements: Vec<Statement> =
                precondition.statements.into_iter().filter_map(Statement::asked).collect();
            (!statements.is_empty()).then_some(Precondition { statements })
        });
        Self {
            preconditions: preconditions.collect(),
            outcome: match rule.outcome {
                Outcome::Irrelevant => "irrelevant",
                Outcome::NotViolated => "not_violated",
                Outcome::Violated => "violated",
                Outcome::Excepted => "excepted",
                Outcome::Cleared => "cleared",
                Outcome::NotAsked => "not_asked",
            },
            id: rule.id,
            projection: rule.projection,
            relevance: rule.relevance,
            relevance_threshold: rule.relevance_threshold,
        }
    }
}

impl Statement {
    /// The bar of a statement; none for one that was not reached.
    fn asked(evidence: StatementEvidence) -> Option<Self> {
        let prior = evidence.score_without_image;
        Some(Self {
            score: evidence.score?,
            prior,
            reject: 100.0 * (prior + evidence.alpha1).clamp(0.0, 1.0),
            accept: 100.0 * (prior + evidence.alpha2).clamp(0.0, 1.0),
            decided: judge_words(evidence.decided_by),
            rationale: evidence.rationale.or(evidence.thought),
            text: evidence.text,
        })
    }
}

/// A picture as a `data:` address.
fn data_uri(pixels: &RgbImage) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    pixels.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

/// Renders the page.
pub(crate) fn render(page: &Page) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report.html", include_str!("report.html"))?;
    Ok(environment.get_template("report.html")?.render(minijinja::value::Serde(page))?)
}
