//! Judging again what an earlier report rests on, under other thresholds or rules, without the picture and the models.
//!
//! The fold is the one that judges pictures; only its answers come from evidence. Where it asks for an answer that the
//! evidence does not have, because the earlier judgment never needed it, that is said, and nothing is guessed.

use std::collections::HashMap;
use std::sync::Arc;

use cluegate_constitution::{Constitution, Thresholds};
use cluegate_perception::Region;

use crate::evidence::{FoundRegion, Outcome, RuleEvidence, StatementEvidence};
use crate::fold::{Known, Look, Question, Reasoned};
use crate::options::Stages;
use crate::prepared::{Plan, PlannedRule, Prepared};
use crate::regions::CentralObjects;
use crate::report::Models;

/// How a rule comes out of evidence.
#[derive(Debug, Clone, PartialEq)]
pub enum Refolded {
    /// As Algorithm 1 has it.
    Decided(RuleEvidence),
    /// The evidence does not suffice.
    Undecided {
        /// The rule.
        id: String,
        /// What is not known, each as a phrase.
        missing: Vec<String>,
    },
}

impl Refolded {
    /// The rule.
    pub fn id(&self) -> &str {
        match self {
            Self::Decided(evidence) => &evidence.id,
            Self::Undecided { id, .. } => id,
        }
    }

    /// Whether the rule is violated; none if that is not known.
    pub fn violated(&self) -> Option<bool> {
        match self {
            Self::Decided(evidence) => Some(evidence.outcome == Outcome::Violated),
            Self::Undecided { .. } => None,
        }
    }
}

/// Folds the evidence of a complete report under `constitution`. `judged_by` are the thresholds that the report was made
/// with, as far as they are known: without them, those by which objects count as found and as small are taken to be
/// the same.
///
/// Statements are known again by their text within a rule, rules by their id.
pub fn refold(
    constitution: &Arc<Constitution>,
    evidence: &[RuleEvidence],
    judged_by: Option<&Thresholds>,
) -> Vec<Refolded> {
    let plan = Plan::new(constitution);
    let by_rule: HashMap<&str, &RuleEvidence> =
        evidence.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    let statements = found_statements(constitution, &plan, &by_rule);
    let now = constitution.thresholds();
    let prepared = prepared(constitution, evidence, &statements, plan);
    let mut known = Known {
        prepared: &prepared,
        priors: &prepared.priors,
        stages: Stages::ALL,
        objects: Vec::new(),
        scores: HashMap::new(),
        reasoned: HashMap::new(),
        projection: evidence.iter().find_map(|rule| rule.projection.as_deref()).map(Arc::from),
    };
    let mut blind = vec![None; statements.len()];
    for (index, found) in statements.iter().enumerate() {
        let planned = &known.prepared.plan.statements[index];
        let objects = match found {
            Some(found) => objects(found, planned.words.len(), planned.consequence, now, judged_by),
            None => Ok(CentralObjects::default()),
        };
        let objects = objects.unwrap_or_else(|why| {
            blind[index] = Some(why);
            CentralObjects::default()
        });
        if let Some(found) = found.filter(|_| blind[index].is_none()) {
            answers(&mut known, index, found, objects.crop.is_some());
        }
        known.objects.push(objects);
    }
    let rules = constitution.rules().iter().zip(&known.prepared.plan.rules);
    rules
        .map(|(rule, planned)| fold_rule(&known, &rule.id, planned, by_rule.get(rule.id.as_str()), &blind))
        .collect()
}

fn fold_rule(
    known: &Known<'_>,
    id: &str,
    planned: &PlannedRule,
    evidence: Option<&&RuleEvidence>,
    blind: &[Option<&'static str>],
) -> Refolded {
    let undecided = |missing: Vec<String>| Refolded::Undecided { id: id.to_owned(), missing };
    let Some(evidence) = evidence else {
        return undecided(vec!["the rule itself: it was not judged then".to_owned()]);
    };
    let threshold =
        known.prepared.constitution.thresholds().relevance.unwrap_or(evidence.relevance_threshold);
    if evidence.relevance.is_some_and(|cosine| cosine < threshold) {
        return Refolded::Decided(RuleEvidence {
            id: id.to_owned(),
            relevance: evidence.relevance,
            relevance_threshold: threshold,
            outcome: Outcome::Irrelevant,
            projection: None,
            margin: None,
            preconditions: Vec::new(),
            unless: Vec::new(),
        });
    }
    if evidence.outcome == Outcome::Irrelevant {
        return undecided(vec!["its statements: the rule was irrelevant then".to_owned()]);
    }
    match known.rule(id, evidence.relevance, planned) {
        Ok(folded) => Refolded::Decided(RuleEvidence { relevance_threshold: threshold, ..folded }),
        Err(missing) => undecided(missing.iter().map(|question| phrase(known, question, blind)).collect()),
    }
}

fn phrase(known: &Known<'_>, question: &Question, blind: &[Option<&'static str>]) -> String {
    let (index, what) = match question {
        Question::Score(index, Look::Seen) => (*index, "the score"),
        Question::Score(index, Look::Whole) => (*index, "the score of the whole picture"),
        Question::Score(index, Look::Removed) => (*index, "the score without the objects"),
        Question::Reason(index) => (*index, "the reasoning"),
    };
    let text = known.prepared.plan.statements.get(index).map_or("", |statement| statement.text.as_str());
    match blind.get(index).copied().flatten() {
        Some(why) => format!("{what} of {text:?}: {why}"),
        None => format!("{what} of {text:?}"),
    }
}

/// For each statement of the plan what an earlier report has of it: where it was asked, if it was.
fn found_statements<'a>(
    constitution: &Constitution,
    plan: &Plan,
    by_rule: &HashMap<&str, &'a RuleEvidence>,
) -> Vec<Option<&'a StatementEvidence>> {
    let mut found: Vec<Option<&StatementEvidence>> = vec![None; plan.statements.len()];
    for (rule, planned) in constitution.rules().iter().zip(&plan.rules) {
        let Some(evidence) = by_rule.get(rule.id.as_str()) else { continue };
        let chains = evidence.preconditions.iter().chain(&evidence.unless);
        let told: Vec<&StatementEvidence> = chains.flat_map(|link| &link.statements).collect();
        for index in planned.preconditions.iter().chain(&planned.unless).flatten() {
            let text = &plan.statements[*index].text;
            let better = |old: &StatementEvidence, new: &StatementEvidence| told_of(new) > told_of(old);
            for statement in told.iter().filter(|statement| statement.text == *text) {
                if found[*index].is_none_or(|old| better(old, statement)) {
                    found[*index] = Some(statement);
                }
            }
        }
    }
    found
}

/// How many answers a statement's evidence has: the same statement may be decided in one rule and not needed in another.
fn told_of(statement: &StatementEvidence) -> usize {
    [statement.score, statement.score_whole_picture, statement.score_region_removed, statement.rating]
        .iter()
        .flatten()
        .count()
}

fn prepared(
    constitution: &Arc<Constitution>,
    evidence: &[RuleEvidence],
    statements: &[Option<&StatementEvidence>],
    plan: Plan,
) -> Prepared {
    let unknown = || "unknown".to_owned();
    Prepared {
        constitution: Arc::clone(constitution),
        models: Models { relevance: unknown(), detector: unknown(), judge: unknown() },
        templates: unknown(),
        rule_embeddings: Vec::new(),
        relevance_threshold: evidence.first().map_or(0.0, |rule| rule.relevance_threshold),
        plan,
        // Never read for a statement without evidence: its score is missing, and is asked for first.
        priors: statements.iter().map(|found| found.map_or(0.0, |found| found.score_without_image)).collect(),
    }
}

/// The central objects of a statement as the new thresholds have them.
///
/// # Errors
/// Why that is not known.
fn objects(
    found: &StatementEvidence,
    words: usize,
    consequence: bool,
    now: &Thresholds,
    judged_by: Option<&Thresholds>,
) -> Result<CentralObjects, &'static str> {
    let then = judged_by.unwrap_or(now);
    if now.detection_confidence < then.detection_confidence && found.region.len() < words {
        return Err("objects of less confidence were not looked for");
    }
    let kept: Vec<FoundRegion> =
        found.region.iter().filter(|region| region.confidence > now.detection_confidence).cloned().collect();
    // What was removed from the picture were all that were found then.
    if kept.len() != found.region.len() && found.score_region_removed.is_some() {
        return Err("other objects were removed");
    }
    let same = kept.len() == found.region.len()
        && now.small_object_area.to_bits() == then.small_object_area.to_bits();
    let small = match around(&kept).filter(|_| !consequence && words > 0 && kept.len() == words) {
        Some(_) if same => found.crop,
        Some(share) => share < now.small_object_area,
        None => false,
    };
    // Only whether there is a crop matters here, not which.
    let crop = small.then(|| kept.first().map(FoundRegion::region)).flatten();
    if small && !found.crop {
        return Err("the small objects were not looked at closely");
    }
    Ok(CentralObjects { found: kept, crop })
}

/// The share of the picture's area that the rectangle around all boxes covers.
fn around(found: &[FoundRegion]) -> Option<f64> {
    let first = found.first()?;
    let picture = f64::from(first.region().area()) / first.area_share;
    let around = found.iter().map(FoundRegion::region).reduce(|a, b| Region {
        left: a.left.min(b.left),
        top: a.top.min(b.top),
        right: a.right.max(b.right),
        bottom: a.bottom.max(b.bottom),
    })?;
    Some(f64::from(around.area()) / picture)
}

/// Makes the answers of the evidence known.
fn answers(known: &mut Known<'_>, index: usize, found: &StatementEvidence, crop: bool) {
    let (seen, whole) = match (found.crop, crop) {
        // Looked at closely then, and as a whole now.
        (true, false) => (found.score_whole_picture, None),
        (true, true) => (found.score, found.score_whole_picture),
        (false, _) => (found.score, None),
    };
    for (look, score) in
        [(Look::Seen, seen), (Look::Whole, whole), (Look::Removed, found.score_region_removed)]
    {
        if let Some(score) = score {
            known.scores.insert((index, look), score);
        }
    }
    // Reasoning looks at what the first lines look at.
    if let Some(rating) = found.rating.filter(|_| found.crop == crop) {
        let thought = found.thought.clone().unwrap_or_default();
        known.reasoned.insert(index, Reasoned { thought, rating, rationale: found.rationale.clone() });
    }
}
