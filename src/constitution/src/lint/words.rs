//! Just enough English to compare statements: words, negations, endings. It is wrong now and then, which is why no lint
//! that rests on it is an error.

/// The lower-case words of a text; an apostrophe belongs to its word.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’')
        .map(|word| word.trim_matches(['\'', '’']).replace('’', "'").to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// What two spellings of one statement have in common: its words without case, spacing and punctuation.
pub(super) fn normal(text: &str) -> String {
    words(text).join(" ")
}

const NEGATIONS: [&str; 11] =
    ["not", "no", "without", "never", "nobody", "none", "neither", "nor", "nothing", "cannot", "no-one"];

fn is_negation(word: &str) -> bool {
    NEGATIONS.contains(&word) || word.ends_with("n't")
}

/// Whether a statement says that something is not there.
pub(super) fn is_negative(text: &str) -> bool {
    words(text).iter().any(|word| is_negation(word))
}

/// A statement as a fact and whether it is affirmed: "no dog is visible" denies what "a dog is visible" affirms.
/// Articles do not tell facts apart.
pub(super) fn literal(text: &str) -> (String, bool) {
    let mut affirmed = true;
    let mut fact = Vec::new();
    for word in words(text) {
        if word == "without" {
            fact.push("with".to_owned());
        } else if word == "cannot" {
            fact.push("can".to_owned());
        } else if let Some(verb) = word.strip_suffix("n't") {
            fact.push(verb.to_owned());
        } else if !is_negation(&word) && !["a", "an", "the", "any", "some"].contains(&word.as_str()) {
            fact.push(word.clone());
        }
        affirmed ^= is_negation(&word);
    }
    (fact.join(" "), affirmed)
}

const IRREGULAR: [(&str, &str); 10] = [
    ("people", "person"),
    ("human", "person"),
    ("men", "man"),
    ("women", "woman"),
    ("children", "child"),
    ("feet", "foot"),
    ("teeth", "tooth"),
    ("knives", "knife"),
    ("bodies", "body"),
    ("dead", "death"),
];

fn singular(word: &str) -> &str {
    let irregular = IRREGULAR.iter().find(|(form, _)| *form == word).map(|(_, base)| *base);
    irregular.unwrap_or_else(|| word.strip_suffix('s').filter(|_| !word.ends_with("ss")).unwrap_or(word))
}

/// Whether two words are forms of one, or one of them begins with the other's stem: injury and injured, bath and bathtub.
pub(super) fn alike(a: &str, b: &str) -> bool {
    let (a, b) = (singular(a), singular(b));
    if a == b {
        return true;
    }
    let common = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let shorter = a.chars().count().min(b.chars().count());
    common >= 4.max(shorter.saturating_sub(2))
}

/// Verbs that make a clause of the words around them.
const VERBS: [&str; 32] = [
    "is", "are", "was", "were", "has", "have", "had", "does", "do", "can", "will", "shows", "show", "holds",
    "wears", "carries", "lies", "lie", "sits", "sit", "stands", "stand", "looks", "look", "seems", "appears",
    "contains", "touches", "belongs", "points", "uses", "indicate",
];

pub(super) fn is_verb(word: &str) -> bool {
    VERBS.contains(&word) || word.ends_with("n't")
}

/// Words that say nothing of what a rule is about.
const STOP: [&str; 70] = [
    "a", "an", "the", "of", "in", "on", "at", "with", "without", "or", "and", "but", "is", "are", "be",
    "been", "being", "was", "were", "by", "to", "from", "for", "as", "that", "which", "who", "whose", "it",
    "its", "their", "his", "her", "them", "they", "this", "these", "those", "than", "more", "most", "less",
    "any", "some", "no", "not", "nor", "only", "other", "such", "like", "into", "if", "when", "where",
    "while", "except", "unless", "image", "images", "picture", "pictures", "should", "must", "may", "show",
    "shows", "shown", "contain", "depict",
];

/// The words of a text that say what it is about.
pub(super) fn content_words(text: &str) -> Vec<String> {
    words(text).into_iter().filter(|word| !STOP.contains(&word.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negations_are_found_and_taken_off() {
        for negative in
            ["no dog is visible", "a dog isn't visible", "a man without a hat", "it can’t be seen"]
        {
            assert!(is_negative(negative), "{negative}");
        }
        for positive in ["a dog is visible", "the skin is uncovered", "a note is visible", "a knot in a rope"]
        {
            assert!(!is_negative(positive), "{positive}");
        }
        assert_eq!(literal("No dog is visible"), ("dog is visible".to_owned(), false));
        assert_eq!(literal("a dog is visible."), ("dog is visible".to_owned(), true));
        assert_eq!(literal("the dog isn't visible"), ("dog is visible".to_owned(), false));
        assert_eq!(literal("a man without a hat").0, literal("a man with a hat").0);
    }

    #[test]
    fn forms_of_a_word_are_alike() {
        for (a, b) in [
            ("injury", "injuries"),
            ("people", "person"),
            ("bath", "bathtub"),
            ("bloody", "blood"),
            ("smoke", "smoking"),
        ] {
            assert!(alike(a, b), "{a} {b}");
        }
        for (a, b) in [("car", "card"), ("fire", "firm"), ("cat", "category"), ("hat", "hand")] {
            assert!(!alike(a, b), "{a} {b}");
        }
    }
}
