//! Each example does what it says.

use std::path::{Path, PathBuf};

use cluegate::gate::{MemberOutcome, Outcome, Reason};

use crate::generate::assert_pixels_only;
use crate::support::{Scenes, command, finish, folder, judge, run};

// The examples as they are, compiled into this binary: their `main` only adds arguments and printing.
#[allow(dead_code)]
#[path = "../../examples/drive_a_generator.rs"]
mod drive_a_generator;
#[allow(dead_code)]
#[path = "../../examples/gate_a_loop.rs"]
mod gate_a_loop;
#[allow(dead_code)]
#[path = "../../examples/judge_a_picture.rs"]
mod judge_a_picture;

fn policy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies").join(name)
}

#[test]
fn judge_a_picture_names_the_violated_rule() {
    let (scenes, out) = (Scenes::new(), folder());
    let armed = scenes.save(&scenes.pair("man", "knife", true), out.path(), "armed.png");
    assert_eq!(judge_a_picture::judge(&armed).expect("a report").violated(), ["armed"]);
    let missing = judge_a_picture::judge(&out.path().join("missing.png")).expect_err("there is no such file");
    assert!(missing.to_string().contains("No such file"), "{missing}");
}

#[test]
fn gate_a_loop_stops_the_first_drawing_and_releases_the_second() {
    let out = folder();
    let file = out.path().join("cat.png");
    let outcome = gate_a_loop::serve(&file).expect("an outcome");
    let decision = outcome.decision();
    assert_eq!(
        (decision.outcome, decision.reason),
        (Outcome::Released, Reason::Safe),
        "{}",
        decision.message
    );
    let [first, second] = decision.attempts.as_slice() else { panic!("{:?}", decision.attempts) };
    // Six of eight steps are three quarters.
    let preview = &first.previews[0];
    assert_eq!((preview.step, preview.total, preview.aborted), (6, 8, true));
    assert_eq!(preview.judgment.violated, ["armed-animal"]);
    assert!(first.picture.is_none(), "an aborted attempt has no picture");
    assert!(!second.previews[0].aborted && second.picture.is_some());
    assert_pixels_only(&file);
}

#[test]
fn drive_a_generator_decides_each_picture_and_writes_the_released_ones() {
    let out = folder();
    let outcomes = drive_a_generator::draw("a dog and a ball on a beach", 2, out.path()).expect("outcomes");
    assert_eq!(outcomes.len(), 2);
    for (member, outcome) in outcomes.iter().enumerate() {
        let file = out.path().join(format!("{member}.png"));
        assert_eq!(file.exists(), matches!(outcome, MemberOutcome::Released(_)));
        if file.exists() {
            assert_pixels_only(&file);
        }
        assert!(!outcome.decision().attempts.is_empty());
    }
    let log = std::fs::read_to_string(out.path().join("decisions.jsonl")).expect("a log");
    assert_eq!(log.lines().count(), 2);
}

#[test]
fn the_policies_and_rules_are_sound() {
    for (name, tenants) in
        [("childrens-service.toml", &["readers", "illustrators"][..]), ("newsroom.toml", &["desk"])]
    {
        let checked = run([Path::new("policy"), Path::new("check"), &policy(name)]).expect(0);
        assert!(
            tenants.iter().all(|tenant| checked.stdout.contains(&format!("{tenant}: "))),
            "{}",
            checked.stdout
        );
    }
    let rules = policy("newsroom-rules.toml");
    let checked = run([Path::new("constitution"), Path::new("check"), &rules]).expect(0);
    assert!(checked.stdout.contains("newsroom: 4 rules"), "{}", checked.stdout);
}

#[test]
fn the_newsrooms_rules_know_their_exception() {
    let (scenes, out) = (Scenes::new(), folder());
    let man = scenes.save(&scenes.pair("man", "gun", true), out.path(), "man.png");
    let officer = scenes.save(&scenes.pair("police officer", "gun", true), out.path(), "officer.png");
    let rules = policy("newsroom-rules.toml");
    let lines =
        judge(&["--constitution", rules.to_str().expect("a name")], &[&man, &officer]).expect(1).lines();
    assert_eq!(lines[0]["violated"], serde_json::json!(["armed-civilian"]));
    assert_eq!(lines[1]["verdict"], "safe", "{}", lines[1]);
    let rule =
        lines[1]["rules"].as_array().expect("rules").iter().find(|rule| rule["id"] == "armed-civilian");
    assert_eq!(rule.expect("the rule")["outcome"], "excepted");
}

#[test]
fn the_newsrooms_policy_draws() {
    let out = folder();
    let draw = ["generate", "--prompt", "a man holding a gun on a street", "--tenant", "desk", "--seed", "3"];
    let run = finish(
        command().args(draw).arg("--policy").arg(policy("newsroom.toml")).arg("--out").arg(out.path()),
    );
    assert!(
        run.code < 2 && run.stdout.contains("(") && out.path().join("decisions.jsonl").exists(),
        "{run:#?}"
    );
}
