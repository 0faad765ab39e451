//! `/metrics` of a gateway that works.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cluegate_telemetry::{Kind, catalogue};

use crate::exposition::{Family, parse};
use crate::gateway::{Gateway, Setup};
use crate::support::{command, finish};

/// What this gateway has no occasion to export: no quota is spent, its judge and its log do not fail, and it has no store
/// and no webhook.
const ABSENT: [&str; 5] = [
    "cluegate_judge_errors_total",
    "cluegate_quota_refused_total",
    "cluegate_database_up",
    "cluegate_log_sink_failures_total",
    "cluegate_log_webhook_lag_entries",
];
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\nkey_file = \"admin.keys\"\n";

fn admin_key(setup: &Setup, arguments: &[&str]) -> String {
    let mut command = command();
    command.args(["keys", "new", "--file"]).arg(setup.folder.path().join("admin.keys")).args(arguments);
    finish(&mut command).expect(0).stdout.trim().to_owned()
}

fn scrape(gateway: &Gateway, key: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}/metrics", gateway.admin.as_deref().expect("an administration"));
    let mut answer =
        agent.get(url).header("authorization", format!("Bearer {key}")).call().expect("an answer");
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    let (status, text) = (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"));
    if status == 200 {
        assert_eq!(kind.as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
        parse(&text);
        promtool(&text);
    }
    (status, text)
}

/// What Prometheus' own linter says, where it is installed.
fn promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_scrape_is_well_formed_and_counts_what_was_done() {
    let setup = Setup::new(ADMIN);
    let read = admin_key(&setup, &["--role", "read", "--id", "scrape"]);
    let kids = admin_key(&setup, &["--role", "read", "--id", "kids", "--tenant", "strict"]);
    let gateway = Gateway::start(&setup, &[], &[]);
    let before = parse(&scrape(&gateway, &read).1);
    assert_eq!(before["cluegate_upstream_orders_total"].sum(&[]), 0.0);

    assert_eq!(gateway.generate(&setup.open, "a cat", &[]).0, 200);
    assert_eq!(gateway.generate(&setup.open, "a cat", &[]).0, 200);
    assert_eq!(gateway.generate(&setup.strict, "a man holding a knife", &[]).0, 400);
    assert_eq!(gateway.generate("cg_wrong", "a cat", &[]).0, 401);
    // Another tenant's numbers are not for a key that is limited to one, and nothing is for who has none.
    assert_eq!(scrape(&gateway, &kids).0, 403);
    assert_eq!(scrape(&gateway, &setup.open).0, 401);

    let families = parse(&scrape(&gateway, &read).1);
    let sum = |name: &str, labels: &[(&str, &str)]| families[name].sum(labels);
    let released = [("tenant", "open"), ("outcome", "released"), ("mode", "enforce"), ("stage", "picture")];
    assert_eq!(sum("cluegate_decisions_total", &released), 2.0);
    assert_eq!(sum("cluegate_decisions_total", &[("tenant", "strict"), ("reason", "violation")]), 1.0);
    assert_eq!(sum("cluegate_violations_total", &[("tenant", "strict"), ("rule", "armed")]), 1.0);
    assert_eq!(sum("cluegate_judgments_total", &[("stage", "picture")]), 3.0);
    assert_eq!(sum("cluegate_verdict_cache_lookups_total", &[("result", "hit")]), 1.0);
    assert_eq!(sum("cluegate_upstream_orders_total", &[]), 3.0);
    assert!(sum("cluegate_http_requests_total", &[("status", "401")]) >= 1.0);
    assert_eq!(sum("cluegate_admission_places", &[]), 16.0);
    assert_eq!(sum("cluegate_admission_in_work", &[]), 0.0);
    assert_eq!(sum("cluegate_tenants", &[]), 2.0);
    assert_eq!(sum("cluegate_upstream_up", &[]), 1.0);
    assert!(sum("cluegate_forward_passes_total", &[("model", "judge")]) > 0.0);
    assert!(sum("cluegate_model_batches_total", &[("model", "relevance")]) > 0.0);
    for stage in ["admission", "upstream", "relevance", "statements", "judge", "log", "total"] {
        let counted = families["cluegate_stage_duration_seconds"].samples.iter().any(|sample| {
            sample.name.ends_with("_count") && sample.labels["stage"] == stage && sample.value >= 1.0
        });
        assert!(counted, "{stage}");
    }
    exported_is_written_down(&families);
    // Whoever looks twice finds nothing smaller: counters only grow.
    let later = parse(&scrape(&gateway, &read).1);
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "counter") {
        for sample in &family.samples {
            let now =
                later[name].samples.iter().find(|now| now.labels == sample.labels).expect("the same series");
            assert!(now.value >= sample.value, "{sample:?}");
        }
    }
    assert!(gateway.stop().last().is_some_and(|word| word == "stopped"));
}

/// What is exported is what the catalogue has, which another test compares with the table of the docs.
fn exported_is_written_down(families: &BTreeMap<String, Family>) {
    let exported: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    let written: BTreeSet<&str> =
        catalogue::ALL.iter().map(|metric| metric.name).filter(|name| !ABSENT.contains(name)).collect();
    assert_eq!(exported, written);
    for metric in catalogue::ALL.iter().filter(|metric| !ABSENT.contains(&metric.name)) {
        let family = &families[metric.name];
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.as_str(), metric.help));
        let bound = (metric.kind == Kind::Histogram).then_some("le");
        let known: BTreeSet<&str> = metric.labels.iter().copied().chain(bound).collect();
        for sample in &family.samples {
            let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
            let expected = if sample.name.ends_with("_bucket") || bound.is_none() {
                known.clone()
            } else {
                metric.labels.iter().copied().collect()
            };
            assert_eq!(labels, expected, "{sample:?}");
        }
    }
}

#[test]
fn tenants_beyond_the_bound_share_their_series() {
    let setup = Setup::new(&format!("{ADMIN}[metrics]\ntenants = 1\nrules = 0\n"));
    let key = admin_key(&setup, &["--role", "read", "--id", "scrape"]);
    let gateway = Gateway::start(&setup, &[], &[]);
    assert_eq!(gateway.generate(&setup.open, "a cat", &[]).0, 200);
    assert_eq!(gateway.generate(&setup.strict, "a man holding a knife", &[]).0, 400);
    let (_, text) = scrape(&gateway, &key);
    let families = parse(&text);
    assert_eq!(families["cluegate_decisions_total"].sum(&[("tenant", "open")]), 1.0);
    assert_eq!(families["cluegate_decisions_total"].sum(&[("tenant", "other")]), 1.0);
    assert_eq!(families["cluegate_violations_total"].sum(&[("tenant", "other"), ("rule", "other")]), 1.0);
    assert!(!text.contains("strict") && !text.contains("armed"), "{text}");
}

#[test]
fn without_an_administration_there_are_no_metrics() {
    let setup = Setup::new("");
    let gateway = Gateway::start(&setup, &[], &[]);
    assert!(gateway.admin.is_none());
    let answer = ureq::get(format!("{}/metrics", gateway.url)).call();
    assert!(matches!(answer, Err(ureq::Error::StatusCode(404))), "{answer:?}");
}
