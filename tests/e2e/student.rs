//! `cluegate label`, `distill` and `judge` with a pre-filter, over a small drawn set.

use std::fs;
use std::path::Path;

use cluegate::mini::SUITE_FILES;
use serde_json::Value;

use crate::support::{Run, command, finish, folder, noise};

fn run(arguments: &[&str]) -> Run {
    finish(command().args(arguments))
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// Writes the embedded suite into a folder, with a pre-filter.
fn suite(folder: &Path, head: &str) -> String {
    for (name, bytes) in SUITE_FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, bytes).expect("written");
    }
    let models = folder.join("models.toml");
    let text = fs::read_to_string(&models).expect("a models file");
    fs::write(&models, format!("{text}\n[prefilter]\nfolder = \"{head}\"\n")).expect("written");
    models.display().to_string()
}

#[test]
fn labels_become_a_student_that_clears_pictures() {
    let world = folder();
    let of = |name: &str| path(world.path(), name);
    let (pictures, labels, head) = (of("pictures"), of("labels"), of("head"));
    run(&["eval", "mini-natural", "--count", "40", "--seed", "5", "--out", &pictures]).expect(0);
    fs::write(world.path().join("pictures/broken.png"), b"no picture").expect("written");
    // One that cannot be judged is named, and has no label.
    let label =
        || run(&["label", &pictures, "--constitution", "scene", "--out", &labels, "--format", "json"]);
    let first = label().expect(2).json();
    assert_eq!((&first["labelled"], &first["failed"]), (&40.into(), &1.into()), "{first}");
    let unsafe_pictures = first["unsafe_pictures"].as_u64().expect("a number");
    assert!((4..=30).contains(&unsafe_pictures), "{unsafe_pictures}");
    let kept = |name: &str| fs::read(world.path().join("labels").join(name)).expect("a file");
    assert!(String::from_utf8_lossy(&kept("errors.jsonl")).contains("broken.png"));
    // A run that was cut short ends with the same bytes.
    let (results, csv) = (kept("results.jsonl"), kept("labels.csv"));
    fs::write(world.path().join("labels/results.jsonl"), &results[..results.len() / 2]).expect("cut");
    label().expect(2);
    assert_eq!((kept("results.jsonl"), kept("labels.csv")), (results, csv));

    // So few show too little for what is asked by default, and enough for less.
    let distill = |more: &[&str]| {
        let arguments =
            [&["distill", "--labels", &labels, "--out", &head, "--epochs", "3"][..], more].concat();
        run(&arguments)
    };
    let few = distill(&[]).expect(2);
    assert!(few.stderr.contains("unsafe pictures were held out; expected at least 299"), "{}", few.stderr);
    let less = ["--recall", "0.5", "--confidence", "0.5", "--hidden", "0", "--format", "json"];
    let card = distill(&less).expect(0).json()["card"].clone();
    assert_eq!(card["constitution"]["name"], "scene");
    assert_eq!(card["outputs"].as_array().map(Vec::len), Some(12));
    let files = |name: &str| fs::read(world.path().join("head").join(name)).expect("a file");
    let made = (files("student.json"), files("student.safetensors"));
    distill(&less).expect(0);
    assert_eq!((files("student.json"), files("student.safetensors")), made);

    // The judge says which verdicts are the student's.
    let models = suite(&world.path().join("suite"), &head);
    let threshold = card["held_out"]["threshold"].as_f64().expect("a threshold");
    let names: Vec<String> = (0..40).map(|index| of(&format!("pictures/natural-{index:05}.png"))).collect();
    let mut arguments = vec!["judge", "--format", "jsonl", "--models", &models];
    arguments.extend(names.iter().map(String::as_str));
    let judged = run(&arguments);
    let lines: Vec<Value> =
        judged.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 40, "{}", judged.stderr);
    let mut cleared = 0;
    for line in &lines {
        let Some(said) = line.get("prefilter") else { continue };
        let number = |name: &str| said[name].as_f64().expect("a number");
        assert_eq!(said["cleared"], Value::from(number("score") < number("threshold")));
        assert!(said["closer"] == false || number("threshold") == threshold, "{said}");
        if said["cleared"] == true {
            cleared += 1;
            assert_eq!(line["verdict"], "safe");
            let rules = line["rules"].as_array().expect("rules");
            assert!(
                rules
                    .iter()
                    .all(|rule| ["cleared", "irrelevant"].contains(&rule["outcome"].as_str().expect("one")))
            );
        }
    }
    assert!((1..40).contains(&cleared), "{cleared}");

    // Never under another constitution, and never over another encoder.
    let other =
        run(&["judge", "--models", &models, "--constitution", "general", "--force", &names[0]]).expect(2);
    assert!(other.stdout.contains("was distilled under the constitution scene"), "{}", other.stdout);
    let card = world.path().join("head/student.json");
    let text = fs::read_to_string(&card).expect("a card");
    let encoder =
        serde_json::from_str::<Value>(&text).expect("JSON")["encoder"].as_str().expect("one").to_owned();
    fs::write(&card, text.replace(&encoder, &"0".repeat(64))).expect("written");
    let other = run(&["judge", "--models", &models, &names[0]]).expect(2);
    assert!(other.stderr.contains("was distilled for the relevance encoder 0000"), "{}", other.stderr);
}

#[test]
fn a_folder_without_pictures_and_labels_from_elsewhere_are_refused() {
    let world = folder();
    let of = |name: &str| path(world.path(), name);
    fs::create_dir(world.path().join("empty")).expect("made");
    let none = run(&["label", &of("empty"), "--constitution", "scene", "--out", &of("labels")]).expect(2);
    assert!(none.stderr.contains("holds no picture"), "{}", none.stderr);
    noise(64, 64).save(world.path().join("empty/a.png")).expect("saved");
    let foreign = run(&["label", &of("empty"), "--constitution", "scene", "--out", &of("labels")]).expect(2);
    assert!(foreign.stdout.contains("0 labelled, 0 of them unsafe, 1 failed"), "{}", foreign.stdout);
    let elsewhere = run(&["distill", "--labels", &of("empty"), "--out", &of("head")]).expect(2);
    assert!(elsewhere.stderr.contains("a folder that `cluegate label` wrote"), "{}", elsewhere.stderr);
}
