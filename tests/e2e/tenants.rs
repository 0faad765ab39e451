//! `cluegate tenants`, `keys` and `policy` on files and in a store, and the page about many tenants as it stands.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Run, Scenes, command, finish, folder};

const POLICY: &str = "[template.base]\ntries = 2\n\n# the children's\n[tenant.kids]\nextends = \"base\"\n\n\
                      [tenant.news]\nrules = [\"death\"]\n";

/// Runs the binary in a folder.
fn run_in(folder: &Path, arguments: &[&str]) -> Run {
    finish(command().current_dir(folder).args(arguments))
}

#[test]
fn tenants_in_a_file_are_changed_and_checked() {
    let root = folder();
    fs::write(root.path().join("policy.toml"), POLICY).expect("a file");
    let run = |arguments: &[&str]| run_in(root.path(), arguments);
    let listed = run(&["tenants", "list", "--file", "policy.toml", "--json"]).expect(0).json();
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["base", "kids", "news"]);
    run(&["tenants", "set", "kids", "--set", "quota.pictures_per_day=9", "--file", "policy.toml"]).expect(0);
    let text = fs::read_to_string(root.path().join("policy.toml")).expect("a file");
    assert!(text.contains("# the children's\n[tenant.kids]"), "{text}");
    let shown = run(&["policy", "show", "kids", "--file", "policy.toml", "--json"]).expect(0).json();
    let value = |key: &str| {
        let values = shown["values"].as_array().expect("a list");
        values.iter().find(|value| value["key"] == key).expect("a value").clone()
    };
    assert!(value("quota.pictures_per_day")["source"].as_str().expect("text").starts_with("tenant.kids"));
    assert!(value("tries")["source"].as_str().expect("text").starts_with("template.base"));
    assert_eq!(value("priority")["source"], "default");
    // What cannot be used is refused, and nothing is written.
    for wrong in [
        &["tenants", "set", "kids", "--set", "trise=9", "--file", "policy.toml"][..],
        &["tenants", "set", "kids", "--set", "constitution=\"nowhere.toml\"", "--file", "policy.toml"],
        &["tenants", "remove", "base", "--template", "--file", "policy.toml"],
        &["tenants", "remove", "nobody", "--file", "policy.toml"],
        &["tenants", "show", "nobody", "--file", "policy.toml"],
    ] {
        run(wrong).expect(2);
    }
    assert_eq!(fs::read_to_string(root.path().join("policy.toml")).expect("a file"), text);
    assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 1);
    run(&["tenants", "suspend", "kids", "--file", "policy.toml"]).expect(0);
    assert!(
        fs::read_to_string(root.path().join("policy.toml")).expect("a file").contains("suspended = true")
    );
    run(&["tenants", "suspend", "kids", "--resume", "--file", "policy.toml"]).expect(0);
    assert!(
        fs::read_to_string(root.path().join("policy.toml")).expect("a file").contains("suspended = false")
    );
    run(&["tenants", "remove", "news", "--file", "policy.toml"]).expect(0);
    run(&["policy", "check", "policy.toml"]).expect(0);
    fs::write(root.path().join("old.toml"), POLICY).expect("a file");
    run(&["policy", "diff", "old.toml", "old.toml"]).expect(0);
    let differ = run(&["policy", "diff", "old.toml", "policy.toml", "--json"]).expect(1).json();
    assert_eq!((&differ[0]["tenant"], &differ[1]["what"]), (&"kids".into(), &"removed".into()), "{differ}");
}

#[test]
fn files_go_into_a_store_and_come_out_of_it_as_they_were() {
    let root = folder();
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("a file");
    write(
        "policy.toml",
        &POLICY.replace("[tenant.news]\n", "[tenant.news]\nconstitution = \"rules/own.toml\"\n"),
    );
    let shown = run_in(root.path(), &["constitution", "show", "scene"]).expect(0).stdout;
    fs::create_dir(root.path().join("rules")).expect("a folder");
    write("rules/own.toml", &shown);
    let run = |arguments: &[&str]| run_in(root.path(), arguments);
    let store = ["--store", "sqlite:gate.db"];
    let with = |arguments: &[&str]| run(&[arguments, &store].concat());
    run(&["keys", "new", "--tenant", "kids", "--id", "tablet", "--file", "keys.toml"]).expect(0);
    let imported =
        with(&["tenants", "import", "--file", "policy.toml", "--keys", "keys.toml", "--json"]).expect(0);
    assert_eq!(
        imported.json(),
        serde_json::json!({ "templates": 1, "tenants": 2, "constitutions": 1, "keys": 1 })
    );
    // Once more is the same.
    with(&["tenants", "import", "--file", "policy.toml", "--keys", "keys.toml"]).expect(0);
    run(&["policy", "diff", "policy.toml", "sqlite:gate.db"]).expect(0);
    with(&["policy", "check"]).expect(0);

    let key =
        with(&["keys", "new", "--tenant", "news", "--id", "tablet", "--expires", "1h"]).expect(0).stdout;
    assert!(key.starts_with("cg_"), "{key}");
    with(&["keys", "new", "--tenant", "nobody", "--id", "x"]).expect(2);
    with(&["keys", "new", "--tenant", "news", "--id", "tablet"]).expect(2);
    let new =
        with(&["keys", "rotate", "tablet", "--tenant", "news", "--overlap", "0s", "--json"]).expect(0).json();
    assert_eq!(new["id"], "tablet.2");
    with(&["keys", "revoke", "tablet", "--tenant", "kids"]).expect(0);
    let keys = with(&["keys", "list", "--json"]).expect(0).json();
    let holds: Vec<(&str, bool)> = keys
        .as_array()
        .expect("a list")
        .iter()
        .map(|key| (key["id"].as_str().expect("text"), key["holds"].as_bool().expect("a truth")))
        .collect();
    assert_eq!(holds, [("tablet", false), ("tablet", false), ("tablet.2", true)]);

    with(&["tenants", "set", "kids", "--set", "tries=1", "--version", "9"]).expect(2);
    with(&["tenants", "set", "kids", "--set", "tries=1"]).expect(0);
    with(&["tenants", "remove", "base", "--template"]).expect(2);
    with(&["tenants", "suspend", "news"]).expect(0);
    let listed = with(&["tenants", "list"]).expect(0).stdout;
    assert!(listed.contains("tenant news, version 3, suspended"), "{listed}");
    // What each of them said before is kept.
    let history = with(&["tenants", "history", "kids", "--json"]).expect(0).json();
    let versions: Vec<i64> = history
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["version"].as_i64().expect("a number"))
        .collect();
    assert!(versions.len() >= 2 && versions.is_sorted_by(|newer, older| newer > older), "{history}");
    let told = with(&["tenants", "history", "base", "--template"]).expect(0).stdout;
    assert!(told.contains("tries = 2"), "{told}");
    with(&["tenants", "history", "nobody"]).expect(2);
    with(&["tenants", "export", "--out", "copy"]).expect(0);
    run(&["policy", "diff", "copy/policy.toml", "sqlite:gate.db"]).expect(0);
    run(&["policy", "diff", "policy.toml", "sqlite:gate.db"]).expect(1);
    assert!(root.path().join("copy/rules/own.toml").exists());
    with(&["tenants", "export", "--out", "copy"]).expect(2);
    let gone = run(&["tenants", "list", "--store", "postgres://nobody@127.0.0.1:1/none"]).expect(2);
    assert!(gone.stderr.contains("127.0.0.1"), "{}", gone.stderr);
}

/// The page, with free ports and a picture, as a shell runs it.
#[test]
fn the_page_about_many_tenants_is_true() {
    let page = include_str!("../../docs/gateway-tenants.md");
    let section = page.split("\n## ").nth(1).expect("a section").to_owned();
    let blocks: Vec<&str> =
        section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("an end")).collect();
    assert!(blocks.len() >= 5, "{blocks:?}");
    let root = folder();
    let scenes = Scenes::new();
    let picture = scenes.save(&scenes.pair("cat", "tree", false), root.path(), "picture.png");
    let port = || {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        taken.local_addr().expect("an address").port().to_string()
    };
    let (public, admin) = (port(), port());
    // The gateway listens a while after it was started; whoever reads the page waits for its word.
    let wait = format!(
        "for i in $(seq 600); do curl -s -o /dev/null 127.0.0.1:{public}/healthz && break; sleep 0.5; done\n"
    );
    let script =
        blocks.join("\n").replace("--config gate.toml &\n", &format!("--config gate.toml &\n{wait}"));
    let script = script.replace("127.0.0.1:7800", &format!("127.0.0.1:{public}"));
    let script = script.replace("127.0.0.1:7801", &format!("127.0.0.1:{admin}"));
    let script = format!(
        "set -e -o pipefail -m\ncluegate() {{ '{}' \"$@\"; }}\ncluegate_test_picture() {{ echo '{}'; }}\n{script}\nwait\n",
        env!("CARGO_BIN_EXE_cluegate"),
        picture.display()
    );
    let binary = command();
    let mut shell = std::process::Command::new("bash");
    shell.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = finish(shell.current_dir(root.path()).args(["-c", &script])).expect(0);
    let made = root.path().join("tenants");
    let json = |name: &str| -> Value {
        let text = fs::read_to_string(made.join(name)).expect("a file");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    assert_eq!(json("over.json")["error"], "quota_exceeded", "{ran:#?}");
    assert!(json("used.json")["decision_id"].is_string(), "{ran:#?}");
    assert!(ran.stdout.contains("rules = [\"bleeding\", \"death\"]  # tenant.newsroom"), "{ran:#?}");
    assert!(ran.stdout.contains("\"measure\":\"pictures\""), "{ran:#?}");
    let log = fs::read_to_string(made.join("decisions.jsonl")).expect("a log");
    assert!(log.contains("tablet.2"), "{log}");
}
