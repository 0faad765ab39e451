//! The table of `cluegate eval run`.

use cluegate_eval::metrics::{Grouping, Rates};
use cluegate_eval::run::MethodReport;

use super::measure::{RunReport, Times};
use crate::cli::say;

/// Failures that are shown; the report has all.
const FAILURES: usize = 5;

/// Mistaken rules that are shown.
const MISTAKES: usize = 5;

pub(super) fn print(report: &RunReport, times: &Times) -> anyhow::Result<()> {
    say(format_args!("{}, {} pictures\n", report.data.name, report.data.looked_at))?;
    say(format_args!(
        "{:24} {:>9} {:>7} {:>9} {:>8} {:>7} {:>15} {:>8} {:>8} {:>8}",
        "", "precision", "recall", "accuracy", "balanced", "F1", "95 % interval", "rule F1", "passes", "ms"
    ))?;
    for (method, time) in report.methods.iter().zip(times) {
        line(method, *time)?;
    }
    for method in &report.methods {
        details(method)?;
    }
    Ok(())
}

fn line(method: &MethodReport, time: Option<f64>) -> anyhow::Result<()> {
    let measures = &method.measures;
    let Rates { precision, recall, accuracy, balanced_accuracy, f1, intervals, .. } = &measures.image_level;
    let interval =
        intervals.get("f1").map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.3} - {high:.3}"));
    let rule_f1 = measures.rule_level.as_ref().and_then(|rates| rates.f1);
    say(format_args!(
        "{:24} {:>9} {:>7} {:>9} {:>8} {:>7} {interval:>15} {:>8} {:>8} {:>8}",
        method.method,
        figure(*precision),
        figure(*recall),
        figure(*accuracy),
        figure(*balanced_accuracy),
        figure(*f1),
        figure(rule_f1),
        measures.passes.map_or_else(|| "-".to_owned(), |passes| format!("{passes:.1}")),
        time.map_or_else(|| "known".to_owned(), |time| format!("{time:.0}")),
    ))?;
    Ok(())
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

fn details(method: &MethodReport) -> anyhow::Result<()> {
    let measures = &method.measures;
    say(format_args!("\n{}", method.method))?;
    for (rule, rates) in &measures.by_rule {
        say(format_args!(
            "  {rule:22} precision {}, recall {}, F1 {}",
            figure(rates.precision),
            figure(rates.recall),
            figure(rates.f1)
        ))?;
    }
    for grouping in measures.groupings.iter().filter(|grouping| grouping.by != "source x category") {
        means(grouping)?;
    }
    if let Some(scan) = &measures.scan {
        let recall = scan.recall.map_or_else(|| "-".to_owned(), |recall| format!("{:.1}", 100.0 * recall));
        let filtered = 100.0 * scan.filtered;
        say(format_args!(
            "  relevance scan: {recall} % of violated rules kept, {filtered:.1} % of all filtered"
        ))?;
    }
    if let Some(pairs) = &measures.pairs {
        let policies = pairs.by_policy.iter().map(|(name, accuracy)| format!("{name} {accuracy:.3}"));
        let levels = pairs.by_level.iter().map(|(name, accuracy)| format!("{name} {accuracy:.3}"));
        let each: Vec<String> = policies.chain(levels).collect();
        let each = if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) };
        say(format_args!("  pairs: {} of {} right{each}", figure(pairs.accuracy), pairs.pairs))?;
    }
    if let Some(recall) = measures.policy_exception_recall {
        say(format_args!("  policy exception recall: {recall:.3}"))?;
    }
    for mistake in measures.mistaken_rules.iter().take(MISTAKES) {
        let name = |rule: &Option<String>| rule.clone().unwrap_or_else(|| "none".to_owned());
        let (violated, named) = (name(&mistake.violated), name(&mistake.named));
        say(format_args!("  {violated} taken for {named}: {} picture(s)", mistake.pictures))?;
    }
    if measures.unparseable > 0 {
        say(format_args!("  no answer could be read: {} (counted as wrong)", measures.unparseable))?;
    }
    for failure in method.failures.iter().take(FAILURES) {
        say(format_args!("  failed: {failure}"))?;
    }
    let hidden = method.failures.len().saturating_sub(FAILURES);
    if hidden > 0 {
        say(format_args!("  and {hidden} more"))?;
    }
    Ok(())
}

fn means(grouping: &Grouping) -> anyhow::Result<()> {
    say(format_args!(
        "  by {}: F1 macro {}, pooled {}, with accuracy where nothing is unsafe {}",
        grouping.by,
        figure(grouping.macro_f1),
        figure(grouping.pooled_f1),
        figure(grouping.macro_f1_or_accuracy)
    ))?;
    Ok(())
}
