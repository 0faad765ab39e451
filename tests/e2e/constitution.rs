//! The tools of who writes rules: check, diff, explain, fmt, try.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Run, Scenes, command, finish, folder, run};

/// What SARIF 2.1.0 says of the parts that are written here.
const SARIF: &str = include_str!("sarif-parts.schema.json");

/// Three mistakes, in words that the embedded suite knows.
const QUESTIONABLE: &str = r#"name = "questionable"

[[rule]]
id = "armed"
text = "The image should not show a person holding a weapon."
objectiveness = 8
severity = "high"
[[rule.precondition]]
any = [{ statement = "a person is visible and a weapon is visible", central = ["person holding weapon"] }]

[[rule]]
id = "animal"
text = "The image should not show an animal."
objectiveness = 10
severity = "low"
[[rule.precondition]]
any = [{ statement = "an animal is visible" }]
"#;

/// A rule with a parameter.
const CROWD: &str = r#"name = "crowd"

[[rule]]
id = "crowd"
text = "The image should not show more than {people} people."
objectiveness = 10
severity = "low"
[rule.parameter.people]
kind = "count"
value = 3
min = 1
max = 9
[[rule.precondition]]
any = [{ statement = "more than {people} people are visible", central = ["person"] }]
"#;

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn constitution(arguments: &[&str]) -> Run {
    finish(command().arg("constitution").args(arguments))
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["code"].as_str().expect("a code")).collect()
}

fn assert_sarif(log: &Value) {
    let schema = serde_json::from_str(SARIF).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator.iter_errors(log).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    for result in run["results"].as_array().expect("results") {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
}

#[test]
fn everything_that_is_shipped_passes_the_check() {
    for line in run(["constitution", "list"]).expect(0).stdout.lines() {
        let name = line.split_whitespace().next().expect("a name");
        let check = constitution(&["check", name]).expect(0);
        assert!(check.stdout.contains("0 warnings") && check.stdout.contains("not examined:"), "{check:?}");
    }
    let report = constitution(&["check", "scene", "--models", "mini", "--format", "json"]).expect(0).json();
    assert_eq!(codes(&report), Vec::<&str>::new());
    assert_eq!(report["not_examined"], serde_json::json!([]));
}

#[test]
fn findings_are_told_with_their_place() {
    let out = folder();
    let file = write(out.path(), "rules.toml", QUESTIONABLE);
    let check = constitution(&["check", &file]).expect(1);
    insta::assert_snapshot!("check", check.stdout.replace(out.path().to_str().expect("UTF-8"), "FOLDER"));
    let report = constitution(&["check", &file, "--format", "json"]).expect(1).json();
    assert_eq!(codes(&report), ["C101", "C105", "C107", "C106"]);
    assert_eq!(report["findings"][0]["region"]["line"], 9);

    let note = write(
        out.path(),
        "note.toml",
        &QUESTIONABLE[QUESTIONABLE.find("[[rule]]\nid = \"an").expect("a rule")..],
    );
    let note = write(
        Path::new(""),
        &note,
        &format!("name = \"note\"\n{}", fs::read_to_string(&note).expect("a file")),
    );
    let quiet = constitution(&["check", &note]).expect(0);
    assert!(quiet.stdout.contains("0 warnings, 1 note (--strict shows them)"), "{quiet:?}");
    let strict = constitution(&["check", &note, "--strict"]).expect(1);
    assert!(strict.stdout.contains("note C106 no-central-word"), "{strict:?}");
}

#[test]
fn a_file_that_is_none_is_an_error_in_every_format() {
    let out = folder();
    let file = write(out.path(), "my rules.toml", &QUESTIONABLE.replace("severity", "severty"));
    let text = constitution(&["check", &file]).expect(2);
    assert!(text.stderr.contains("my rules.toml:7: unknown key `severty`"), "{text:?}");
    let json = constitution(&["check", &file, "--format", "json"]).expect(2).json();
    assert_eq!((codes(&json), &json["findings"][0]["region"]["line"]), (vec!["C000"], &Value::from(7)));
    let sarif = constitution(&["check", &file, "--format", "sarif"]).expect(2).json();
    assert_sarif(&sarif);
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert!(
        place["artifactLocation"]["uri"].as_str().expect("a URI").ends_with("/my%20rules.toml"),
        "{place}"
    );
    assert_eq!(place["region"]["startLine"], 7);
    constitution(&["check", "nowhere.toml"]).expect(2);
}

#[test]
fn sarif_is_what_its_schema_says() {
    let out = folder();
    let file = write(out.path(), "rules.toml", QUESTIONABLE);
    let log = constitution(&["check", &file, "--format", "sarif"]).expect(1).json();
    assert_sarif(&log);
    let run = &log["runs"][0];
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 4);
    let region = &results[0]["locations"][0]["physicalLocation"]["region"];
    let line = QUESTIONABLE.lines().nth(8).expect("a line");
    let column = |key: &str| usize::try_from(region[key].as_u64().expect("a column")).expect("small") - 1;
    assert_eq!(
        &line[column("startColumn")..column("endColumn")],
        "\"a person is visible and a weapon is visible\""
    );
    assert_eq!(results[0]["level"], "warning");
    let notification = &run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"];
    assert!(notification.as_str().is_some_and(|text| text.contains("not examined")), "{run}");
    // The subset is one: it refuses what the standard refuses.
    let schema = jsonschema::validator_for(&serde_json::from_str(SARIF).expect("JSON")).expect("a schema");
    for (pointer, wrong) in [
        ("/version", Value::from("2.0.0")),
        ("/runs/0/results/0/level", Value::from("bad")),
        ("/runs/0/results/0/locations/0/physicalLocation/region/startLine", Value::from(0)),
        ("/runs/0/results/0/message", Value::from("text")),
        ("/runs/0/tool/driver/name", Value::Null),
    ] {
        let mut broken = log.clone();
        *broken.pointer_mut(pointer).expect("a place") = wrong;
        assert!(!schema.is_valid(&broken), "{pointer}");
    }
}

#[test]
fn models_find_what_texts_alone_do_not_tell() {
    let (scenes, out) = (Scenes::new(), folder());
    let long = "person ".repeat(100);
    let rules = QUESTIONABLE
        .replace("[[rule]]\nid = \"armed\"", "[thresholds]\nrelevance = 0.99\n\n[[rule]]\nid = \"armed\"")
        .replace("show an animal", &format!("show {long}"))
        .replace("a weapon is visible", "a dragon is visible");
    let file = write(out.path(), "rules.toml", &rules);
    let report = constitution(&["check", &file, "--models", "mini", "--format", "json"]).expect(1).json();
    let found = codes(&report);
    for code in ["C202", "C203", "C204"] {
        assert!(found.contains(&code), "{code}: {report:#}");
    }
    let message = |code: &str| {
        let findings = report["findings"].as_array().expect("a list");
        let finding = findings.iter().find(|finding| finding["code"] == code).expect("found");
        finding["message"].as_str().expect("a message").to_owned()
    };
    assert!(message("C204").contains("dragon"), "{}", message("C204"));
    assert!(message("C203").contains("rendered scenes"), "{}", message("C203"));
    assert!(message("C202").contains("relevance encoder reads"), "{}", message("C202"));

    let pictures = out.path().join("pictures");
    fs::create_dir(&pictures).expect("a folder");
    let empty = constitution(&[
        "check",
        "scene",
        "--models",
        "mini",
        "--pictures",
        pictures.to_str().expect("UTF-8"),
    ]);
    assert!(empty.expect(2).stderr.contains("no picture files"));
    scenes.save(&scenes.pair("cat", "tree", false), &pictures, "cat.png");
    let scene = constitution(&[
        "check",
        "scene",
        "--models",
        "mini",
        "--format",
        "json",
        "--pictures",
        pictures.to_str().expect("UTF-8"),
    ]);
    let report = scene.expect(1).json();
    assert!(codes(&report).iter().all(|code| *code == "C203") && !codes(&report).is_empty(), "{report:#}");
    assert!(
        report["findings"][0]["message"].as_str().is_some_and(|text| text.contains("of 1 pictures none"))
    );
    let without = constitution(&["check", "scene", "--pictures", "."]).expect(2);
    assert!(without.stderr.contains("--pictures needs --models"), "{without:?}");
}

#[test]
fn differences_are_told_rule_by_rule() {
    let out = folder();
    let scene = run(["constitution", "show", "scene"]).expect(0).stdout;
    let same = write(out.path(), "same.toml", &format!("# A comment.\n{scene}"));
    assert_eq!(constitution(&["diff", "scene", &same]).expect(0).stdout, "they say the same\n");
    let changed = scene
        .replacen("a person holding a weapon", "a person holding a large knife", 1)
        .replacen("severity = \"high\"", "severity = \"critical\"", 1)
        .replacen("central = [\"weapon\"]", "central = [\"knife\"]", 1)
        .replacen("id = \"gambling\"", "id = \"games\"", 1)
        .replacen("[[rule]]", "[thresholds]\nalpha1 = 0.25\n\n[[rule]]", 1);
    let changed = write(out.path(), "changed.toml", &changed);
    insta::assert_snapshot!("diff", constitution(&["diff", "scene", &changed]).expect(1).stdout);
    let json = constitution(&["diff", "scene", &changed, "--format", "json"]).expect(1).json();
    assert_eq!(json["values"][0]["name"], "alpha1");
    assert_eq!(json["rules"].as_array().map(Vec::len), Some(4), "{json:#}");
    constitution(&["diff", "scene", "nowhere.toml"]).expect(2);
}

#[test]
fn rules_and_lints_are_explained() {
    let armed = constitution(&["explain", "armed"]).expect(0).stdout;
    assert!(armed.contains("a person is holding a weapon (looked for: weapon)"), "{armed}");
    let out = folder();
    let file = write(out.path(), "crowd.toml", CROWD);
    let crowd = constitution(&["explain", "crowd", "--constitution", &file, "--set", "crowd.people=5"])
        .expect(0)
        .stdout;
    assert!(crowd.contains("more than 5 people are visible"), "{crowd}");
    assert!(crowd.contains("crowd.people = 5 (count, a whole number), from 1 to 9"), "{crowd}");
    let lint = constitution(&["explain", "c101"]).expect(0).stdout;
    assert!(lint.starts_with("C101 several-facts (warning)") && lint.contains("To mend:"), "{lint}");
    let lints = constitution(&["explain", "lints"]).expect(0).stdout;
    assert!(lints.lines().count() >= 20 && lints.contains("C203 never-relevant (warning)"), "{lints}");
    let unknown = constitution(&["explain", "armd"]).expect(2);
    assert!(unknown.stderr.contains("did you mean `armed`?"), "{unknown:?}");
}

#[test]
fn files_are_formatted_in_place_or_only_named() {
    let out = folder();
    let messy = QUESTIONABLE
        .replace("name = ", "# Kept.\nname=")
        .replace("central = [\"person", "central=[ \"person");
    let file = write(out.path(), "rules.toml", &messy);
    let named = constitution(&["fmt", "--check", &file]).expect(1);
    assert!(named.stdout.contains("rules.toml: not in the canonical form"), "{named:?}");
    assert_eq!(fs::read_to_string(&file).expect("a file"), messy);
    let broken = write(out.path(), "broken.toml", "name = \"x\"");
    let refused = constitution(&["fmt", &file, &broken]).expect(2);
    assert!(refused.stderr.contains("broken.toml"), "{refused:?}");
    assert_eq!(
        fs::read_to_string(&file).expect("a file"),
        messy,
        "nothing is written if one file is refused"
    );
    constitution(&["fmt", &file]).expect(0);
    assert_eq!(
        fs::read_to_string(&file).expect("a file"),
        QUESTIONABLE.replace("name = ", "# Kept.\nname = ")
    );
    assert_eq!(constitution(&["fmt", "--check", &file]).expect(0).stdout, "");
}

/// What a run says, without what another machine computes a little differently.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit() && c != '.') {
        let end = part.chars().last().filter(|c| !c.is_ascii_digit() && *c != '.');
        let number = end.map_or(part, |end| &part[..part.len() - end.len_utf8()]);
        out.push_str(if number.contains('.') && number.len() > 1 { "N" } else { number });
        out.extend(end);
    }
    out
}

#[test]
fn a_rule_is_tried_step_by_step() {
    let (scenes, out) = (Scenes::new(), folder());
    let armed = scenes.save(&scenes.pair("man", "knife", true), out.path(), "armed.png");
    let tried = finish(command().args(["constitution", "try", "armed"]).arg(&armed)).expect(1).stdout;
    for part in [
        "armed.png, rule armed: VIOLATED",
        "relevance 0.",
        "link 2 of 2 holds",
        "without a picture",
        "holds: ",
    ] {
        assert!(tried.contains(part), "{part}: {tried}");
    }
    assert!(!without_numbers(&tried).contains("0."), "{tried}");
    let tree = scenes.save(&scenes.pair("cat", "tree", false), out.path(), "tree.png");
    let safe = finish(command().args(["constitution", "try", "armed"]).arg(&tree)).expect(0).stdout;
    assert!(safe.contains("not relevant") || safe.contains("not violated"), "{safe}");
    let json = finish(command().args(["constitution", "try", "armed", "--format", "json"]).arg(&armed))
        .expect(1)
        .json();
    assert_eq!(json["pictures"][0]["evidence"]["outcome"], "violated");
    assert_eq!(json["totals"]["violated"], 1);
    let unknown = finish(command().args(["constitution", "try", "armd"]).arg(&armed)).expect(2);
    assert!(unknown.stderr.contains("did you mean `armed`?"), "{unknown:?}");
}

#[test]
fn a_rule_is_tried_on_labelled_folders() {
    let (scenes, out) = (Scenes::new(), folder());
    for name in ["violating", "safe"] {
        fs::create_dir(out.path().join(name)).expect("a folder");
    }
    for (index, subject) in ["man", "woman"].into_iter().enumerate() {
        let name = format!("{index}.png");
        scenes.save(&scenes.pair(subject, "knife", true), &out.path().join("violating"), &name);
        scenes.save(&scenes.pair(subject, "tree", false), &out.path().join("safe"), &name);
    }
    fs::write(out.path().join("safe").join("notes.txt"), "no picture").expect("a file");
    let tried = finish(command().args(["constitution", "try", "armed"]).arg(out.path())).expect(1).stdout;
    assert!(tried.contains("4 pictures: 2 violated"), "{tried}");
    assert!(tried.contains("of 4 pictures with known truth: precision 1.000, recall 1.000"), "{tried}");
    fs::write(out.path().join("broken.png"), "no picture").expect("a file");
    let broken = finish(command().args(["constitution", "try", "armed", "--format", "json"]).arg(out.path()))
        .expect(2);
    let json = broken.json();
    assert_eq!((&json["totals"]["errors"], &json["totals"]["known"]["recall"]), (&1.into(), &1.0.into()));
    assert_eq!(json["pictures"][1]["truth"], "violating");
    let empty = folder();
    let none = finish(command().args(["constitution", "try", "armed"]).arg(empty.path())).expect(2);
    assert!(none.stderr.contains("there are no pictures in"), "{none:?}");
}

#[test]
fn parameters_are_set_from_the_command_line() {
    let (scenes, out) = (Scenes::new(), folder());
    let file = write(out.path(), "crowd.toml", CROWD);
    let picture = scenes.save(&scenes.pair("man", "tree", false), out.path(), "man.png");
    let revision = |set: &[&str]| {
        let mut judge = command();
        judge
            .args(["judge", "--force", "--format", "jsonl", "--constitution", &file])
            .args(set)
            .arg(&picture);
        let run = finish(&mut judge);
        run.lines()[0]["revision"].as_str().expect("a revision").to_owned()
    };
    assert_eq!(revision(&[]), revision(&["--set", "crowd.people=3"]));
    assert_ne!(revision(&[]), revision(&["--set", "crowd.people=4"]));
    for (setting, part) in [
        ("crowd.people=10", "expected `crowd.people` between 1 and 9 (a whole number), got 10"),
        ("crowd.person=2", "did you mean `crowd.people`?"),
        ("crowd=2", "expected RULE.PARAMETER=VALUE"),
    ] {
        for command_line in [&["judge"][..], &["constitution", "try", "crowd"]] {
            let mut tried = command();
            tried.args(command_line).args(["--constitution", &file, "--set", setting]).arg(&picture);
            let refused = finish(&mut tried).expect(2);
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
    }
}
