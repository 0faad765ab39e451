//! Each lint finds its example, at its place, and nothing in what is shipped; the page about them is current.

// Helpers of tests may panic like tests do; clippy exempts only the test functions themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::fmt::Write as _;

use cluegate_constitution::lint::{Finding, LINTS, Level, Lint, SourceMap};
use cluegate_constitution::{Constitution, shipped_names};
use proptest::prelude::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/constitution-lints.md");

fn findings(text: &str) -> Vec<Finding> {
    let constitution = Constitution::parse(text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"));
    constitution.lint(Some(&SourceMap::new(text).expect("TOML")))
}

/// A file of one rule: its chain and its exception, each link a list of statements, `|` between the links. Central is the
/// last word but one of each statement, such as `dog` of `a dog barks`.
fn rule(id: &str, preconditions: &str, unless: &str) -> String {
    let mut text = format!(
        "[[rule]]\nid = \"{id}\"\ntext = \"The picture shows: {}.\"\nobjectiveness = 10\nseverity = \"low\"\n",
        preconditions.replace(['|', ';'], ",").replace(['{', '}', '"'], "")
    );
    for (key, chain) in [("precondition", preconditions), ("unless", unless)] {
        for link in chain.split('|').map(str::trim).filter(|link| !link.is_empty()) {
            writeln!(text, "[[rule.{key}]]\nany = [").unwrap();
            for statement in link.split(';').map(str::trim) {
                let central = statement.split(' ').nth(1).unwrap_or(statement);
                writeln!(text, "  {{ statement = \"{statement}\", central = [\"{central}\"] }},").unwrap();
            }
            text.push_str("]\n");
        }
    }
    text
}

fn one(preconditions: &str, unless: &str) -> String {
    format!("name = \"test\"\n{}", rule("r", preconditions, unless))
}

fn codes(text: &str) -> Vec<&'static str> {
    findings(text).iter().map(|finding| finding.lint.code).collect()
}

#[test]
fn what_is_shipped_has_no_warning() {
    for name in shipped_names() {
        let warnings: Vec<String> = findings(Constitution::shipped_text(name).unwrap())
            .iter()
            .filter(|finding| finding.lint.level > Level::Note)
            .map(|finding| format!("{:?} {finding}", finding.region.map(|region| region.line)))
            .collect();
        assert_eq!(warnings, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn chains_are_examined() {
    let none: [&str; 0] = [];
    assert_eq!(
        codes(&one("a dog is visible | a cat is visible ; a bird is visible", "a toy is visible")),
        none
    );
    assert_eq!(codes(&one("a dog is visible ; A dog  is visible", "")), ["C001"]);
    assert_eq!(codes(&one("a dog is visible | a dog is visible ; a cat is visible", "")), ["C002"]);
    assert_eq!(codes(&one("a dog is visible ; a cat is visible | a dog is visible", "")), ["C002"]);
    assert_eq!(codes(&one("a dog is visible | a dog is visible", "")), ["C002"]);
    assert_eq!(
        codes(&one("a dog is visible", "a toy is visible | a dog is visible ; a cat is visible")),
        ["C002"]
    );
    assert_eq!(codes(&one("a dog is visible", "a dog is visible")), ["C003"]);
    assert_eq!(codes(&one("a dog is visible", "a dog is visible ; a cat is visible")), ["C003"]);
    assert_eq!(codes(&one("a dog is visible | no dog is visible", "")), ["C003"]);
    assert_eq!(
        codes(&one("a dog is visible | no dog is visible ; a cat is visible | no cat is visible", "")),
        ["C003"]
    );
    assert_eq!(codes(&one("a cat is visible | a dog is visible ; no dog is visible", "")), ["C004"]);
    assert_eq!(codes(&one("a dog is visible", "the dog is not visible")), ["C005"]);
    assert_eq!(codes(&one("a dog is visible", "a cat is visible | no cat is visible")), ["C005"]);
    assert_eq!(codes(&one("no dog is visible | a cat isn't visible", "")), ["C006"]);
    assert_eq!(codes(&one("no dog is visible | a cat is visible", "")), none);
    let twice = format!("{}{}", one("a dog is visible", ""), rule("s", "a dog is visible", ""));
    assert_eq!(codes(&twice), ["C007"]);
    assert!(
        findings(&twice)[0].to_string().contains("rule `s`: its chain and exception are those of rule `r`")
    );
}

#[test]
fn more_facts_than_can_be_tried_are_no_finding() {
    let many: Vec<String> = (0..40).map(|n| format!("a dog{n} is visible")).collect();
    assert_eq!(codes(&one(&many.join(" | "), "a cat is visible")), Vec::<&str>::new());
}

#[test]
fn wording_is_examined() {
    for (statement, found) in [
        ("a dog is visible and a cat is visible", &["C101"][..]),
        ("a dog is visible or a cat is visible", &["C101"]),
        ("a dog is barking and running", &["C101"]),
        ("the dog is visible and covered by a blanket", &["C101"]),
        ("an arm or a leg is visible", &[]),
        ("two or more dogs are playing with each other", &[]),
        ("a dog is eating bread and butter", &[]),
        ("the dog is cut or torn", &[]),
        ("Is a dog visible?", &["C102"]),
        ("a dog is visible.", &["C102"]),
        ("a dog is here. It barks", &["C102"]),
        ("more than {{number}} dogs are visible", &["C103"]),
    ] {
        let text = one(statement, "").replace("central = [\"", "central = [\"dog\", \"").replace(
            "central = [\"dog\"",
            if statement.contains("dog") { "central = [\"dog\"" } else { "central = [\"arm\"" },
        );
        let found_codes: Vec<_> = codes(&text).into_iter().filter(|code| *code != "C104").collect();
        assert_eq!(found_codes, found, "{statement}");
    }
}

#[test]
fn central_words_are_examined() {
    let with = |central: &str| {
        codes(
            &one("a dog is holding a bone", "")
                .replace("central = [\"dog\"]", &format!("central = {central}")),
        )
    };
    assert_eq!(with("[\"dogs\", \"bone\"]"), Vec::<&str>::new());
    assert_eq!(with("[]"), ["C106"]);
    assert_eq!(with("[\"tree\"]"), ["C104"]);
    for phrase in
        ["dog holding bone", "dog with a bone", "dog that barks", "bone is held", "a very big old white dog"]
    {
        assert_eq!(with(&format!("[{phrase:?}]")), ["C105"], "{phrase}");
    }
    assert_eq!(with("[\"bathing dog\", \"dog clothing\"]"), Vec::<&str>::new());
}

#[test]
fn texts_are_compared_with_their_chains() {
    let text = one("a dog is visible", "");
    assert_eq!(codes(&text.replace("= 10", "= 8")), ["C107"]);
    let other =
        text.replace("The picture shows: a dog is visible.", "The image should not show gambling people.");
    assert_eq!(codes(&other), ["C108"]);
    assert!(findings(&other)[0].message.ends_with("names: gambling, people"));
    let braces = text.replace("The picture shows: a dog", "The picture shows: a {{dog}}");
    assert_eq!(codes(&braces), ["C103"]);
}

#[test]
fn findings_have_their_place() {
    let text = one("a dog is visible | a cat is visible. ; a bird is visible", "");
    let finding = &findings(&text)[0];
    let region = finding.region.unwrap();
    assert_eq!((finding.lint.code, finding.rule.as_str()), ("C102", "r"));
    let line = text.lines().nth(region.line - 1).unwrap();
    assert_eq!(&line[region.column - 1..region.end_column - 1], "\"a cat is visible.\"");
    assert_eq!(region.line, region.end_line);
    let json = serde_json::to_value(finding).unwrap();
    assert_eq!((&json["code"], &json["level"]), (&"C102".into(), &"warning".into()));
    let other = Constitution::parse(&text, "test").unwrap();
    assert!(other.lint(Some(&SourceMap::new("name = 1").unwrap()))[0].region.is_none());
    assert!(SourceMap::new("not = = toml").is_none());
}

#[test]
fn a_lint_is_set_aside_by_name() {
    let text = one("a dog is visible", "").replace("= 10", "= 8");
    assert_eq!(codes(&format!("allow = [\"subjective\"]\n{text}")), Vec::<&str>::new());
    assert_eq!(codes(&text.replace("id =", "allow = [\"subjective\"]\nid =")), Vec::<&str>::new());
    assert_eq!(codes(&format!("allow = [\"no-counterpart\"]\n{text}")), ["C107"]);
    for (name, part) in [("subjectiv", "did you mean `subjective`?"), ("invalid", "got \"invalid\"")] {
        let error = Constitution::parse(&format!("allow = [{name:?}]\n{text}"), "my.toml").unwrap_err();
        assert!(error.line() == Some(1) && error.to_string().contains(part), "{error}");
    }
    let revision = |text: &str| Constitution::parse(text, "test").unwrap().revision();
    assert_eq!(revision(&text), revision(&format!("allow = [\"subjective\"]\n{text}")));
}

#[test]
fn codes_and_names_are_unique_and_sorted() {
    assert!(LINTS.windows(2).all(|pair| pair[0].code < pair[1].code));
    for lint in LINTS {
        assert_eq!(LINTS.iter().filter(|other| other.name == lint.name).count(), 1);
        assert_eq!(Lint::find(lint.name), Some(lint));
        assert_eq!(Lint::find(&lint.code.to_lowercase()), Some(lint));
        assert!(
            lint.what.ends_with('.') && !lint.mend.is_empty() && !lint.example.is_empty(),
            "{}",
            lint.code
        );
    }
}

/// `CLUEGATE_UPDATE=1` writes the file instead of comparing.
#[test]
fn the_page_about_lints_is_current() {
    let mut page = "# Lints of constitutions\n\n\
        What `cluegate constitution check` finds beside mistakes of form. An error makes the constitution unusable, a warning \
        is probably a mistake, a note is worth a look. `allow = [\"name\"]` at the top of the file or in a rule sets a lint \
        aside. This page is written from the catalogue in `src/constitution/src/lint/catalogue.rs` by its test.\n"
        .to_owned();
    for lint in LINTS {
        let Lint { code, name, level, what, why, example, mend } = lint;
        let level = level.as_str();
        write!(
            page,
            "\n## {code} {name} ({level})\n\n{what}\n\n**Why.** {why}\n\n**Example.** `{example}`\n\n**To mend.** {mend}\n"
        )
        .unwrap();
    }
    if std::env::var_os("CLUEGATE_UPDATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let published = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(published, page, "run the tests of this crate with CLUEGATE_UPDATE=1 and commit the page");
}

proptest! {
    /// Whatever a rule says, it can be examined, and every finding stands within the file.
    #[test]
    fn any_rule_can_be_examined(
        links in prop::collection::vec(prop::collection::vec("(no |not )?(a|b|c)( and| or| is)?( d|\\.|ß|𝄞)?", 1..4), 1..4),
        exception in prop::collection::vec("(no )?(a|b|c|\\PC{1,9})", 0..3),
    ) {
        let chain = |key: &str, links: &[Vec<String>]| links.iter().map(|link| {
            let any: Vec<String> = link.iter().map(|statement| {
                let text = statement.replace('{', "{{").replace('}', "}}");
                format!("{{ statement = {} }}", toml::Value::from(text))
            }).collect();
            format!("[[rule.{key}]]\nany = [{}]\n", any.join(", "))
        }).collect::<String>();
        let exception: Vec<Vec<String>> =
            exception.into_iter().filter(|text| !text.trim().is_empty()).map(|text| vec![text]).collect();
        let text = format!(
            "name = \"t\"\n[[rule]]\nid = \"r\"\ntext = \"t\"\nobjectiveness = 9\nseverity = \"low\"\n{}{}",
            chain("precondition", &links), chain("unless", &exception)
        );
        let lines = text.lines().count();
        for finding in findings(&text) {
            let region = finding.region.expect("a place");
            prop_assert!(region.line >= 1 && region.end_line <= lines, "{}", finding);
        }
    }
}

#[test]
fn the_example_in_the_documentation_is_sound() {
    let page = include_str!("../../../docs/constitutions.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(example.starts_with("name = \"playground\""));
    assert_eq!(codes(example), Vec::<&str>::new());
    let constitution = Constitution::parse(example, "the documentation").unwrap();
    // What it calls the defaults are the defaults.
    let defaults = cluegate_constitution::Thresholds { relevance: Some(0.22), ..Default::default() };
    assert_eq!(*constitution.thresholds(), defaults);
}
