//! `cluegate constitution check`.

use cluegate_constitution::lint::{Finding, Level, Lint, SourceMap};
use cluegate_constitution::{Constitution, ConstitutionError};
use serde_json::{Value, json};

use super::Source;
use super::args::{CheckArgs, CheckFormat};
use super::examine::{Examination, examine};
use super::sarif;
use crate::cli::{Exit, say, say_json};

pub(super) fn run(arguments: &CheckArgs) -> anyhow::Result<Exit> {
    let source = Source::load(&arguments.constitution)?;
    let parsed = Constitution::parse(&source.text, &source.origin)
        .and_then(|constitution| constitution.with_parameters(&arguments.settings));
    let constitution = match parsed {
        Ok(constitution) => constitution,
        Err(error) => return refuse(arguments, &source, error),
    };
    let map = SourceMap::new(&source.text);
    let mut findings = constitution.lint(map.as_ref());
    let Examination { findings: examined, not_examined } = examine(arguments, &constitution, map.as_ref())?;
    findings.extend(examined.into_iter().filter(|finding| !constitution.allows(finding)));
    match arguments.format {
        CheckFormat::Text => print(arguments, &source, &constitution, (&findings, &not_examined))?,
        CheckFormat::Json => say_json(&json!({
            "constitution": constitution.name(),
            "origin": source.origin,
            "revision": constitution.revision(),
            "rules": constitution.rules().len(),
            "statements": statements(&constitution),
            "findings": findings,
            "not_examined": not_examined,
        }))?,
        CheckFormat::Sarif => say_json(&sarif::log(&source, &findings, &not_examined))?,
    }
    let least = if arguments.strict { Level::Note } else { Level::Warning };
    let found = findings.iter().any(|finding| finding.lint.level >= least);
    Ok(if found { Exit::Violation } else { Exit::Clean })
}

/// Reports a file that is no constitution.
fn refuse(arguments: &CheckArgs, source: &Source, error: ConstitutionError) -> anyhow::Result<Exit> {
    match arguments.format {
        CheckFormat::Text => return Err(error.into()),
        CheckFormat::Json => {
            let finding = json!({
                "code": Lint::INVALID.code,
                "name": Lint::INVALID.name,
                "level": Level::Error,
                "rule": Value::Null,
                "message": error.problem().to_string(),
                "region": error.line().map(|line| json!({"line": line})),
            });
            say_json(&json!({"origin": source.origin, "findings": [finding], "not_examined": []}))?;
        }
        CheckFormat::Sarif => say_json(&sarif::refusal(source, &error))?,
    }
    Ok(Exit::Error)
}

fn statements(constitution: &Constitution) -> usize {
    let links = constitution.rules().iter().flat_map(|rule| rule.preconditions.iter().chain(&rule.unless));
    links.map(|link| link.any.len()).sum()
}

fn print(
    arguments: &CheckArgs,
    source: &Source,
    constitution: &Constitution,
    (findings, not_examined): (&[Finding], &[String]),
) -> anyhow::Result<()> {
    let count = |level| findings.iter().filter(|finding| finding.lint.level == level).count();
    let (warnings, notes) = (count(Level::Warning), count(Level::Note));
    for finding in findings.iter().filter(|finding| arguments.strict || finding.lint.level > Level::Note) {
        let place = finding.region.map(|region| format!(":{}:{}", region.line, region.column));
        say(format_args!("{}{}: {finding}", source.origin, place.unwrap_or_default()))?;
        say(format_args!("  {}", finding.lint.mend))?;
    }
    say(format_args!(
        "{}: {} rules, {} statements, revision {}",
        constitution.name(),
        constitution.rules().len(),
        statements(constitution),
        constitution.revision()
    ))?;
    let shown = if notes > 0 && !arguments.strict { " (--strict shows them)" } else { "" };
    say(format_args!("{}, {}{shown}", number(warnings, "warning"), number(notes, "note")))?;
    if warnings > 0 {
        say(
            "`cluegate constitution explain CODE` says more; `allow = [\"name\"]` in the rule sets a lint aside",
        )?;
    }
    for what in not_examined {
        say(format_args!("not examined: {what}"))?;
    }
    Ok(())
}

/// `1 warning`, `2 warnings`.
pub(super) fn number(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
