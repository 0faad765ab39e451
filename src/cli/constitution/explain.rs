//! `cluegate constitution explain`: a rule in words, or a lint.

use std::fmt::Write as _;

use cluegate_constitution::lint::{Finding, LINTS, Lint, SourceMap};
use cluegate_constitution::{Constitution, Precondition, Rule, Statement, Thresholds, nearest};

use super::Source;
use super::args::ExplainArgs;
use crate::cli::say;

pub(super) fn run(arguments: &ExplainArgs) -> anyhow::Result<()> {
    if arguments.what == "lints" {
        for Lint { code, name, level, what, .. } in LINTS {
            say(format_args!("{code} {name} ({}): {what}", level.as_str()))?;
        }
        return Ok(());
    }
    if let Some(lint) = Lint::find(&arguments.what) {
        return Ok(say(lint_text(lint).trim_end())?);
    }
    let source = Source::load(&arguments.constitution)?;
    let constitution =
        Constitution::parse(&source.text, &source.origin)?.with_parameters(&arguments.settings)?;
    let rule = constitution.require_rule(&arguments.what).map_err(|error| {
        let like = nearest(&arguments.what, LINTS.iter().map(|lint| lint.name));
        let also = like.map(|lint| format!("; there is a lint `{lint}`")).unwrap_or_default();
        anyhow::anyhow!("{error}{also}")
    })?;
    let mut findings = constitution.lint(SourceMap::new(&source.text).as_ref());
    findings.retain(|finding| finding.rule == rule.id);
    Ok(say(rule_text(&constitution, rule, &findings).trim_end())?)
}

fn lint_text(lint: &Lint) -> String {
    let Lint { code, name, level, what, why, example, mend } = lint;
    format!(
        "{code} {name} ({})\n\n{what}\n\nWhy: {why}\n\nExample: {example}\n\nTo mend: {mend}\n",
        level.as_str()
    )
}

/// A rule in words. Writing to a text cannot fail, so what that returns is dropped.
fn rule_text(constitution: &Constitution, rule: &Rule, findings: &[Finding]) -> String {
    let mut out = String::new();
    let (severity, objectiveness) = (rule.severity.as_str(), rule.objectiveness);
    let _ = writeln!(
        out,
        "rule {} of {}: severity {severity}, objectiveness {objectiveness} of 10\n  {}\n",
        rule.id,
        constitution.name(),
        rule.text
    );
    out.push_str("It is violated if all of these hold, asked in this order:\n");
    chain(&mut out, &rule.preconditions);
    if !rule.unless.is_empty() {
        out.push_str("unless all of these hold too, asked after them:\n");
        chain(&mut out, &rule.unless);
    }
    if rule.consequence {
        out.push_str("The judge first says what is likely to follow from the picture, and asks in the light of that.\n");
    }
    out.push_str("\nWhat follows from the answers:\n");
    for (case, outcome) in cases(rule) {
        let _ = writeln!(out, "  {case}: {outcome}");
    }
    if !rule.parameters.is_empty() {
        out.push_str("\nIts numbers, for --set and for a policy:\n");
        for parameter in &rule.parameters {
            let (kind, unit) = (parameter.kind.as_str(), parameter.kind.unit());
            let _ = writeln!(
                out,
                "  {}.{} = {} ({kind}, {unit}), from {} to {}",
                rule.id, parameter.name, parameter.value, parameter.min, parameter.max
            );
        }
    }
    thresholds(&mut out, constitution.thresholds());
    out.push_str("\nLints:\n");
    for finding in findings {
        let Lint { code, name, level, .. } = finding.lint;
        let _ = writeln!(out, "  {} {code} {name}: {}", level.as_str(), finding.message);
    }
    if findings.is_empty() {
        out.push_str("  none\n");
    }
    out
}

fn chain(out: &mut String, links: &[Precondition]) {
    let written = |statement: &Statement| match statement.central.as_slice() {
        [] => statement.text.clone(),
        central => format!("{} (looked for: {})", statement.text, central.join(", ")),
    };
    for (index, link) in links.iter().enumerate() {
        match link.any.as_slice() {
            [one] => {
                let _ = writeln!(out, "  {}. {}", index + 1, written(one));
            }
            several => {
                let _ = writeln!(out, "  {}. one of:", index + 1);
                for (letter, statement) in ('a'..='z').cycle().zip(several) {
                    let _ = writeln!(out, "     {letter}. {}", written(statement));
                }
            }
        }
    }
}

/// `1`, `1 and 2`, `1 to 3`: the first `count` links.
fn first(count: usize) -> String {
    match count {
        1 => "1 holds".to_owned(),
        2 => "1 and 2 hold".to_owned(),
        more => format!("1 to {more} hold"),
    }
}

/// The truth table of a rule in words, one row for each way in which the questions can end.
fn cases(rule: &Rule) -> Vec<(String, String)> {
    let (links, exceptions) = (rule.preconditions.len(), rule.unless.len());
    let skipped = |from: usize, to: usize| match to.saturating_sub(from) {
        0 => String::new(),
        1 => format!("; {to} is not asked"),
        2 => format!("; {} and {to} are not asked", from + 1),
        _ => format!("; {} to {to} are not asked", from + 1),
    };
    let mut rows = Vec::new();
    for failing in 1..=links {
        let before = if failing == 1 { String::new() } else { format!("{}, ", first(failing - 1)) };
        let exception = if rule.unless.is_empty() { "" } else { "; the exception is not asked" };
        let rest = skipped(failing, links);
        rows.push((format!("{before}{failing} does not hold"), format!("not violated{rest}{exception}")));
    }
    if exceptions == 0 {
        rows.push((first(links), "VIOLATED".to_owned()));
        return rows;
    }
    for failing in 1..=exceptions {
        let before =
            if failing == 1 { String::new() } else { format!(" {} of the exception,", first(failing - 1)) };
        let rest = skipped(failing, exceptions);
        rows.push((
            format!("{},{before} {failing} of the exception does not", first(links)),
            format!("VIOLATED{rest}"),
        ));
    }
    rows.push((
        format!("{}, and so does the whole exception", first(links)),
        "not violated, by exception".to_owned(),
    ));
    rows
}

fn thresholds(out: &mut String, thresholds: &Thresholds) {
    let Thresholds { relevance, alpha1, alpha2, beta, detection_confidence, small_object_area } = thresholds;
    let relevance = match relevance {
        Some(cosine) => format!("{cosine}"),
        None => "the encoder's own threshold (0.22 for CLIP ViT-B/16)".to_owned(),
    };
    let _ = write!(
        out,
        "\nWhen the rule is asked: the cosine between picture and text is at least {relevance}.\n\
         When a statement holds (M: share of Yes for the picture; P: the same without a picture):\n  \
         M - P under -{alpha1} P: it does not hold\n  \
         M - P over {alpha2} (1 - P): it holds\n  \
         between: it holds if M falls by more than {beta} with the objects removed, or if reasoning says Yes\n  \
         objects count from confidence {detection_confidence}; where they take less than {} % of the picture, their crop \
         is looked at\n",
        (small_object_area * 1e4).round() / 100.0
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn explained(name: &str, rule: &str) -> String {
        let constitution = Constitution::shipped(name).unwrap();
        let mut findings = constitution.lint(None);
        findings.retain(|finding| finding.rule == rule);
        rule_text(&constitution, constitution.rule(rule).unwrap(), &findings)
    }

    #[test]
    fn rules_are_explained_as_reviewed() {
        insta::assert_snapshot!("explain-armed", explained("scene", "armed"));
        insta::assert_snapshot!("explain-severed-body-part", explained("general", "severed-body-part"));
        insta::assert_snapshot!("explain-spread-legs", explained("general", "spread-legs"));
    }

    #[test]
    fn every_way_to_end_has_a_row() {
        let rule = |links: usize, exceptions: usize| {
            let mut rule = Constitution::shipped("scene").unwrap().rule("gambling").unwrap().clone();
            rule.preconditions = vec![rule.preconditions[0].clone(); links];
            rule.unless = vec![rule.preconditions[0].clone(); exceptions];
            rule
        };
        for (links, exceptions) in [(1, 0), (3, 0), (1, 1), (2, 3)] {
            let rows = cases(&rule(links, exceptions));
            // One for each link that may be the first to fail, of both chains, and one where none does.
            assert_eq!(rows.len(), links + exceptions + 1);
            let violated = rows.iter().filter(|(_, outcome)| outcome.starts_with("VIOLATED")).count();
            assert_eq!(violated, exceptions.max(1));
        }
    }
}
