//! The ids of Yes and No, from the engine's own tokenizer (`POST /tokenize` and `/detokenize` of vLLM).

use serde_json::{Value, json};

use crate::answers::{Spellings, spells};
use crate::client::{Link, Request};
use crate::error::{RemoteError, RemoteErrorKind};

/// What a word may look like.
const FORMS: [&str; 6] = ["Yes", "yes", "YES", " Yes", " yes", " YES"];

/// Every token of the engine's tokenizer that spells Yes or No; `None` if the engine shows no tokenizer.
///
/// # Errors
/// A tokenizer that splits every spelling of a word, or an engine that fails.
pub(crate) fn spellings(link: &Link, endpoint: usize, model: &str) -> Result<Option<Spellings>, RemoteError> {
    let mut ids = Vec::with_capacity(2);
    for word in ["yes", "no"] {
        let mut found: Vec<u32> = Vec::new();
        for form in FORMS {
            let form = if word == "yes" { form.to_owned() } else { negated(form) };
            match tokens(link, endpoint, model, &form) {
                Ok(tokens) => found.extend(tokens),
                // Engines without the route.
                Err(error) if error.kind() == RemoteErrorKind::UnknownModel => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable();
        found.dedup();
        let mut spelling = Vec::with_capacity(found.len());
        for id in found {
            if spells(&text(link, endpoint, model, id)?, word) {
                spelling.push(id);
            }
        }
        if spelling.is_empty() {
            let message = format!(
                "the model's tokenizer splits every spelling of {word:?} into several tokens, so that its probability \
                 cannot be read; use another model"
            );
            return Err(RemoteError::new(RemoteErrorKind::NoProbabilities, model, message));
        }
        ids.push(spelling);
    }
    let no = ids.pop().unwrap_or_default();
    Ok(Some(Spellings { yes: ids.pop().unwrap_or_default(), no }))
}

/// The same form of the other word.
fn negated(form: &str) -> String {
    form.replace("Yes", "No").replace("yes", "no").replace("YES", "NO")
}

/// The token that a text is, or its last one: some tokenizers put a mark before the first word.
fn tokens(link: &Link, endpoint: usize, model: &str, text: &str) -> Result<Option<u32>, RemoteError> {
    let body = json!({"model": model, "prompt": text, "add_special_tokens": false});
    let tokens = ask(link, endpoint, "/tokenize", body, "/tokens")?;
    let tokens: Vec<u64> = tokens.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    Ok(tokens.last().and_then(|&id| u32::try_from(id).ok()))
}

fn text(link: &Link, endpoint: usize, model: &str, id: u32) -> Result<String, RemoteError> {
    let text = ask(link, endpoint, "/detokenize", json!({"model": model, "tokens": [id]}), "/prompt")?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

fn ask(
    link: &Link,
    endpoint: usize,
    path: &'static str,
    body: Value,
    field: &'static str,
) -> Result<Value, RemoteError> {
    link.ask(endpoint, Request::new(path, body)?, move |answer| {
        answer.json.pointer(field).cloned().ok_or_else(|| {
            let message = format!("expected `{field}` in the answer to {path}, got none");
            RemoteError::new(RemoteErrorKind::Malformed, &answer.endpoint, message)
        })
    })
}
