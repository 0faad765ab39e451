//! The canonical form: what it looks like, that it says the same, and that it is its own canonical form.

// Helpers of tests may panic like tests do; clippy exempts only the test functions themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use cluegate_constitution::{Constitution, format, shipped_names};
use proptest::prelude::*;

const MESSY: &str = r#"

# What this file is.
name='mess'   # a short name


description = '''Says "much".'''
  [ thresholds ] # rarely needed
  beta=0.50
    alpha1   =  3e-1

# About weapons.

# More about weapons.
[[rule]]
"id" = "armed"
    text="No more than {count} weapons."
objectiveness=0b1001
severity = "high"
[rule.parameter]
count = {kind="count",value=2, max = 9,}

  # Who.
[[rule.precondition]]
any = [{statement="a person is visible",central=[ "person" , 'hand' ]},   # a hand will do
  # no animals
  {statement = "a robot is visible"} # nor this
]
[[rule.precondition]]


any = [
  { statement = "a person is holding more than {count} weapons", central = ["weapon"] }
]
[[rule.unless]]
any = [{ statement = "the weapon is made of rubber, as one sees by the way in which it bends in the hand of the person who holds it", central = ["weapon"] }]
[[rule.unless]]
any = [{ statement = "a toy shop is visible", # the sign
         central = [] }]
  # The end.
"#;

#[test]
fn the_canonical_form_is_as_reviewed() {
    let formatted = format(MESSY, "messy.toml").unwrap_or_else(|error| panic!("{error}"));
    insta::assert_snapshot!("canonical", formatted);
    assert_eq!(format(&formatted, "messy.toml").unwrap(), formatted);
    assert_eq!(format(&MESSY.replace('\n', "\r\n"), "messy.toml").unwrap().replace('\r', ""), formatted);
}

#[test]
fn what_is_shipped_is_in_canonical_form() {
    for name in shipped_names() {
        let text = Constitution::shipped_text(name).unwrap();
        assert_eq!(format(text, name).unwrap(), text, "run `cluegate constitution fmt` on {name}.toml");
    }
}

#[test]
fn what_is_no_constitution_is_refused() {
    let error = format("name = 'a'", "my.toml").unwrap_err().to_string();
    assert!(error.contains("at least one [[rule]]"), "{error}");
    let error = format("name = 'a", "my.toml").unwrap_err();
    assert_eq!(error.line(), Some(1));
}

/// Another spelling of the messy file: white space and comments put where TOML allows them, and a few values replaced.
fn respelled() -> impl Strategy<Value = String> {
    let inserts = [" ", "\t", "\n", "\n\n# c\n", "\n  # é \"x\" = [\n", " # d\n"];
    let edit = (any::<prop::sample::Index>(), prop::sample::select(inserts.to_vec()));
    prop::collection::vec(edit, 1..5).prop_map(|edits| {
        let mut text = MESSY.to_owned();
        for (place, insert) in edits {
            let places: Vec<usize> = text
                .char_indices()
                .filter(|(_, c)| matches!(c, ' ' | '\n' | ',' | '[' | ']' | '{' | '}' | '='))
                .map(|(at, _)| at)
                .collect();
            text.insert_str(places[place.index(places.len())], insert);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn formatting_keeps_meaning_and_comments_and_is_done_once(text in respelled()) {
        let Ok(meant) = Constitution::parse(&text, "respelled") else { return Ok(()) };
        let formatted = format(&text, "respelled").map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&Constitution::parse(&formatted, "formatted").unwrap(), &meant);
        for comment in ["# c", "# d", "# é \"x\" = [", "# a hand will do", "# no animals", "# The end."] {
            let count = |text: &str| text.matches(comment).count();
            prop_assert_eq!(count(&formatted), count(&text), "{}\n{}\n----\n{}", comment, text, formatted);
        }
        let again = format(&formatted, "formatted").map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(again, formatted);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = format(&text, "arbitrary");
    }
}
