//! What a gate is for, counted: violations that prompts which tempt a generator get released, with the gate and without.
//!
//! Each prompt is drawn twice from the same seeds: once with nothing between generator and requester, once through the
//! gate, which may redraw, redact or withhold. Both times a referee judges what the requester gets. Only where the
//! referee is another judge than the gate's does it find what the gate overlooks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use cluegate_gate::{DrawOptions, Gate, GateError, Generator, GeneratorError, MemberOutcome, RequestInfo};
use cluegate_judge::{InspectOptions, Judge, JudgeError, Prepared};
use cluegate_perception::Picture;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::build::one;
use crate::data::PromptRow;
use crate::journal::{Journal, JournalError};
use crate::metrics::{Bootstrap, Confusion, Difference, Interval};

/// Name of the file of answers in the folder of a run.
pub const PROMPTS_FILE: &str = "prompts.jsonl";

/// Why prompts cannot be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PromptsError {
    /// The file of answers.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The gate refused the request as a whole: an unknown tenant, or over a limit.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The generator cannot draw with these options.
    #[error("the generator refused: {0}")]
    Generator(#[from] GeneratorError),
}

/// A list of prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptList {
    /// How tables call it.
    pub name: String,
    /// Its prompts.
    pub rows: Vec<PromptRow>,
}

/// Who judges what the requester gets.
#[derive(Clone, Copy)]
pub struct Referee<'a> {
    /// The judge.
    pub judge: &'a Judge,
    /// The rules that count.
    pub prepared: &'a Prepared,
}

impl Referee<'_> {
    /// The rules that a picture violates.
    ///
    /// # Errors
    /// The judge failed.
    fn violated(&self, picture: &Picture) -> Result<Vec<String>, JudgeError> {
        Ok(self.judge.inspect(picture, self.prepared, &InspectOptions::default())?.violated().to_vec())
    }
}

/// What is measured.
pub struct Asking<'a> {
    /// Who draws.
    pub generator: &'a dyn Generator,
    /// The gate.
    pub gate: &'a Gate,
    /// Whose policy decides.
    pub tenant: &'a str,
    /// Who judges what comes out.
    pub referee: Referee<'a>,
    /// Hash over all that answers depend on beside prompt and seed: generator, policy, judges, options.
    pub revision: String,
    /// Pictures of each prompt.
    pub pictures: u32,
    /// Seed of prompts for which the list names none.
    pub seed: u64,
    /// How is drawn.
    pub draw: DrawOptions,
}

/// What became of the pictures of one prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Pictures that the requester gets.
    pub released: u32,
    /// Those of them that violate a rule, by the referee.
    pub violations: u32,
    /// Pictures that are withheld or wait for a person.
    pub withheld: u32,
    /// Pictures of which nothing is known: they could not be drawn or judged.
    pub failed: u32,
    /// The rules that are violated in what is released.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rules: BTreeSet<String>,
}

/// The answer to one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptAnswer {
    /// The list.
    pub list: String,
    /// The prompt's id in it.
    pub id: String,
    /// See [`Asking::revision`], with the prompt and its seed.
    pub revision: String,
    /// Without a gate.
    pub without: Tally,
    /// Through the gate.
    pub with: Tally,
}

/// The figures of a group of prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptFigures {
    /// Prompts.
    pub prompts: usize,
    /// Violations released per prompt without the gate, with the 95 % interval.
    pub without: f64,
    /// Its interval over prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_interval: Option<Interval>,
    /// Violations released per prompt with the gate.
    pub with: f64,
    /// Its interval over prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_interval: Option<Interval>,
    /// With, less without.
    pub difference: Difference,
    /// Share of the pictures asked for that the requester gets with the gate.
    pub released: f64,
    /// Pictures that could not be drawn or judged, with and without the gate.
    pub failed: u32,
}

/// The figures of all lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptReport {
    /// Pictures of each prompt.
    pub pictures: u32,
    /// All prompts.
    pub all: PromptFigures,
    /// By list.
    pub by_list: BTreeMap<String, PromptFigures>,
    /// By category, as `list: category`; a prompt of several counts in each.
    pub by_category: BTreeMap<String, PromptFigures>,
}

/// Draws and judges every prompt of `lists` that has no answer in `folder` yet, and counts. Blank prompts are drawn as they
/// are: I2P has one. Calls `progress` after each.
///
/// # Errors
/// See [`PromptsError`].
pub fn run(
    lists: &[PromptList],
    asking: &Asking<'_>,
    (folder, bootstrap): (&Path, Bootstrap),
    mut progress: impl FnMut(),
) -> Result<PromptReport, PromptsError> {
    asking.generator.check(&asking.draw)?;
    let (mut journal, earlier) = Journal::open::<PromptAnswer>(folder, PROMPTS_FILE)?;
    let mut known: HashMap<(String, String, String), PromptAnswer> = earlier
        .into_iter()
        .map(|answer| ((answer.list.clone(), answer.id.clone(), answer.revision.clone()), answer))
        .collect();
    let mut answers = Vec::new();
    for list in lists {
        for row in &list.rows {
            let key = (list.name.clone(), row.id.clone(), asking.revision_of(row));
            let answer = match known.remove(&key) {
                Some(answer) => answer,
                None => {
                    let (list, id, revision) = key;
                    let (without, with) = (asking.without(row), asking.with(row)?);
                    let answer = PromptAnswer { list, id, revision, without, with };
                    // What failed is tried again by the next run.
                    if answer.without.failed + answer.with.failed == 0 {
                        journal.add(&answer)?
                    } else {
                        answer
                    }
                }
            };
            answers.push((row, answer));
            progress();
        }
    }
    Ok(count(&answers, asking.pictures, bootstrap))
}

impl Asking<'_> {
    fn seed_of(&self, row: &PromptRow) -> u64 {
        // Below 2^32, which every generator takes, with room for the seeds that follow.
        row.seed.unwrap_or(self.seed) & 0x7FFF_FFFF
    }

    fn revision_of(&self, row: &PromptRow) -> String {
        let (seed, pictures) = (self.seed_of(row).to_string(), self.pictures.to_string());
        let guidance = row.guidance.map_or_else(String::new, |guidance| guidance.to_bits().to_string());
        crate::methods::revision(&["prompts", &self.revision, &row.prompt, &seed, &pictures, &guidance])
    }

    fn options(&self, row: &PromptRow) -> DrawOptions {
        DrawOptions { guidance: self.draw.guidance.or(row.guidance), ..self.draw.clone() }
    }

    /// Without a gate: the requester gets whatever is drawn.
    fn without(&self, row: &PromptRow) -> Tally {
        let options = Arc::new(self.options(row));
        let mut tally = Tally::default();
        for member in 0..u64::from(self.pictures) {
            match one(self.generator, &row.prompt, self.seed_of(row) + member, &options) {
                Ok(picture) => self.judge(&picture, &mut tally),
                Err(reason) => {
                    tracing::warn!(prompt = row.id, reason, "not drawn");
                    tally.failed += 1;
                }
            }
        }
        tally
    }

    /// Through the gate.
    fn with(&self, row: &PromptRow) -> Result<Tally, PromptsError> {
        let request = RequestInfo::new(self.tenant, row.prompt.as_str(), self.seed_of(row), self.pictures);
        let mut tally = Tally::default();
        for outcome in self.gate.drive(self.generator, request, self.options(row))? {
            match &outcome {
                MemberOutcome::Released(picture) => self.judge(picture.picture(), &mut tally),
                MemberOutcome::Held(_) => tally.withheld += 1,
                MemberOutcome::Withheld(withheld) if withheld.reason().is_violation() => tally.withheld += 1,
                MemberOutcome::Withheld(withheld) => {
                    tracing::warn!(
                        prompt = row.id,
                        reason = withheld.message(),
                        "withheld without a verdict"
                    );
                    tally.failed += 1;
                }
            }
        }
        Ok(tally)
    }

    /// Counts a picture that the requester gets.
    fn judge(&self, picture: &Picture, tally: &mut Tally) {
        match self.referee.violated(picture) {
            Ok(violated) => {
                tally.released += 1;
                tally.violations += u32::from(!violated.is_empty());
                tally.rules.extend(violated);
            }
            Err(error) => {
                tracing::warn!(%error, "not judged");
                tally.failed += 1;
            }
        }
    }
}

fn count(answers: &[(&PromptRow, PromptAnswer)], pictures: u32, bootstrap: Bootstrap) -> PromptReport {
    let mut by_list: BTreeMap<String, Vec<&PromptAnswer>> = BTreeMap::new();
    let mut by_category: BTreeMap<String, Vec<&PromptAnswer>> = BTreeMap::new();
    for (row, answer) in answers {
        by_list.entry(answer.list.clone()).or_default().push(answer);
        for category in &row.categories {
            by_category.entry(format!("{}: {category}", answer.list)).or_default().push(answer);
        }
    }
    let all: Vec<&PromptAnswer> = answers.iter().map(|(_, answer)| answer).collect();
    let of = |groups: BTreeMap<String, Vec<&PromptAnswer>>| {
        groups.into_iter().map(|(name, group)| (name, figures(&group, pictures, bootstrap))).collect()
    };
    PromptReport {
        pictures,
        all: figures(&all, pictures, bootstrap),
        by_list: of(by_list),
        by_category: of(by_category),
    }
}

/// The figures of some prompts: a violation is a hit among the pictures asked for, and prompts are drawn anew.
fn figures(answers: &[&PromptAnswer], pictures: u32, bootstrap: Bootstrap) -> PromptFigures {
    let counted = |tally: &Tally| Confusion {
        true_positives: tally.violations as usize,
        false_negatives: pictures.saturating_sub(tally.violations) as usize,
        ..Confusion::default()
    };
    let pairs: Vec<(Confusion, Confusion)> =
        answers.iter().map(|answer| (counted(&answer.with), counted(&answer.without))).collect();
    let (with, without): (Vec<Confusion>, Vec<Confusion>) = pairs.iter().copied().unzip();
    // Recall is a share of the pictures asked for; figures are per prompt.
    let scale = f64::from(pictures);
    let mean = |counts: &[Confusion]| {
        let hits: usize = counts.iter().map(|count| count.true_positives).sum();
        if counts.is_empty() { 0.0 } else { hits as f64 / counts.len() as f64 }
    };
    let scaled = |interval: Option<[Interval; 1]>| interval.map(|[ends]| ends.map(|end| end * scale));
    let released: u32 = answers.iter().map(|answer| answer.with.released).sum();
    PromptFigures {
        prompts: answers.len(),
        without: mean(&without),
        without_interval: scaled(bootstrap.intervals(&without, [Confusion::recall])),
        with: mean(&with),
        with_interval: scaled(bootstrap.intervals(&with, [Confusion::recall])),
        difference: Difference {
            value: mean(&with) - mean(&without),
            interval: scaled(bootstrap.differences(&pairs, [Confusion::recall])),
        },
        released: f64::from(released) / (scale * answers.len() as f64).max(1.0),
        failed: answers.iter().map(|answer| answer.with.failed + answer.without.failed).sum(),
    }
}
