//! `cluegate probe`: raw scores.

use std::path::Path;

use cluegate::mini::SUITE_FILES;

use crate::support::{Scenes, command, finish, folder};

#[test]
fn true_and_false_statements_lie_on_opposite_sides() {
    let (scenes, out) = (Scenes::new(), folder());
    let file = scenes.save(&scenes.pair("man", "knife", true), out.path(), "armed.png");
    let statements = ["a person is visible", "a person is holding a weapon", "an elephant is visible"];
    let probe = |format: &str, mllm: Option<&Path>| {
        let mut command = command();
        command.args(["probe", "--format", format, "--image"]).arg(&file);
        command.args(statements.iter().flat_map(|text| ["--statement", text]));
        if let Some(folder) = mllm {
            command.arg("--mllm").arg(folder);
        }
        finish(&mut command).expect(0)
    };
    let rows = probe("json", None).json();
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), statements.len());
    for (row, statement) in rows.iter().zip(statements) {
        let keys: Vec<_> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["statement", "score", "score_without_image"]);
        assert_eq!(row["statement"], statement);
        let (score, prior) = (row["score"].as_f64(), row["score_without_image"].as_f64());
        let (score, prior) = (score.expect("a score"), prior.expect("a prior"));
        assert!((0.0..=1.0).contains(&score) && (0.0..=1.0).contains(&prior), "{row}");
        assert_eq!(score > 0.5, statement != "an elephant is visible", "{row}");
    }
    let text = probe("text", None).stdout;
    assert!(statements.iter().all(|statement| text.contains(statement)), "{text}");

    // The same model from a folder gives the same scores.
    let folder = out.path().join("judge");
    std::fs::create_dir(&folder).expect("a folder");
    for (path, bytes) in SUITE_FILES {
        if let Some(name) = path.strip_prefix("judge/") {
            std::fs::write(folder.join(name), bytes).expect("a file");
        }
    }
    assert_eq!(probe("json", Some(&folder)).json().as_array().expect("a list"), rows);
}

#[test]
fn a_bad_picture_or_model_is_an_error() {
    let out = folder();
    let file = out.path().join("text.png");
    std::fs::write(&file, "not a picture").expect("a file");
    let probe = |extra: &[&str]| {
        finish(command().args(["probe", "--statement", "a cat is visible", "--image"]).arg(&file).args(extra))
    };
    assert!(probe(&[]).expect(2).stderr.contains("not an image"));
    Scenes::new().save(&Scenes::new().pair("cat", "tree", false), out.path(), "text.png");
    let missing = out.path().join("no-such-model");
    let failed = probe(&["--mllm", missing.to_str().expect("a name")]).expect(2);
    assert!(failed.stderr.contains("no-such-model"), "{}", failed.stderr);
    assert_eq!(failed.stdout, "");
}
