#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn rules(prose: &str) -> Vec<String> {
    split(prose).unwrap().rules.into_iter().map(|rule| rule.text).collect()
}

fn left_out(prose: &str) -> Vec<(usize, &'static str)> {
    split(prose).unwrap().left_out.iter().map(|part| (part.line, part.reason)).collect()
}

#[test]
fn a_document_comes_apart_into_rules_and_what_is_none() {
    let prose = "\
# Picture rules

These rules are for our users. Pictures must not show
weapons. This does not apply to toys.

## Animals

The pictures should not show:
- cats
- dogs on a sofa,
  a bed or a chair
- Pictures must not show 2.5 m snakes.
- Except in a zoo.
* *

1. No fire.
(b) No smoke.
2) No fire!

---
| No | table |
```
No code
```
Hunting
=======
It is allowed to show deer? However, no guns.
";
    let split = split(prose).unwrap();
    let rules: Vec<(usize, &str)> = split.rules.iter().map(|rule| (rule.line, rule.text.as_str())).collect();
    assert_eq!(
        rules,
        [
            (3, "Pictures must not show weapons. This does not apply to toys."),
            (9, "The pictures should not show cats"),
            (10, "The pictures should not show dogs on a sofa, a bed or a chair"),
            (12, "Pictures must not show 2.5 m snakes. Except in a zoo."),
            (16, "No fire."),
            (17, "No smoke."),
            (27, "It is allowed to show deer? However, no guns."),
        ]
    );
    assert_eq!(
        left_out(prose),
        [
            (1, HEADING),
            (3, NO_RULE),
            (6, HEADING),
            (8, INTRODUCTION),
            (14, BLANK),
            (18, TWICE),
            (20, CODE),
            (21, TABLE),
            (22, CODE),
            (23, CODE),
            (24, CODE),
            (25, HEADING),
        ]
    );
}

#[test]
fn what_only_qualifies_needs_a_rule_before_it() {
    assert_eq!(
        rules("No guns. Toys are fine. Unless they look real, this is allowed."),
        ["No guns. Toys are fine. Unless they look real, this is allowed."]
    );
    assert_eq!(
        left_out("No guns.\n\n# Knives\n\nExcept in a kitchen. No knives."),
        [(3, HEADING), (5, QUALIFIES_NOTHING)]
    );
}

#[test]
fn a_rule_in_another_language_is_kept() {
    let german = "Das Bild darf keine Waffen zeigen.";
    let chinese = "\u{56fe}\u{50cf}\u{4e0d}\u{5e94}\u{663e}\u{793a}\u{6b66}\u{5668}\u{3002}";
    assert_eq!(rules(german), [german]);
    assert_eq!(rules(&format!("{german} {chinese}")), [german, chinese]);
}

#[test]
fn prose_of_which_nothing_can_be_made_is_refused() {
    assert_eq!(split(" \n\t\u{3000}\n"), Err(ProseError::Empty));
    let error = split("# Rules\n\nThis is the list of our rules:").unwrap_err().to_string();
    assert!(error.contains("line 1: a heading; line 3: introduces"), "{error}");
    assert_eq!(
        split(&"a".repeat(MAX_PROSE_BYTES + 1)),
        Err(ProseError::TooLong { bytes: MAX_PROSE_BYTES + 1 })
    );
    let many = |count: usize| (0..count).map(|n| format!("- no thing {n}\n")).collect::<String>();
    assert_eq!(split(&many(1000)).unwrap().rules.len(), 1000);
    assert_eq!(split(&many(MAX_RULES + 1)), Err(ProseError::TooManyRules { rules: MAX_RULES + 1 }));
}

#[test]
fn marks_of_items_are_told_from_words() {
    for (line, text) in [
        ("- a", Some("a")),
        ("\u{2022} a", Some("a")),
        ("12. a", Some("a")),
        ("1.2) a", Some("a")),
        ("a) a", Some("a")),
        ("(iv) a", None),
        ("A. a", None),
        ("-5 degrees", None),
        ("2.5 metres", None),
        ("No. 5", None),
        ("1995 was", None),
        ("(all) a", None),
    ] {
        assert_eq!(item(line), text, "{line}");
    }
}

proptest! {
    /// Whatever the text, no word of it gets lost.
    #[test]
    fn every_word_is_in_a_rule_or_left_out(prose in "(- |# |1\\. |no |except |the |a[0-9]|[.:|>`*\\n -]|\\n\\n){0,40}") {
        let Ok(split) = split(&prose) else { return Ok(()) };
        let texts = split.rules.iter().map(|rule| &rule.text).chain(split.left_out.iter().map(|part| &part.text));
        let kept: String = texts.map(|text| format!("{} ", plain_words(text))).collect();
        for word in plain_words(&prose.replace("1. ", " ")).split(' ') {
            prop_assert!(kept.contains(word), "{word} of {prose:?} is not in {split:?}");
        }
        for rule in &split.rules {
            prop_assert!(!rule.text.contains('\n') && rule.text.chars().any(char::is_alphanumeric));
        }
    }
}
