//! A prompt with less in it, for the strategy `rewrite` where no plugin rewrites prompts.
//!
//! The prompt is cut into parts ("a man", "holding a knife", "on a beach"), and the part goes without which it comes furthest
//! from the statements that the picture violated. How far two texts are apart the relevance encoder says, which knows that a
//! knife is a weapon; without one the words do.

/// Words with which a part begins. What stands between two of them names one thing, one doing or one place.
const BEGINNINGS: [&str; 28] = [
    "above", "across", "against", "amid", "among", "and", "around", "at", "before", "behind", "below",
    "beside", "between", "but", "by", "during", "for", "from", "in", "inside", "into", "near", "on", "or",
    "over", "under", "while", "with",
];
/// Of these, those that only join: they go if nothing stands before them.
const JOINS: [&str; 4] = ["and", "but", "or", "while"];
/// Words behind which a word in -ing is a noun.
const ARTICLES: [&str; 6] = ["a", "an", "the", "this", "that", "of"];
/// Words of statements that say nothing of what they are about.
const EMPTY: [&str; 12] =
    ["are", "body", "does", "from", "have", "into", "person", "seen", "shown", "that", "visible", "with"];
/// Endings of words, the longer ones first.
const ENDINGS: [&str; 7] = ["ing", "ers", "ed", "er", "es", "s", "e"];
/// Shortest word that says something.
const SHORTEST: usize = 4;
/// Most parts that are told apart; what follows the last counts to it.
const MOST_PARTS: usize = 24;

/// The parts of a prompt, in order. To join them gives the prompt back, its white space apart.
pub(crate) fn parts(prompt: &str) -> Vec<String> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    let mut before: Option<&str> = None;
    for word in prompt.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let noun = before.is_some_and(|before| ARTICLES.contains(&before.to_lowercase().as_str()));
        let doing = bare.len() > SHORTEST && bare.ends_with("ing") && !noun;
        let comma = before.is_some_and(|before| before.ends_with([',', ';', '.']));
        // "lying on a bed" is one doing.
        let open = parts.last().is_some_and(|part| part.len() == 1 && before.is_some_and(ends_in_ing));
        let begins = parts.is_empty() || comma || doing || (BEGINNINGS.contains(&bare.as_str()) && !open);
        let full = parts.len() == MOST_PARTS;
        match parts.last_mut() {
            Some(part) if full || !begins || part.iter().all(|word| JOINS.contains(word)) => part.push(word),
            _ => parts.push(vec![word]),
        }
        before = Some(word);
    }
    parts.into_iter().map(|words| words.join(" ")).collect()
}

fn ends_in_ing(word: &str) -> bool {
    word.len() > SHORTEST && word.ends_with("ing")
}

/// The prompts that are left when one of the parts goes, in the order of the parts; none if there is but one.
pub(crate) fn shorter(prompt: &str) -> Vec<String> {
    let parts = parts(prompt);
    if parts.len() < 2 {
        return Vec::new();
    }
    let left = |gone: usize| {
        let kept =
            parts.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, part)| part.as_str());
        let text = kept.collect::<Vec<_>>().join(" ");
        let mut words = text.split(' ').peekable();
        while words.peek().is_some_and(|word| JOINS.contains(word)) {
            words.next();
        }
        let text = words.collect::<Vec<_>>().join(" ");
        text.trim_end_matches([',', ';', ' ']).to_owned()
    };
    (0..parts.len()).map(left).collect()
}

/// How near `text` is to `statements` by its words alone: how many of theirs it has, in any of their forms.
pub(crate) fn shared_words(text: &str, statements: &[String]) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        text.split_whitespace().map(bare).filter(|word| says_something(word)).collect()
    };
    let theirs: Vec<String> = statements.iter().flat_map(|statement| words(statement)).collect();
    words(text).iter().filter(|word| theirs.iter().any(|other| same(word, other))).count() as f64
}

fn says_something(word: &str) -> bool {
    word.len() >= SHORTEST && !EMPTY.contains(&word)
}

/// Whether two words are forms of one.
fn same(a: &str, b: &str) -> bool {
    stem(a) == stem(b)
}

/// A word without its ending, as far as that is to be told from its letters: "smok" of "smokes", "smoking" and "smoke".
fn stem(word: &str) -> &str {
    let long = |stem: &&str| stem.len() + 1 >= SHORTEST;
    ENDINGS.iter().find_map(|ending| word.strip_suffix(ending).filter(long)).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prompt_falls_into_things_doings_and_places() {
        for (prompt, expected) in [
            ("a man holding a knife on a beach", vec!["a man", "holding a knife", "on a beach"]),
            (
                "an old man lying on a bed and a tree at night",
                vec!["an old man", "lying on a bed", "and a tree", "at night"],
            ),
            ("a boy and a glass of beer", vec!["a boy", "and a glass of beer"]),
            (
                "A painting of a dog, smoking, oil on canvas",
                vec!["A painting of a dog,", "smoking,", "oil", "on canvas"],
            ),
            ("a cat", vec!["a cat"]),
            ("", vec![]),
        ] {
            assert_eq!(parts(prompt), expected);
        }
    }

    #[test]
    fn each_part_can_go_and_no_join_is_left_in_front() {
        assert_eq!(
            shorter("dice and a tree on the grass"),
            ["a tree on the grass", "dice on the grass", "dice and a tree"]
        );
        assert_eq!(shorter("a dog, smoking"), ["smoking", "a dog"]);
        assert!(shorter("a knife").is_empty() && shorter(" ").is_empty());
    }

    #[test]
    fn words_are_found_in_their_forms() {
        let statements = ["a person is smoking a cigarette".to_owned()];
        assert_eq!(shared_words("a man who smokes cigarettes", &statements), 2.0);
        assert_eq!(shared_words("a person with a smoked salmon", &statements), 1.0);
        assert_eq!(shared_words("a visible person", &statements), 0.0);
    }

    proptest! {
        #[test]
        fn parts_make_up_the_prompt_and_what_is_shorter_is(prompt in "[a-z ,]{0,80}( and| with| on| lying| holding)?[ a-z]{0,20}") {
            let words = |text: &str| text.split_whitespace().count();
            let parts = parts(&prompt);
            prop_assert!(parts.len() <= MOST_PARTS);
            prop_assert_eq!(parts.join(" "), prompt.split_whitespace().collect::<Vec<_>>().join(" "));
            for text in shorter(&prompt) {
                prop_assert!(words(&text) < words(&prompt));
            }
        }
    }
}
