//! Forms of edits, `multipart/form-data`, as openai-python sends them (`resources/images.py`).

use axum::extract::multipart::{Field, Multipart, MultipartError, MultipartRejection};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};

use super::answer::Refusal;
use crate::problem::{Problem, ProblemKind};

/// Most pictures to start from (`types/image_edit_params.py`, `image`).
const PICTURES: usize = 16;
/// Most words beside them: more than there are parameters, as none comes twice.
const WORDS: usize = 32;

/// A form of an edit.
#[derive(Debug, Default)]
pub(super) struct EditForm {
    /// The words, as JSON would have them.
    pub(super) fields: Map<String, Value>,
    /// `image`, or each `image[]`.
    pub(super) pictures: Vec<Bytes>,
    /// `mask`.
    pub(super) mask: Option<Bytes>,
}

/// A form.
pub(super) async fn form(
    body: Result<Multipart, MultipartRejection>,
    max_bytes: usize,
) -> Result<EditForm, Refusal> {
    let mut parts = body.map_err(|_| {
        let message = "expected a body of the type multipart/form-data, with the pictures as files `image` or `image[]`";
        Problem::new(ProblemKind::UnsupportedType, message)
    })?;
    let mut form = EditForm::default();
    while let Some(part) = parts.next_field().await.map_err(|error| broken(&error))? {
        let name = part.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "image" | "image[]" if form.pictures.len() == PICTURES => {
                return Err(Refusal::param("image", format!("expected at most {PICTURES} pictures")));
            }
            "image" | "image[]" => form.pictures.push(read(part, "image", max_bytes).await?),
            "mask" if form.mask.is_some() => return Err(Refusal::param("mask", "expected one, got another")),
            "mask" => form.mask = Some(read(part, "mask", max_bytes).await?),
            _ => {
                if form.fields.len() == WORDS || form.fields.contains_key(&name) {
                    return Err(Refusal::param(&name, "it came before, or too much did"));
                }
                let text = part.text().await.map_err(|error| broken(&error))?;
                let value = typed(&name, text);
                form.fields.insert(name, value);
            }
        }
    }
    if form.pictures.is_empty() {
        return Err(Refusal::param("image", "expected a picture to start from, got none"));
    }
    Ok(form)
}

async fn read(mut part: Field<'_>, name: &str, max_bytes: usize) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(Refusal::param(name, format!("expected at most {max_bytes} bytes, got more")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// A form has strings only. What is to be a number or a yes becomes one; what cannot is refused by whoever reads it.
fn typed(name: &str, text: String) -> Value {
    match (name, text.as_str()) {
        ("n" | "output_compression" | "partial_images", number) => {
            number.parse::<u32>().map_or(Value::String(text), Value::from)
        }
        ("stream", "true") => Value::Bool(true),
        ("stream", "false") => Value::Bool(false),
        _ => Value::String(text),
    }
}

fn broken(error: &MultipartError) -> Problem {
    refused(error.status(), &error.body_text())
}

fn refused(status: StatusCode, words: &str) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(ProblemKind::TooLarge, "the body is larger than `limits.body_bytes` allows")
        }
        _ => Problem::bad_request(format!("the body cannot be read: {words}")),
    }
}
