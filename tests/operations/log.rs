//! `cluegate log` and `cluegate replay` over what a real gateway logged, and the gateway's own sweeps.

use std::fs;

use cluegate_audit::{AuditLog, LogSettings};
use cluegate_gate::{Decision, DecisionLog as _, DecisionRecord, Policies};
use serde_json::{Value, json};

use crate::gateway::{Gateway, Setup};
use crate::support::{Run, command, finish};

const LOG: &str = "[log]\nfile = \"decisions.jsonl\"\ninstance = \"gate-1\"\nsubject_key_file = \"log.key\"\n\
                   head_key_file = \"log.key\"\n";

/// Runs the binary in the folder of a gateway.
fn run(setup: &Setup, arguments: &[&str]) -> Run {
    finish(command().current_dir(setup.folder.path()).args(arguments))
}

/// Lines of `cluegate log query --json`, without the last, which names the next place.
fn query(setup: &Setup, arguments: &[&str]) -> Vec<Value> {
    let all = [&["log", "query", "--config", "gate.toml", "--json"], arguments].concat();
    let mut lines = run(setup, &all).expect(0).lines();
    assert_eq!(lines.pop(), Some(json!({ "next": null })));
    lines
}

/// A gateway's folder with its key file.
fn setup(tables: &str) -> Setup {
    let setup = Setup::new(&format!("{LOG}{tables}"));
    fs::write(setup.folder.path().join("log.key"), format!("k1:{}\n", "5a".repeat(32))).expect("a file");
    setup
}

/// What a gateway logged of two tenants and two end users.
fn logged() -> Setup {
    let setup = setup("");
    let policy = setup.folder.path().join("policy.toml");
    let text = fs::read_to_string(&policy).expect("a file");
    fs::write(&policy, text.replace("[tenant.strict]\n", "[tenant.strict]\nlog_prompts = true\n"))
        .expect("a file");
    let gateway = Gateway::start(&setup, &[], &[]);
    for (key, prompt, subject) in [
        (&setup.open, "a man with a knife", "ada"),
        (&setup.strict, "a man with a knife", "ada"),
        (&setup.strict, "a cat on the grass", "bob"),
    ] {
        gateway.generate(key, prompt, &[("x-cluegate-subject", subject)]);
    }
    gateway.stop();
    setup
}

#[test]
fn a_log_is_searched_exported_verified_erased_and_expired() {
    let setup = logged();
    let strict = query(&setup, &["--tenant", "strict"]);
    let outcomes: Vec<&Value> = strict.iter().map(|entry| &entry["result"]["outcome"]).collect();
    assert_eq!(outcomes, ["withheld", "released"], "{strict:#?}");
    assert_eq!(query(&setup, &["--tenant", "open"]).len(), 1);
    assert_eq!(query(&setup, &["--all-tenants"]).len(), 3);
    let armed = query(&setup, &["--tenant", "strict", "--rule", "armed", "--outcome", "withheld"]);
    assert_eq!(armed, strict[..1]);
    assert_eq!(query(&setup, &["--tenant", "strict", "--subject", "bob"]), strict[1..]);
    assert!(query(&setup, &["--tenant", "strict", "--until", "2020-01-01"]).is_empty());
    let id = strict[0]["decision_id"].as_str().expect("text");
    // Another tenant's decision is not found by its id.
    assert!(query(&setup, &["--tenant", "open", "--decision", id]).is_empty());
    assert!(run(&setup, &["log", "query", "--config", "gate.toml"]).expect(2).stderr.contains("--tenant"));

    let export = |form: &str, out: &str| {
        let all =
            ["log", "export", "--config", "gate.toml", "--tenant", "strict", "--format", form, "--out", out];
        run(&setup, &all).expect(0);
        fs::read_to_string(setup.folder.path().join(out)).expect("a file")
    };
    assert_eq!(export("csv", "strict.csv").lines().count(), 3);
    assert_eq!(export("jsonl", "strict.jsonl").lines().count(), 2);

    let verify = ["log", "verify", "--config", "gate.toml", "--json"];
    let verified = run(&setup, &verify).expect(0).json();
    assert_eq!(verified["broken"], Value::Null);
    tampering_is_found(&setup);

    let erase = ["log", "erase", "--config", "gate.toml", "--tenant", "strict", "--subject", "ada", "--json"];
    assert_eq!(run(&setup, &erase).expect(0).json(), json!({ "entries": 1, "pictures": 0 }));
    run(&setup, &verify).expect(0);
    assert!(query(&setup, &["--tenant", "strict", "--subject", "ada"]).is_empty());
    let log = fs::read_to_string(setup.folder.path().join("decisions.jsonl")).expect("a file");
    assert!(!log.contains("a man with a knife") && log.contains("a cat on the grass"), "{log}");
    // The same person with the other tenant is not touched.
    assert_eq!(query(&setup, &["--tenant", "open", "--subject", "ada"]).len(), 1);

    let expire = ["log", "expire", "--config", "gate.toml", "--json"];
    assert_eq!(run(&setup, &expire).expect(0).json(), json!({ "entries": 0, "pictures": 0 }));
    assert!(
        run(&setup, &["log", "expire", "--config", "gate.toml", "--tenant", "strikt"])
            .expect(2)
            .stderr
            .contains("strict")
    );
}

/// A changed word, and a missing line, are told with the number of the entry.
fn tampering_is_found(setup: &Setup) {
    let log = fs::read_to_string(setup.folder.path().join("decisions.jsonl")).expect("a file");
    let without_second: String =
        log.lines().enumerate().filter(|(line, _)| *line != 1).map(|(_, text)| format!("{text}\n")).collect();
    for (name, text, said) in [
        ("changed.jsonl", log.replacen("\"withheld\"", "\"released\"", 1), "entry 2"),
        ("cut.jsonl", without_second, "entry 3"),
    ] {
        assert_ne!(text, log);
        fs::write(setup.folder.path().join(name), text).expect("a file");
        let verified = run(setup, &["log", "verify", "--file", name]).expect(1);
        assert!(verified.stdout.contains("BROKEN") && verified.stdout.contains(said), "{verified:#?}");
    }
}

#[test]
fn a_policy_on_trial_is_replayed_rule_by_rule_from_files_and_from_a_store() {
    let setup = logged();
    let replay = |config: &str, arguments: &[&str]| {
        let all = [&["replay", "--config", config, "--tenant", "strict"], arguments].concat();
        run(&setup, &all)
    };
    let same = replay("gate.toml", &["--json"]).expect(0).json();
    assert_eq!(same["decisions"], 2, "{same:#}");
    assert_eq!((&same["rules"]["armed"]["then"], &same["rules"]["armed"]["now"]), (&1.into(), &1.into()));
    // Policies in a store, and the same log.
    let import = ["tenants", "import", "--file", "policy.toml", "--store", "sqlite:gate.db"];
    run(&setup, &import).expect(0);
    let config =
        fs::read_to_string(setup.config()).expect("a file").replace("policy = \"policy.toml\"\n", "");
    let config = config.replace("[keys]\nfile = \"keys.toml\"\n", "");
    fs::write(
        setup.folder.path().join("stored.toml"),
        format!("{config}[store]\nurl = \"sqlite:gate.db\"\n"),
    )
    .expect("a file");
    for config in ["gate.toml", "stored.toml"] {
        // No rule is relevant enough to be asked about.
        let lenient = ["--set", "thresholds.relevance=1.0", "--json"];
        let changed = replay(config, &lenient).expect(1).json();
        let armed = &changed["rules"]["armed"];
        assert_eq!(
            (&armed["then"], &armed["now"], &armed["no_longer"]),
            (&1.into(), &0.into(), &1.into()),
            "{changed:#}"
        );
        let held = replay(config, &["--set", "action.rule.armed=\"hold\""]).expect(1);
        assert!(held.stdout.contains("armed"), "{held:#?}");
        let unknown = replay(config, &["--set", "thresholds.alpha=1.0"]).expect(2);
        assert!(unknown.stderr.contains("alpha1"), "{unknown:#?}");
        let unknown = replay(config, &["--constitution", "nowhere.toml"]).expect(2);
        assert!(unknown.stderr.contains("nowhere.toml"), "{unknown:#?}");
    }
}

/// A decision of long ago, as this program wrote it.
fn old(tenant: &str, number: u64) -> DecisionRecord {
    serde_json::from_value(json!({
        "decision_id": format!("00000000-0000-7000-8000-{number:012}"),
        "timestamp": "2020-03-01T00:00:00Z",
        "tenant": tenant,
        "constitution": { "name": "scene", "revision": "ab".repeat(32) },
        "models": { "judge": "fake" },
        "request": { "id": format!("request-{number}"), "prompt_hash": "cd".repeat(32), "seed": number, "count": 1 },
        "member": 0, "outcome": "released", "reason": "safe", "message": "no rule is violated", "action": null,
        "violated": [], "unjudged": false, "attempts": [],
        "timings_ms": { "total": 20.5, "judging": 3.5, "redacting": 0.0 },
    }))
    .expect("a record")
}

#[test]
fn a_gateway_removes_by_itself_what_is_too_old() {
    let admin = "expire_every_s = 1\n[admin]\nlisten = \"127.0.0.1:0\"\nkey_file = \"admin.keys\"\n";
    let setup = setup(admin);
    let folder = setup.folder.path();
    let key = ["keys", "new", "--role", "read", "--id", "scrape", "--file", "admin.keys"];
    let key = run(&setup, &key).expect(0).stdout.trim().to_owned();
    let policy = folder.join("policy.toml");
    let text = fs::read_to_string(&policy).expect("a file");
    fs::write(&policy, format!("{text}[tenant.strict.retention]\ndecision_days = 30\n")).expect("a file");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let settings = LogSettings {
        instance: Some("gate-1".into()),
        head_key_file: Some(folder.join("log.key")),
        ..LogSettings::in_file(folder.join("decisions.jsonl"))
    };
    let policies = Policies::shipped_default().expect("a policy");
    let log = runtime.block_on(AuditLog::open(&settings, None)).expect("a log");
    for number in 0..5 {
        for tenant in ["open", "strict"] {
            let record = old(tenant, number);
            let policy = policies.iter().next().expect("a tenant");
            let decision = Decision { record: &record, judged: None, released: None, policy };
            log.append(&decision).expect("an entry");
        }
    }
    drop(log);
    let gateway = Gateway::start(&setup, &[("RUST_LOG", "info")], &[]);
    // The newest entry says what time it is at least.
    assert_eq!(gateway.generate(&setup.open, "a cat", &[]).0, 200);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let metrics = || {
        let url = format!("{}/metrics", gateway.admin.as_deref().expect("an administration"));
        let answer = agent.get(url).header("authorization", format!("Bearer {key}")).call();
        answer.expect("an answer").body_mut().read_to_string().expect("text")
    };
    let expected = "cluegate_log_expired_total{what=\"decision\"} 5";
    let swept = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        metrics().contains(expected)
    });
    assert!(swept, "{}", metrics());
    let said = gateway.stop();
    assert!(
        said.iter().any(|line| line.contains("retention allows") && line.contains("decisions=5")),
        "{said:#?}"
    );
    assert!(query(&setup, &["--tenant", "strict"]).is_empty());
    assert_eq!(query(&setup, &["--tenant", "open"]).len(), 6);
    run(&setup, &["log", "verify", "--config", "gate.toml"]).expect(0);
}
