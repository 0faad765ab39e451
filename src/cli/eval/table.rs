//! The table of `cluegate eval run`.

use std::fmt::Write as _;

use cluegate_eval::ablation::Agreement;
use cluegate_eval::costs::{Cost, Costs};
use cluegate_eval::metrics::{Difference, Grouping, Rates};
use cluegate_eval::report::{AblationReport, MethodDifference, RunReport};
use cluegate_eval::run::MethodReport;

/// Failures that are shown; the report has all.
const FAILURES: usize = 5;

/// Mistaken rules that are shown.
const MISTAKES: usize = 5;

/// The table of a run, without a line end at its end.
pub(crate) fn of(report: &RunReport, costs: &Costs) -> String {
    // Writing to a string does not fail.
    let mut text = String::new();
    let _ = writeln!(text, "{}, {} pictures\n", report.data.name, report.data.looked_at);
    let _ = writeln!(
        text,
        "{:24} {:>9} {:>7} {:>9} {:>8} {:>7} {:>15} {:>8} {:>8} {:>8}",
        "", "precision", "recall", "accuracy", "balanced", "F1", "95 % interval", "rule F1", "passes", "ms"
    );
    for method in &report.methods {
        line(&mut text, method, costs.of(&method.method, &method.revision));
    }
    differences(&mut text, &report.differences);
    ablations(&mut text, &report.ablations);
    for method in &report.methods {
        details(&mut text, method);
    }
    text.truncate(text.trim_end().len());
    text
}

fn line(text: &mut String, method: &MethodReport, cost: Option<Cost>) {
    let measures = &method.measures;
    let Rates { precision, recall, accuracy, balanced_accuracy, f1, intervals, .. } = &measures.image_level;
    let interval =
        intervals.get("f1").map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.3} - {high:.3}"));
    let rule_f1 = measures.rule_level.as_ref().and_then(|rates| rates.f1);
    let _ = writeln!(
        text,
        "{:24} {:>9} {:>7} {:>9} {:>8} {:>7} {interval:>15} {:>8} {:>8} {:>8}",
        method.method,
        figure(*precision),
        figure(*recall),
        figure(*accuracy),
        figure(*balanced_accuracy),
        figure(*f1),
        figure(rule_f1),
        measures.passes.map_or_else(|| "-".to_owned(), |passes| format!("{passes:.1}")),
        cost.map_or_else(|| "-".to_owned(), |cost| format!("{:.0}", cost.mean)),
    );
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// A difference with its sign.
pub(super) fn signed(value: f64) -> String {
    // Not "-0.000".
    let rounded = (value * 1e3).round() / 1e3 + 0.0;
    format!("{rounded:+.3}")
}

fn differences(text: &mut String, differences: &[MethodDifference]) {
    let Some(first) = differences.first() else { return };
    let _ =
        writeln!(text, "\nless {}, with 95 % intervals of the difference (paired bootstrap)", first.against);
    let _ = writeln!(text, "{:24} {:>24} {:>24} {:>24}", "", "recall", "F1", "rule F1");
    let cell = |difference: Option<&Difference>| match difference {
        Some(Difference { value, interval: Some([low, high]) }) => {
            format!("{} ({}, {})", signed(*value), signed(*low), signed(*high))
        }
        Some(difference) => signed(difference.value),
        None => "-".to_owned(),
    };
    for MethodDifference { method, differences, .. } in differences {
        let image = |name: &str| cell(differences.image_level.get(name));
        let (recall, f1, rule_f1) = (image("recall"), image("f1"), cell(differences.rule_level.get("f1")));
        let _ = writeln!(text, "{method:24} {recall:>24} {f1:>24} {rule_f1:>24}");
    }
}

fn ablations(text: &mut String, ablations: &[AblationReport]) {
    if ablations.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nwhat each part is worth: the figure without it, less the figure with it");
    for AblationReport { method, paper, ours, agreement } in ablations {
        let name = paper.map_or("f1", |paper| paper.figure);
        let ours = ours.map_or_else(|| "-".to_owned(), |ours| signed(ours.value));
        let paper = paper.map_or_else(
            || "the paper gives no figure for it alone".to_owned(),
            |paper| format!("{} in the paper ({})", signed(paper.without - paper.with), paper.what),
        );
        let agreement = agreement.map_or_else(String::new, |agreement| format!(": {}", in_words(agreement)));
        let _ = writeln!(text, "{method:24} {name:>8} {ours:>8}   {paper}{agreement}");
    }
}

/// Whether ours and the paper's difference go the same way.
pub(crate) fn in_words(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Same => "the same direction",
        Agreement::Opposite => "the other direction",
        Agreement::Unclear => "no clear difference here",
    }
}

fn details(text: &mut String, method: &MethodReport) {
    let measures = &method.measures;
    let _ = writeln!(text, "\n{}", method.method);
    for (rule, rates) in &measures.by_rule {
        let _ = writeln!(
            text,
            "  {rule:22} precision {}, recall {}, accuracy {}, F1 {}",
            figure(rates.precision),
            figure(rates.recall),
            figure(rates.accuracy),
            figure(rates.f1)
        );
    }
    for grouping in measures.groupings.iter().filter(|grouping| grouping.by != "source x category") {
        means(text, grouping);
    }
    if let Some(scan) = &measures.scan {
        let recall = scan.recall.map_or_else(|| "-".to_owned(), |recall| format!("{:.1}", 100.0 * recall));
        let filtered = 100.0 * scan.filtered;
        let _ = writeln!(
            text,
            "  relevance scan: {recall} % of violated rules kept, {filtered:.1} % of all filtered"
        );
    }
    if let Some(cascades) = measures.cascades {
        let _ = writeln!(text, "  reasoning: {cascades:.2} cascades a picture");
    }
    if let Some(pairs) = &measures.pairs {
        let policies = pairs.by_policy.iter().map(|(name, accuracy)| format!("{name} {accuracy:.3}"));
        let levels = pairs.by_level.iter().map(|(name, accuracy)| format!("{name} {accuracy:.3}"));
        let each: Vec<String> = policies.chain(levels).collect();
        let each = if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) };
        let _ = writeln!(text, "  pairs: {} of {} right{each}", figure(pairs.accuracy), pairs.pairs);
    }
    if let Some(recall) = measures.policy_exception_recall {
        let _ = writeln!(text, "  policy exception recall: {recall:.3}");
    }
    for mistake in measures.mistaken_rules.iter().take(MISTAKES) {
        let name = |rule: &Option<String>| rule.clone().unwrap_or_else(|| "none".to_owned());
        let (violated, named) = (name(&mistake.violated), name(&mistake.named));
        let _ = writeln!(text, "  {violated} taken for {named}: {} picture(s)", mistake.pictures);
    }
    failures(text, method);
}

fn failures(text: &mut String, method: &MethodReport) {
    if method.measures.unparseable > 0 {
        let count = method.measures.unparseable;
        let _ = writeln!(text, "  no answer could be read: {count} (counted as wrong)");
    }
    for failure in method.failures.iter().take(FAILURES) {
        let _ = writeln!(text, "  failed: {failure}");
    }
    let hidden = method.failures.len().saturating_sub(FAILURES);
    if hidden > 0 {
        let _ = writeln!(text, "  and {hidden} more");
    }
}

fn means(text: &mut String, grouping: &Grouping) {
    let _ = writeln!(
        text,
        "  by {}: F1 macro {}, pooled {}, with accuracy where nothing is unsafe {}",
        grouping.by,
        figure(grouping.macro_f1),
        figure(grouping.pooled_f1),
        figure(grouping.macro_f1_or_accuracy)
    );
}
