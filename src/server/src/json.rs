//! Answers in JSON that hold pictures.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::problem::{Problem, ProblemKind};

/// An answer as [`axum::Json`] writes it, byte for byte, and ten times as fast where it is a picture in base64: texts
/// without a character to be escaped, which is found for many characters at once, are copied whole.
pub(crate) struct Json(pub(crate) Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(length(&self.0));
        match write(&self.0, &mut body) {
            Ok(()) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                let message = format!("the answer could not be written: {error}");
                Problem::new(ProblemKind::Internal, message).into_response()
            }
        }
    }
}

/// About how many bytes a value takes.
fn length(value: &Value) -> usize {
    let named = |object: &Map<String, Value>| {
        object.iter().map(|(name, value)| name.len() + 4 + length(value)).sum::<usize>()
    };
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(values) => values.iter().map(|value| length(value) + 1).sum::<usize>() + 2,
        Value::Object(object) => named(object) + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 24,
    }
}

fn write(value: &Value, body: &mut Vec<u8>) -> serde_json::Result<()> {
    match value {
        Value::String(text) => return write_text(text, body),
        Value::Array(values) => {
            body.push(b'[');
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    body.push(b',');
                }
                write(value, body)?;
            }
            body.push(b']');
        }
        Value::Object(object) => {
            body.push(b'{');
            for (place, (name, value)) in object.iter().enumerate() {
                if place > 0 {
                    body.push(b',');
                }
                write_text(name, body)?;
                body.push(b':');
                write(value, body)?;
            }
            body.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => return serde_json::to_writer(body, value),
    }
    Ok(())
}

fn write_text(text: &str, body: &mut Vec<u8>) -> serde_json::Result<()> {
    if !is_bare(text) {
        return serde_json::to_writer(body, text);
    }
    body.push(b'"');
    body.extend_from_slice(text.as_bytes());
    body.push(b'"');
    Ok(())
}

/// Whether no character of a text is escaped in JSON (RFC 8259, section 7).
fn is_bare(text: &str) -> bool {
    // Without a way out of the inner loop, so that it is done for a whole register at once.
    let are_bare = |bytes: &[u8]| {
        bytes.iter().fold(true, |bare, byte| bare & (*byte >= 0x20) & !matches!(byte, b'"' | b'\\'))
    };
    text.as_bytes().chunks(256).all(are_bare)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut body = Vec::new();
        write(value, &mut body).unwrap();
        body
    }

    fn values() -> impl Strategy<Value = Value> {
        let texts = prop_oneof!["\\PC{0,12}", "[A-Za-z0-9+/=]{0,600}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            texts.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((texts.clone(), inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn is_written_as_by_serde_json(value in values()) {
            prop_assert_eq!(written(&value), serde_json::to_vec(&value).unwrap());
        }
    }

    #[test]
    fn every_character_that_has_to_be_is_escaped_wherever_it_stands() {
        for place in [0, 255, 256, 511] {
            for code in 0..=0x7F_u8 {
                let mut text = "a".repeat(512);
                text.replace_range(place..=place, char::from(code).encode_utf8(&mut [0; 4]));
                let value = json!([text, { "name": text }]);
                assert_eq!(written(&value), serde_json::to_vec(&value).unwrap(), "{code} at {place}");
            }
        }
    }

    #[test]
    fn room_is_taken_for_a_picture_at_once() {
        let value = json!({ "images": ["x".repeat(100_000)], "info": "{}", "parameters": null });
        assert!((written(&value).len()..110_000).contains(&length(&value)));
    }
}
