//! Sentences and words, without a model.

/// Marks that end a sentence.
const ENDS: [char; 6] = ['.', '!', '?', '\u{3002}', '\u{ff01}', '\u{ff1f}'];

/// Words whose full stop ends no sentence.
const ABBREVIATIONS: [&str; 14] =
    ["e.g", "i.e", "etc", "cf", "vs", "mr", "mrs", "ms", "dr", "st", "no", "approx", "incl", "fig"];

/// The sentences of a text on one line, each with the marks that end it, trimmed. A sentence ends at a full stop,
/// exclamation or question mark that white space or the end of the text follows, unless the word is an abbreviation and
/// goes on in small letters or digits.
pub(crate) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = sentence_end(rest);
        let (sentence, after) = rest.split_at(end);
        rest = after.trim_start();
        Some(sentence.trim_end())
    })
}

/// Where the first sentence ends, in bytes.
fn sentence_end(text: &str) -> usize {
    for (at, mark) in text.char_indices().filter(|(_, c)| ENDS.contains(c)) {
        let end = at + mark.len_utf8();
        let after = &text[end..];
        let ideographic = mark.len_utf8() == 3;
        // Quotation marks and brackets after the full stop belong to the sentence.
        let closed = after.trim_start_matches(['"', '\'', ')', '\u{201d}', '\u{2019}']);
        let follows = closed.chars().next();
        let end = text.len() - closed.len();
        match follows {
            None => return text.len(),
            Some(c) if ENDS.contains(&c) => {}
            Some(c) if ideographic || c.is_whitespace() => {
                let goes_on = closed.trim_start().chars().next();
                let small = goes_on.is_some_and(|c| c.is_lowercase() || c.is_numeric());
                if !(mark == '.' && small && is_abbreviation(&text[..at])) {
                    return end;
                }
            }
            Some(_) => {}
        }
    }
    text.len()
}

fn is_abbreviation(before: &str) -> bool {
    let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let word = word.trim_start_matches(['(', '"']).to_lowercase();
    ABBREVIATIONS.contains(&word.as_str())
}

/// The words of a text in small letters with single spaces between them, without punctuation: what two texts that say the
/// same have in common.
pub(crate) fn plain_words(text: &str) -> String {
    let small = text.to_lowercase().replace('\u{2019}', "'");
    let words = small.split(|c: char| !c.is_alphanumeric() && c != '\'');
    words.map(|word| word.trim_matches('\'')).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Words that carry no subject of a rule.
const FILLERS: [&str; 92] = [
    "neither",
    "nor",
    "nobody",
    "only",
    "just",
    "also",
    "our",
    "nothing",
    "the",
    "a",
    "an",
    "of",
    "or",
    "and",
    "in",
    "on",
    "at",
    "to",
    "for",
    "with",
    "without",
    "from",
    "by",
    "as",
    "than",
    "that",
    "which",
    "who",
    "whose",
    "is",
    "are",
    "be",
    "been",
    "being",
    "was",
    "were",
    "has",
    "have",
    "had",
    "do",
    "does",
    "not",
    "no",
    "never",
    "any",
    "all",
    "some",
    "such",
    "should",
    "must",
    "may",
    "can",
    "cannot",
    "shall",
    "will",
    "would",
    "could",
    "image",
    "images",
    "picture",
    "pictures",
    "photo",
    "photos",
    "content",
    "show",
    "shows",
    "showing",
    "shown",
    "depict",
    "depicts",
    "depicting",
    "contain",
    "contains",
    "containing",
    "display",
    "displays",
    "include",
    "includes",
    "feature",
    "this",
    "these",
    "those",
    "it",
    "its",
    "their",
    "they",
    "there",
    "if",
    "unless",
    "except",
    "anyone",
    "visible",
];

/// The words of a text that may carry its subject, in their order, each as it is written.
pub(crate) fn subject_words(text: &str) -> Vec<String> {
    let words = plain_words(text);
    let carries = |word: &&str| !FILLERS.contains(word) && word.chars().any(char::is_alphabetic);
    words.split(' ').filter(carries).map(str::to_owned).collect()
}

/// What two forms of an English word have in common, roughly: `burning` and `burned`, `knives` and `knife`.
pub(crate) fn stem(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    let irregular = match word {
        "people" | "persons" | "human" | "humans" | "anyone" | "someone" => Some("person"),
        "men" => Some("man"),
        "women" => Some("woman"),
        "children" | "kids" => Some("child"),
        _ => None,
    };
    if let Some(stem) = irregular {
        return stem.to_owned();
    }
    const LEAST: usize = 3;
    let cut = ["ingly", "ings", "ing", "edly", "ied", "ies", "ed", "ves", "es", "ly", "s", "e", "y"];
    let end = cut.iter().find(|end| word.len() >= end.len() + LEAST && word.ends_with(**end));
    let mut stem = end.map_or(word, |end| &word[..word.len() - end.len()]).to_owned();
    if end == Some(&"ves") {
        stem.push('f');
    }
    // running: the doubled letter goes too.
    let letters: Vec<char> = stem.chars().rev().take(2).collect();
    if matches!(end, Some(&("ing" | "ed")))
        && letters.len() == 2
        && letters[0] == letters[1]
        && stem.len() > LEAST
    {
        stem.pop();
    }
    stem
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_end_at_full_stops_that_end_them() {
        let of = |text| sentences(text).collect::<Vec<_>>();
        assert_eq!(of("No cats. No dogs!  Why? "), ["No cats.", "No dogs!", "Why?"]);
        assert_eq!(
            of("No 2.5 m cats, e.g. lions, etc. and so on."),
            ["No 2.5 m cats, e.g. lions, etc. and so on."]
        );
        assert_eq!(of("No \"cats.\" No dogs"), ["No \"cats.\"", "No dogs"]);
        assert_eq!(of("Well... No."), ["Well...", "No."]);
        assert_eq!(of("\u{732b}\u{3002}\u{72ac}\u{3002}"), ["\u{732b}\u{3002}", "\u{72ac}\u{3002}"]);
        assert_eq!(of("   "), [""; 0]);
    }

    #[test]
    fn words_are_compared_by_their_stems() {
        for (a, b) in [
            ("burning", "burned"),
            ("knives", "knife"),
            ("people", "person"),
            ("bodies", "body"),
            ("running", "run"),
        ] {
            assert_eq!(stem(a), stem(b), "{a} {b}");
        }
        assert_ne!(stem("dog"), stem("cat"));
        assert_eq!(
            subject_words("The image should not show a person's Knife, or 3 dogs."),
            ["person's", "knife", "dogs"]
        );
        assert_eq!(plain_words("  Don\u{2019}t -- \"SHOW\" it! "), "don't show it");
    }

    proptest! {
        #[test]
        fn no_word_is_lost(text in "[a-c.!? \"\u{3002}]{0,40}") {
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let joined: String = sentences(&text).map(bare).collect();
            prop_assert_eq!(joined, bare(&text));
        }
    }
}
