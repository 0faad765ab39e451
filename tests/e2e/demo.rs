//! `cluegate demo`: one run, and everything that its report promises.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::generate::assert_pixels_only;
use crate::support::{command, files, finish, folder};

fn judged(record: &Value) -> impl Iterator<Item = &Value> {
    record["attempts"].as_array().into_iter().flatten()
}

fn aborted(attempt: &Value) -> bool {
    attempt["previews"].as_array().into_iter().flatten().any(|preview| preview["aborted"] == true)
}

/// Checks that each thing that a gate is for happened at least once.
fn assert_all_outcomes(records: &[Value]) {
    let count = |happened: &dyn Fn(&Value) -> bool| records.iter().filter(|record| happened(record)).count();
    let released = |record: &Value| record["outcome"] == "released";
    assert!(count(&|r| r["reason"] == "safe") > 0, "nothing was released as it was drawn");
    assert!(count(&|r| r["outcome"] == "withheld" && r["reason"] == "violation") > 0, "nothing was blocked");
    let again = |r: &Value| released(r) && r["reason"] != "redacted" && judged(r).count() > 1;
    assert!(count(&again) > 0, "no regeneration succeeded");
    let redacted = |r: &Value| {
        let last = judged(r).last().and_then(|attempt| attempt["redactions"].as_array()?.last());
        r["reason"] == "redacted"
            && released(r)
            && last.is_some_and(|last| last["judgment"]["violated"] == serde_json::json!([]))
    };
    assert!(count(&redacted) > 0, "no redaction passed the second judgment");
    assert!(count(&|r| judged(r).any(aborted)) > 0, "no preview was aborted");
}

/// Checks that some prompt with some seed was released to one tenant and kept from the other.
fn assert_tenants_differ(records: &[Value]) {
    let mut fates: BTreeMap<String, Vec<(&str, bool)>> = BTreeMap::new();
    for record in records {
        let request = format!("{} {}", record["request"]["prompt_hash"], record["request"]["seed"]);
        let tenant = record["tenant"].as_str().expect("a tenant");
        fates.entry(request).or_default().push((tenant, record["outcome"] == "released"));
    }
    let differs = |fates: &Vec<(&str, bool)>| {
        fates.iter().any(|(tenant, released)| {
            *released && fates.iter().any(|(other, released)| other != tenant && !released)
        })
    };
    assert!(
        fates.values().any(differs),
        "no picture was released to one tenant and kept from the other: {fates:?}"
    );
}

/// Checks that a browser shows the page without asking anybody for anything.
fn assert_self_contained(html: &str, folder: &Path) {
    for address in ["http://", "https://", "src=\"/", "@import", "<link", "file:"] {
        // The name space of drawings within the page is a name, no address.
        let found = html.replace("http://www.w3.org/2000/svg", "").contains(address);
        assert!(!found, "the report refers to {address}");
    }
    assert!(html.contains("data:image/"), "the report shows no picture");
    assert!(!html.contains(&*folder.to_string_lossy()), "the report names this machine's folders");
}

#[test]
fn the_demonstration_shows_all_that_a_gate_is_for() {
    let out = folder();
    let run = finish(command().args(["demo", "--out"]).arg(out.path())).expect(0);
    let report = out.path().join("report.html");
    assert!(run.stdout.contains(&*report.to_string_lossy()), "the path is not printed: {}", run.stdout);
    assert_eq!(run.stderr, "");

    let text = fs::read_to_string(out.path().join("decisions.jsonl")).expect("a log");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(records.len() >= 10, "{} decisions", records.len());
    for record in &records {
        assert!(record["constitution"]["revision"].as_str().is_some_and(|revision| revision.len() >= 16));
        assert!(record["timings_ms"]["total"].as_f64().is_some_and(|ms| ms > 0.0));
    }

    // A slash may be written as a character reference.
    let html = fs::read_to_string(&report).expect("a report").replace("&#x2f;", "/");
    assert_self_contained(&html, out.path());
    for record in &records {
        let prompt = record["request"]["prompt"].as_str().expect("the demonstration logs its prompts");
        assert!(html.contains(prompt), "the report lacks {prompt}");
    }

    let found = files(out.path());
    let pictures = found.iter().filter(|file| file.extension().is_some_and(|end| end == "png"));
    let released = records.iter().filter(|record| record["outcome"] == "released").count();
    assert_eq!(pictures.clone().filter(|f| f.to_string_lossy().ends_with("-released.png")).count(), released);
    pictures.for_each(|file| assert_pixels_only(file));
    assert!(found.iter().all(|file| file.extension().is_none_or(|end| end != "part")), "{found:?}");

    assert_tenants_differ(&records);
    assert_all_outcomes(&records);
}

#[test]
fn a_file_in_place_of_the_demonstrations_folder_is_an_error() {
    let out = folder();
    let file = out.path().join("taken");
    fs::write(&file, "mine").expect("a file");
    let run = finish(command().args(["demo", "--out"]).arg(&file)).expect(2);
    assert!(run.stderr.contains("cannot make the folder") && run.stderr.contains("taken"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(&file).expect("a file"), "mine");
}
