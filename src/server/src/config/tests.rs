//! What is shipped beside the code: the configuration with every default, and the schema.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/gateway.schema.json");

/// Dotted paths of all keys of a table.
fn keys_of(table: &toml::Table, path: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (key, value) in table {
        let here = format!("{path}.{key}");
        if let toml::Value::Table(inner) = value {
            keys.extend(keys_of(inner, &here));
        }
        keys.insert(here);
    }
    keys
}

/// Dotted paths of all keys that a schema knows.
fn keys_in(schema: &Value, root: &Value, path: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for branch in schema["anyOf"].as_array().into_iter().flatten() {
        keys.extend(keys_in(branch, root, path));
    }
    if let Some(name) = schema["$ref"].as_str() {
        keys.extend(keys_in(root.pointer(name.trim_start_matches('#')).unwrap(), root, path));
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let here = format!("{path}.{key}");
        keys.extend(keys_in(inner, root, &here));
        keys.insert(here);
    }
    keys
}

/// The shipped file with the keys that stand as comments.
fn with_comments() -> String {
    let lines = RawConfig::with_defaults_toml().lines();
    let lines =
        lines.map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_spells_out_every_default() {
    let raw: RawConfig = toml::from_str(RawConfig::with_defaults_toml()).unwrap();
    assert_eq!(raw, RawConfig::default());
    let whole: toml::Table = with_comments().parse().unwrap();
    let schema = Config::json_schema();
    assert_eq!(keys_of(&whole, ""), keys_in(&schema, &schema, ""));
    // What stands as a comment because its table is optional has its default too.
    let least = "[upstream]\nkind = \"a1111\"\nurl = \"http://127.0.0.1:7860\"\n";
    let (least, whole): (RawConfig, RawConfig) =
        (toml::from_str(least).unwrap(), toml::from_str(&with_comments()).unwrap());
    let (least, whole) = (least.upstream.unwrap(), whole.upstream.unwrap());
    let optional = RawUpstream {
        key_file: whole.key_file.clone(),
        certificates: whole.certificates.clone(),
        workflow: whole.workflow.clone(),
        model: whole.model.clone(),
        generator: whole.generator.clone(),
        look_ahead: whole.look_ahead,
        ..least
    };
    assert_eq!(whole, optional);
    let whole: RawConfig = toml::from_str(&with_comments()).unwrap();
    let store = whole.store.unwrap();
    assert_eq!(RawStore { url: None, url_file: None, ..store }, RawStore::default());
    // Who may ask stands in files or in a store, where the store is in one place, and only the built-in generator in a folder
    // and looks ahead.
    let twice = ["policy = ", "file = \"keys.toml\"", "url_file = ", "generator = ", "look_ahead = "];
    let text = with_comments();
    let one: Vec<&str> = text.lines().filter(|line| !twice.iter().any(|key| line.starts_with(key))).collect();
    Config::parse(&one.join("\n"), "gate.toml", std::path::Path::new("")).unwrap();
}

#[test]
fn the_schema_is_current_and_fits_the_shipped_file() {
    let current = format!("{}\n", serde_json::to_string_pretty(&Config::json_schema()).unwrap());
    if std::env::var_os("CLUEGATE_UPDATE").is_some() {
        std::fs::write(SCHEMA, &current).unwrap();
    }
    let published = std::fs::read_to_string(SCHEMA).unwrap();
    assert_eq!(
        published, current,
        "run the tests of this crate with CLUEGATE_UPDATE=1 and commit the schema"
    );
    let validator = jsonschema::validator_for(&Config::json_schema()).unwrap();
    for text in [RawConfig::with_defaults_toml(), &with_comments()] {
        let value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        assert!(validator.is_valid(&value));
    }
    assert!(!validator.is_valid(&serde_json::json!({ "lisen": "127.0.0.1:7800" })));
}
