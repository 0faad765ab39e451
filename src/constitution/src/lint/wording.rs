//! Lints on how texts, statements and central words are put.

use super::words::{alike, content_words, is_verb, words};
use super::{Chain, Found, Subject};
use crate::rule::{Rule, Statement};

/// A rule below this is revised by the compiler (CLUE s 3.1).
const OBJECTIVE: u8 = 9;

/// Most words of a central word: `fire extinguisher` is two.
const MAX_CENTRAL_WORDS: usize = 4;

pub(super) fn check(index: usize, rule: &Rule, found: &mut Found<'_>) {
    for chain in [Chain::Precondition, Chain::Unless] {
        for (link, precondition) in chain.of(rule).iter().enumerate() {
            for (at, statement) in precondition.any.iter().enumerate() {
                statement_wording(Subject::Statement(index, chain, link, at), statement, found);
            }
        }
    }
    braces(Subject::Text(index), "the text", &rule.text, found);
    if rule.objectiveness < OBJECTIVE {
        let message = format!("its objectiveness is {}, under {OBJECTIVE}", rule.objectiveness);
        found.add("C107", Subject::Objectiveness(index), message);
    }
    counterpart(index, rule, found);
}

fn statement_wording(subject: Subject, statement: &Statement, found: &mut Found<'_>) {
    let text = &statement.text;
    if let Some(conjunction) = joined_by(text) {
        let advice = if conjunction == "or" { "two statements of one link" } else { "two links" };
        let message = format!("{text:?} states two facts, joined by `{conjunction}`; make {advice} of them");
        found.add("C101", subject, message);
    }
    if text.ends_with(['.', '!', ';', ':']) || text.contains('?') || text.contains(". ") {
        let message = format!("{text:?} is not one plain statement without a full stop");
        found.add("C102", subject, message);
    }
    braces(subject, "the statement", text, found);
    if statement.central.is_empty() {
        let message = format!("{text:?} has no central words, so nothing is looked for in the picture");
        found.add("C106", subject, message);
    }
    let said = words(text);
    for word in &statement.central {
        let parts = words(word);
        if is_phrase(&parts) {
            let message = format!("the central word {word:?} is a phrase; name the object alone");
            found.add("C105", subject, message);
        } else if !parts.iter().any(|part| said.iter().any(|said| alike(part, said))) {
            let message = format!("the central word {word:?} does not occur in {text:?}");
            found.add("C104", subject, message);
        }
    }
}

/// The word that joins two facts of a statement, if one does: there is a verb before it, and behind it a verb or another
/// thing that the subject does (`is smoking and drinking`).
fn joined_by(text: &str) -> Option<&'static str> {
    let words = words(text);
    let joins = |at: usize, conjunction: &str| {
        let (before, behind) = (&words[..at], &words[at + 1..]);
        let participle = |word: &String| word.ends_with("ed") || word.ends_with("ing");
        let goes_on = |word: &String| ["by", "in", "on", "at", "with", "from", "to"].contains(&word.as_str());
        let second_predicate = conjunction != "or"
            && behind.first().is_some_and(participle)
            && behind.get(1).is_none_or(goes_on);
        before.iter().any(|word| is_verb(word))
            && (behind.iter().any(|word| is_verb(word)) || second_predicate)
    };
    words.iter().enumerate().find_map(|(at, word)| {
        let conjunction = ["and", "or", "but", "while"].into_iter().find(|known| known == word)?;
        joins(at, conjunction).then_some(conjunction)
    })
}

fn is_phrase(words: &[String]) -> bool {
    let relates =
        |word: &String| is_verb(word) || ["who", "that", "which", "with", "without"].contains(&word.as_str());
    let acts = |(at, word): (usize, &String)| at > 0 && at + 1 < words.len() && word.ends_with("ing");
    words.len() > MAX_CENTRAL_WORDS
        || (words.len() > 1 && (words.iter().any(relates) || words.iter().enumerate().any(acts)))
}

fn braces(subject: Subject, what: &str, text: &str, found: &mut Found<'_>) {
    if text.contains(['{', '}']) {
        let message = format!("{what} {text:?} has braces, which the models read as they stand");
        found.add("C103", subject, message);
    }
}

/// Whether the chain speaks of what the text speaks of.
fn counterpart(index: usize, rule: &Rule, found: &mut Found<'_>) {
    let links = rule.preconditions.iter().chain(&rule.unless);
    let said: Vec<String> = links
        .flat_map(|link| &link.any)
        .flat_map(|statement| {
            words(&statement.text).into_iter().chain(statement.central.iter().flat_map(|w| words(w)))
        })
        .collect();
    let content = content_words(&rule.text);
    let missing: Vec<&str> = content
        .iter()
        .filter(|word| !said.iter().any(|said| alike(word, said)))
        .map(String::as_str)
        .collect();
    // Two thirds of what the text says.
    if 3 * missing.len() > 2 * content.len() {
        let message = format!("no statement speaks of what its text names: {}", missing.join(", "));
        found.add("C108", Subject::Text(index), message);
    }
}
