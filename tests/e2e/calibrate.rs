//! `cluegate calibrate previews` and `cluegate models fit-previews`, over the embedded suite.

use std::fs;
use std::path::Path;

use cluegate::mini::SUITE_FILES;
use serde_json::Value;

use crate::support::{Run, command, finish, folder};

fn run(arguments: &[&str]) -> Run {
    finish(command().args(arguments))
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// Few prompts of two rules and few steps: what is tested is the way of the numbers.
const POLICY: &str = "[tenant.t]\nconstitution = \"scene\"\nrules = [\"on-fire\", \"armed\"]\n";

#[test]
fn thresholds_are_chosen_kept_and_used() {
    let world = folder();
    let of = |name: &str| path(world.path(), name);
    let (policy, out) = (of("policy.toml"), of("calibrated"));
    fs::write(&policy, POLICY).expect("written");
    let calibrate = |more: &[&str]| {
        let base = ["calibrate", "previews", "--policy", &policy, "--tenant", "t", "--out", &out];
        let small = ["--per-rule", "4", "--steps", "8", "--at", "0.5,0.9", "--format", "json"];
        // A safe picture in eight may come near: so few cannot show less.
        finish(command().args(base).args(small).args(["--false-aborts", "0.5"]).args(more))
    };
    let first = calibrate(&[]).expect(0).json();
    let thresholds = &first["thresholds"];
    let measured = &thresholds["measured"];
    let number = |value: &Value| value.as_f64().expect("a number");
    assert_eq!(number(&measured["pictures"]) + number(&first["failed"]), 16.0, "{first}");
    assert!(number(&measured["false_abort_rate_at_most"]) >= number(&measured["false_abort_rate"]));
    let costs = first["cost_of_a_preview"].as_array().expect("one for each point");
    assert!(costs.len() == 2 && costs.iter().all(|cost| number(cost) > 0.0), "{first}");
    assert!(number(&measured["added"]) > 0.0);
    assert_eq!(thresholds["rules"], serde_json::json!(["on-fire", "armed"]));
    let at = thresholds["thresholds"].as_array().expect("thresholds");
    assert!(!at.is_empty() && at.iter().all(|point| number(&point["above"]) >= 0.0));

    // A run that was cut short goes on, and what is known is not drawn again: the same file comes out.
    let kept = |name: &str| fs::read_to_string(world.path().join("calibrated").join(name)).expect("a file");
    let (watched, file) = (kept("watched.jsonl"), kept("thresholds.json"));
    fs::remove_file(world.path().join("calibrated/thresholds.json")).expect("removed");
    assert_eq!(calibrate(&[]).expect(0).json()["thresholds"], *thresholds);
    assert_eq!((kept("watched.jsonl"), kept("thresholds.json")), (watched, file));
    let other = calibrate(&["--guidance", "3"]).expect(2);
    assert!(other.stderr.contains("was begun with another generator"), "{other:?}");

    // The policy names it, and a preview says what it had to be above.
    let points: Vec<String> = at.iter().map(|point| point["at"].to_string()).collect();
    let named = format!(
        "{POLICY}previews = [{}]\npreview_thresholds = \"calibrated/thresholds.json\"\n",
        points.join(", ")
    );
    fs::write(&policy, &named).expect("written");
    let pictures = of("pictures");
    let generate = |policy: &str, prompt: &str| {
        let base = ["generate", "--policy", policy, "--tenant", "t", "--prompt", prompt, "--seed", "3"];
        finish(command().args(base).args(["--steps", "8", "--out", &pictures]))
    };
    let drawn = generate(&policy, "a man holding a knife on a street");
    assert!(drawn.code < 2, "{drawn:?}");
    let log = fs::read_to_string(world.path().join("pictures/decisions.jsonl")).expect("a log");
    let record: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    let preview = &record["attempts"][0]["previews"][0];
    assert_eq!(preview["threshold"], at[0]["above"], "{record}");
    assert!(preview["score"].is_number() && preview["judgment"]["evidence"]["stages"]["reasoning"] == false);
    let passes = |judgment: &Value| judgment["passes"]["detection"].as_u64().expect("a number");
    assert_eq!(passes(&preview["judgment"]), 0);

    // For other rules they are refused, in words.
    fs::write(&policy, named.replace(", \"armed\"", "")).expect("written");
    let refused = generate(&policy, "a cat").expect(2);
    assert!(
        refused.stderr.contains("tenant t: the preview thresholds calibrated/thresholds.json"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("calibrate again"), "{refused:?}");
}

#[test]
fn what_cannot_be_calibrated_is_said() {
    let world = folder();
    let out = path(world.path(), "out");
    let refused = |more: &[&str]| {
        let run = run(&[&["calibrate", "previews", "--out", &out][..], more].concat()).expect(2);
        run.stderr
    };
    assert!(refused(&["--at", "0.5,0.4"]).contains("ascending shares"));
    assert!(refused(&["--false-aborts", "0"]).contains("--false-aborts"));
    assert!(refused(&["--prompts", "gone.txt"]).contains("gone.txt"));
    assert!(refused(&["--tenant", "nobody"]).contains("nobody"));
    let policy = path(world.path(), "policy.toml");
    fs::write(&policy, "[tenant.default]\n[tenant.default.action]\ndefault = \"redact\"\n").expect("written");
    assert!(refused(&["--policy", &policy]).contains("no preview would ever give a picture up"));
    // Pictures of nothing forbidden leave nothing to choose.
    let prompts = path(world.path(), "prompts.txt");
    fs::write(&prompts, "a cat on the grass\n\na tree\n").expect("written");
    let none = refused(&["--prompts", &prompts, "--steps", "4", "--at", "0.5"]);
    assert!(none.contains("no previews save anything") && none.contains("watched.jsonl"), "{none}");
}

#[test]
fn a_map_is_fitted_to_a_generator_and_previews_are_made_by_it() {
    let world = folder();
    for (name, bytes) in SUITE_FILES.iter().filter(|(name, _)| name.starts_with("generator/")) {
        let path = world.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, bytes).expect("written");
    }
    let model = path(world.path(), "generator");
    let fit = |more: &[&str]| {
        let base = ["models", "fit-previews", &model, "--count", "4", "--steps", "6", "--format", "json"];
        finish(command().args(base).args(more))
    };
    let fitted = fit(&["--force"]).expect(0).json();
    let report = &fitted["report"];
    let number = |key: &str| report[key].as_f64().expect("a number");
    // Better than the mean colour, and cheaper than the VAE.
    assert!(number("r_squared") > 0.2 && number("psnr_db") > 10.0, "{fitted}");
    assert!(number("linear_ms") < number("vae_ms"), "{fitted}");
    let again = fit(&[]).expect(2);
    assert!(again.stderr.contains("latent_rgb.json is there: replace it with --force"), "{again:?}");
    // Pictures do as well as drawings.
    let pictures = path(world.path(), "pictures");
    run(&["eval", "mini-natural", "--count", "6", "--seed", "5", "--out", &pictures]).expect(0);
    let encoded = fit(&["--force", "--pictures", &pictures]).expect(0).json();
    assert_eq!((&encoded["report"]["fitted"], &encoded["report"]["held_out"]), (&2.into(), &2.into()));

    let out = path(world.path(), "drawn");
    let policy = path(world.path(), "policy.toml");
    fs::write(&policy, "[tenant.t]\npreviews = [0.5]\n").expect("written");
    let base = ["generate", "--policy", &policy, "--tenant", "t", "--prompt", "a cat", "--seed", "1"];
    let drawn = ["--steps", "6", "--generator", &model, "--previews", "linear", "--out", &out];
    let drawn = finish(command().args(base).args(drawn));
    assert!(drawn.code < 2, "{drawn:?}");
}
