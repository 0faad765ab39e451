//! What may stand around an answer and is taken off.

use std::collections::BTreeSet;

use super::Repair;

/// Pairs of marks that may enclose an answer.
const MARKS: [(&str, &str); 7] =
    [("**", "**"), ("__", "__"), ("`", "`"), ("\"", "\""), ("\u{201c}", "\u{201d}"), ("'", "'"), ("*", "*")];

/// Takes off marks that enclose the whole text.
pub(super) fn unquote<'a>(text: &'a str, repairs: &mut BTreeSet<Repair>) -> &'a str {
    let mut text = text.trim();
    // Each turn shortens the text.
    while let Some(inner) = MARKS.iter().find_map(|(open, close)| {
        let inner = text.strip_prefix(open)?.strip_suffix(close)?;
        (!inner.contains(open) && !inner.contains(close)).then_some(inner)
    }) {
        repairs.insert(Repair::Quotes);
        text = inner.trim();
    }
    text
}

/// Takes off a code fence around the whole text.
pub(super) fn unfence<'a>(text: &'a str, repairs: &mut BTreeSet<Repair>) -> &'a str {
    const FENCE: &str = "```";
    let text = text.trim();
    let inner = text.strip_prefix(FENCE).and_then(|rest| rest.strip_suffix(FENCE));
    let Some(inner) = inner.filter(|inner| !inner.contains(FENCE)) else { return text };
    repairs.insert(Repair::CodeFence);
    // After the opening fence a language may be named, up to the end of the line.
    match inner.split_once('\n') {
        Some((language, rest)) if language.trim().chars().all(|c| c.is_ascii_alphanumeric()) => rest.trim(),
        _ => inner.trim(),
    }
}

/// Takes off one of `labels` with its colon, whatever the case and the markup around it.
pub(super) fn unlabel<'a>(text: &'a str, labels: &[&str], repairs: &mut BTreeSet<Repair>) -> &'a str {
    let text = text.trim();
    match label(text).filter(|(name, _)| labels.iter().any(|label| name.eq_ignore_ascii_case(label))) {
        Some((_, rest)) => {
            repairs.insert(Repair::Label);
            rest
        }
        None => text,
    }
}

/// The word or words before the first colon, without markup, and what follows.
pub(super) fn label(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once(':')?;
    let markup = |c: char| matches!(c, '*' | '_' | '#' | '`');
    let marked = name.trim_start().starts_with(markup);
    let rest = if marked { rest.trim_start().trim_start_matches(markup) } else { rest };
    Some((name.trim().trim_matches(markup).trim(), rest.trim()))
}
