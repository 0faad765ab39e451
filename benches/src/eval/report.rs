//! `report.json` of `cluegate eval run`, as far as the benchmark tells of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The report of one run.
pub(super) struct Report(Value);

/// What is said of one ablation; nothing of what the report lacks.
#[derive(Debug, Default)]
pub(super) struct AblationReport {
    /// Interval of the difference.
    pub(super) interval: Option<[f64; 2]>,
    /// Whether it goes the paper's way.
    pub(super) agreement: Option<String>,
}

impl Report {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let value = serde_json::from_str(&text);
        Ok(Self(value.with_context(|| format!("{}: expected a report", path.display()))?))
    }

    /// How many pictures were looked at.
    pub(super) fn rows(&self) -> u64 {
        self.0.pointer("/data/looked_at").and_then(Value::as_u64).unwrap_or_default()
    }

    pub(super) fn method(&self, name: &str) -> anyhow::Result<Method<'_>> {
        let methods = self.0["methods"].as_array().map_or(&[][..], Vec::as_slice);
        let found = methods.iter().find(|method| method["method"] == name);
        Ok(Method(found.with_context(|| format!("expected the method {name} in the report, found none"))?))
    }

    pub(super) fn ablation(&self, name: &str) -> AblationReport {
        let all = self.0["ablations"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(found) = all.iter().find(|ablation| ablation["method"] == name) else {
            return AblationReport::default();
        };
        AblationReport {
            interval: found.pointer("/ours/interval").and_then(bounds),
            agreement: found["agreement"].as_str().map(str::to_owned),
        }
    }
}

/// The figures of one method.
pub(super) struct Method<'a>(&'a Value);

impl Method<'_> {
    /// A figure at the level of pictures.
    pub(super) fn figure(&self, name: &str) -> anyhow::Result<f64> {
        self.number(&format!("/image_level/{name}"))
    }

    /// The number at a JSON pointer.
    pub(super) fn number(&self, pointer: &str) -> anyhow::Result<f64> {
        let found = self.0.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("expected a number at {pointer} of {}, found none", self.0["method"]))
    }

    /// The numbers by name at a JSON pointer.
    pub(super) fn numbers(&self, pointer: &str) -> anyhow::Result<BTreeMap<String, f64>> {
        let found = self.0.pointer(pointer).and_then(Value::as_object);
        let found = found.with_context(|| format!("expected numbers at {pointer}, found none"))?;
        let number = |(name, value): (&String, &Value)| {
            let value =
                value.as_f64().with_context(|| format!("expected a number for {name}, got {value}"))?;
            Ok((name.clone(), value))
        };
        found.iter().map(number).collect()
    }

    /// The 95 % interval of a figure at the level of pictures, or a dash.
    pub(super) fn interval(&self, name: &str) -> String {
        let found = self.0.pointer(&format!("/image_level/intervals/{name}")).and_then(bounds);
        found.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.3} to {high:.3}"))
    }
}

fn bounds(value: &Value) -> Option<[f64; 2]> {
    let [low, high] = value.as_array()?.as_slice() else { return None };
    Some([low.as_f64()?, high.as_f64()?])
}

/// A share with three digits, or a dash where it is not defined.
pub(super) fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_what_it_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let text = r#"{"data": {"looked_at": 24}, "methods": [{"method": "clue", "image_level":
            {"f1": 0.5, "precision": null, "intervals": {"f1": [0.25, 0.75]}}, "pairs": {"by_policy": {"L1": 1.0}}}],
            "ablations": [{"method": "no-crop", "ours": {"value": -0.1, "interval": [-0.2, 0.0]}, "agreement": "unclear"}]}"#;
        std::fs::write(&path, text).unwrap();
        let report = Report::read(&path).unwrap();
        assert_eq!(report.rows(), 24);
        let clue = report.method("clue").unwrap();
        assert!((clue.figure("f1").unwrap() - 0.5).abs() < 1e-12);
        assert_eq!((clue.interval("f1"), clue.interval("recall")), ("0.250 to 0.750".into(), "-".into()));
        assert_eq!(clue.numbers("/pairs/by_policy").unwrap().keys().collect::<Vec<_>>(), ["L1"]);
        assert!(clue.figure("precision").unwrap_err().to_string().contains("/image_level/precision"));
        assert!(report.method("guard").is_err());
        assert_eq!(report.ablation("no-crop").agreement.as_deref(), Some("unclear"));
        assert!(report.ablation("no-crop").interval.is_some() && report.ablation("x").interval.is_none());
    }
}
