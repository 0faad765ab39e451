//! What sections are made of: cells, matrices and sweeps from the figures of a report.

use std::collections::BTreeMap;

use cluegate_eval::metrics::{Histogram, Rates, ScoreKind};
use cluegate_eval::run::MethodReport;

use super::page::{Cell, Section, Table};
use super::plot::histogram;

/// A figure with its interval.
pub(super) fn rated(rates: &Rates, name: &str) -> Cell {
    Cell::figure(rates.figure(name), rates.intervals.get(name))
}

/// A figure's name for people.
pub(super) fn in_words(figure: &'static str) -> &'static str {
    match figure {
        "f1" => "F1",
        "balanced_accuracy" => "balanced accuracy",
        other => other,
    }
}

/// Rules of a heat map; the report has all.
const RULES: usize = 40;

/// The names of rows and columns, and how often a row's rule was taken for a column's.
pub(super) fn matrix(method: &MethodReport) -> (Vec<String>, Vec<Vec<usize>>) {
    const NONE: &str = "none";
    let rules = method.measures.by_rule.keys().take(RULES).cloned();
    let names: Vec<String> = rules.chain([NONE.to_owned()]).collect();
    let places: BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let place = |name: Option<&String>| places.get(name.map_or(NONE, String::as_str)).copied();
    let mut counts = vec![vec![0; names.len()]; names.len()];
    for (rule, rates) in &method.measures.by_rule {
        if let Some(at) = place(Some(rule)) {
            counts[at][at] = rates.counts.true_positives;
        }
    }
    if let Some(at) = place(None) {
        counts[at][at] = method.measures.image_level.counts.true_negatives;
    }
    for mistake in &method.measures.mistaken_rules {
        if let (Some(row), Some(column)) = (place(mistake.violated.as_ref()), place(mistake.named.as_ref())) {
            counts[row][column] += mistake.pictures;
        }
    }
    (names, counts)
}

/// The rules that are most often taken for another.
pub(super) fn mistakes(method: &MethodReport) -> Table {
    let mut table = Table::new("The most frequent", &["violated", "named", "pictures"]);
    for mistake in method.measures.mistaken_rules.iter().take(10) {
        let name = |rule: &Option<String>| rule.clone().unwrap_or_else(|| "none".to_owned());
        let cells = [Cell::text(name(&mistake.named)), Cell::text(mistake.pictures)];
        table.row(&name(&mistake.violated), cells);
    }
    table
}

/// Adds the plot of a histogram.
pub(super) fn spread(section: &mut Section, method: &str, shown: &Histogram) {
    let area = shown.area.map_or_else(String::new, |area| format!(" Area under the ROC curve: {area:.4}."));
    let (title, label, marks): (_, _, &[(f64, &str)]) = match shown.of {
        ScoreKind::Raw => ("chain scores without debiasing", "M(x, c) of the chain", &[(0.5, "0.5")]),
        ScoreKind::Debiased => {
            ("chain scores debiased", "debiased score of the chain", &[(-0.3, "a1"), (0.8, "a2")])
        }
        ScoreKind::Picture => ("scores of pictures", "score of the picture", &[(0.5, "0.5")]),
    };
    let svg = histogram(&format!("{method}: {title}"), label, shown, marks);
    let mut letters = title.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    section.plot(svg, format!("{first}{}.{area}", letters.as_str()));
}

/// The methods that are CLUE with another value of one threshold, by the threshold, in the order of its values; those with
/// at least two.
pub(super) fn swept(methods: &[MethodReport]) -> Vec<(String, Vec<(f64, &MethodReport)>)> {
    let mut by_name: BTreeMap<String, Vec<(f64, &MethodReport)>> = BTreeMap::new();
    for method in methods {
        let Some((name, value)) = method.method.strip_prefix("clue ").and_then(|rest| rest.split_once('='))
        else {
            continue;
        };
        if let Ok(value) = value.parse::<f64>() {
            by_name.entry(name.to_owned()).or_default().push((value, method));
        }
    }
    for points in by_name.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    by_name.into_iter().filter(|(_, points)| points.len() > 1).collect()
}
