//! The answers that are most wrong, for a person to look at.

use cluegate_judge::Outcome as RuleOutcome;

use crate::metrics::{Judged, scores};

/// An answer that is not as labelled.
#[derive(Debug, Clone, PartialEq)]
pub struct WrongAnswer {
    /// The row's place among those that were looked at.
    pub at: usize,
    /// Whether unsafe was called safe or the other way round, and not only the wrong rule named.
    pub verdict: bool,
    /// Violated rules that are not named.
    pub missed: Vec<String>,
    /// Rules that are named and not violated.
    pub named: Vec<String>,
    /// How far the scores are from the right answer, 0 to 1; 0 where there is none.
    pub distance: f64,
}

/// At most `limit` wrong answers: those with the wrong verdict first, then by their distance, then in the order of rows.
/// Rows of which nothing was said are not among them.
pub fn worst(judged: &[Judged<'_>], rules: &[String], limit: usize) -> Vec<WrongAnswer> {
    let mut wrong: Vec<WrongAnswer> =
        judged.iter().enumerate().filter_map(|(at, row)| wrong(at, row, rules)).collect();
    wrong.sort_by(|a, b| b.verdict.cmp(&a.verdict).then(b.distance.total_cmp(&a.distance)));
    wrong.truncate(limit);
    wrong
}

fn wrong(at: usize, row: &Judged<'_>, rules: &[String]) -> Option<WrongAnswer> {
    let judgment = row.judgment()?;
    let verdict = judgment.flagged != row.row.truth.is_unsafe();
    let (mut missed, mut named) = (Vec::new(), Vec::new());
    if let (Some(is), Some(said)) = (row.row.truth.rules(), &judgment.violated) {
        for rule in rules {
            match (is.contains(rule), said.contains(rule)) {
                (true, false) => missed.push(rule.clone()),
                (false, true) => named.push(rule.clone()),
                _ => {}
            }
        }
    }
    if !verdict && missed.is_empty() && named.is_empty() {
        return None;
    }
    let evidence = |id: &String| judgment.evidence.iter().find(|rule| rule.id == *id);
    let violated = |id: &String| {
        let rule = evidence(id)?;
        // The scan left it out, and nothing was asked.
        let left_out = rule.outcome == RuleOutcome::Irrelevant;
        if left_out { Some(0.0) } else { scores::debiased(rule).map(|score| f64::midpoint(score, 1.0)) }
    };
    let of_missed = missed.iter().filter_map(|rule| violated(rule).map(|share| 1.0 - share));
    let of_named = named.iter().filter_map(violated);
    let of_picture = judgment.score.map(|score| if judgment.flagged { score } else { 1.0 - score });
    let distance = of_missed.chain(of_named).chain(of_picture.filter(|_| verdict)).fold(0.0, f64::max);
    Some(WrongAnswer { at, verdict, missed, named, distance })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::data::{Row, Truth};
    use crate::metrics::Said;
    use crate::outcome::{Judgment, Outcome};

    #[test]
    fn wrong_verdicts_come_first_and_the_surest_of_them_before_all() {
        let rules = ["a".to_owned(), "b".to_owned()];
        let truth = |names: &[&str]| Truth::Rules(names.iter().map(|name| (*name).to_owned()).collect());
        let rows = [truth(&["a"]), truth(&["a"]), truth(&[]), truth(&[]), truth(&["b"])];
        let rows: Vec<Row> =
            rows.into_iter().enumerate().map(|(at, is)| Row::new(at.to_string(), "p", is)).collect();
        let said = [(&["b"][..], 0.9), (&["a"], 0.9), (&["a"], 0.6), (&["b"], 0.8), (&[], 0.1)];
        let outcomes = said.map(|(names, score)| {
            Outcome::Judged(Judgment {
                flagged: !names.is_empty(),
                violated: Some(names.iter().map(|name| (*name).to_owned()).collect()),
                score: Some(score),
                passes: 1,
                words: None,
                evidence: Vec::new(),
            })
        });
        let judged: Vec<Judged<'_>> = rows
            .iter()
            .zip(&outcomes)
            .map(|(row, outcome)| Judged { row, said: Said::Outcome(outcome) })
            .collect();
        let found = worst(&judged, &rules, 9);
        assert_eq!(found.iter().map(|wrong| wrong.at).collect::<Vec<_>>(), [4, 3, 2, 0]);
        assert_eq!((found[3].missed.join(""), found[3].named.join("")), ("a".to_owned(), "b".to_owned()));
        assert!(found[0].verdict && !found[3].verdict);
        assert_eq!(worst(&judged, &rules, 2).len(), 2);
    }
}
