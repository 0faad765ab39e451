//! Refuses keys that a configuration file does not know, naming the nearest known one. The known keys are read from the
//! JSON Schema of the raw types, so that there is one list of them only.

use cluegate_constitution::nearest;
use serde_json::Value as Schema;

/// A key that nothing reads.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Dotted path of the key.
    pub path: String,
    /// The known key of the same table that is spelled most alike, if any is near.
    pub nearest: Option<String>,
    /// All known keys of the table.
    pub known: Vec<String>,
}

/// Finds the first key of `table` that `root`, a JSON Schema, does not know.
pub fn find_unknown(table: &toml::Table, root: &Schema) -> Option<UnknownKey> {
    walk(table, root, root, "")
}

fn walk(table: &toml::Table, schema: &Schema, root: &Schema, path: &str) -> Option<UnknownKey> {
    let schema = resolve(schema, root);
    let properties = schema.get("properties").and_then(Schema::as_object);
    // A table of values of any kind is `true`, and so is whatever is in it.
    let any = Schema::Bool(true);
    let open = schema.get("additionalProperties").filter(|s| s.is_object() || **s == any);
    let open = if *schema == any { Some(schema) } else { open };
    for (key, value) in table {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let inner = properties.and_then(|p| p.get(key)).or(open);
        match (inner, value) {
            (None, _) => {
                let known: Vec<String> = properties.map(|p| p.keys().cloned().collect()).unwrap_or_default();
                let nearest = nearest(key, known.iter().map(String::as_str)).map(str::to_owned);
                return Some(UnknownKey { path: here, nearest, known });
            }
            (Some(inner), toml::Value::Table(table)) => {
                if let Some(found) = walk(table, inner, root, &here) {
                    return Some(found);
                }
            }
            (Some(_), _) => {}
        }
    }
    None
}

/// Follows references and optional types down to the schema that lists properties.
fn resolve<'a>(schema: &'a Schema, root: &'a Schema) -> &'a Schema {
    if let Some(target) = schema.get("$ref").and_then(Schema::as_str) {
        let pointer = target.trim_start_matches('#');
        return root.pointer(pointer).map_or(schema, |found| resolve(found, root));
    }
    for union in ["anyOf", "oneOf", "allOf"] {
        let parts = schema.get(union).and_then(Schema::as_array);
        let object = parts.into_iter().flatten().map(|part| resolve(part, root));
        if let Some(found) = object.into_iter().find(|part| part.get("type") == Some(&Schema::from("object")))
        {
            return found;
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_anything_has_no_unknown_keys() {
        let schema = serde_json::json!({
            "properties": { "fixed": { "additionalProperties": true } }, "additionalProperties": false,
        });
        let found =
            |text: &str| find_unknown(&text.parse().unwrap_or_default(), &schema).map(|found| found.path);
        assert_eq!(found("[fixed]\nsteps = 4\n[fixed.override_settings]\na = 1"), None);
        assert_eq!(found("[fixd]\nsteps = 4").as_deref(), Some("fixd"));
    }
}
