//! Algorithm 1 as a pure function: from the answers known so far to a rule's evidence, or to the questions that are
//! still missing.
//!
//! Within a precondition the cheap lines come first: all its statements are compared with `M(None, c)`, then those
//! undecided with the picture without their region, then by reasoning, each in order and only until one holds. For a
//! precondition of one statement this is Algorithm 1 to the letter; for several it spares the reasoning about one when
//! another already holds.

use std::collections::HashMap;
use std::sync::Arc;

use cluegate_constitution::Thresholds;

use crate::evidence::{DecidedBy, Outcome, PreconditionEvidence, RuleEvidence, StatementEvidence};
use crate::options::Stages;
use crate::prepared::{PlannedRule, Prepared};
use crate::regions::CentralObjects;

/// The score over which a statement holds where no line decides it.
pub(crate) const ONE_HALF: f64 = 0.5;

/// Which picture a statement is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    /// The picture, or the crop of small central objects.
    Seen,
    /// The whole picture, where `Seen` is a crop.
    Whole,
    /// The picture with the central objects removed.
    Removed,
}

/// A question about a statement, by its index in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Its score.
    Score(usize, Look),
    /// The two-turn reasoning.
    Reason(usize),
}

/// The answer of a reasoning cascade.
#[derive(Debug, Clone)]
pub(crate) struct Reasoned {
    pub(crate) thought: String,
    /// Probability of Yes against No, 0 to 1.
    pub(crate) rating: f64,
    pub(crate) rationale: Option<String>,
}

impl Reasoned {
    /// An exact tie counts as Yes: of two equal answers the one that does not release the picture.
    pub(crate) fn yes(&self) -> bool {
        self.rating >= 0.5
    }
}

/// What is known of one picture.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) prepared: &'a Prepared,
    /// What each statement is scored without what is judged.
    pub(crate) priors: &'a [f64],
    pub(crate) stages: Stages,
    /// One for each statement of the plan; those of irrelevant rules may be empty.
    pub(crate) objects: Vec<CentralObjects>,
    pub(crate) scores: HashMap<(usize, Look), f64>,
    pub(crate) reasoned: HashMap<usize, Reasoned>,
    /// What is likely to follow from the picture, if a relevant rule asks for it.
    pub(crate) projection: Option<Arc<str>>,
}

/// Answers that could not be found. The fold asks for one as soon as the algorithm reaches it, and not before.
pub(crate) type Missing = Vec<Question>;

pub(crate) type Folded<T> = Result<T, Missing>;

impl Known<'_> {
    fn thresholds(&self) -> &Thresholds {
        self.prepared.constitution.thresholds()
    }

    pub(crate) fn score(&self, statement: usize, look: Look) -> Folded<f64> {
        self.scores.get(&(statement, look)).copied().ok_or_else(|| vec![Question::Score(statement, look)])
    }

    /// Folds one relevant rule.
    pub(crate) fn rule(
        &self,
        id: &str,
        relevance: Option<f32>,
        planned: &PlannedRule,
    ) -> Folded<RuleEvidence> {
        let (holds, preconditions) = self.chain(&planned.preconditions)?;
        let (excepted, unless) = if holds && !planned.unless.is_empty() {
            self.chain(&planned.unless)?
        } else {
            (false, Vec::new())
        };
        let outcome = match (holds, excepted) {
            (false, _) => Outcome::NotViolated,
            (true, true) => Outcome::Excepted,
            (true, false) => Outcome::Violated,
        };
        Ok(RuleEvidence {
            id: id.to_owned(),
            relevance,
            relevance_threshold: self.prepared.relevance_threshold,
            outcome,
            projection: self.projection.as_deref().filter(|_| planned.consequence).map(str::to_owned),
            margin: None,
            preconditions,
            unless,
        })
    }

    /// A chain holds if every precondition does; what follows the first that does not is not reached.
    fn chain(&self, chain: &[Vec<usize>]) -> Folded<(bool, Vec<PreconditionEvidence>)> {
        let mut holds = true;
        let mut evidence = Vec::with_capacity(chain.len());
        for statements in chain {
            if holds {
                let precondition = self.precondition(statements)?;
                holds = precondition.satisfied == Some(true);
                evidence.push(precondition);
            } else {
                let statements = statements.iter().map(|index| self.unreached(*index)).collect();
                evidence.push(PreconditionEvidence { satisfied: None, statements });
            }
        }
        Ok((holds, evidence))
    }

    fn precondition(&self, indices: &[usize]) -> Folded<PreconditionEvidence> {
        let missing: Missing =
            indices.iter().filter_map(|index| self.score(*index, Look::Seen).err()).flatten().collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let mut statements =
            indices.iter().map(|index| self.first_lines(*index)).collect::<Folded<Vec<_>>>()?;
        let mut satisfied = statements.iter().any(|statement| statement.holds == Some(true));
        for line in [Self::region_line, Self::reasoning_line] {
            for (index, statement) in indices.iter().zip(&mut statements) {
                if !satisfied && statement.holds.is_none() {
                    line(self, *index, statement)?;
                    satisfied = statement.holds == Some(true);
                }
            }
        }
        Ok(PreconditionEvidence { satisfied: Some(satisfied), statements })
    }

    fn unreached(&self, index: usize) -> StatementEvidence {
        let prior = self.priors[index];
        let thresholds = self.thresholds();
        StatementEvidence {
            text: self.prepared.plan.statements[index].text.clone(),
            score: None,
            score_without_image: prior,
            alpha1: -thresholds.alpha1 * prior,
            alpha2: thresholds.alpha2 * (1.0 - prior),
            crop: false,
            region: Vec::new(),
            score_whole_picture: None,
            score_region_removed: None,
            rating: None,
            decided_by: DecidedBy::NotNeeded,
            holds: None,
            thought: None,
            rationale: None,
        }
    }

    /// The lines with a1 and a2, of the crop if the objects are small.
    fn first_lines(&self, index: usize) -> Folded<StatementEvidence> {
        let score = self.score(index, Look::Seen)?;
        let objects = &self.objects[index];
        let mut statement = self.unreached(index);
        statement.score = Some(score);
        statement.crop = objects.crop.is_some();
        statement.region.clone_from(&objects.found);
        let difference = score - statement.score_without_image;
        if !self.stages.debias {
            decide(&mut statement, DecidedBy::Score, score > ONE_HALF);
        } else if self.stages.no_image_comparison && difference < statement.alpha1 {
            decide(&mut statement, DecidedBy::BelowAlpha1, false);
        } else if self.stages.no_image_comparison && difference > statement.alpha2 {
            decide(&mut statement, DecidedBy::AboveAlpha2, true);
        }
        Ok(statement)
    }

    /// The line with b: always of the whole picture, since a region is removed from it. Not for a statement that follows a
    /// projection: that was told of the picture as it is, and would go on telling of what is removed.
    fn region_line(&self, index: usize, statement: &mut StatementEvidence) -> Folded<()> {
        let follows_projection = self.prepared.plan.statements[index].consequence;
        if !self.stages.region_comparison || statement.region.is_empty() || follows_projection {
            return Ok(());
        }
        let removed = self.score(index, Look::Removed);
        let whole =
            if statement.crop { self.score(index, Look::Whole) } else { self.score(index, Look::Seen) };
        let (whole, removed) = match (whole, removed) {
            (Ok(whole), Ok(removed)) => (whole, removed),
            (whole, removed) => {
                return Err(whole.err().into_iter().chain(removed.err()).flatten().collect());
            }
        };
        statement.score_whole_picture = statement.crop.then_some(whole);
        statement.score_region_removed = Some(removed);
        if whole - removed > self.thresholds().beta {
            decide(statement, DecidedBy::Region, true);
        }
        Ok(())
    }

    /// The last line, which decides either way.
    fn reasoning_line(&self, index: usize, statement: &mut StatementEvidence) -> Folded<()> {
        if !self.stages.reasoning {
            let yes = statement.score.is_some_and(|score| score > ONE_HALF);
            decide(statement, DecidedBy::Score, yes);
            return Ok(());
        }
        let reasoned = self.reasoned.get(&index).ok_or_else(|| vec![Question::Reason(index)])?;
        statement.rating = Some(reasoned.rating);
        statement.thought = Some(reasoned.thought.clone());
        statement.rationale.clone_from(&reasoned.rationale);
        decide(statement, DecidedBy::Reasoning, reasoned.yes());
        Ok(())
    }
}

fn decide(statement: &mut StatementEvidence, line: DecidedBy, holds: bool) {
    statement.decided_by = line;
    statement.holds = Some(holds);
}
