#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const FIRE: &str = r#"
[[statement]]
means = "person"
wordings = ["a {person|human} is {visible|in the image}"]
[[statement]]
means = "animal"
wordings = ["an animal is visible"]
[[statement]]
means = "statue"
wordings = ["it is {only |}a statue"]

[[rule]]
id = "burning"
violated = "(burning-person or burning-animal) and not statue"
given = ["burning-person implies person", "burning-animal implies animal"]
[[rule.statement]]
means = "burning-person"
wordings = ["the body of a person is on fire"]
[[rule.statement]]
means = "burning-animal"
wordings = ["the body of an animal is on fire"]
[[rule.statement]]
means = "burning-person or burning-animal"
wordings = ["the body is on fire", "a person or an animal is burning"]
"#;

fn fire() -> Truth {
    parse(FIRE, "fire.toml").unwrap().remove(0)
}

fn compare(chain: &str) -> Result<(), Difference> {
    fire().compare(&Formula::parse(chain).unwrap())
}

#[test]
fn chains_that_say_the_same_are_right_however_they_are_put() {
    for right in [
        "[[a person is visible] or [an animal is visible]] and [the body is on fire] unless [it is a statue]",
        "[[the body of a person is on fire] or [the body of an animal is on fire]] unless [it is only a statue]",
        "[A human is visible in the picture, or] unless [it is a statue]",
        "[a person or an animal is burning] unless [it is a statue]",
    ] {
        let result = compare(right);
        match right.starts_with("[A human") {
            // Not a wording of a person.
            true => assert!(matches!(result, Err(Difference::Unknown(_))), "{result:?}"),
            false => assert_eq!(result, Ok(()), "{right}"),
        }
    }
    // Articles, case, marks and where it is seen make no difference.
    let chain =
        "[the Person is visible!] and [body of a person is on fire] and [AN ANIMAL IS VISIBLE IN THE IMAGE]";
    assert!(matches!(compare(chain), Err(Difference::Table { .. })));
}

#[test]
fn what_differs_is_told_by_a_combination_of_facts() {
    let missing_animal =
        compare("[a person is visible] and [the body of a person is on fire] unless [it is a statue]");
    let Err(Difference::Table { world, expected: true, worlds, of }) = missing_animal else {
        panic!("{missing_animal:?}")
    };
    // Three possible states of each of person and animal, with and without a statue.
    assert_eq!((worlds, of), (2, 18));
    let holds: Vec<&str> = world.iter().filter(|(_, holds)| *holds).map(|(atom, _)| atom.as_str()).collect();
    assert_eq!(holds, ["animal", "burning-animal"]);
    let told = compare("[the body is on fire]").unwrap_err().to_string();
    assert!(told.starts_with("the chain says violated, the rule not violated where"), "{told}");
    for wrong in [
        "[a person is visible] unless [it is a statue]",
        "[the body is on fire] and [a person is visible] unless [it is a statue]",
        "[the body is on fire] unless [[it is a statue] or [an animal is visible]]",
        "[the body is on fire] and [it is a statue]",
    ] {
        assert!(matches!(compare(wrong), Err(Difference::Table { .. })), "{wrong}");
    }
    let unknown = compare("[flames are visible] and [a person is visible]");
    assert_eq!(unknown, Err(Difference::Unknown(vec!["flames are visible".to_owned()])));
}

#[test]
fn tables_that_cannot_be_used_are_refused() {
    let rule = |violated: &str, given: &str, statements: &str| {
        format!("[[rule]]\nid = \"r\"\nviolated = \"{violated}\"\ngiven = [{given}]\n{statements}")
    };
    let two = "[[rule.statement]]\nmeans = \"a\"\nwordings = [\"x\"]\n[[rule.statement]]\nmeans = \"b\"\nwordings = [\"the x\"]";
    for (text, message) in [
        (rule("a and", "", ""), "expected an atom (a-z, 0-9, -), `not` or `(` in \"a and\", got its end"),
        (rule("(a or b", "", ""), "expected `)`"),
        (rule("a b", "", ""), "expected `and`, `or`, `implies` or the end in \"a b\", got `b`"),
        (rule("A", "", ""), "expected an atom"),
        (rule("a or not a", "", ""), "some combinations to violate the rule and some not"),
        (rule("a", "\"not a\"", ""), "got 0 of 1"),
        (rule("a and b", "", two), "one meaning for each wording"),
        (rule("a", "", "[[rule.statement]]\nmeans = \"a\"\nwordings = [\"x {y\"]"), "a } for every {"),
        (rule("a", "", "[[rule.statement]]\nmeans = \"a\"\nwordings = [\"x} y\"]"), "a { for every }"),
        (rule("a", "", "[[rule.statement]]\nmeans = \"a\"\nwordings = [\" \"]"), "a wording"),
        (rule("a", "", "color = 1"), "truth tables in TOML"),
        (format!("{}{}", rule("a", "", ""), rule("b", "", "")), "ids to differ"),
        (rule(&format!("{}a", "not ".repeat(40)), "", ""), "fewer parentheses"),
        (
            rule(&(0..17).map(|n| format!("a{n}")).collect::<Vec<_>>().join(" or "), "", ""),
            "at most 16 atoms",
        ),
    ] {
        let error = parse(&text, "t.toml").unwrap_err().to_string();
        assert!(error.contains(message), "{message:?} is not in {error:?}");
    }
    assert!(parse(&" ".repeat(MAX_BYTES + 1), "t.toml").unwrap_err().to_string().contains("bytes"));
    let many =
        rule("a", "", &format!("[[rule.statement]]\nmeans = \"a\"\nwordings = [\"{}\"]", "{x|y}".repeat(13)));
    assert!(parse(&many, "t.toml").unwrap_err().to_string().contains("4096 spellings"));
}

#[test]
fn operators_bind_as_they_are_read() {
    let holds = |text: &str, truths: &str| {
        Expression::parse(text).unwrap().holds(&|atom: &str| truths.split(' ').any(|known| known == atom))
    };
    assert!(holds("a or b and c", "a"));
    assert!(!holds("(a or b) and c", "a"));
    assert!(holds("not a and b", "b"));
    assert!(!holds("not (a or b)", "b"));
    assert!(holds("a and b implies c or d", "a"));
    assert!(!holds("a and b implies c or d", "a b"));
    assert!(holds("a and b implies c or d", "a b d"));
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused_or_read(text in "([a-c ()|{}=\"\\[\\]\n]|and|or|not|implies|rule|violated){0,40}") {
        let _ = Expression::parse(&text);
        let _ = parse(&text, "t.toml");
        if let Ok(all) = spellings(&text) {
            prop_assert!(!all.is_empty() && all.len() <= MAX_SPELLINGS);
        }
    }
}
