//! Findings as SARIF 2.1.0 (OASIS), which editors and code review read.

use cluegate_constitution::ConstitutionError;
use cluegate_constitution::lint::{Finding, LINTS, Level, Lint, Region};
use serde_json::{Value, json};

use super::Source;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Where the lints are described.
const PAGE: &str = "https://github.com/cluegate/cluegate/blob/main/docs/constitution-lints.md";

/// The log of a constitution that could be read.
pub(super) fn log(source: &Source, findings: &[Finding], not_examined: &[String]) -> Value {
    let results = findings.iter().map(|finding| {
        let region = finding.region.map(region);
        let mut result =
            result(finding.lint, &format!("rule `{}`: {}", finding.rule, finding.message), source, region);
        result["locations"][0]["logicalLocations"] = json!([{"name": finding.rule, "kind": "object"}]);
        result
    });
    document(results.collect(), not_examined)
}

/// The log of a file that is no constitution.
pub(super) fn refusal(source: &Source, error: &ConstitutionError) -> Value {
    let region = error.line().map(|line| json!({"startLine": line}));
    document(vec![result(&Lint::INVALID, &error.problem().to_string(), source, region)], &[])
}

fn document(results: Vec<Value>, not_examined: &[String]) -> Value {
    let notifications: Vec<Value> = not_examined
        .iter()
        .map(|what| json!({"level": "note", "message": {"text": format!("not examined: {what}")}}))
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "cluegate",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": "https://github.com/cluegate/cluegate",
                "rules": LINTS.iter().map(rule).collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(lint: &Lint) -> Value {
    let Lint { code, name, level, what, why, example, mend } = lint;
    json!({
        "id": code,
        "name": name,
        "shortDescription": {"text": what},
        "fullDescription": {"text": format!("{what} {why}")},
        "help": {
            "text": format!("{why} Example: {example} To mend: {mend}"),
            "markdown": format!("{why}\n\nExample: `{example}`\n\nTo mend: {mend}"),
        },
        "helpUri": format!("{PAGE}#{}-{name}-{}", code.to_lowercase(), level.as_str()),
        "defaultConfiguration": {"level": level.as_str()},
    })
}

fn result(lint: &Lint, message: &str, source: &Source, region: Option<Value>) -> Value {
    let index = LINTS.iter().position(|known| known.code == lint.code).unwrap_or_default();
    let mut place = json!({"artifactLocation": {"uri": uri(&source.origin)}});
    if let Some(region) = region {
        place["region"] = region;
    }
    json!({
        "ruleId": lint.code,
        "ruleIndex": index,
        "level": Level::as_str(lint.level),
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    })
}

fn region(region: Region) -> Value {
    json!({
        "startLine": region.line,
        "startColumn": region.column,
        "endLine": region.end_line,
        "endColumn": region.end_column,
    })
}

/// A path as a URI reference: what may not stand in one is percent-encoded (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for (index, byte) in path.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~/()!$&'+,;=@".contains(&byte);
        // A colon in the first segment of a relative path would make a scheme of what stands before it.
        if plain || (byte == b':' && path[..index].contains('/')) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uri_references() {
        assert_eq!(uri("rules/my rules.toml"), "rules/my%20rules.toml");
        assert_eq!(uri("/a/b#c.toml"), "file:///a/b%23c.toml");
        assert_eq!(uri("c:x/é:.toml"), "c%3Ax/%C3%A9:.toml");
    }
}
