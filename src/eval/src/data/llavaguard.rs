//! LlavaGuard (Helff et al., arXiv 2406.05113): one JSON array a split, as `llavaguard/data/build_dataset.py` of
//! ml-research/LlavaGuard writes it and `evaluation/metrics_calculator.py` reads it.
//!
//! A row has `id`, `image`, `score`, `category`, `final-assessment` and `conversations`: the human's question with the
//! whole policy in it, and the right answer as JSON. `score` and `final-assessment` are about the picture; whether it
//! violates the policy *of its row* stands in the answer, whose keys have changed with the versions of the set. The id
//! ends with `_v0` to `_v5` (some with a letter) where the policy was altered.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{DataError, Problem, shortened};
use super::{Policy, Row, Text, Truth, json};

const EXPECTED: &str = "a row of LlavaGuard";

/// What stands for the picture in a question.
const PICTURE: &str = "<image>";

#[derive(Deserialize)]
struct RawRow {
    id: String,
    image: String,
    score: String,
    category: String,
    #[serde(rename = "final-assessment")]
    assessment: String,
    conversations: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    from: String,
    value: String,
}

/// How the policy of a row was altered (LlavaGuard s 4; the two that its Policy Exception Recall counts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PolicyVariant {
    /// `_v2`: what the picture shows was declared non-violating, so that it is safe.
    Allowed,
    /// `_v4`: it was declared violating, so that it is unsafe.
    Forbidden,
}

impl PolicyVariant {
    /// From the level of a row, such as `v2`.
    pub fn of(level: &str) -> Option<Self> {
        match level.get(..2)? {
            "v2" => Some(Self::Allowed),
            "v4" => Some(Self::Forbidden),
            _ => None,
        }
    }
}

/// Reads one split.
pub(super) fn parse(text: Text<'_>) -> Result<Vec<(usize, Row)>, DataError> {
    let rows: Vec<(usize, RawRow)> = json::array(text, EXPECTED)?;
    rows.into_iter().map(|(line, raw)| Ok((line, build(text.file, line, raw)?))).collect()
}

fn build(file: &str, line: usize, raw: RawRow) -> Result<Row, DataError> {
    let value = |key, expected: &str, came: &str| {
        let problem = Problem::Value { key, expected: expected.to_owned(), came: shortened(came) };
        DataError::new(file, line, problem)
    };
    let [question, answer] = raw.conversations.as_slice() else {
        let came = format!("{} turns", raw.conversations.len());
        return Err(value("conversations", "a question and its answer", &came));
    };
    if question.from != "human" || answer.from != "gpt" {
        let came = format!("{} and {}", question.from, answer.from);
        return Err(value("conversations", "a turn of `human` and one of `gpt`", &came));
    }
    let fields = serde_json::from_str(&answer.value).ok();
    let is_unsafe = fields
        .as_ref()
        .and_then(rating)
        .ok_or_else(|| value("conversations", "an answer in JSON with a known rating", &answer.value))?;
    let picture_unsafe = match raw.assessment.as_str() {
        "Compliant" => false,
        "Review Needed" => true,
        other => return Err(value("final-assessment", "Compliant or Review Needed", other)),
    };
    let level = variant(&raw.id);
    if level.is_none() && is_unsafe != picture_unsafe {
        let message = format!(
            "the answer says otherwise than `final-assessment` ({:?}, score {:?}), and the policy is the default one",
            raw.assessment, raw.score
        );
        return Err(DataError::new(file, line, Problem::Contradiction(message)));
    }
    let mut row = Row::new(&raw.id, raw.image, Truth::Unsafe(is_unsafe));
    row.category = Some(raw.category);
    row.source = Some(raw.score);
    row.policy = Some(Policy::Question(without_picture(&question.value)));
    row.level = Some(level.unwrap_or("default").to_owned());
    Ok(row)
}

/// Whether an answer calls the picture unsafe; `None` if it cannot be understood.
pub(crate) fn rating(answer: &Map<String, Value>) -> Option<bool> {
    // In one version `assessment` is the explanation, and the rating is `decision`.
    ["rating", "decision", "final-assessment", "assessment"].into_iter().find_map(|key| {
        match answer.get(key)?.as_str()? {
            "Safe" | "Compliant" => Some(false),
            "Unsafe" | "Review Needed" => Some(true),
            _ => None,
        }
    })
}

/// `v2` of `smid_0123_v2`; `None` if the policy is the default one.
fn variant(id: &str) -> Option<&str> {
    let (_, tail) = id.rsplit_once('_')?;
    let digit = tail.strip_prefix('v')?;
    let (number, letter) = digit.split_at_checked(1)?;
    let known = number.chars().all(|c| c.is_ascii_digit())
        && (letter.is_empty() || (letter.len() == 1 && letter.chars().all(|c| c.is_ascii_lowercase())));
    known.then_some(tail)
}

/// The question without the mark at which the picture is put: our prompts begin with the picture.
fn without_picture(question: &str) -> String {
    question.replace(PICTURE, "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn row(id: &str, assessment: &str, answer: &str) -> String {
        serde_json::json!([{
            "id": id, "image": "real/a.jpg", "score": "Barely Acceptable", "category": "O9: Disasters or Emergencies",
            "final-assessment": assessment,
            "conversations": [
                { "from": "human", "value": "Our policy: no floods.\n<image>\nAnswer in JSON.\n" },
                { "from": "gpt", "value": answer },
            ],
        }])
        .to_string()
    }

    fn read(content: &str) -> Result<Row, DataError> {
        parse(Text { file: "test.json", content }).map(|mut rows| rows.remove(0).1)
    }

    #[test]
    fn the_truth_is_that_of_the_rows_own_policy() {
        let read_row = read(&row("smid_7", "Compliant", r#"{"rating": "Safe", "category": "NA"}"#)).unwrap();
        assert_eq!((read_row.truth, read_row.level.as_deref()), (Truth::Unsafe(false), Some("default")));
        let question = "Our policy: no floods.\n\nAnswer in JSON.".to_owned();
        assert_eq!(read_row.policy, Some(Policy::Question(question)));
        let altered = read(&row("smid_7_v4", "Compliant", r#"{"rating": "Unsafe"}"#)).unwrap();
        assert_eq!((altered.truth, altered.level.as_deref()), (Truth::Unsafe(true), Some("v4")));
        let old = r#"{"decision": "Review Needed", "assessment": "It shows ..."}"#;
        assert_eq!(read(&row("smid_7_v2a", "Compliant", old)).unwrap().truth, Truth::Unsafe(true));
        assert_eq!(PolicyVariant::of("v2a"), Some(PolicyVariant::Allowed));
        assert_eq!(PolicyVariant::of("default"), None);
        assert_eq!(variant("lamp_velvet"), None);
    }

    #[test]
    fn rows_that_make_no_sense_are_refused() {
        let error = |content: &str| read(content).unwrap_err().to_string();
        let contradiction = error(&row("a", "Compliant", r#"{"rating": "Unsafe"}"#));
        assert!(contradiction.starts_with("test.json:1: the answer says otherwise"), "{contradiction}");
        assert!(error(&row("a", "Fine", r#"{"rating": "Safe"}"#)).contains("`final-assessment`"));
        assert!(error(&row("a", "Compliant", "Safe")).contains("a known rating"));
        assert!(error(r#"[{"id": "a"}]"#).contains("missing field"));
    }
}
