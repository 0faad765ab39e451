//! `cluegate generate`: what is drawn, decided, written and logged.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Run, command, files, finish, folder};

fn generate(out: &Path, more: &[&str]) -> Run {
    // Few steps: what is tested is the way of a picture, not its beauty.
    let base = ["generate", "--prompt", "a cat and a tree on the grass", "--seed", "5", "--steps", "8"];
    finish(command().args(base).args(["--format", "json", "--out"]).arg(out).args(more))
}

fn log(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("decisions.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Types of a PNG's chunks, in order.
pub(crate) fn chunks(png: &[u8]) -> Vec<String> {
    let (signature, mut rest) = png.split_at(8);
    assert_eq!(signature, b"\x89PNG\r\n\x1a\n");
    let mut types = Vec::new();
    while let [a, b, c, d, kind @ ..] = rest {
        types.push(String::from_utf8_lossy(&kind[..4]).into_owned());
        rest = &rest[12 + u32::from_be_bytes([*a, *b, *c, *d]) as usize..];
    }
    types
}

/// Checks that a PNG decodes and carries nothing but pixels: no prompt, no parameters, no profile.
#[track_caller]
pub(crate) fn assert_pixels_only(file: &Path) {
    let bytes = fs::read(file).expect("a file");
    for kind in chunks(&bytes) {
        assert!(["IHDR", "IDAT", "IEND"].contains(&kind.as_str()), "{kind} in {}", file.display());
    }
    image::load_from_memory(&bytes).expect("a picture");
}

#[test]
fn each_picture_has_its_outcome_its_file_and_its_log_line() {
    let out = folder();
    let run = generate(out.path(), &["--count", "2"]);
    assert!(run.code < 2, "{run:#?}");
    let answer = run.json();
    assert_eq!((&answer["seed"], &answer["tenant"]), (&5.into(), &"default".into()));
    let pictures = answer["pictures"].as_array().expect("pictures");
    assert_eq!(pictures.len(), 2);
    let log = log(out.path());
    assert_eq!(log.len(), 2);
    for (number, (picture, record)) in pictures.iter().zip(&log).enumerate() {
        assert_eq!(picture["member"], number);
        for key in ["outcome", "reason", "message", "violated", "attempts", "decision_id"] {
            assert!(!picture[key].is_null(), "no {key}: {picture}");
        }
        assert_eq!(picture["decision_id"], record["decision_id"]);
        assert_eq!((&record["member"], &record["outcome"]), (&picture["member"], &picture["outcome"]));
        assert_eq!((&record["tenant"], &record["request"]["count"]), (&"default".into(), &2.into()));
        assert_eq!(record["constitution"]["name"], "scene");
        assert!(record["request"]["prompt"].is_null(), "the default policy does not log prompts");
        for role in ["relevance", "detector", "judge", "generator"] {
            assert!(record["models"][role].as_str().is_some_and(|id| id.len() >= 16), "{role}: {record}");
        }
        let attempts = record["attempts"].as_array().expect("attempts");
        assert_eq!(picture["attempts"], attempts.len());
        let file = Path::new(picture["file"].as_str().expect("a file"));
        assert_pixels_only(file);
        if picture["outcome"] == "released" {
            assert!(!attempts.last().expect("one")["judgment"]["evidence"].is_null(), "{record}");
            assert!(record["released_picture"].as_str().is_some_and(|hash| hash.len() == 64));
        }
    }
    // The pictures and the log, and nothing half-written.
    let names: Vec<_> = files(out.path()).iter().map(|f| f.file_name().expect("a name").to_owned()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let root = folder();
    // Whatever the judge says of a picture drawn in so few steps, this tenant gets it.
    let policy = root.path().join("policy.toml");
    fs::write(&policy, "[tenant.default]\npreviews = []\naction.default = \"allow\"\n").expect("a file");
    let released = |name: &str, seed: &str| {
        let out = root.path().join(name);
        let draw = ["generate", "--prompt", "a cat and a tree on the grass", "--steps", "8", "--seed", seed];
        let run = finish(command().args(draw).arg("--out").arg(&out).arg("--policy").arg(&policy)).expect(0);
        assert!(run.stdout.contains("picture-000.png: released"), "{}", run.stdout);
        fs::read(out.join("picture-000.png")).expect("a picture")
    };
    let picture = released("first", "5");
    assert!(picture == released("second", "5"), "the same seed drew another picture");
    assert!(picture != released("third", "6"), "another seed drew the same picture");
}

#[test]
fn what_is_withheld_for_a_rule_is_a_placeholder_and_exits_with_1() {
    let root = folder();
    // A tenant who wants no cats, however faint.
    let rules = include_str!("../support/no-cats.toml");
    fs::write(root.path().join("no-cats.toml"), rules).expect("a file");
    let policy = root.path().join("policy.toml");
    let tenant = "[tenant.default]\nconstitution = \"no-cats.toml\"\npreviews = []\nlog_prompts = true\n";
    fs::write(&policy, tenant).expect("a file");
    let out = root.path().join("out");
    let steps = ["--steps", "20", "--policy", policy.to_str().expect("a name")];
    let draw = ["generate", "--prompt", "a cat", "--seed", "5", "--format", "json"];
    let run = finish(command().args(draw).args(steps).arg("--out").arg(&out)).expect(1);
    let answer = run.json();
    let picture = &answer["pictures"][0];
    assert_eq!(
        (&picture["outcome"], &picture["reason"]),
        (&"withheld".into(), &"violation".into()),
        "{picture}"
    );
    assert_eq!(picture["violated"], serde_json::json!(["no-cats"]));
    let placeholder = out.join("placeholder-000.png");
    assert_eq!(picture["file"], placeholder.to_str().expect("a name"));
    assert_pixels_only(&placeholder);
    let colours: std::collections::HashSet<_> =
        image::open(&placeholder).expect("a picture").to_rgb8().pixels().map(|pixel| pixel.0).collect();
    assert!(colours.len() < 16, "the placeholder shows something: {} colours", colours.len());
    assert_eq!(files(&out).len(), 2, "{:?}", files(&out));
    let record = &log(&out)[0];
    assert_eq!(record["request"]["prompt"], "a cat");
    assert!(record["released_picture"].is_null(), "{record}");
}

#[test]
fn what_violates_a_rule_is_drawn_anew_by_the_one_who_drew_it() {
    let root = folder();
    fs::write(root.path().join("no-cats.toml"), include_str!("../support/no-cats.toml")).expect("a file");
    let policy = root.path().join("policy.toml");
    let tenant = "[tenant.default]\nconstitution = \"no-cats.toml\"\naction.default = \"redact\"\n\
                  redact.method = \"inpaint\"\n";
    fs::write(&policy, tenant).expect("a file");
    let out = root.path().join("out");
    let draw =
        ["generate", "--prompt", "a cat beside a tree", "--seed", "5", "--steps", "20", "--format", "json"];
    let run = finish(command().args(draw).arg("--policy").arg(&policy).arg("--out").arg(&out));
    let record = &log(&out)[0];
    let redactions = record["attempts"][0]["redactions"].as_array().expect("tries to redact");
    assert_eq!(redactions[0]["method"], "inpaint", "{record}");
    assert!(redactions[0]["boxes"].as_array().is_some_and(|boxes| !boxes.is_empty()), "{record}");
    // The picture, and the part of it.
    assert_eq!(record["cost"]["steps"], 40, "{record}");
    // Whatever was drawn there, only what passes the whole constitution is released.
    let released = record["outcome"] == "released";
    assert_eq!(released, redactions.last().expect("one")["judgment"]["violated"] == serde_json::json!([]));
    assert_eq!(run.code, i32::from(!released), "{run:#?}");
    let name = if released { "picture-000.png" } else { "placeholder-000.png" };
    assert_pixels_only(&out.join(name));
}

#[test]
fn an_unknown_tenant_is_refused_with_the_nearest_known_one() {
    let out = folder();
    let run = generate(&out.path().join("pictures"), &["--tenant", "kid"]).expect(2);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("kid") && run.stderr.contains("`kids`"), "{}", run.stderr);
    assert!(files(out.path()).iter().all(|file| fs::read(file).expect("a file").is_empty()));
}

#[test]
fn a_policy_file_with_an_unknown_key_is_refused_with_the_nearest_known_one() {
    let out = folder();
    let policy = out.path().join("policy.toml");
    let name = policy.to_str().expect("a name");
    let cases = [
        ("[tenant.default]\ntrise = 2\n", "did you mean `tries`?"),
        ("[tenant.default.action.rule]\nsmokin = \"allow\"\n", "did you mean `smoking`?"),
        ("[tenant.default]\nconstitution = \"nowhere.toml\"\n", "nowhere.toml"),
        ("", "add a table [tenant.NAME]"),
    ];
    for (text, needed) in cases {
        fs::write(&policy, text).expect("a file");
        let run = generate(&out.path().join("pictures"), &["--policy", name]).expect(2);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.contains(needed), "{needed}: {}", run.stderr);
    }
    let missing = generate(&out.path().join("pictures"), &["--policy", "no-such-policy.toml"]).expect(2);
    assert!(missing.stderr.contains("cannot read the policy file no-such-policy.toml"), "{}", missing.stderr);
}

#[test]
fn a_file_in_place_of_the_output_folder_is_an_error() {
    let out = folder();
    let file = out.path().join("taken");
    fs::write(&file, "mine").expect("a file");
    for place in [file.clone(), file.join("inner")] {
        let run = generate(&place, &[]).expect(2);
        assert!(
            run.stderr.contains("cannot make the folder") && run.stderr.contains("taken"),
            "{}",
            run.stderr
        );
    }
    assert_eq!(fs::read_to_string(&file).expect("a file"), "mine");
}

#[test]
fn a_request_over_a_limit_is_refused_before_anything_is_drawn() {
    let out = folder();
    let run = generate(out.path(), &["--count", "17"]).expect(2);
    assert!(run.stderr.contains("17") && run.stderr.contains("16"), "{}", run.stderr);
    assert!(generate(out.path(), &["--steps", "0"]).expect(2).stderr.contains("--steps"));
}

#[test]
fn a_picture_and_a_mask_are_what_a_drawing_begins_from() {
    const STREET: &str = "a street at night";
    let root = folder();
    let policy = root.path().join("policy.toml");
    fs::write(&policy, "[tenant.default]\npreviews = []\naction.default = \"allow\"\n").expect("a file");
    let draw = |name: &str, prompt: &str, more: &[&str]| {
        let out = root.path().join(name);
        let base = ["generate", "--prompt", prompt, "--steps", "6", "--seed", "9"];
        finish(command().args(base).arg("--out").arg(&out).arg("--policy").arg(&policy).args(more)).expect(0);
        image::open(out.join("picture-000.png")).expect("a picture").to_rgb8()
    };
    let first = draw("first", "a cat and a tree on the grass", &[]);
    let (width, height) = first.dimensions();
    let image = root.path().join("first/picture-000.png").display().to_string();
    let near = draw("near", STREET, &["--image", &image, "--strength", "0.2"]);
    let far = draw("far", STREET, &["--image", &image, "--strength", "1"]);
    let mask = root.path().join("mask.png");
    let left = |x: u32| x < width / 2;
    let marks = image::GrayImage::from_fn(width, height, |x, _| image::Luma([if left(x) { 255 } else { 0 }]));
    marks.save(&mask).expect("a file");
    let mask = mask.display().to_string();
    let half = draw("half", STREET, &["--image", &image, "--mask", &mask]);
    let change = |other: &image::RgbImage, side: &dyn Fn(u32) -> bool| -> u64 {
        assert_eq!(other.dimensions(), (width, height));
        let pixels = first.enumerate_pixels().filter(|(x, ..)| side(*x));
        pixels
            .map(|(x, y, p)| {
                (0..3).map(|c| u64::from(p.0[c].abs_diff(other.get_pixel(x, y).0[c]))).sum::<u64>()
            })
            .sum()
    };
    assert!(change(&near, &|_| true) < change(&far, &|_| true));
    let right = |x: u32| !left(x);
    assert!(change(&half, &right) < change(&half, &left), "what the mask leaves stays");
}

#[test]
fn a_drawing_that_cannot_begin_is_refused_by_name() {
    let root = folder();
    let image = root.path().join("image.png");
    image::RgbImage::from_pixel(64, 64, image::Rgb([90, 120, 60])).save(&image).expect("a file");
    let image = image.display().to_string();
    let text = root.path().join("text.txt");
    fs::write(&text, "no picture").expect("a file");
    let text = text.display().to_string();
    for (more, word) in [
        (&["--mask", &image][..], "--image"),
        (&["--image", &image, "--strength", "0"], "strength"),
        (&["--image", &text], "text.txt"),
        (&["--generator", &image], "image.png"),
        (&["--previews", "linear"], "latent_rgb.json"),
        (&["--size", "65x64"], "width"),
    ] {
        let run = generate(&root.path().join("out"), more).expect(2);
        assert!(run.stderr.contains(word), "{more:?}: {run:#?}");
    }
}
