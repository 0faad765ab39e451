//! Parameters: read, put into texts, set from outside, and every way in which one can be wrong.

// Helpers of tests may panic like tests do; clippy exempts only the test functions themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use cluegate_constitution::{Constitution, ParameterKind, Problem, Setting, json_schema};
use proptest::prelude::*;

/// Line 1 is the name.
const GOOD: &str = r#"name = "test"

[[rule]]
id = "crowd"
text = "No more than {people} people within {angle} degrees."
objectiveness = 9
severity = "high"
[rule.parameter.people]
kind = "count"
value = 5
min = 2
max = 50
[rule.parameter.angle]
kind = "angle"
value = 22.5
[[rule.precondition]]
any = [{ statement = "more than {people} people are visible in {{braces}}", central = ["person"] }]
[[rule.unless]]
any = [{ statement = "the {people} people are drawn" }]
"#;

fn good() -> Constitution {
    Constitution::parse(GOOD, "my.toml").expect("accepted")
}

#[track_caller]
fn refused(from: &str, to: &str, line: usize, variant: &str, parts: &[&str]) {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    let error = Constitution::parse(&GOOD.replacen(from, to, 1), "my.toml").expect_err("accepted");
    let message = error.to_string();
    assert_eq!(error.line(), Some(line), "{message}");
    assert!(format!("{:?}", error.problem()).starts_with(variant), "{:?}", error.problem());
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn values_stand_in_text_and_statements() {
    let good = good();
    let rule = &good.rules()[0];
    assert_eq!(rule.text, "No more than 5 people within 22.5 degrees.");
    assert_eq!(rule.preconditions[0].any[0].text, "more than 5 people are visible in {braces}");
    assert_eq!(rule.unless[0].any[0].text, "the 5 people are drawn");
    let angle = &rule.parameters[0];
    assert_eq!((angle.name.as_str(), angle.kind), ("angle", ParameterKind::Angle));
    assert_eq!((angle.value, angle.min, angle.max), (22.5, 0.0, 360.0));
    assert_eq!(good.parameter_paths(), ["crowd.angle", "crowd.people"]);
}

#[test]
fn the_revision_is_that_of_what_the_rule_says() {
    let tables = GOOD.find("[rule.parameter").unwrap()..GOOD.find("[[rule.precondition").unwrap();
    let mut plain = GOOD.to_owned();
    plain.replace_range(tables, "");
    let plain = plain.replace("{people}", "5").replace("{angle}", "22.5");
    let plain = Constitution::parse(&plain, "plain.toml").unwrap();
    assert_eq!(plain.revision(), good().revision());
    let wider = GOOD.replace("max = 50", "max = 60");
    assert_eq!(Constitution::parse(&wider, "wider.toml").unwrap().revision(), good().revision());
    let six = good().with_parameters(&["crowd.people=6".parse().unwrap()]).unwrap();
    assert_ne!(six.revision(), good().revision());
    let written = Constitution::parse(&GOOD.replace("value = 5", "value = 6"), "six.toml").unwrap();
    assert_eq!(six, written);
}

#[test]
fn settings_are_held_to_the_bounds() {
    let set = |settings: &[&str]| {
        let settings: Vec<Setting> = settings.iter().map(|setting| setting.parse().unwrap()).collect();
        good().with_parameters(&settings).map_err(|error| error.to_string())
    };
    assert_eq!(set(&[]).unwrap(), good());
    let both = set(&["crowd.people=7", "crowd.angle = 90", "crowd.people=50"]).unwrap();
    assert_eq!(both.rules()[0].text, "No more than 50 people within 90 degrees.");
    for (setting, message) in [
        (
            "crowd.people=51",
            "test: expected `crowd.people` between 2 and 50 (a whole number), got 51; the constitution states these bounds",
        ),
        (
            "crowd.people=2.5",
            "test: expected `crowd.people` between 2 and 50 (a whole number), got 2.5; the constitution states these bounds",
        ),
        (
            "crowd.angle=NaN",
            "test: expected `crowd.angle` between 0 and 360 (degrees), got NaN; the constitution states these bounds",
        ),
        (
            "crowd.peple=5",
            "test: expected a parameter of the constitution, got `crowd.peple`; did you mean `crowd.people`? its parameters: crowd.angle, crowd.people",
        ),
    ] {
        assert_eq!(set(&[setting]).unwrap_err(), message);
    }
    let none = Constitution::shipped("scene").unwrap();
    let error = none.with_parameters(&["armed.people=5".parse().unwrap()]).unwrap_err().to_string();
    assert_eq!(
        error,
        "scene: expected a parameter of the constitution, got `armed.people`; it has no parameters"
    );
}

#[test]
fn settings_have_one_form() {
    let setting: Setting = "a.b=-1e1".parse().unwrap();
    assert_eq!(setting, Setting { rule: "a".to_owned(), parameter: "b".to_owned(), value: -10.0 });
    assert_eq!(setting.to_string(), "a.b=-10");
    for bad in ["", "a.b", "a=1", "a.b=", "a.b=x", ".b=1", "a.=1", "=1"] {
        let problem = bad.parse::<Setting>().unwrap_err();
        assert_eq!(problem, Problem::Setting { written: bad.to_owned() });
    }
}

#[test]
fn what_is_wrong_with_a_parameter_has_its_line() {
    let value = "ParameterValue";
    refused("value = 5", "value = 51", 10, value, &["`crowd.people` between 2 and 50", "got 51"]);
    refused("value = 5", "value = 3.5", 10, value, &["a whole number", "got 3.5"]);
    refused("min = 2", "min = -1", 11, value, &["`min` of `crowd.people` between 0 and 1000000", "got -1"]);
    refused("max = 50", "max = 1", 12, value, &["`max` of `crowd.people` between 2 and 1000000", "got 1;"]);
    refused("value = 22.5", "value = 361", 15, value, &["`crowd.angle` between 0 and 360 (degrees)"]);
    refused("value = 22.5", "value = nan", 15, value, &["got NaN"]);
    refused("value = 22.5", "value = inf", 15, value, &["got inf"]);
    refused("\"count\"", "\"number\"", 9, "UnknownKind", &["angle, count, share or age", "\"number\""]);
    refused("min = 2", "least = 2", 11, "UnknownKey", &["a parameter", "known keys here: kind, value, min"]);
    refused("value = 5\n", "", 8, "Toml", &["missing field `value`"]);
    refused("parameter.angle", "parameter.Angle", 13, "InvalidId", &["a parameter name", "\"Angle\""]);
    let unknown = "UnknownParameter";
    refused(
        "than {people}",
        "than {poeple}",
        5,
        unknown,
        &["did you mean `{people}`?", "parameters of the rule: angle, people"],
    );
    refused("the {people}", "the {number}", 19, unknown, &["unknown parameter `{number}`"]);
    refused(" within {angle}", " within 90", 3, "UnusedParameter", &["`{angle}`", "use it or remove it"]);
    let brace = "Brace";
    refused("{people} people are", "{people people are", 17, brace, &["is no name of a parameter"]);
    refused("{people} people are", "people} people are", 17, brace, &["`}` was not opened"]);
    refused("{{braces}}", "{{braces}", 17, brace, &["`}` was not opened", "write {{ or }}"]);
    refused("{{braces}}", "{", 17, brace, &["`{` is not closed"]);
    refused("{{braces}}", "{}", 17, brace, &["`{}` is no name"]);
}

#[test]
fn braces_without_parameters_say_what_to_do() {
    let scene = Constitution::shipped_text("scene").unwrap();
    let text = scene.replacen("a person is visible", "a {person} is visible", 1);
    let error = Constitution::parse(&text, "my.toml").unwrap_err().to_string();
    let add = "the rule has none: add [rule.parameter.person], or write {{ and }} for braces";
    assert!(error.contains("unknown parameter `{person}`") && error.contains(add), "{error}");
}

#[test]
fn the_schema_knows_parameters() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let valid = |text: &str| schema.is_valid(&toml::from_str(text).unwrap());
    assert!(valid(GOOD));
    assert!(!valid(&GOOD.replacen("\"count\"", "\"number\"", 1)));
    assert!(!valid(&GOOD.replacen("value = 5\n", "", 1)));
    assert!(!valid(&GOOD.replacen("min = 2", "least = 2", 1)));
    assert!(!valid(&GOOD.replacen("parameter.angle", "parameter.Angle", 1)));
}

proptest! {
    /// A value within the bounds is taken and stands in the text; any other is refused, and nothing panics.
    #[test]
    fn any_value_is_taken_or_refused(value in prop_oneof![any::<f64>(), (0u32..100).prop_map(f64::from)]) {
        let setting = Setting::new("crowd.people", value).unwrap();
        match good().with_parameters(&[setting]) {
            Ok(set) => {
                prop_assert!((2.0..=50.0).contains(&value) && value.fract() == 0.0);
                prop_assert_eq!(
                    set.rules()[0].unless[0].any[0].text.clone(),
                    format!("the {value} people are drawn")
                );
            }
            Err(_) => prop_assert!(!(2.0..=50.0).contains(&value) || value.fract() != 0.0),
        }
    }

    #[test]
    fn any_text_with_braces_is_read_or_refused(text in "[{}a-c ]{0,12}") {
        let file = GOOD.replacen("the {people} people are drawn", &format!("a{text}"), 1);
        if let Ok(built) = Constitution::parse(&file, "test") {
            let statement = &built.rules()[0].unless[0].any[0].text;
            prop_assert_eq!(statement.matches('{').count(), text.matches("{{").count());
        }
    }
}
