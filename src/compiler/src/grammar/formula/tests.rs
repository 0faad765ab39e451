#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn repaired(answer: &str) -> (String, Vec<Repair>) {
    let read = read_preconditions(answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
    (read.value.to_string(), read.repairs.into_iter().collect())
}

#[test]
fn a_formula_is_read_as_it_is_written() {
    let text = "[[people are visible] or [animals are visible]] and [the body is wet] unless [it rains] and [[a] or [b]]";
    let formula = Formula::parse(text).unwrap();
    assert_eq!(
        formula.preconditions,
        [vec!["people are visible", "animals are visible"], vec!["the body is wet"]]
    );
    assert_eq!(formula.unless, [vec!["it rains"], vec!["a", "b"]]);
    assert_eq!(formula.to_string(), text);
    assert_eq!(formula.statements().count(), 6);
    // A lone link may stand in brackets.
    assert_eq!(Formula::parse("[[a]] and\n [ b ]").unwrap(), Formula::parse("[a] and [b]").unwrap());
}

#[test]
fn what_is_nearly_right_is_repaired_by_stated_rules() {
    for (answer, formula, repairs) in [
        ("```text\n[a] and [b]\n```", "[a] and [b]", vec![Repair::CodeFence]),
        ("Answer: [a] and [b]", "[a] and [b]", vec![Repair::Label]),
        ("**Preconditions:** [a]", "[a]", vec![Repair::Label]),
        ("\"[a] and [b]\"", "[a] and [b]", vec![Repair::Quotes]),
        ("[\"a\"] and ['b']", "[a] and [b]", vec![Repair::Quotes]),
        ("[a.] and [b].", "[a] and [b]", vec![Repair::FullStop]),
        ("The rule has two parts.\n\n[a] and [b]\nThat is all.", "[a] and [b]", vec![Repair::OtherLines]),
        ("[a] or [b]", "[[a] or [b]]", vec![Repair::OuterBrackets]),
        ("[[a] and [b]]", "[a] and [b]", vec![Repair::OuterBrackets]),
        ("[[a] or [b]] and [[c] or [d]", "[[a] or [b]] and [[c] or [d]]", vec![Repair::ClosingBracket]),
        ("[[[a]] or [b]]", "[[a] or [b]]", vec![Repair::Nesting]),
        ("[a] AND [b]", "[a] and [b]", vec![Repair::Words]),
        ("[a] and [a]", "[a]", vec![Repair::Duplicate]),
        ("[a] unless none", "[a]", vec![Repair::EmptyException]),
        ("[a] unless [[None] or [none]]", "[a]", vec![Repair::EmptyException]),
    ] {
        assert_eq!(repaired(answer), (formula.to_owned(), repairs), "{answer}");
    }
    let (formula, repairs) = repaired("[[[a] and [b]] or [c]] and [d]");
    assert_eq!(formula, "[[a] or [c]] and [[b] or [c]] and [d]");
    assert!(repairs.contains(&Repair::Distributed));
    // Braces are characters like any other.
    assert_eq!(repaired("[a {sign} is visible]").0, "[a {sign} is visible]");
}

#[test]
fn what_is_ambiguous_or_no_formula_is_refused_with_its_place() {
    for (answer, part) in [
        ("", "a statement in brackets"),
        ("I cannot help with that.", "a statement in brackets"),
        ("a dog is visible", "a statement in brackets"),
        ("[a] or [b] and [c]", "brackets around the statements"),
        ("[[a] or [b] and [c]]", "brackets around the statements"),
        ("[a] [b]", "at character 5"),
        ("[a] and", "got the end at character 8"),
        ("[a] and [b", "closing bracket, got \"b\" at character 10"),
        ("[a] but [b]", "`unless` or the end"),
        ("[a [b]]", "without brackets in it"),
        ("[]", "such as \"a dog is visible\""),
        ("[...]", "such as \"a dog is visible\""),
        ("[It is a dog. It barks]", "without a full stop"),
        ("[a]\n[b]\nnot this", "at character"),
        ("not [a]", "a statement in brackets"),
        ("[a] unless", "a statement in brackets"),
        ("[no dog is visible] and [the person isn't smiling]", "what is visible"),
        ("[[a dog is visible] or [nothing is visible]]", "what is visible"),
    ] {
        let error = read_preconditions(answer).unwrap_err().to_string();
        assert!(error.contains(part), "{answer}: {error}");
    }
    for too_much in [
        format!("[{}]", "a".repeat(MAX_STATEMENT_CHARS + 1)),
        vec!["[a]"; MAX_LINKS + 1].join(" and "),
        "[".repeat(200),
        format!("{}a{}", "[".repeat(40), "]".repeat(40)),
        "a".repeat(super::super::MAX_ANSWER_BYTES + 1),
    ] {
        assert!(read_preconditions(&too_much).is_err());
    }
    let product = ["[[a] and [b]]"; 6].join(" or ");
    assert!(read_preconditions(&product).unwrap_err().to_string().contains("at most 32"));
}

/// What the two sides of a repair say, asked of one assignment of the statements.
fn holds(chain: &Chain, truth: impl Fn(&str) -> bool) -> bool {
    chain.iter().all(|any| any.iter().any(|statement| truth(statement)))
}

#[test]
fn multiplying_out_keeps_the_truth_table() {
    let formula = read_preconditions("[[a] and [[b] or [c]]] or [[c] and [d]]").unwrap().value;
    for bits in 0..16u32 {
        let of = |name: &str| bits >> "abcd".find(name).unwrap() & 1 == 1;
        let meant = (of("a") && (of("b") || of("c"))) || (of("c") && of("d"));
        assert_eq!(holds(&formula.preconditions, of), meant, "{bits:04b}");
    }
}

fn statements() -> impl Strategy<Value = String> {
    "[(]?[a-zA-Z\u{e9}\u{732b}][a-z0-9,;{}()%/-]{0,6}( [a-z0-9{}-]{1,6}){0,4}"
}

fn chains(least: usize) -> impl Strategy<Value = Chain> {
    vec(vec(statements(), 1..4), least..5)
}

fn distinct(chain: &Chain) -> bool {
    let unique = |any: &Vec<String>| any.iter().collect::<BTreeSet<_>>().len() == any.len();
    chain.iter().all(unique) && chain.iter().collect::<BTreeSet<_>>().len() == chain.len()
}

proptest! {
    #[test]
    fn what_is_printed_is_read(preconditions in chains(1), unless in chains(0)) {
        prop_assume!(distinct(&preconditions) && distinct(&unless));
        let formula = Formula { preconditions, unless };
        prop_assume!(!formula.unless.iter().flatten().any(|statement| says_none(statement)));
        prop_assert_eq!(Formula::parse(&formula.to_string()).unwrap(), formula);
    }

    #[test]
    fn any_answer_is_read_or_refused(
        answer in "(\\[|\\]|\\[|\\]| and | or | unless |AND|\\[none\\]|none|[a-c.\"'`\u{e9}\u{732b}\\n ]){0,60}",
    ) {
        if let Ok(read) = read_preconditions(&answer) {
            prop_assert!(!read.value.preconditions.is_empty());
            prop_assert!(read.value.preconditions.iter().chain(&read.value.unless).all(|any| !any.is_empty()));
            // What was repaired once needs no other repair.
            prop_assert_eq!(Formula::parse(&read.value.to_string()).unwrap(), read.value);
        }
    }
}
