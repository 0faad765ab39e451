//! What depends on the constitution and the models but on no picture, computed once.

use std::collections::HashMap;
use std::sync::Arc;

use cluegate_constitution::{Constitution, Precondition, Statement};
use cluegate_perception::Embedding;

use crate::report::Models;

/// A constitution made ready for one judge: rule embeddings, `M(None, c)` of every statement, and the distinct
/// statements and central words, so that what several rules share is asked once. Made by
/// [`Judge::prepare`](crate::Judge::prepare); cheap to share in an `Arc`.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) constitution: Arc<Constitution>,
    pub(crate) models: Models,
    pub(crate) templates: String,
    /// One for each rule.
    pub(crate) rule_embeddings: Vec<Embedding>,
    pub(crate) relevance_threshold: f32,
    pub(crate) plan: Plan,
    /// `M(None, c)`, one for each statement of the plan.
    pub(crate) priors: Vec<f64>,
}

impl Prepared {
    /// The constitution.
    pub fn constitution(&self) -> &Arc<Constitution> {
        &self.constitution
    }

    /// The cosine from which a rule is relevant: the constitution's, or the encoder's own.
    pub fn relevance_threshold(&self) -> f32 {
        self.relevance_threshold
    }

    /// `M(None, c)` of a statement of the constitution, by its text; that of its first rule, where one rule asks it after
    /// a projection of consequences and another does not.
    pub fn score_without_image(&self, statement: &str) -> Option<f64> {
        let index = self.plan.statements.iter().position(|planned| planned.text == statement)?;
        self.priors.get(index).copied()
    }
}

/// A chain by the indices of its statements: `chain[precondition][alternative]`.
pub(crate) type Chain = Vec<Vec<usize>>;

/// The constitution's chains over distinct statements and words.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) statements: Vec<PlannedStatement>,
    pub(crate) words: Vec<String>,
    pub(crate) rules: Vec<PlannedRule>,
}

/// A distinct statement: two with the same text but other central words are two, for they differ in region and crop, and
/// so are two of which only one is asked after a projection of consequences.
#[derive(Debug)]
pub(crate) struct PlannedStatement {
    pub(crate) text: String,
    /// Whether it belongs to a consequence rule.
    pub(crate) consequence: bool,
    /// Indices of its central words.
    pub(crate) words: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct PlannedRule {
    pub(crate) preconditions: Chain,
    pub(crate) unless: Chain,
    /// Whether the rule asks for a projection of consequences.
    pub(crate) consequence: bool,
}

impl Plan {
    /// Whether any rule asks for a projection of consequences.
    pub(crate) fn projects(&self) -> bool {
        self.rules.iter().any(|rule| rule.consequence)
    }

    pub(crate) fn new(constitution: &Constitution) -> Self {
        let mut planner = Planner::default();
        for rule in constitution.rules() {
            let consequence = rule.consequence;
            let preconditions = planner.chain(&rule.preconditions, consequence);
            let unless = planner.chain(&rule.unless, consequence);
            planner.plan.rules.push(PlannedRule { preconditions, unless, consequence });
        }
        planner.plan
    }
}

#[derive(Default)]
struct Planner {
    plan: Plan,
    statements: HashMap<(String, Vec<usize>, bool), usize>,
    words: HashMap<String, usize>,
}

impl Planner {
    fn chain(&mut self, chain: &[Precondition], consequence: bool) -> Chain {
        let mut link =
            |link: &Precondition| link.any.iter().map(|s| self.statement(s, consequence)).collect();
        chain.iter().map(&mut link).collect()
    }

    fn statement(&mut self, statement: &Statement, consequence: bool) -> usize {
        let words: Vec<usize> = statement.central.iter().map(|word| self.word(word)).collect();
        let statements = &mut self.plan.statements;
        *self.statements.entry((statement.text.clone(), words.clone(), consequence)).or_insert_with(|| {
            statements.push(PlannedStatement { text: statement.text.clone(), consequence, words });
            statements.len() - 1
        })
    }

    fn word(&mut self, word: &str) -> usize {
        let words = &mut self.plan.words;
        *self.words.entry(word.to_owned()).or_insert_with(|| {
            words.push(word.to_owned());
            words.len() - 1
        })
    }
}
