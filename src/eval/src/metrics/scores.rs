//! Scores of rules from the evidence of their statements.

use std::collections::HashSet;

use cluegate_judge::{DecidedBy, PreconditionEvidence, RuleEvidence, StatementEvidence};

use super::histogram::{Histogram, ScoreKind, histogram};
use super::measures::Judged;
use super::{CurvePoint, curve};

/// `M(x, c)` of a chain: the lowest over the preconditions that were reached of the highest over their statements; `None`
/// where none was asked.
pub fn raw(rule: &RuleEvidence) -> Option<f64> {
    chain(&rule.preconditions, |statement| statement.score)
}

/// The same debiased: see [`ScoreKind::Debiased`].
pub fn debiased(rule: &RuleEvidence) -> Option<f64> {
    chain(&rule.preconditions, |statement| {
        let (score, prior) = (statement.score?, statement.score_without_image);
        let difference = score - prior;
        let room = if difference < 0.0 { prior } else { 1.0 - prior };
        Some(if room > 0.0 { (difference / room).clamp(-1.0, 1.0) } else { 0.0 })
    })
}

fn chain(
    preconditions: &[PreconditionEvidence],
    score: impl Fn(&StatementEvidence) -> Option<f64>,
) -> Option<f64> {
    let highest = |link: &PreconditionEvidence| link.statements.iter().filter_map(&score).reduce(f64::max);
    preconditions.iter().filter_map(highest).reduce(f64::min)
}

/// How many statements were decided by reasoning: one that stands in several rules is reasoned about once.
pub(super) fn cascades(rules: &[RuleEvidence]) -> usize {
    let links = rules.iter().flat_map(|rule| rule.preconditions.iter().chain(&rule.unless));
    let statements = links.flat_map(|link| &link.statements);
    let reasoned = statements.filter(|statement| statement.decided_by == DecidedBy::Reasoning);
    reasoned.map(|statement| statement.text.as_str()).collect::<HashSet<_>>().len()
}

/// How scores are spread: of pictures where the method gives one, of rules where it gives evidence.
pub(super) fn histograms(judged: &[Judged<'_>], rules: &[String]) -> Vec<Histogram> {
    let of_rules = |score: fn(&RuleEvidence) -> Option<f64>| -> Vec<(f64, bool)> {
        let mut scores = Vec::new();
        for row in judged {
            let (Some(is), Some(judgment)) = (row.row.truth.rules(), row.judgment()) else { continue };
            let counted = judgment.evidence.iter().filter(|evidence| rules.contains(&evidence.id));
            scores.extend(counted.filter_map(|rule| Some((score(rule)?, is.contains(&rule.id)))));
        }
        scores
    };
    let kinds = [
        (ScoreKind::Picture, of_pictures(judged)),
        (ScoreKind::Raw, of_rules(raw)),
        (ScoreKind::Debiased, of_rules(debiased)),
    ];
    kinds.into_iter().filter_map(|(of, scores)| histogram(of, &scores)).collect()
}

/// Recall and precision by threshold of the score of pictures.
pub(super) fn score_curve(judged: &[Judged<'_>]) -> Vec<CurvePoint> {
    curve(&of_pictures(judged))
}

fn of_pictures(judged: &[Judged<'_>]) -> Vec<(f64, bool)> {
    judged.iter().filter_map(|row| Some((row.judgment()?.score?, row.row.truth.is_unsafe()))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_judge::Outcome;

    use super::*;

    fn statement(score: Option<f64>, prior: f64) -> StatementEvidence {
        StatementEvidence {
            text: "a cat is visible".to_owned(),
            score,
            score_without_image: prior,
            alpha1: -0.3 * prior,
            alpha2: 0.8 * (1.0 - prior),
            crop: false,
            region: Vec::new(),
            score_whole_picture: None,
            score_region_removed: None,
            rating: None,
            decided_by: DecidedBy::AboveAlpha2,
            holds: Some(true),
            thought: None,
            rationale: None,
        }
    }

    fn rule(links: Vec<Vec<StatementEvidence>>) -> RuleEvidence {
        let link = |statements| PreconditionEvidence { satisfied: Some(true), statements };
        RuleEvidence {
            id: "r".to_owned(),
            relevance: None,
            relevance_threshold: 0.2,
            outcome: Outcome::Violated,
            projection: None,
            margin: None,
            preconditions: links.into_iter().map(link).collect(),
            unless: Vec::new(),
        }
    }

    #[test]
    fn a_chain_is_as_strong_as_its_weakest_link_and_a_link_as_its_strongest_statement() {
        let rule = rule(vec![
            vec![statement(Some(0.2), 0.5), statement(Some(0.9), 0.5)],
            vec![statement(Some(0.6), 0.2), statement(None, 0.2)],
            vec![statement(None, 0.2)],
        ]);
        assert_eq!(raw(&rule), Some(0.6));
        // 0.4 of the 0.8 that the prior leaves above itself, less than the 0.8 of the first link.
        assert!((debiased(&rule).unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn thresholds_stand_at_the_same_place_for_every_prior() {
        for prior in [0.05, 0.3, 0.61, 0.95] {
            let at =
                |distance: f64| debiased(&self::rule(vec![vec![statement(Some(prior + distance), prior)]]));
            assert!((at(-0.3 * prior).unwrap() + 0.3).abs() < 1e-9);
            assert!((at(0.8 * (1.0 - prior)).unwrap() - 0.8).abs() < 1e-9);
        }
        assert_eq!(debiased(&rule(vec![vec![statement(Some(0.0), 0.0)]])), Some(0.0));
        assert_eq!((raw(&rule(vec![])), debiased(&rule(vec![vec![statement(None, 0.1)]]))), (None, None));
    }
}
