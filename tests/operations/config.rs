//! `cluegate config show` and `config check`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{command, finish, folder, run};

fn check(file: &Path, options: &[&str]) -> crate::support::Run {
    finish(command().args(["config", "check"]).args(options).arg(file))
}

#[test]
fn every_value_is_shown_with_its_source_and_what_is_shown_is_a_configuration() {
    let root = folder();
    let file = root.path().join("gate.toml");
    let text = "listen = \"127.0.0.1:9000\"\n[keys]\nanonymous = \"default\"\n[limits]\nqueue = 7\n[upstream]\n\
                kind = \"a1111\"\nurl = \"http://127.0.0.1:7860\"\n[a1111]\nfixed = { steps = 20, api_key = \"hush\" }\n";
    fs::write(&file, text).expect("a file");
    let show = |options: &[&str]| {
        let mut command = command();
        command.args(["config", "show", "--config"]).arg(&file).args(options);
        finish(command.env("CLUEGATE_MODELS", "laptop").env("HF_TOKEN", "hf_hush")).expect(0).stdout
    };
    let shown = show(&["--sources", "--listen", "127.0.0.1:1"]);
    for line in [
        "listen = \"127.0.0.1:1\"  # --listen; default \"127.0.0.1:7800\"",
        "models = \"laptop\"  # environment CLUEGATE_MODELS",
        "anonymous = \"default\"  # gate.toml:3",
        "queue = 7  # gate.toml:5; default 64",
        "in_work = 16  # default",
        "batch = 4  # default",
        "# policy  # not set",
        "# environment: HF_TOKEN=***",
    ] {
        assert!(shown.lines().any(|own| own == line), "{line} in\n{shown}");
    }
    assert!(!shown.contains("hush"), "{shown}");
    // Without comments, and read again, it is the same.
    let again = root.path().join("again.toml");
    fs::write(&again, show(&[])).expect("a file");
    let values = |path: &Path| -> Vec<Value> {
        let mut command = command();
        command.args(["config", "show", "--format", "json", "--config"]).arg(path);
        let json = finish(&mut command).expect(0).json();
        let rows = json.as_array().expect("rows").iter().filter(|row| row["key"] != "models");
        rows.map(|row| serde_json::json!([row["key"], row["value"], row["default"]])).collect()
    };
    assert_eq!(values(&file), values(&again));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let root = folder();
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("a file");
    write(
        "gate.toml",
        "lisen = \"x\"\npolicy = \"policy.toml\"\nmodels = \"no-such.toml\"\n\
         [keys]\nfile = \"keys.toml\"\nanonymous = \"ghost\"\n[limits]\nin_work = 100000\n[tls]\n\
         certificate = \"a.pem\"\nkey = \"b.pem\"\n[upstream]\nkind = \"openai\"\nurl = \"http://127.0.0.1:9\"\n\
         key_file = \"no.key\"\n[log]\nfile = \"nowhere/decisions.jsonl\"\n",
    );
    write(
        "policy.toml",
        "[tenant.kids]\nconstitution = \"gone.toml\"\n[tenant.news]\nconstitution = \"scene\"\nrules = [\"no-such-rule\"]\n",
    );
    let file = root.path().join("gate.toml");
    let report = check(&file, &["--json"]).expect(1).json();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().expect("problems");
    let of = |key: &str| -> Vec<&Value> { problems.iter().filter(|problem| problem["key"] == key).collect() };
    assert_eq!(
        (of("lisen")[0]["line"].as_u64(), of("limits.in_work")[0]["line"].as_u64()),
        (Some(1), Some(8))
    );
    for key in ["log", "models", "keys.file", "tls", "upstream"] {
        assert_eq!(of(key).len(), 1, "{key} in {problems:#?}");
    }
    let policies: String = of("policy").iter().map(|problem| problem["message"].to_string()).collect();
    assert!(policies.contains("gone.toml") && policies.contains("no-such-rule"), "{problems:#?}");
    assert!(
        of("keys")[0]["message"].as_str().is_some_and(|told| told.contains("\"ghost\"")),
        "{problems:#?}"
    );
    // For people, a line each, which editors can follow.
    let told = check(&file, &[]).expect(1).stdout;
    assert!(
        told.lines().count() >= problems.len() && told.contains("gate.toml:1: unknown key `lisen`"),
        "{told}"
    );
    // Nothing was made.
    assert!(!root.path().join("nowhere").exists() && !root.path().join("decisions.jsonl").exists());
}

#[test]
fn a_sound_configuration_is_ok_and_one_that_is_not_there_an_error() {
    let root = folder();
    let file = root.path().join("gate.toml");
    fs::write(&file, "[keys]\nanonymous = \"default\"\n").expect("a file");
    assert_eq!(check(&file, &["--json"]).expect(0).json()["ok"], true);
    assert!(check(&file, &[]).expect(0).stdout.ends_with("gate.toml: ok\n"));
    let missing = run(["config", "check", "/no/such/gate.toml"]).expect(2);
    assert!(missing.stderr.contains("cannot read /no/such/gate.toml"), "{}", missing.stderr);
    assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 1);
}

#[test]
fn a_store_is_asked_only_if_told_to() {
    let root = folder();
    let file = root.path().join("gate.toml");
    let store = |url: &str| fs::write(&file, format!("[store]\nurl = \"{url}\"\n")).expect("a file");
    // Nobody listens there.
    store("postgres://gate:secret-word@127.0.0.1:1/gate");
    check(&file, &[]).expect(0);
    let report = check(&file, &["--connect", "--json"]).expect(1);
    let problems = report.json()["problems"].clone();
    assert_eq!(
        (&problems[0]["key"], problems.as_array().map(Vec::len)),
        (&"store".into(), Some(1)),
        "{problems}"
    );
    assert!(
        report.stdout.contains("127.0.0.1") && !report.stdout.contains("secret-word"),
        "{}",
        report.stdout
    );
    // One that is there, with a tenant that can be used, and then one that cannot.
    store("sqlite:gate.db");
    let url = format!("sqlite:{}", root.path().join("gate.db").display());
    run(["tenants", "set", "kids", "--set", "tries=2", "--store", &url]).expect(0);
    check(&file, &["--connect"]).expect(0);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let database = cluegate_store::Database::open(&url, Default::default()).await.expect("a database");
        let store = cluegate_store::Store::new(database);
        let mut edit = store.edit(cluegate_store::Author { by: "test", at_ms: 0 }).await.expect("an edit");
        edit.put_tenant("kids", "constitution = \"nowhere\"", cluegate_store::Expect::Any)
            .await
            .expect("a tenant");
        edit.commit().await.expect("a commit");
        store.database().close().await;
    });
    let told = check(&file, &["--connect", "--json"]).expect(1).stdout;
    assert!(told.contains("nowhere"), "{told}");
}
