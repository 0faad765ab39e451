//! What a configuration says, key by key: the value in force, the default, and who said so.

use serde_json::Value;

use super::places::Places;
use super::{Config, RawConfig};

/// What stands in place of a secret.
const MASK: &str = "***";

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySetting {
    /// Dotted path.
    pub key: String,
    /// The value in force; none if the key is not set and has no default. Passwords within are masked.
    pub value: Option<Value>,
    /// The value without a configuration.
    pub default: Option<Value>,
    /// The line of the file that sets it, from 1; none for the default.
    pub line: Option<usize>,
}

impl RawConfig {
    /// Every key of this configuration, which was read from `text`, in the order of the schema. Of an optional table that
    /// is not there only the table is listed, without a value.
    pub fn settings(&self, text: &str) -> Vec<KeySetting> {
        let schema = Config::json_schema();
        let mut listed = Vec::new();
        let values = serde_json::to_value(self).unwrap_or_default();
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        let lister = Lister { root: &schema, places: &Places::of(text) };
        lister.list(&schema, Some(&values), Some(&defaults), "", &mut listed);
        listed
    }
}

struct Lister<'a> {
    root: &'a Value,
    places: &'a Places,
}

impl Lister<'_> {
    fn list(
        &self,
        schema: &Value,
        values: Option<&Value>,
        defaults: Option<&Value>,
        above: &str,
        listed: &mut Vec<KeySetting>,
    ) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            let value = values.and_then(|values| values.get(name)).filter(|value| !value.is_null());
            let default =
                defaults.and_then(|defaults| defaults.get(name)).or_else(|| property.get("default"));
            let default = default.filter(|default| !default.is_null());
            let inner = self.resolve(property);
            if inner.get("properties").is_some() && value.is_some() {
                self.list(inner, value, default, &key, listed);
                continue;
            }
            let line = self.places.line(&key);
            listed.push(KeySetting { value: value.map(masked), default: default.map(masked), line, key });
        }
    }

    /// Follows references and optional types down to the schema that lists properties, if one does.
    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return self
                .root
                .pointer(target.trim_start_matches('#'))
                .map_or(schema, |found| self.resolve(found));
        }
        let parts = ["anyOf", "oneOf", "allOf"].iter().filter_map(|union| schema.get(union)?.as_array());
        let mut parts = parts.flatten().map(|part| self.resolve(part));
        parts.find(|part| part.get("properties").is_some()).unwrap_or(schema)
    }
}

/// A value with the passwords in its addresses, and whatever a secret's name stands before, hidden.
fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(mask_address(text)),
        Value::Array(values) => values.iter().map(masked).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let secret = ["password", "secret", "token", "api_key", "authorization"]
                    .iter()
                    .any(|word| name.to_ascii_lowercase().contains(word));
                (name.clone(), if secret { Value::from(MASK) } else { masked(value) })
            })
            .collect(),
        other => other.clone(),
    }
}

/// An address with its password, and what stands behind its question mark, hidden; any other text as it is.
pub fn mask_address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    // A password may hold an at sign itself, or a slash that should have been escaped.
    let hidden = rest.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)));
    match hidden {
        Some((user, host)) => format!("{scheme}://{user}:{MASK}@{host}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn each_key_has_its_value_its_default_and_its_line() {
        let text = "listen = \"0.0.0.0:80\"\n[keys]\nanonymous = \"kids\"\n[upstream]\nkind = \"openai\"\n\
                    url = \"https://a.example\"\n[a1111]\nfixed = { api_token = \"s3\", steps = 3 }\n";
        let raw: RawConfig = toml::from_str(text).unwrap();
        let settings = raw.settings(text);
        let of = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key);
            let KeySetting { value, default, line, .. } = setting.unwrap_or_else(|| panic!("{key}")).clone();
            (value, default, line)
        };
        assert_eq!(of("listen"), (Some(json!("0.0.0.0:80")), Some(json!("127.0.0.1:7800")), Some(1)));
        assert_eq!(of("keys.anonymous"), (Some(json!("kids")), None, Some(3)));
        assert_eq!(of("limits.queue"), (Some(json!(64)), Some(json!(64)), None));
        assert_eq!(of("upstream.batch"), (Some(json!(4)), Some(json!(4)), None));
        assert_eq!(of("upstream.url").2, Some(6));
        assert_eq!(of("tls"), (None, None, None));
        assert_eq!(of("policy"), (None, None, None));
        assert_eq!(of("a1111.fixed").0, Some(json!({ "api_token": "***", "steps": 3 })));
    }

    #[test]
    fn passwords_in_addresses_are_hidden() {
        let cases = [
            (
                "postgres://gate:p@ss:w0rd@db.example/gate?sslpassword=x",
                "postgres://gate:***@db.example/gate?***",
            ),
            ("postgres://gate@db.example/gate", "postgres://gate@db.example/gate"),
            ("postgres://gate:se/cret@db.example/gate", "postgres://gate:***@db.example/gate"),
            ("sqlite:gate.db", "sqlite:gate.db"),
            ("http://127.0.0.1:7860", "http://127.0.0.1:7860"),
        ];
        for (address, shown) in cases {
            assert_eq!(mask_address(address), shown);
        }
    }
}
