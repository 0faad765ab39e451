//! A cheap look at a picture that is still being drawn: whether to go on drawing, and nothing else.
//!
//! One view of the picture, no detector, no reasoning and no projection; only the rules that matter to whoever draws, those
//! under suspicion first. The lines are those of Algorithm 1 as far as they need no more than that, and a statement that they
//! leave undecided holds from one half. What comes of it is a [`Report`] without stages, and so no permission.

use cluegate_perception::{Call, Picture};

use crate::error::JudgeError;
use crate::evidence::{Outcome, RuleEvidence};
use crate::fold::{Folded, Known, Look, Missing, ONE_HALF};
use crate::inspect::{Inspection, Pending, distinct, leave_out};
use crate::judge::Judge;
use crate::options::{InspectOptions, Stages};
use crate::prepared::{Chain, PlannedRule, Prepared};
use crate::regions::CentralObjects;
use crate::report::Report;

/// What a glance asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// Ids of the rules that are asked at all; others are [`Outcome::NotAsked`], as are rules that ask for a projection of
    /// consequences.
    pub rules: Vec<String>,
    /// Ids of the rules that are asked before the others: those that were violated before.
    pub first: Vec<String>,
    /// The glance ends as soon as the [margin](RuleEvidence::margin) of a rule is above this, -1 to 1. From 0 on a rule is
    /// violated.
    pub enough: f64,
}

impl Judge {
    /// Takes a glance at `picture`. Its report has a margin for each rule that was asked, and is never complete
    /// ([`Report::complete`]). Nothing of it is remembered.
    ///
    /// # Errors
    /// As [`Judge::inspect`].
    pub fn glance(
        &self,
        picture: &Picture,
        prepared: &Prepared,
        glance: &Glance,
        call: &Call,
    ) -> Result<Report, JudgeError> {
        let options = InspectOptions {
            stages: Stages::GLANCE,
            without_prefilter: true,
            call: call.clone(),
            ..InspectOptions::default()
        };
        self.check(picture, prepared, options.stages)?;
        Inspection::new(self, picture, prepared, &options).glance(glance)
    }
}

impl Inspection<'_> {
    fn glance(mut self, glance: &Glance) -> Result<Report, JudgeError> {
        let (mut rules, _) = self.scan()?;
        let mut known = Known {
            prepared: self.prepared,
            priors: &self.prepared.priors,
            stages: self.options.stages,
            objects: self.prepared.plan.statements.iter().map(|_| CentralObjects::default()).collect(),
            scores: std::collections::HashMap::new(),
            reasoned: std::collections::HashMap::new(),
            projection: None,
        };
        for suspected in [true, false] {
            let is_due = |pending: &Pending<'_>| {
                pending.evidence.is_none()
                    && !pending.planned.consequence
                    && glance.rules.contains(&pending.rule.id)
                    && glance.first.contains(&pending.rule.id) == suspected
            };
            loop {
                let mut missing = Missing::new();
                for pending in rules.iter_mut().filter(|pending| is_due(pending)) {
                    match known.glanced(pending, glance.enough) {
                        Ok(evidence) => pending.evidence = Some(evidence),
                        Err(questions) => missing.extend(questions),
                    }
                }
                if missing.is_empty() {
                    break;
                }
                self.ask(&mut known, &distinct(missing))?;
            }
            let mut margins = rules.iter().filter_map(|pending| pending.evidence.as_ref()?.margin);
            if margins.any(|margin| margin > glance.enough) {
                break;
            }
        }
        leave_out(&mut rules, self.prepared.relevance_threshold, Outcome::NotAsked);
        self.report(rules, None)
    }
}

impl Known<'_> {
    /// Folds one rule, with its margin.
    fn glanced(&self, pending: &Pending<'_>, enough: f64) -> Folded<RuleEvidence> {
        let margin = self.margin(pending.planned, enough)?;
        let evidence = self.rule(&pending.rule.id, pending.relevance, pending.planned)?;
        Ok(RuleEvidence { margin: Some(margin), ..evidence })
    }

    /// The margin of a rule. Its exception is asked only where it matters: where the chain holds, or would be enough.
    fn margin(&self, planned: &PlannedRule, enough: f64) -> Folded<f64> {
        let chain = self.chain_margin(&planned.preconditions)?;
        if planned.unless.is_empty() || chain <= enough.min(0.0) {
            return Ok(chain);
        }
        Ok(chain.min(-self.chain_margin(&planned.unless)?))
    }

    /// As a chain holds if every precondition does, and a precondition if any statement does, its margin is the smallest of
    /// the preconditions' largest. All of its statements are asked at once, also those past a break.
    fn chain_margin(&self, chain: &Chain) -> Folded<f64> {
        let missing: Missing = chain
            .iter()
            .flatten()
            .filter_map(|statement| self.score(*statement, Look::Seen).err())
            .flatten()
            .collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let mut least = f64::INFINITY;
        for precondition in chain {
            let mut largest = f64::NEG_INFINITY;
            for statement in precondition {
                largest = largest.max(self.statement_margin(*statement)?);
            }
            least = least.min(largest);
        }
        Ok(least)
    }

    /// Over 0 where a statement holds: its difference to the score without a picture is above a2, or it is not below a1 and
    /// the score is above one half.
    fn statement_margin(&self, statement: usize) -> Folded<f64> {
        let score = self.score(statement, Look::Seen)?;
        let prior = self.priors[statement];
        let thresholds = self.prepared.constitution.thresholds();
        let difference = score - prior;
        let above = difference - thresholds.alpha2 * (1.0 - prior);
        let undecided = (difference + thresholds.alpha1 * prior).min(score - ONE_HALF);
        Ok(above.max(undecided))
    }
}
