//! The shipped files, the schema, the revision, and texts that no person wrote.

// Helpers of tests may panic like tests do; clippy exempts only the test functions themselves.
#![allow(clippy::expect_used, clippy::panic)]

use cluegate_constitution::{Constitution, Severity, json_schema, shipped_names};
use proptest::prelude::*;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/constitution.schema.json");

#[test]
fn shipped_constitutions_are_valid() {
    for name in shipped_names() {
        let constitution = Constitution::shipped(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(constitution.name(), name);
    }
    let scene = shipped("scene");
    let expected = [
        "on-fire",
        "armed",
        "armed-animal",
        "bleeding",
        "drinking",
        "smoking",
        "drug-use",
        "in-bed",
        "bathing",
        "gambling",
        "death",
        "child-alcohol",
    ];
    assert_eq!(ids(&scene), expected);
    assert_eq!(scene.rule("armed").map(|rule| rule.severity), Some(Severity::High));
    assert_eq!(Constitution::shipped("general").expect("valid").rules().len(), 14);
}

fn ids(constitution: &Constitution) -> Vec<&str> {
    constitution.rules().iter().map(|rule| rule.id.as_str()).collect()
}

fn shipped(name: &str) -> Constitution {
    Constitution::shipped(name).unwrap_or_else(|error| panic!("{error}"))
}

/// Whoever moves up a level keeps every rule, word for word.
#[test]
fn each_level_has_all_of_the_level_below() {
    let levels: Vec<Constitution> = (1..=5).map(|level| shipped(&format!("level-{level}"))).collect();
    for pair in levels.windows(2) {
        let [lower, upper] = pair else { panic!("a pair") };
        assert_eq!(lower.rules(), &upper.rules()[..lower.rules().len()], "{}", upper.name());
        assert!(lower.rules().len() < upper.rules().len());
    }
}

#[test]
fn every_category_has_its_states() {
    let (default, states) = (shipped("nine-categories"), shipped("nine-categories-states"));
    assert_eq!(default.rules().len(), 9);
    assert_eq!(default.rules(), &states.rules()[..9], "the state `default` is the same in both");
    let forbidden = &states.rules()[9..];
    assert_eq!(forbidden.len(), 9);
    for (own, any) in default.rules().iter().zip(forbidden) {
        // What a category allows is an exception; where everything is forbidden there is none.
        assert!(!own.unless.is_empty(), "{}", own.id);
        assert!(any.id.starts_with("any-") && any.unless.is_empty(), "{}", any.id);
    }
}

#[test]
fn only_the_example_of_consequences_projects() {
    for name in shipped_names() {
        let rules = shipped(name);
        let asks = rules.rules().iter().filter(|rule| rule.consequence).count();
        assert_eq!(asks, if name == "consequences" { rules.rules().len() } else { 0 }, "{name}");
    }
}

/// One line of the prose for each rule, and no word on how it is to be compiled.
#[test]
fn the_prose_has_the_rules_of_its_constitution() {
    let prose = Constitution::shipped_prose("general").expect("prose");
    let items: Vec<&str> = prose.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    assert_eq!(items.len(), ids(&shipped("general")).len());
    assert!(items.iter().all(|item| item.contains("should") && item.ends_with('.')), "{items:#?}");
    assert_eq!(Constitution::shipped_prose("scene"), None);
}

/// `CLUEGATE_UPDATE=1` writes the file instead of comparing.
#[test]
fn the_published_schema_is_current() {
    let current = format!("{}\n", serde_json::to_string_pretty(&json_schema()).expect("JSON"));
    if std::env::var_os("CLUEGATE_UPDATE").is_some() {
        std::fs::write(SCHEMA, &current).expect("written");
    }
    let published = std::fs::read_to_string(SCHEMA).expect("schema file");
    assert_eq!(
        published, current,
        "run the tests of this crate with CLUEGATE_UPDATE=1 and commit the schema"
    );
}

fn as_json(text: &str) -> serde_json::Value {
    toml::from_str(text).expect("TOML")
}

#[test]
fn the_schema_accepts_what_is_shipped_and_refuses_what_the_parser_refuses() {
    let schema = jsonschema::validator_for(&json_schema()).expect("a schema");
    for name in shipped_names() {
        let text = Constitution::shipped_text(name).expect("shipped");
        let errors: Vec<String> = schema.iter_errors(&as_json(text)).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
    let scene = Constitution::shipped_text("scene").expect("shipped");
    for (from, to) in [
        ("objectiveness = 10", "objectiveness = 11"),
        ("objectiveness = 10\n", ""),
        ("severity = \"high\"", "severity = \"awful\""),
        ("id = \"on-fire\"", "id = \"On fire\""),
        ("central", "centre"),
        ("[[rule]]", "[thresholds]\nbeta = 2.0\n[[rule]]"),
        ("[[rule]]", "unknown = 1\n[[rule]]"),
    ] {
        let text = scene.replacen(from, to, 1);
        assert!(!schema.is_valid(&as_json(&text)), "the schema accepted {to:?}");
        assert!(Constitution::parse(&text, "broken").is_err(), "the parser accepted {to:?}");
    }
    assert!(!schema.is_valid(&as_json("name = \"empty\"")), "the schema accepted a file without rules");
}

fn revision(text: &str) -> String {
    Constitution::parse(text, "test").unwrap_or_else(|error| panic!("{error}")).revision().to_hex()
}

#[test]
fn the_revision_follows_content_and_not_form() {
    let scene = Constitution::shipped_text("scene").expect("shipped");
    let unchanged = [
        scene.replace('\n', "\n\n"),
        format!("# a comment\n{scene}"),
        scene.replacen("[[rule]]", "[thresholds]\nbeta = 0.6\nsmall_object_area = 1e-2\n[[rule]]", 1),
        scene.replacen("\"a person is visible\"", "'a person is visible'", 1),
        scene.replacen("[[rule]]", "[thresholds]\n[[rule]]", 1),
        scene.replacen("severity = \"high\"", "severity = \"high\"\nconsequence = false", 1),
    ];
    for text in &unchanged {
        assert_eq!(revision(text), revision(scene));
    }
    let changed = [
        ("name = \"scene\"", "name = \"scenes\""),
        ("Twelve rules", "12 rules"),
        ("[[rule]]", "[thresholds]\nbeta = 0.61\n[[rule]]"),
        ("[[rule]]", "[thresholds]\nrelevance = 0.0\n[[rule]]"),
        ("objectiveness = 10", "objectiveness = 9"),
        ("severity = \"high\"", "severity = \"low\""),
        ("a person is visible", "a human is visible"),
        ("central = [\"person\"]", "central = [\"person\", \"human\"]"),
        ("central = [\"person\"]", "central = []"),
        ("severity = \"high\"", "severity = \"high\"\nconsequence = true"),
        (
            "[[rule.precondition]]",
            "[[rule.unless]]\nany = [{ statement = \"it is a toy\" }]\n[[rule.precondition]]",
        ),
    ];
    let mut seen = vec![revision(scene)];
    for (from, to) in changed {
        assert!(scene.contains(from), "{from:?} is not in the file");
        let revision = revision(&scene.replacen(from, to, 1));
        assert!(!seen.contains(&revision), "{to:?} did not change the revision");
        seen.push(revision);
    }
    let displayed = Constitution::shipped("scene").expect("valid").revision();
    assert_eq!(displayed.to_string(), displayed.to_hex()[..16]);
}

/// What came to the format later changes no revision of a file that does not use it.
#[test]
fn the_revisions_of_old_files_stay() {
    let scene = Constitution::shipped("scene").expect("valid");
    assert_eq!(scene.revision().to_string(), "ed037de55fcce682");
    let text = Constitution::shipped_text("scene").expect("shipped");
    let asking = text.replacen("severity = \"high\"", "severity = \"high\"\nconsequence = true", 1);
    let asking = Constitution::parse(&asking, "test").unwrap_or_else(|error| panic!("{error}"));
    let asked: Vec<&str> =
        asking.rules().iter().filter(|rule| rule.consequence).map(|rule| rule.id.as_str()).collect();
    assert_eq!(asked, ["on-fire"]);
}

/// A shipped file with some of its characters replaced, cut or doubled.
fn damaged() -> impl Strategy<Value = String> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), "[\\PC\n]{0,4}", 0usize..12), 1..6);
    edits.prop_map(|edits| {
        let mut text: Vec<char> = Constitution::shipped_text("scene").expect("shipped").chars().collect();
        for (at, insert, remove) in edits {
            let at = at.index(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = Constitution::parse(&text, "arbitrary");
    }

    #[test]
    fn arbitrary_lines_of_toml_never_panic(lines in prop::collection::vec(
        "(name|rule|any|\\[\\[rule\\]\\]|\\[\\[rule.precondition\\]\\]|\\[thresholds\\]|beta|é)? ?=? ?(\"x\"|\\[|\\]|\\{|\\}|1e999|nan|-0|\u{1F525})?",
        0..20,
    )) {
        let _ = Constitution::parse(&lines.join("\n"), "arbitrary");
    }

    #[test]
    fn a_damaged_file_is_refused_with_a_line_or_still_valid(text in damaged()) {
        match Constitution::parse(&text, "damaged") {
            Ok(constitution) => {
                for rule in constitution.rules() {
                    prop_assert!(!rule.preconditions.is_empty());
                    let links = rule.preconditions.iter().chain(&rule.unless);
                    for link in links {
                        prop_assert!(!link.any.is_empty());
                        prop_assert!(link.any.iter().all(|statement| !statement.text.trim().is_empty()));
                    }
                }
            }
            Err(error) => {
                let lines = text.split('\n').count();
                prop_assert!(error.line().is_none_or(|line| (1..=lines).contains(&line)), "{}", error);
            }
        }
    }

    /// Any content survives being written as TOML strings with its braces doubled, and two different statements never
    /// share a revision.
    #[test]
    fn statements_come_back_as_written(first in "\\PC{1,40}", second in "\\PC{1,40}") {
        prop_assume!(!first.trim().is_empty() && !second.trim().is_empty());
        let file = |statement: &str| format!(
            "name = \"t\"\n[[rule]]\nid = \"r\"\ntext = \"t\"\nobjectiveness = 1\nseverity = \"low\"\n\
             [[rule.precondition]]\nany = [{{ statement = {} }}]\n",
            toml::Value::from(statement.replace('{', "{{").replace('}', "}}"))
        );
        let built = Constitution::parse(&file(&first), "test").map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(built.rules()[0].preconditions[0].any[0].text.as_str(), first.trim());
        prop_assert_eq!(first.trim() == second.trim(), revision(&file(&first)) == revision(&file(&second)));
    }
}
