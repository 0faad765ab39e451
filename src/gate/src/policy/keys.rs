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
    let schema = resolve(schema, root, "object");
    let properties = schema.get("properties").and_then(Schema::as_object);
    // A table of values of any kind is `true`, and so is whatever is in it.
    let any = Schema::Bool(true);
    let open = schema.get("additionalProperties").filter(|s| s.is_object() || **s == any);
    let open = if *schema == any { Some(schema) } else { open };
    for (key, value) in table {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(inner) = properties.and_then(|p| p.get(key)).or(open) else {
            let known: Vec<String> = properties.map(|p| p.keys().cloned().collect()).unwrap_or_default();
            let nearest = nearest(key, known.iter().map(String::as_str)).map(str::to_owned);
            return Some(UnknownKey { path: here, nearest, known });
        };
        let found = walk_value(value, inner, root, &here);
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Goes on into a table, and into the tables of a list. What has no schema of its own may be anything.
fn walk_value(value: &toml::Value, schema: &Schema, root: &Schema, path: &str) -> Option<UnknownKey> {
    match value {
        toml::Value::Table(table) => walk(table, schema, root, path),
        toml::Value::Array(values) => {
            let items = resolve(schema, root, "array").get("items")?;
            let mut numbered = values.iter().enumerate();
            numbered.find_map(|(index, value)| walk_value(value, items, root, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

/// Follows references, and unions such as optional types, down to the schema of the type `kind`: `object`, which lists
/// properties, or `array`, which has the schema of its items.
fn resolve<'a>(schema: &'a Schema, root: &'a Schema, kind: &str) -> &'a Schema {
    if let Some(target) = schema.get("$ref").and_then(Schema::as_str) {
        let pointer = target.trim_start_matches('#');
        return root.pointer(pointer).map_or(schema, |found| resolve(found, root, kind));
    }
    for union in ["anyOf", "oneOf", "allOf"] {
        let parts = schema.get(union).and_then(Schema::as_array);
        let mut parts = parts.into_iter().flatten().map(|part| resolve(part, root, kind));
        if let Some(found) = parts.find(|part| part.get("type").and_then(Schema::as_str) == Some(kind)) {
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

    #[test]
    fn tables_in_lists_are_looked_through_as_tables_are() {
        let schema = serde_json::json!({
            "$defs": { "Use": { "type": "object", "properties": {
                "name": { "type": "string" },
                "config": { "type": "object", "additionalProperties": true },
                "parts": { "anyOf": [
                    { "type": "string" },
                    { "type": "array", "items": { "anyOf": [{ "$ref": "#/$defs/Part" }, { "type": "null" }] } },
                ] },
            } }, "Part": { "type": "object", "properties": { "side": true, "size": true } } },
            "properties": { "use": { "type": ["array", "null"], "items": { "$ref": "#/$defs/Use" } }, "any": true },
        });
        let found = |text: &str| find_unknown(&text.parse().unwrap_or_default(), &schema);
        for sound in [
            "use = []",
            "[[use]]\nname = \"a\"\n[use.config]\nwhatever = [{ x = 1 }]\n[[use]]\nparts = \"all\"",
            "use = [{ parts = [{ side = 1 }, { size = 2 }] }]",
            "any = [{ x = 1 }, [{ y = 2 }]]",
        ] {
            assert_eq!(found(sound), None, "{sound}");
        }
        for (text, path, near) in [
            ("[[use]]\nnam = \"a\"", "use[0].nam", Some("name")),
            ("use = [{ name = \"a\" }, { naem = \"b\" }]", "use[1].naem", Some("name")),
            (
                "[[use]]\n[[use.parts]]\nside = 1\n[[use.parts]]\nsize = 1\nsyde = 1",
                "use[0].parts[1].syde",
                Some("side"),
            ),
            ("[[use]]\n\"?\" = 1", "use[0].?", None),
        ] {
            let found = found(text).map(|found| (found.path, found.nearest));
            assert_eq!(found, Some((path.to_owned(), near.map(str::to_owned))), "{text}");
        }
    }
}
