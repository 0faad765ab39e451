//! `cluegate eval run` and `eval mini-pairs`: figures, what is kept on disk, and what is refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{command, finish, folder, noise};

fn eval(arguments: &[&str], out: &Path) -> crate::support::Run {
    finish(command().arg("eval").args(arguments).arg("--out").arg(out))
}

fn method<'a>(report: &'a Value, name: &str) -> &'a Value {
    let methods = report["methods"].as_array().expect("methods");
    methods.iter().find(|method| method["method"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn pairs_are_written_judged_and_judged_again_from_disk() {
    let (pairs, out) = (folder(), folder());
    let written = eval(&["mini-pairs", "--per-rule", "1"], pairs.path()).expect(0);
    assert!(written.stdout.starts_with("12 pairs in "), "{}", written.stdout);
    assert_eq!(written.stderr, "");
    let data = format!("folder:{}", pairs.path().display());
    let run = |methods: &[&str]| {
        let mut arguments = vec!["run", "--data", &data, "--format", "json", "--resamples", "50"];
        methods.iter().for_each(|method| arguments.extend(["--method", method]));
        eval(&arguments, out.path()).expect(0)
    };
    let first = run(&["clue", "prior-direct", "whole-direct", "clip-rules", "always-safe"]);
    assert_eq!(first.stderr, "");
    let report = first.json();
    assert_eq!((&report["data"]["rows"], &report["constitution"]["name"]), (&24.into(), &"scene".into()));
    let clue = method(&report, "clue");
    assert!(clue["image_level"]["f1"].as_f64().expect("F1") > 0.85, "{clue}");
    assert!(clue["rule_level"]["f1"].as_f64().expect("rule F1") > 0.8);
    assert_eq!(clue["pairs"]["pairs"], 12);
    assert!(clue["scan"]["filtered"].as_f64().expect("a share") > 0.5);
    let never = method(&report, "always-safe");
    assert_eq!((&never["image_level"]["f1"], &never["pairs"]["accuracy"]), (&0.0.into(), &0.0.into()));

    let kept = |name: &str| fs::read(out.path().join(name)).expect("a file");
    let (results, written) = (kept("results.jsonl"), kept("report.json"));
    fs::write(out.path().join("results.jsonl"), &results[..results.len() * 2 / 3]).expect("cut");
    let again = run(&["clue", "prior-direct", "whole-direct", "clip-rules", "always-safe"]);
    assert_eq!((kept("results.jsonl"), kept("report.json")), (results, written));
    assert_eq!(again.stdout, first.stdout);
    let table = eval(&["run", "--data", &data, "--limit", "6", "--resamples", "0"], out.path()).expect(0);
    assert!(
        table.stdout.contains("folder, 6 pictures") && table.stdout.contains("known"),
        "{}",
        table.stdout
    );
}

#[test]
fn pictures_from_elsewhere_and_unknown_rules_are_refused() {
    let (data, out) = (folder(), folder());
    noise(200, 150).save(data.path().join("a.png")).expect("saved");
    fs::write(data.path().join("labels.csv"), "image,label\na.png,safe\n").expect("written");
    let name = format!("folder:{}", data.path().display());
    let refused = eval(&["run", "--data", &name], out.path()).expect(2);
    assert!(refused.stderr.contains("--force judges it all the same"), "{}", refused.stderr);
    fs::write(data.path().join("labels.csv"), "image,rules\na.png,armd\n").expect("written");
    let refused = eval(&["run", "--data", &name], out.path()).expect(2);
    assert!(refused.stderr.contains("does not have (armd)"), "{}", refused.stderr);
    fs::write(data.path().join("labels.csv"), "image,label\nb.png,safe\n").expect("written");
    let refused = eval(&["run", "--data", &name], out.path()).expect(2);
    assert!(refused.stderr.contains("labels.csv:2: there is no picture"), "{}", refused.stderr);
    let unknown = eval(&["run", "--data", "imagenet"], out.path()).expect(2);
    assert!(unknown.stderr.contains("folder:PATH"), "{}", unknown.stderr);
}
