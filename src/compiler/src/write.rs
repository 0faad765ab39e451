//! A compiled rule as it stands in a constitution file.

use std::fmt::Write as _;

use cluegate_constitution::{Parameter, Severity};
use toml::Value;

use crate::compilation::{Compiled, Link};

/// Characters of a source that its comment shows.
const SHOWN: usize = 300;

/// A rule in TOML, with a comment that names its source; ends with a line break.
pub(crate) fn rule(rule: &Compiled) -> String {
    let mut text = String::new();
    let mut shown: String = rule.source.text.chars().take(SHOWN).collect();
    if rule.source.text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    let _ = write!(
        text,
        "# Line {} of the prose: {shown}\n[[rule]]\nid = {}\ntext = {}\nobjectiveness = {}\nseverity = {}\n",
        rule.source.line,
        string(&rule.id),
        string(&rule.text),
        rule.objectiveness,
        severity(rule.severity),
    );
    for parameter in &rule.parameters {
        write_parameter(&mut text, parameter);
    }
    for (key, chain) in [("precondition", &rule.preconditions), ("unless", &rule.unless)] {
        for link in chain {
            write_link(&mut text, key, link);
        }
    }
    text
}

/// The head of a constitution file; `notes` are lines of a comment.
pub(crate) fn head(name: &str, description: &str, notes: &[String]) -> String {
    let mut text = String::new();
    for note in notes {
        let _ = writeln!(text, "# {}", note.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let _ = writeln!(text, "name = {}\ndescription = {}", string(name), string(description));
    text
}

fn write_parameter(text: &mut String, parameter: &Parameter) {
    let Parameter { name, kind, value, min, max } = parameter;
    let kind = string(kind.as_str());
    let _ =
        write!(text, "[rule.parameter.{name}]\nkind = {kind}\nvalue = {value}\nmin = {min}\nmax = {max}\n");
}

fn write_link(text: &mut String, key: &str, link: &Link) {
    let statements: Vec<String> = link
        .iter()
        .map(|statement| {
            let words: Vec<String> = statement.central.iter().map(|word| string(word)).collect();
            let central =
                if words.is_empty() { String::new() } else { format!(", central = [{}]", words.join(", ")) };
            format!("{{ statement = {}{central} }}", string(&statement.text))
        })
        .collect();
    let _ = match statements.as_slice() {
        [one] => writeln!(text, "[[rule.{key}]]\nany = [{one}]"),
        several => writeln!(text, "[[rule.{key}]]\nany = [\n  {},\n]", several.join(",\n  ")),
    };
}

fn severity(severity: Severity) -> String {
    string(severity.as_str())
}

/// A string in TOML, on one line.
fn string(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
