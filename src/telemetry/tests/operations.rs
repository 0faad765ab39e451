//! What is written about metrics and alarms holds: the table of the docs, the dashboard, the alarms, the runbook.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cluegate_telemetry::{Kind, Metric, catalogue};
use serde_json::Value;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A use of a metric in a query: its name, and what stands in its braces.
fn uses(query: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let begins = ["cluegate_", "process_"];
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = begins.iter().filter_map(|begin| rest.find(begin)).min() {
        let tail = &rest[at..];
        let end = tail.find(|c| !is_name(c)).unwrap_or(tail.len());
        let labels = tail[end..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let names = labels.map_or(Vec::new(), |(inner, _)| {
            let pairs = inner.split(',').filter(|pair| !pair.trim().is_empty());
            pairs.map(|pair| pair.split(['=', '!']).next().unwrap().trim().to_owned()).collect()
        });
        found.push((tail[..end].to_owned(), names));
        rest = &tail[end..];
    }
    found
}

/// The metric of a series, which for histograms has an ending.
fn metric(series: &str) -> Option<&'static Metric> {
    catalogue::ALL.iter().find(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|ending| series.strip_suffix(ending) == Some(metric.name)),
        _ => metric.name == series,
    })
}

#[track_caller]
fn check(query: &str) -> usize {
    let uses = uses(query);
    for (series, labels) in &uses {
        let metric = metric(series).unwrap_or_else(|| panic!("nothing exports {series}: {query}"));
        for label in labels {
            let known = metric.labels.contains(&label.as_str())
                || ["instance", "job", "le"].contains(&label.as_str());
            assert!(known, "{series} has no label {label}: {query}");
        }
    }
    uses.len()
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    // The rules of `promtool check metrics`, and of the naming guide behind them.
    let mut seen = BTreeSet::new();
    for metric in catalogue::ALL {
        let Metric { name, kind, labels, help } = metric;
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("cluegate_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        let counts = matches!(kind, Kind::Counter | Kind::Sum);
        assert_eq!(name.ends_with("_total"), counts, "{name}");
        for ending in ["_count", "_sum", "_bucket", "_milliseconds", "_ms", "_kilobytes", "_percent"] {
            assert!(!name.ends_with(ending), "{name}");
        }
        for word in ["counter", "gauge", "histogram", "summary", "milliseconds"] {
            assert!(!name.contains(word), "{name}");
        }
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        for label in *labels {
            assert!(!["le", "quantile", "instance", "job"].contains(label), "{name}: {label}");
            assert!(!name.contains(&format!("by_{label}")), "{name}: {label}");
        }
    }
}

#[test]
fn the_table_of_the_docs_is_the_catalogue() {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in catalogue::ALL {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{name}` | {} | {labels} | {help} |", kind.as_str()).unwrap();
    }
    let docs = read("docs/operations.md");
    let inner = docs.split_once("<!-- metrics -->\n").unwrap().1.split_once("<!-- /metrics -->").unwrap().0;
    assert!(inner == table, "expected in docs/operations.md:\n{table}");
}

#[test]
fn every_query_of_the_dashboard_asks_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/cluegate.json")).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            assert!(check(query) > 0, "{query}");
            asked.extend(
                uses(query).into_iter().filter_map(|(series, _)| metric(&series)).map(|own| own.name),
            );
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        check(variable["definition"].as_str().unwrap_or_default());
    }
    // Whatever is worth exporting is worth seeing, but for what only says that a process is the same one.
    let unseen: Vec<&str> =
        catalogue::ALL.iter().map(|own| own.name).filter(|name| !asked.contains(name)).collect();
    let known = [
        "cluegate_build_info",
        "cluegate_model_largest_batch",
        "cluegate_policy_loaded_timestamp_seconds",
        "cluegate_trace_exports_total",
        "process_max_fds",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    ];
    assert!(unseen.iter().all(|name| known.contains(name) || name.contains("judgments")), "{unseen:?}");
}

#[test]
fn each_alarm_has_its_entry_in_the_runbook_and_asks_for_what_is_exported() {
    let (alerts, runbook) = (read("deploy/prometheus/alerts.yaml"), read("docs/runbook.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), 10);
    check(&alerts.lines().filter(|line| !line.trim().starts_with('#')).collect::<Vec<_>>().join(" "));
    let entries: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(entries, names);
    for (name, section) in names.iter().zip(runbook.split("\n## ").skip(1)) {
        for part in ["**Means.** ", "**Look.** ", "**Do.** "] {
            assert_eq!(section.matches(part).count(), 1, "{name}: {part}");
        }
        let address = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(alerts.matches(&address).count(), 1, "{address}");
    }
    for (series, _) in uses(&runbook) {
        let named = catalogue::ALL.iter().any(|own| own.name == series) || metric(&series).is_some();
        assert!(named, "nothing exports {series}");
    }
}
