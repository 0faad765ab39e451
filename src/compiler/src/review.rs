//! What a reviewer sees of a rule: where it comes from, how it became what it is, its chain as a tree, and what to look at.

use std::fmt::Write as _;

use crate::compilation::{Cause, Compilation, Compiled, Failed, Link};
use crate::record::{Decision, Review};

/// Colours for terminals, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colours(pub bool);

impl Colours {
    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// A rule for a reviewer. Ends with a line break.
pub fn rule(rule: &Compiled, review: Option<&Review>, colours: Colours) -> String {
    let mut text = String::new();
    let state = match review.map(|review| review.decision) {
        None => "not reviewed",
        Some(Decision::Accepted) => "accepted",
        Some(Decision::Edited) => "edited",
        Some(Decision::Rejected) => "rejected",
    };
    let _ = writeln!(
        text,
        "{}  line {}, severity {}, {state}",
        colours.bold(&rule.id),
        rule.source.line,
        rule.severity.as_str()
    );
    history(&mut text, rule, colours);
    for parameter in &rule.parameters {
        let _ = writeln!(
            text,
            "  {{{}}} = {}  ({}, {} to {})",
            parameter.name,
            parameter.value,
            parameter.kind.unit(),
            parameter.min,
            parameter.max
        );
    }
    chain(&mut text, "broken if all hold", &rule.preconditions, colours);
    if !rule.unless.is_empty() {
        chain(&mut text, "unless all hold", &rule.unless, colours);
    }
    for note in &rule.notes {
        let _ = writeln!(text, "  {} {}", colours.yellow("!"), note.text);
    }
    if let Some(edited) = review.and_then(|review| review.edited.as_ref()) {
        for line in edited.lines() {
            let _ = writeln!(text, "  {}", colours.green(&format!("> {line}")));
        }
    }
    text
}

/// Each wording with its rating, those that were given up as removed lines.
fn history(text: &mut String, rule: &Compiled, colours: Colours) {
    for (index, wording) in rule.history.iter().enumerate() {
        let kept = index == rule.kept;
        let cause = match wording.cause {
            Cause::Source => "",
            Cause::Revised => "",
            Cause::Set => "  (set)",
        };
        let line = format!("{} {:>2}  {}{cause}", if kept { '+' } else { '-' }, wording.rating, wording.text);
        let _ = writeln!(text, "  {}", if kept { colours.green(&line) } else { colours.red(&line) });
        if !wording.explanation.is_empty() {
            let _ = writeln!(text, "        {}", colours.dim(&wording.explanation));
        }
    }
}

fn chain(text: &mut String, title: &str, links: &[Link], colours: Colours) {
    let _ = writeln!(text, "  {title}");
    for (index, link) in links.iter().enumerate() {
        let last = index + 1 == links.len();
        let (branch, stem) =
            if last { ("\u{2514}\u{2500}", "   ") } else { ("\u{251c}\u{2500}", "\u{2502}  ") };
        let central = |words: &[String]| {
            let words = if words.is_empty() { "nothing to detect".to_owned() } else { words.join(", ") };
            colours.dim(&format!("[{words}]"))
        };
        match link.as_slice() {
            [one] => {
                let _ = writeln!(text, "  {branch} {}  {}", one.text, central(&one.central));
            }
            several => {
                let _ = writeln!(text, "  {branch} any of");
                for (place, statement) in several.iter().enumerate() {
                    let end = place + 1 == several.len();
                    let twig = if end { "\u{2514}\u{2500}" } else { "\u{251c}\u{2500}" };
                    let _ =
                        writeln!(text, "  {stem}{twig} {}  {}", statement.text, central(&statement.central));
                }
            }
        }
    }
}

/// A rule that was not compiled, for a reviewer.
pub fn failed(rule: &Failed, colours: Colours) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}  line {}, {}",
        colours.bold(&rule.id),
        rule.source.line,
        colours.red("not compiled")
    );
    let _ = writeln!(text, "       {}", rule.source.text);
    for wording in &rule.history {
        let _ = writeln!(text, "    {:>2}  {}", wording.rating, wording.text);
    }
    let _ = writeln!(text, "  {} {}", colours.red("!"), rule.failure);
    text
}

/// What of the prose is no rule, and how many rules there are. Ends with a line break.
pub fn summary(compilation: &Compilation) -> String {
    let mut text = String::new();
    if !compilation.left_out.is_empty() {
        let _ = writeln!(text, "left out of the prose");
        for part in &compilation.left_out {
            let _ = writeln!(text, "  line {}: {} ({})", part.line, part.text, part.reason);
        }
    }
    let _ = writeln!(
        text,
        "{} rules: {} compiled, {} not; {} parts of the prose left out",
        compilation.rules(),
        compilation.compiled.len(),
        compilation.failed.len(),
        compilation.left_out.len()
    );
    text
}
