//! `cluegate constitution diff`.

use std::io::IsTerminal as _;

use cluegate_constitution::diff::{
    Difference, Kind, Piece, RuleChange, RuleDifference, TextChange, ValueChange, link_text,
};
use cluegate_constitution::{Precondition, Rule};

use super::args::DiffArgs;
use crate::cli::args::Format;
use crate::cli::{Exit, load_constitution, say, say_json};

pub(super) fn run(arguments: &DiffArgs) -> anyhow::Result<Exit> {
    let (from, to) = (load_constitution(&arguments.from)?, load_constitution(&arguments.to)?);
    let difference = Difference::between(&from, &to);
    match arguments.format {
        Format::Json => say_json(&difference)?,
        Format::Text => {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let ink = Ink { coloured: !no_colour && std::io::stdout().is_terminal() };
            for line in lines(&difference, &ink) {
                say(line)?;
            }
        }
    }
    Ok(if difference.is_empty() { Exit::Clean } else { Exit::Violation })
}

/// How additions and removals are marked.
struct Ink {
    coloured: bool,
}

impl Ink {
    fn paint(&self, kind: Kind, text: &str) -> String {
        match (kind, self.coloured) {
            (Kind::Removed, true) => format!("\x1b[31m{text}\x1b[0m"),
            (Kind::Added, true) => format!("\x1b[32m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// Words in a line: in colour, or between marks.
    fn words(&self, change: &TextChange) -> String {
        let word = |piece: &Piece| match (piece.kind, self.coloured) {
            (Kind::Removed, false) => format!("[-{}-]", piece.text),
            (Kind::Added, false) => format!("{{+{}+}}", piece.text),
            (kind, _) => self.paint(kind, &piece.text),
        };
        change.words().iter().map(word).collect()
    }

    /// A whole line.
    fn line(&self, kind: Kind, text: &str) -> String {
        let mark = match kind {
            Kind::Same => ' ',
            Kind::Removed => '-',
            Kind::Added => '+',
        };
        self.paint(kind, &format!("{mark} {text}"))
    }
}

fn lines(difference: &Difference, ink: &Ink) -> Vec<String> {
    let Difference { name, description, values, rules, reordered } = difference;
    let mut out = Vec::new();
    for (what, change) in [("name", name), ("description", description)] {
        out.extend(change.as_ref().map(|change| format!("  {what}: {}", ink.words(change))));
    }
    out.extend(values.iter().map(|change| value(change, ink)));
    for rule in rules {
        match rule {
            RuleDifference::Added(rule) => out.extend(whole(Kind::Added, rule, ink)),
            RuleDifference::Removed(rule) => out.extend(whole(Kind::Removed, rule, ink)),
            RuleDifference::Changed(change) => out.extend(changed(change, ink)),
        }
    }
    if *reordered {
        out.push("the rules stand in another order".to_owned());
    }
    if out.is_empty() {
        out.push("they say the same".to_owned());
    }
    out
}

fn value(change: &ValueChange, ink: &Ink) -> String {
    let written = |kind, value: &Option<String>| match value {
        Some(value) => ink.paint(kind, value),
        None => "none".to_owned(),
    };
    format!(
        "  {}: {} -> {}",
        change.name,
        written(Kind::Removed, &change.from),
        written(Kind::Added, &change.to)
    )
}

fn whole(kind: Kind, rule: &Rule, ink: &Ink) -> Vec<String> {
    let mut out = vec![ink.line(kind, &format!("rule {} ({})", rule.id, rule.severity.as_str()))];
    out.push(ink.line(kind, &format!("  {}", rule.text)));
    let mut chain = |word: &str, links: &[Precondition]| {
        out.extend(links.iter().map(|link| ink.line(kind, &format!("    {word} {}", link_text(link)))));
    };
    chain("and", &rule.preconditions);
    chain("unless", &rule.unless);
    out
}

fn changed(change: &RuleChange, ink: &Ink) -> Vec<String> {
    let mut out = vec![format!("  rule {}", change.id)];
    out.extend(change.text.as_ref().map(|text| format!("    text: {}", ink.words(text))));
    out.extend(change.values.iter().map(|change| format!("  {}", value(change, ink))));
    out.extend(
        change.parameters.iter().map(|change| format!("    parameter {}", value(change, ink).trim_start())),
    );
    for (word, links) in [("precondition", &change.precondition), ("unless", &change.unless)] {
        if !links.is_empty() {
            out.push(format!("    {word}:"));
            out.extend(links.iter().map(|link| format!("    {}", ink.line(link.kind, &link.text))));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_marked_or_coloured() {
        let change = TextChange { from: "no large dogs".to_owned(), to: "no small dogs".to_owned() };
        assert_eq!(Ink { coloured: false }.words(&change), "no [-large-]{+small+} dogs");
        assert_eq!(Ink { coloured: true }.words(&change), "no \x1b[31mlarge\x1b[0m\x1b[32msmall\x1b[0m dogs");
    }
}
