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

    proptest! {
        #[test]
        fn no_word_is_lost(text in "[a-c.!? \"\u{3002}]{0,40}") {
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let joined: String = sentences(&text).map(bare).collect();
            prop_assert_eq!(joined, bare(&text));
        }
    }
}
