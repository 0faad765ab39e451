//! Help, completions, doctor, and how the program behaves in pipes.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Scenes, command, finish, folder, run};

#[test]
fn help_is_as_reviewed() {
    let commands = [
        &[][..],
        &["demo"],
        &["generate"],
        &["judge"],
        &["probe"],
        &["models"],
        &["models", "pull"],
        &["models", "list"],
        &["models", "verify"],
        &["models", "remove"],
        &["models", "fit-previews"],
        &["eval"],
        &["eval", "osbench"],
        &["eval", "run"],
        &["eval", "mini-pairs"],
        &["eval", "mini-natural"],
        &["label"],
        &["distill"],
        &["calibrate"],
        &["calibrate", "previews"],
        &["eval", "report"],
        &["eval", "compare"],
        &["eval", "build-osbench"],
        &["eval", "prompts"],
        &["constitution"],
        &["constitution", "show"],
        &["constitution", "check"],
        &["constitution", "compile"],
        &["constitution", "templates"],
        &["constitution", "diff"],
        &["constitution", "explain"],
        &["constitution", "fmt"],
        &["constitution", "try"],
        &["policy"],
        &["policy", "show"],
        &["policy", "check"],
        &["policy", "diff"],
        &["tenants"],
        &["tenants", "set"],
        &["tenants", "import"],
        &["serve"],
        &["keys"],
        &["keys", "new"],
        &["keys", "list"],
        &["keys", "rotate"],
        &["config"],
        &["config", "show"],
        &["config", "check"],
        &["plugins"],
        &["plugins", "list"],
        &["plugins", "inspect"],
        &["plugins", "test"],
        &["health"],
        &["doctor"],
        &["completions"],
    ];
    for path in commands {
        let help = finish(command().args(path).arg("--help").env("COLUMNS", "100")).expect(0);
        assert_eq!(help.stderr, "");
        let name = [&["help"], path].concat().join("-");
        insta::assert_snapshot!(name, help.stdout);
    }
}

#[test]
fn every_command_but_plain_ones_shows_an_example() {
    for name in ["demo", "generate", "judge", "probe", "label", "distill", "serve", "completions"] {
        let help = run([name, "--help"]).expect(0).stdout;
        assert!(help.contains("Example") && help.contains(&format!("  cluegate {name}")), "{help}");
    }
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for (shell, marker) in
        [("bash", "complete -F"), ("zsh", "#compdef cluegate"), ("fish", "complete -c cluegate")]
    {
        let script = run(["completions", shell]).expect(0).stdout;
        assert!(script.contains(marker), "{shell}");
        for word in ["demo", "judge", "generate", "probe", "models", "serve", "keys", "config", "doctor"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
    run(["completions", "cobol"]).expect(2);
}

#[test]
fn the_bash_completion_is_a_script_that_bash_accepts() {
    let Ok(mut bash) = std::process::Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn() else {
        eprintln!("skipped: there is no bash here");
        return;
    };
    let script = run(["completions", "bash"]).expect(0).stdout;
    std::io::Write::write_all(&mut bash.stdin.take().expect("a pipe"), script.as_bytes()).expect("written");
    assert!(bash.wait().expect("an end").success());
}

#[test]
fn doctor_finds_the_embedded_suite_in_order() {
    let findings = run(["doctor", "--format", "json"]);
    let rows = findings.json();
    let rows = rows.as_array().expect("a list");
    let named =
        |what: &str| rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no {what}"));
    for what in ["program", "processor", "memory", "device", "cache", "models", "domain", "generator"] {
        let row = named(what);
        assert!(row["found"].as_str().is_some_and(|found| !found.is_empty()), "{row}");
        // A finding that is not right says how to mend it, and the others do not.
        assert_eq!(row["ok"] == false, row["fix"].is_string(), "{row}");
    }
    assert_eq!((&named("models")["ok"], &named("generator")["ok"]), (&true.into(), &true.into()));
    let all_good = rows.iter().all(|row| row["ok"] == true);
    assert_eq!(findings.code, if all_good { 0 } else { 2 });
    assert!(run(["doctor"]).stdout.contains("embedded suite loaded"));
}

#[test]
fn doctor_says_how_to_mend_missing_models() {
    let out = folder();
    let missing = out.path().join("nowhere");
    let doctor = finish(command().args(["doctor", "--format", "json", "--models"]).arg(&missing)).expect(2);
    let models = doctor.json();
    let models = models
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["what"] == "models")
        .expect("models")
        .clone();
    assert_eq!(models["ok"], false);
    assert!(models["found"].as_str().is_some_and(|found| found.contains("nowhere")), "{models}");
    assert!(models["fix"].as_str().is_some_and(|fix| fix.contains("--models")), "{models}");
}

#[test]
fn constitutions_and_policies_can_be_shown_and_checked() {
    let list = run(["constitution", "list"]).expect(0).stdout;
    assert!(
        list.contains("scene")
            && list.contains("12 rules")
            && list.contains("general")
            && list.contains("14 rules")
    );
    let out = folder();
    let shown = [
        ("constitution", run(["constitution", "show", "scene"]).expect(0).stdout),
        ("constitution", run(["constitution", "show", "general"]).expect(0).stdout),
        ("policy", run(["policy", "defaults"]).expect(0).stdout),
    ];
    for (kind, text) in shown {
        let file = out.path().join(format!("{kind}.toml"));
        std::fs::write(&file, text).expect("a file");
        run([Path::new(kind), Path::new("check"), &file]).expect(0);
    }
    for kind in ["constitution", "policy"] {
        let schema = run([kind, "schema"]).expect(0).json();
        assert!(schema["$schema"].is_string() && schema["properties"].is_object(), "{schema}");
    }
    let prose = run(["constitution", "show", "general", "--prose"]).expect(0).stdout;
    assert_eq!(prose.lines().filter(|line| line.starts_with("- ")).count(), 14, "{prose}");
    let none = run(["constitution", "show", "scene", "--prose"]).expect(2).stderr;
    assert!(none.contains("without prose; expected one that has it: general"), "{none}");
    let unknown = run(["constitution", "show", "scenes"]).expect(2);
    assert!(unknown.stderr.contains("\"scenes\"") && unknown.stderr.contains("scene"), "{}", unknown.stderr);
}

#[test]
fn piped_output_holds_no_escape_codes() {
    let (scenes, out) = (Scenes::new(), folder());
    let file = scenes.save(&scenes.pair("man", "knife", true), out.path(), "armed.png");
    let mut runs = vec![
        finish(command().arg("judge").args([&file, &out.path().join("missing.png")])),
        run(["judge"]),
        run(["--help"]),
        run(["doctor", "--models", "nowhere"]),
    ];
    runs.push(finish(command().arg("judge").arg(&file).env("NO_COLOR", "1").env("RUST_LOG", "debug")));
    for run in runs {
        assert!(!run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'), "{run:#?}");
    }
}

#[test]
fn a_reader_who_has_enough_is_no_error() {
    let mut child = command()
        .args(["constitution", "show", "general"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // The pipe is closed before anything is read.
    drop(child.stdout.take());
    let mut complaints = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut complaints).expect("text");
    let status = child.wait().expect("an end");
    assert_eq!(complaints, "");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn completions_end_quietly_when_nobody_reads() {
    let mut child = command()
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let mut complaints = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut complaints).expect("text");
    assert_eq!(complaints, "");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn wrong_arguments_are_errors_that_say_what_is_right() {
    let run = run(["judge", "--format", "xml", "a.png"]).expect(2);
    assert!(run.stderr.contains("xml") && run.stderr.contains("jsonl"), "{}", run.stderr);
    let run = crate::support::run(["juge", "a.png"]).expect(2);
    assert!(run.stderr.contains("judge"), "{}", run.stderr);
}
