//! A constitution file as written: types that mirror the TOML, before any check of their content.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::parameter::ParameterKind;
use crate::rule::Severity;

/// A safety constitution: the rules that a picture must not violate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
// A default for serde, so that the absence of rules has an error of its own; still required in a file.
#[schemars(title = "cluegate constitution", extend("required" = ["name", "rule"]))]
pub(crate) struct RawConstitution {
    /// Short name, used in logs: a-z, 0-9 and -.
    #[schemars(with = "String", length(min = 1, max = 64), regex(pattern = r"^[a-z0-9][a-z0-9-]*$"))]
    pub(crate) name: Spanned<String>,
    /// What the constitution is for.
    #[serde(default)]
    pub(crate) description: String,
    /// Names of lints that `cluegate constitution check` leaves out; say why in a comment.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) allow: Vec<Spanned<String>>,
    /// Thresholds of the method; each has the paper's value when left out.
    #[serde(default)]
    pub(crate) thresholds: RawThresholds,
    /// The rules, at least one.
    #[serde(default)]
    #[schemars(with = "Vec<RawRule>", length(min = 1))]
    pub(crate) rule: Vec<Spanned<RawRule>>,
}

/// Thresholds of the method (CLUE, Algorithm 1 and s 4.1).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Thresholds")]
pub(crate) struct RawThresholds {
    /// Cosine between picture and rule text from which the rule is relevant. Left out: the encoder's own, 0.22 for
    /// CLIP ViT-B/16.
    #[schemars(with = "Option<f64>", range(min = -1.0, max = 1.0))]
    pub(crate) relevance: Option<Spanned<f64>>,
    /// a1 = -alpha1 * M(None, c). Default 0.3.
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 1.0))]
    pub(crate) alpha1: Option<Spanned<f64>>,
    /// a2 = alpha2 * (1 - M(None, c)). Default 0.8.
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 1.0))]
    pub(crate) alpha2: Option<Spanned<f64>>,
    /// How far the score must fall when the central objects are removed. Default 0.6.
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 1.0))]
    pub(crate) beta: Option<Spanned<f64>>,
    /// A detection counts above this confidence. Default 0.05.
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 1.0))]
    pub(crate) detection_confidence: Option<Spanned<f64>>,
    /// Share of the picture's area under which an object is small and is looked at in a crop. Default 0.01.
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 1.0))]
    pub(crate) small_object_area: Option<Spanned<f64>>,
}

/// One rule, violated if every precondition holds and the exception does not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rule", extend("required" = ["id", "text", "objectiveness", "severity", "precondition"]))]
pub(crate) struct RawRule {
    /// Name of the rule, unique in the file: a-z, 0-9 and -.
    #[schemars(with = "String", length(min = 1, max = 64), regex(pattern = r"^[a-z0-9][a-z0-9-]*$"))]
    pub(crate) id: Spanned<String>,
    /// The objectified rule, one sentence; compared with the picture in the relevance scan. `{name}` stands for the value
    /// of a parameter, `{{` and `}}` for braces.
    #[schemars(with = "String", length(min = 1))]
    pub(crate) text: Spanned<String>,
    /// How objective the rule is, 1 to 10.
    #[schemars(with = "u8", range(min = 1, max = 10))]
    pub(crate) objectiveness: Spanned<i64>,
    /// How bad a violation is.
    #[schemars(with = "Severity")]
    pub(crate) severity: Spanned<String>,
    /// Names of lints that are left out for this rule; say why in a comment.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) allow: Vec<Spanned<String>>,
    /// Numbers in the rule's text and statements that a policy or a command may set, by name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, RawParameter>", extend("propertyNames" = { "pattern": "^[a-z0-9][a-z0-9-]{0,63}$" }))]
    pub(crate) parameter: BTreeMap<String, Spanned<RawParameter>>,
    /// The chain: every precondition must hold, asked in this order.
    #[serde(default)]
    #[schemars(with = "Vec<RawPrecondition>", length(min = 1))]
    pub(crate) precondition: Vec<Spanned<RawPrecondition>>,
    /// The exception, a chain of the same form: where all of it holds, the rule is not violated.
    #[serde(default)]
    #[schemars(with = "Vec<RawPrecondition>")]
    pub(crate) unless: Vec<Spanned<RawPrecondition>>,
    /// Whether the statements may speak of what is likely to follow from what the picture shows. The judge then lets the
    /// model project consequences first, which costs an answer more for each picture. Default false.
    #[serde(default)]
    pub(crate) consequence: bool,
}

/// A number inside a rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Parameter")]
pub(crate) struct RawParameter {
    /// What it counts or measures.
    #[schemars(with = "ParameterKind")]
    pub(crate) kind: Spanned<String>,
    /// Its value, from `min` to `max`.
    #[schemars(with = "f64", range(min = 0.0))]
    pub(crate) value: Spanned<f64>,
    /// The least that it can be set to. Default 0.
    #[schemars(with = "Option<f64>", range(min = 0.0))]
    pub(crate) min: Option<Spanned<f64>>,
    /// The most that it can be set to. Default the most that its kind allows: 360 degrees, a count of 1000000, 100
    /// percent, 150 years.
    #[schemars(with = "Option<f64>", range(min = 0.0))]
    pub(crate) max: Option<Spanned<f64>>,
}

/// One link of a chain: it holds if any of its statements holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Precondition")]
pub(crate) struct RawPrecondition {
    /// The statements, at least one.
    #[schemars(with = "Vec<RawStatement>", length(min = 1))]
    pub(crate) any: Vec<RawStatement>,
}

/// Something that a picture shows or does not show.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Statement")]
pub(crate) struct RawStatement {
    /// The statement, without a full stop. `{name}` stands for the value of a parameter, `{{` and `}}` for braces.
    #[schemars(with = "String", length(min = 1))]
    pub(crate) statement: Spanned<String>,
    /// The objects that the statement turns on, as a detector should look for them.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) central: Vec<Spanned<String>>,
}

/// A table of the file: how messages call it, and its keys with the shape of what they hold.
pub(crate) struct Shape {
    /// How messages call it.
    pub(crate) place: &'static str,
    /// Known keys; a shape where the key holds a table or an array of tables.
    pub(crate) keys: &'static [(&'static str, Option<&'static Shape>)],
    /// What every key holds, where the file's author chooses the keys.
    pub(crate) named: Option<&'static Shape>,
}

const STATEMENT: Shape =
    Shape { place: "a statement", keys: &[("statement", None), ("central", None)], named: None };
const PRECONDITION: Shape =
    Shape { place: "a precondition", keys: &[("any", Some(&STATEMENT))], named: None };
const PARAMETER: Shape = Shape {
    place: "a parameter",
    keys: &[("kind", None), ("value", None), ("min", None), ("max", None)],
    named: None,
};
const PARAMETERS: Shape = Shape { place: "[rule.parameter]", keys: &[], named: Some(&PARAMETER) };
const THRESHOLDS: Shape = Shape {
    place: "[thresholds]",
    keys: &[
        ("relevance", None),
        ("alpha1", None),
        ("alpha2", None),
        ("beta", None),
        ("detection_confidence", None),
        ("small_object_area", None),
    ],
    named: None,
};
const RULE: Shape = Shape {
    place: "a rule",
    keys: &[
        ("id", None),
        ("text", None),
        ("objectiveness", None),
        ("severity", None),
        ("allow", None),
        ("parameter", Some(&PARAMETERS)),
        ("precondition", Some(&PRECONDITION)),
        ("unless", Some(&PRECONDITION)),
        ("consequence", None),
    ],
    named: None,
};
/// The whole file. Told apart from the raw types because serde reports an unknown field without its position and
/// without the similar one; a test holds both together.
pub(crate) const CONSTITUTION: Shape = Shape {
    place: "the constitution",
    keys: &[
        ("name", None),
        ("description", None),
        ("allow", None),
        ("thresholds", Some(&THRESHOLDS)),
        ("rule", Some(&RULE)),
    ],
    named: None,
};

/// The JSON Schema of constitution files, for editors and for other tools; published as
/// `schema/constitution.schema.json`. It describes form and ranges; duplicate ids and blank texts are found by
/// [`Constitution::parse`](crate::Constitution::parse) only.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(RawConstitution).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a schema object, sorted.
    fn properties(schema: &serde_json::Value) -> Vec<String> {
        let mut keys: Vec<String> =
            schema["properties"].as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    }

    fn keys(shape: &Shape) -> Vec<String> {
        let mut keys: Vec<String> = shape.keys.iter().map(|(key, _)| (*key).to_owned()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn known_keys_are_those_of_the_raw_types() {
        let schema = json_schema();
        assert_eq!(keys(&CONSTITUTION), properties(&schema));
        let inner = [
            ("Thresholds", &THRESHOLDS),
            ("Rule", &RULE),
            ("Parameter", &PARAMETER),
            ("Precondition", &PRECONDITION),
            ("Statement", &STATEMENT),
        ];
        for (name, shape) in inner {
            assert_eq!(keys(shape), properties(&schema["$defs"][name]), "{name}");
        }
    }
}
