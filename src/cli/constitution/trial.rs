//! `cluegate constitution try`: one rule on a picture, or on a folder of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cluegate_eval::metrics::Confusion;
use cluegate_gate::{Inspector, JudgeProvider};
use cluegate_judge::{Outcome, PreconditionEvidence, RuleEvidence, StatementEvidence};
use cluegate_perception::{Call, DecodeOptions};
use serde::Serialize;
use serde_json::json;

use super::args::TryArgs;
use super::check::number;
use super::pictures_in;
use crate::cli::args::Format;
use crate::cli::judge::{decided, read_picture};
use crate::cli::{Exit, load_constitution, open_engine, progress, say, say_json};

/// Longest judgment of one picture before it is given up as an error.
const DEADLINE: Duration = Duration::from_secs(600);

/// What is known about a picture before it is judged, by the folder in which it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Truth {
    Violating,
    Safe,
}

/// What became of one picture.
#[derive(Debug, Serialize)]
struct Tried {
    picture: String,
    truth: Option<Truth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<RuleEvidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Tried {
    fn outcome(&self) -> Option<Outcome> {
        self.evidence.as_ref().map(|evidence| evidence.outcome)
    }
}

pub(super) fn run(arguments: &TryArgs) -> anyhow::Result<Exit> {
    let whole = load_constitution(&arguments.constitution)?.with_parameters(&arguments.settings)?;
    let constitution = whole.with_only(&arguments.rule)?;
    let pictures = find(&arguments.pictures)?;
    let beta = constitution.thresholds().beta;
    let inspector = open_engine(&arguments.models)?
        .judges(arguments.force)
        .with_rationale(true)
        .inspector(constitution)?;
    let bar = progress::bar(pictures.len() as u64, "judging");
    let mut all = Vec::with_capacity(pictures.len());
    for (path, truth) in &pictures {
        all.push(judge(path, *truth, arguments, &inspector));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let totals = Totals::of(&all);
    match (arguments.format, all.as_slice()) {
        (Format::Json, _) => say_json(&json!({
            "rule": arguments.rule,
            "text": inspector.constitution().rules().first().map(|rule| &rule.text),
            "constitution": whole.name(),
            "revision": whole.revision(),
            "pictures": all,
            "totals": totals.as_json(),
        }))?,
        (Format::Text, [one]) if !arguments.pictures.is_dir() => {
            steps(&arguments.rule, one, beta).iter().try_for_each(say)?;
        }
        (Format::Text, _) => table(&arguments.rule, &all, &totals).iter().try_for_each(say)?,
    }
    Ok(match () {
        () if totals.errors > 0 => Exit::Error,
        () if totals.violated > 0 => Exit::Violation,
        () => Exit::Clean,
    })
}

/// The pictures to try: a file; or those of a folder, and of its folders `violating` and `safe`.
fn find(path: &Path) -> anyhow::Result<Vec<(PathBuf, Option<Truth>)>> {
    if !path.is_dir() {
        return Ok(vec![(path.to_owned(), None)]);
    }
    let mut found: Vec<_> = pictures_in(path)?.into_iter().map(|picture| (picture, None)).collect();
    for (name, truth) in [("violating", Truth::Violating), ("safe", Truth::Safe)] {
        let folder = path.join(name);
        if folder.is_dir() {
            found.extend(pictures_in(&folder)?.into_iter().map(|picture| (picture, Some(truth))));
        }
    }
    if found.is_empty() {
        bail!(
            "there are no pictures in {}; expected PNG, JPEG, WebP, GIF or BMP files there, or in its folders \
             violating and safe",
            path.display()
        );
    }
    Ok(found)
}

fn judge(path: &Path, truth: Option<Truth>, arguments: &TryArgs, inspector: &Arc<dyn Inspector>) -> Tried {
    let judged = || -> anyhow::Result<RuleEvidence> {
        let options = DecodeOptions { convert: arguments.convert, ..DecodeOptions::default() };
        let picture = read_picture(path, &options)?;
        let call = Call::default().until(Instant::now() + DEADLINE);
        let report = inspector.inspect(&picture, arguments.prompt.as_deref(), &call)?;
        report.rules().first().cloned().context("the report has no rule")
    };
    let (evidence, error) = match judged() {
        Ok(evidence) => (Some(evidence), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Tried { picture: path.display().to_string(), truth, evidence, error }
}

/// How many pictures came out how.
#[derive(Debug, Default)]
struct Totals {
    pictures: usize,
    violated: usize,
    excepted: usize,
    not_violated: usize,
    irrelevant: usize,
    errors: usize,
    /// Of the pictures whose truth is known.
    known: Confusion,
}

impl Totals {
    fn of(all: &[Tried]) -> Self {
        let count = |outcome| all.iter().filter(|tried| tried.outcome() == outcome).count();
        let mut known = Confusion::default();
        for tried in all {
            if let (Some(truth), Some(outcome)) = (tried.truth, tried.outcome()) {
                known.add(outcome == Outcome::Violated, truth == Truth::Violating);
            }
        }
        Self {
            pictures: all.len(),
            violated: count(Some(Outcome::Violated)),
            excepted: count(Some(Outcome::Excepted)),
            not_violated: count(Some(Outcome::NotViolated)),
            irrelevant: count(Some(Outcome::Irrelevant)),
            errors: count(None),
            known,
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let Self { pictures, violated, excepted, not_violated, irrelevant, errors, known } = self;
        let known = (known.total() > 0).then(|| {
            json!({"pictures": known.total(), "precision": known.precision(), "recall": known.recall(),
                   "accuracy": known.accuracy()})
        });
        json!({"pictures": pictures, "violated": violated, "excepted": excepted, "not_violated": not_violated,
               "irrelevant": irrelevant, "errors": errors, "known": known})
    }

    fn lines(&self) -> Vec<String> {
        let Self { pictures, violated, excepted, not_violated, irrelevant, errors, known } = self;
        let mut out = vec![format!(
            "{}: {violated} violated, {not_violated} not violated, {excepted} excepted, {irrelevant} not relevant, {}",
            number(*pictures, "picture"),
            number(*errors, "error")
        )];
        if known.total() > 0 {
            out.push(format!(
                "of {} with known truth: precision {:.3}, recall {:.3}, accuracy {:.3}",
                number(known.total(), "picture"),
                known.precision(),
                known.recall(),
                known.accuracy()
            ));
        }
        out
    }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Irrelevant => "not relevant",
        Outcome::NotViolated => "not violated",
        Outcome::Violated => "VIOLATED",
        Outcome::Excepted => "not violated, by exception",
        Outcome::Cleared => "not asked: cleared by the pre-filter",
        Outcome::NotAsked => "not asked",
    }
}

/// One line for each picture: relevance, the links in their order, the outcome.
fn table(rule: &str, all: &[Tried], totals: &Totals) -> Vec<String> {
    let width = all.iter().map(|tried| tried.picture.chars().count()).max().unwrap_or_default().max(7);
    let mark = |link: &PreconditionEvidence| match link.satisfied {
        Some(true) => '+',
        Some(false) => '-',
        None => '.',
    };
    let mut out = vec![
        format!("rule {rule}; links: + holds, - does not, . not asked; behind | the exception"),
        format!("{:width$}  relevance  links", "picture"),
    ];
    for tried in all {
        let Some(evidence) = &tried.evidence else {
            out.push(format!(
                "{:width$}  error: {}",
                tried.picture,
                tried.error.as_deref().unwrap_or_default()
            ));
            continue;
        };
        let mut links: String = evidence.preconditions.iter().map(mark).collect();
        if !evidence.unless.is_empty() {
            links.push('|');
            links.extend(evidence.unless.iter().map(mark));
        }
        let relevance = evidence.relevance.map(|cosine| format!("{cosine:.3}")).unwrap_or_default();
        let wrong = match (tried.truth, evidence.outcome == Outcome::Violated) {
            (Some(Truth::Violating), false) => "  <- missed",
            (Some(Truth::Safe), true) => "  <- false alarm",
            _ => "",
        };
        let outcome = outcome_words(evidence.outcome);
        out.push(format!("{:width$}  {relevance:>9}  {links:8} {outcome}{wrong}", tried.picture));
    }
    out.extend(totals.lines());
    out
}

/// Everything that the judge saw in one picture, in its order.
fn steps(rule: &str, tried: &Tried, beta: f64) -> Vec<String> {
    let Some(evidence) = &tried.evidence else {
        return vec![format!("{}: error: {}", tried.picture, tried.error.as_deref().unwrap_or_default())];
    };
    let mut out = vec![format!("{}, rule {rule}: {}", tried.picture, outcome_words(evidence.outcome))];
    if let Some(cosine) = evidence.relevance {
        let irrelevant = evidence.outcome == Outcome::Irrelevant;
        let so = if irrelevant { "the rule is not asked" } else { "the rule is asked" };
        out.push(format!("  relevance {cosine:.3}, asked from {:.3}: {so}", evidence.relevance_threshold));
    }
    if let Some(projection) = &evidence.projection {
        out.push(format!("  likely to follow: {}", in_one_line(projection)));
    }
    for (what, chain) in [("link", &evidence.preconditions), ("exception", &evidence.unless)] {
        for (index, link) in chain.iter().enumerate() {
            let so = match link.satisfied {
                Some(true) => "holds",
                Some(false) => "does not hold",
                None => "is not asked",
            };
            out.push(format!("  {what} {} of {} {so}", index + 1, chain.len()));
            out.extend(link.statements.iter().flat_map(|statement| statement_steps(statement, beta)));
        }
    }
    out
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn statement_steps(statement: &StatementEvidence, beta: f64) -> Vec<String> {
    let mut out = vec![format!("    {}", statement.text)];
    let mut add = |line: String| out.push(format!("      {line}"));
    let prior = statement.score_without_image;
    let (low, high) = (prior + statement.alpha1, prior + statement.alpha2);
    let Some(score) = statement.score else {
        add(format!("not asked; without a picture {prior:.3}"));
        return out;
    };
    for found in &statement.region {
        add(format!(
            "{} at {:.0},{:.0} to {:.0},{:.0}: confidence {:.2}, {:.1} % of the picture",
            found.word,
            found.left,
            found.top,
            found.right,
            found.bottom,
            found.confidence,
            100.0 * found.area_share
        ));
    }
    let seen = if statement.crop { "the crop of its small objects" } else { "the picture" };
    add(format!(
        "{seen} {score:.3}, without a picture {prior:.3}: fails under {low:.3}, holds over {high:.3}"
    ));
    if let Some(removed) = statement.score_region_removed {
        let whole = statement.score_whole_picture.unwrap_or(score);
        add(format!(
            "with the objects removed {removed:.3}, from {whole:.3}: a fall of {:.3}, holds over {beta:.3}",
            whole - removed
        ));
    }
    if let Some(rating) = statement.rating {
        add(format!("reasoning says Yes to {rating:.3}, holds from 0.5"));
    }
    for (what, text) in [("thought", &statement.thought), ("rationale", &statement.rationale)] {
        if let Some(text) = text {
            add(format!("{what}: {}", in_one_line(text)));
        }
    }
    let holds = match statement.holds {
        Some(true) => "holds",
        Some(false) => "does not hold",
        None => "undecided",
    };
    add(format!("{holds}: {}", decided(statement.decided_by)));
    out
}
