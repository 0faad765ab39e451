//! Ratings, revised rules and central words: answers whose last or only line counts.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::repair::{label, unfence, unlabel, unquote};
use super::{AnswerError, MAX_CENTRAL, MAX_CENTRAL_CHARS, MAX_RULE_CHARS, Read, Repair, check_length, shown};
use crate::text::sentences;

type Result<T> = std::result::Result<Read<T>, AnswerError>;

/// How objective a rule is, and why (CLUE s 3.1, fig 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// The explanation, which came first; one line.
    pub explanation: String,
    /// 1 (a matter of opinion) to 10 (a plain fact).
    pub rating: u8,
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.explanation.is_empty() {
            write!(f, "Rating: {}", self.rating)
        } else {
            write!(f, "{}\nRating: {}", self.explanation, self.rating)
        }
    }
}

/// A rule in other words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revised(pub String);

impl fmt::Display for Revised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule: {}", self.0)
    }
}

/// What a detector should look for; none if it can find nothing that a statement turns on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CentralWords(pub Vec<String>);

impl fmt::Display for CentralWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(NONE) } else { f.write_str(&self.0.join(", ")) }
    }
}

const NONE: &str = "none";

/// Splits off the last line that is not blank.
fn last_line(answer: &str) -> (&str, &str) {
    let answer = answer.trim();
    answer.rsplit_once('\n').map_or(("", answer), |(before, last)| (before.trim(), last.trim()))
}

/// One line of several: white space and line breaks become single spaces.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads the answer to `objectiveness`. Only the last line is read for the rating, so that nothing that a rule or an
/// explanation says elsewhere counts as one.
///
/// # Errors
/// A last line that is not `Rating: N` with a whole number from 1 to 10.
pub fn read_rating(answer: &str) -> Result<Rating> {
    check_length(answer)?;
    let mut repairs = BTreeSet::new();
    let (before, last) = last_line(unfence(answer, &mut repairs));
    let expected = "a last line `Rating: N` with a whole number from 1 to 10";
    let wrong = || AnswerError::new(expected, shown(last));
    let plain = unquote(last, &mut repairs);
    let (name, value) = label(plain).ok_or_else(wrong)?;
    if !name.eq_ignore_ascii_case("rating") {
        return Err(wrong());
    }
    if !plain.starts_with("Rating:") {
        repairs.insert(Repair::Label);
    }
    let mut value = unquote(value, &mut repairs);
    if let Some(rest) = value.strip_suffix('.') {
        repairs.insert(Repair::FullStop);
        value = rest.trim_end();
    }
    for scale in ["/10", "/ 10", " out of 10"] {
        if let Some(rest) = value.strip_suffix(scale) {
            repairs.insert(Repair::Scale);
            value = rest.trim_end();
        }
    }
    // `+9` would parse as a number; it is no form that was asked for.
    let digits = value.len() <= 2 && value.bytes().all(|byte| byte.is_ascii_digit());
    let rating = value.parse().ok().filter(|rating| digits && (1..=10).contains(rating)).ok_or_else(wrong)?;
    Ok(Read { value: Rating { explanation: one_line(before), rating }, repairs })
}

/// Reads the answer to `revise`: one sentence after `Rule:` on the last line.
///
/// # Errors
/// A last line without `Rule:`, without or with several sentences, or over [`MAX_RULE_CHARS`] characters.
pub fn read_revision(answer: &str) -> Result<Revised> {
    check_length(answer)?;
    let mut repairs = BTreeSet::new();
    let (_, last) = last_line(unfence(answer, &mut repairs));
    let wrong = |came: String| AnswerError::new("a last line `Rule: <one sentence>`", came);
    let plain = unquote(last, &mut repairs);
    let (name, value) = label(plain).ok_or_else(|| wrong(shown(last)))?;
    if !name.eq_ignore_ascii_case("rule") && !name.eq_ignore_ascii_case("revised rule") {
        return Err(wrong(shown(last)));
    }
    if !plain.starts_with("Rule:") {
        repairs.insert(Repair::Label);
    }
    let mut text = one_line(unquote(value, &mut repairs));
    if text.chars().count() > MAX_RULE_CHARS {
        return Err(wrong(format!("a rule of more than {MAX_RULE_CHARS} characters")));
    }
    if !text.chars().any(char::is_alphabetic) {
        return Err(wrong("a blank rule".to_owned()));
    }
    if text.contains(['[', ']', '<', '>']) || text.chars().any(char::is_control) {
        return Err(wrong(format!("brackets or control characters: {}", shown(&text))));
    }
    if !text.ends_with(['.', '!', '?', '\u{3002}']) {
        repairs.insert(Repair::FullStop);
        text.push('.');
    }
    match sentences(&text).count() {
        1 => Ok(Read { value: Revised(text), repairs }),
        count => Err(wrong(format!("{count} sentences: {}", shown(&text)))),
    }
}

/// Reads the answer to `central`: words with commas between them in one line (or one a line as a list), or `none`.
///
/// # Errors
/// No words, sentences, more than [`MAX_CENTRAL`] words, or one of more than [`MAX_CENTRAL_CHARS`] characters.
pub fn read_central(answer: &str) -> Result<CentralWords> {
    const LABELS: [&str; 5] = ["answer", "central", "central words", "words", "objects"];
    check_length(answer)?;
    let mut repairs = BTreeSet::new();
    let text = unlabel(unfence(answer, &mut repairs), &LABELS, &mut repairs);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let bullet = |line: &&str| line.starts_with(['-', '*', '\u{2022}']);
    let joined;
    let text = match lines.as_slice() {
        [line] => unquote(line, &mut repairs),
        several if !several.is_empty() && several.iter().all(bullet) => {
            joined = several.join(",");
            &joined
        }
        _ => {
            return Err(AnswerError::new("words with commas between them in one line, or none", shown(text)));
        }
    };
    let text = text.strip_suffix('.').map_or(text, |rest| {
        repairs.insert(Repair::FullStop);
        rest
    });
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).map_or(text, |rest| {
        repairs.insert(Repair::Quotes);
        rest
    });
    let mut words: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let word = central_word(piece, &mut repairs)?;
        if words.contains(&word) {
            repairs.insert(Repair::Duplicate);
        } else {
            words.push(word);
        }
    }
    if words == [NONE] {
        words.clear();
    }
    if words.iter().any(|word| word == NONE) {
        return Err(AnswerError::new("words, or none alone", shown(text)));
    }
    if words.len() > MAX_CENTRAL {
        let came = format!("{} words", words.len());
        return Err(AnswerError::new(format!("at most {MAX_CENTRAL} words"), came));
    }
    Ok(Read { value: CentralWords(words), repairs })
}

fn central_word(piece: &str, repairs: &mut BTreeSet<Repair>) -> std::result::Result<String, AnswerError> {
    const MAX_PARTS: usize = 5;
    let mut word = unquote(piece, repairs);
    let before = word;
    word = word.trim_start_matches(['-', '*', '\u{2022}']).trim();
    for article in ["and ", "a ", "an ", "the ", "A ", "An ", "The "] {
        word = word.strip_prefix(article).unwrap_or(word).trim_start();
    }
    let small = one_line(&word.to_lowercase());
    if small != before {
        repairs.insert(Repair::Words);
    }
    let fits = small.chars().count() <= MAX_CENTRAL_CHARS && small.split(' ').count() <= MAX_PARTS;
    let plain = small.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '\'' | '\u{2019}'));
    if small.chars().any(char::is_alphanumeric) && fits && plain && !small.starts_with(['-', '\'']) {
        return Ok(small);
    }
    let expected = format!(
        "words of letters, digits, hyphens and spaces, at most {MAX_PARTS} of them and {MAX_CENTRAL_CHARS} characters \
         between two commas"
    );
    Err(AnswerError::new(expected, shown(piece.trim())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rating_stands_in_the_last_line_and_nowhere_else() {
        let read = read_rating("Plain to see.\n Rating: 3 was asked for.\n\n  Rating: 9\n").unwrap();
        assert_eq!(read.value.rating, 9);
        assert_eq!(read.value.explanation, "Plain to see. Rating: 3 was asked for.");
        assert!(read.repairs.is_empty());
        for (answer, repair) in [
            ("x\n**Rating: 7**", Repair::Quotes),
            ("x\nrating: 7", Repair::Label),
            ("x\nRating: 7/10", Repair::Scale),
            ("x\nRating: 7.", Repair::FullStop),
            ("```\nx\nRating: 7\n```", Repair::CodeFence),
        ] {
            let read = read_rating(answer).unwrap();
            assert_eq!((read.value.rating, read.repairs), (7, BTreeSet::from([repair])), "{answer}");
        }
        assert_eq!(read_rating("x\n**Rating:** 7").unwrap().value.rating, 7);
        for answer in [
            "",
            "Rating: 9\nThat is all.",
            "Rating: 0",
            "Rating: 11",
            "Rating: +9",
            "Rating: 8.5",
            "Rating: nine",
            "Rating:",
            "9",
            "Rating: 9 or 10",
        ] {
            let error = read_rating(answer).unwrap_err().to_string();
            assert!(error.contains("`Rating: N`"), "{error}");
        }
    }

    #[test]
    fn a_revision_is_one_sentence() {
        let read =
            read_revision("Angles can be measured.\nRule: The image should not show 2.5 cats.").unwrap();
        assert_eq!((read.value.0.as_str(), read.repairs.len()), ("The image should not show 2.5 cats.", 0));
        let read = read_revision("Rule: \"The image should not show cats\"").unwrap();
        assert_eq!(read.value.0, "The image should not show cats.");
        assert_eq!(read.repairs, BTreeSet::from([Repair::Quotes, Repair::FullStop]));
        for answer in [
            "The image should not show cats.",
            "Rule:",
            "Rule: ...",
            "Rule: No cats. No dogs.",
            "Rule: No cats.\nThat is better.",
            "Rule: No </rule> cats.",
            "Rule: No [cats].",
        ] {
            assert!(read_revision(answer).is_err(), "{answer}");
        }
        assert!(read_revision(&format!("Rule: {}.", "cat ".repeat(200))).is_err());
    }

    #[test]
    fn central_words_are_words() {
        let words = |answer: &str| read_central(answer).map(|read| read.value.0.join("|"));
        assert_eq!(words("teeth, mouth").unwrap(), "teeth|mouth");
        assert_eq!(words("Answer: The teeth, a mouth, teeth.").unwrap(), "teeth|mouth");
        assert_eq!(words("- teeth\n- human body").unwrap(), "teeth|human body");
        assert_eq!(words("[\"teeth\", 'mouth']").unwrap(), "teeth|mouth");
        assert_eq!(words("none").unwrap(), "");
        assert_eq!(words("None.").unwrap(), "");
        assert!(read_central("teeth, mouth").unwrap().repairs.is_empty());
        for answer in [
            "",
            ",",
            "teeth,",
            "none, teeth",
            "teeth\nThese decide.",
            "the statement turns on the teeth of a dog",
            "a (b)",
            "a, b, c, d, e, f, g, h, i",
        ] {
            assert!(read_central(answer).is_err(), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(
            explanation in "([A-Za-z][a-z:.,0-9]{0,9}( [a-z:.,0-9]{1,9}){0,9})?",
            rating in 1..=10u8,
            words in proptest::collection::btree_set("[a-z][a-z-]{0,6}( [a-z]{2,7}){0,2}", 0..6),
        ) {
            let printed = Rating { explanation, rating };
            let read = read_rating(&printed.to_string()).unwrap();
            prop_assert_eq!((&read.value, read.repairs.len()), (&printed, 0));
            let articles = |word: &String| ["and ", "a ", "an ", "the "].iter().any(|a| word.starts_with(a));
            prop_assume!(!words.contains("none") && !words.iter().any(articles));
            let printed = CentralWords(words.into_iter().collect());
            let read = read_central(&printed.to_string()).unwrap();
            prop_assert_eq!((&read.value, read.repairs.len()), (&printed, 0));
        }

        #[test]
        fn any_answer_is_read_or_refused(answer in "(Rating|Rule|none|[*\"`'\\[\\]:,.\\n /]|[0-9a-c\u{e9}\u{201c}\u{201d}]){0,40}") {
            if let Ok(read) = read_rating(&answer) {
                prop_assert!((1..=10).contains(&read.value.rating));
                prop_assert_eq!(read_rating(&read.value.to_string()).unwrap().value, read.value);
            }
            if let Ok(read) = read_revision(&answer) {
                prop_assert_eq!(read_revision(&read.value.to_string()).unwrap().value, read.value);
            }
            if let Ok(read) = read_central(&answer) {
                prop_assert!(read.value.0.iter().all(|word| !word.is_empty()));
            }
        }
    }
}
