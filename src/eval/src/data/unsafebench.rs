//! UnsafeBench (Qu et al., arXiv 2405.03486): rows of `image, safety_label, category, source, text`.
//!
//! The set is published as Parquet with the pictures inside: see [`ParquetSet`](super::ParquetSet). Read here are the
//! same rows as JSON lines with the pictures beside them, as the evaluation of SafeGuard-VL (`eval/unsafebench.py`) and the library `datasets` write them:
//! `image` is a path, or an object with a `path`.

use serde::Deserialize;

use super::error::{DataError, Problem};
use super::{Names, Row, Text, Truth, json};

#[derive(Deserialize)]
struct RawRow {
    image: Image,
    safety_label: Label,
    category: String,
    source: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Image {
    Path(String),
    Object { path: String },
}

/// A label as the published sets write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    Number(i64),
    Word(String),
}

impl Label {
    /// Whether it says unsafe.
    pub(super) fn is_unsafe(&self, file: &str, line: Option<usize>) -> Result<bool, DataError> {
        let came = match self {
            Self::Number(0) => return Ok(false),
            Self::Number(1) => return Ok(true),
            Self::Number(other) => other.to_string(),
            Self::Word(word) => match word.trim().to_ascii_lowercase().as_str() {
                "safe" => return Ok(false),
                "unsafe" => return Ok(true),
                _ => word.clone(),
            },
        };
        let expected = "safe, unsafe, 0 or 1".to_owned();
        Err(DataError::new(file, line, Problem::Value { key: "safety_label", expected, came }))
    }
}

/// Reads JSON lines.
pub(super) fn parse(text: Text<'_>) -> Result<Vec<(usize, Row)>, DataError> {
    let mut names = Names::default();
    json::lines(text, "a row of UnsafeBench")?
        .into_iter()
        .map(|(line, raw): (usize, RawRow)| {
            let (Image::Path(picture) | Image::Object { path: picture }) = raw.image;
            let truth = Truth::Unsafe(raw.safety_label.is_unsafe(text.file, Some(line))?);
            let mut row = Row::new(names.next(&picture), picture, truth);
            row.category = Some(raw.category);
            row.source = Some(raw.source);
            row.text = raw.text;
            Ok((line, row))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_are_read_as_published() {
        let content = "{\"image\":\"a.png\",\"safety_label\":\"Unsafe\",\"category\":\"Spam\",\"source\":\"Lexica\",\
                       \"text\":\"a banner\"}\n{\"image\":{\"bytes\":null,\"path\":\"b.png\"},\"safety_label\":0,\
                       \"category\":\"Hate\",\"source\":\"Laion5B\",\"text\":null}\n";
        let rows = parse(Text { file: "test.jsonl", content }).unwrap();
        assert_eq!((rows[0].1.id.as_str(), &rows[0].1.truth), ("a.png", &Truth::Unsafe(true)));
        assert_eq!(rows[0].1.source.as_deref(), Some("Lexica"));
        assert_eq!((rows[1].1.picture.as_str(), &rows[1].1.truth), ("b.png", &Truth::Unsafe(false)));
    }

    #[test]
    fn unknown_labels_are_refused() {
        let content = "{\"image\":\"a.png\",\"safety_label\":\"maybe\",\"category\":\"x\",\"source\":\"y\"}";
        let error = parse(Text { file: "t.jsonl", content }).unwrap_err().to_string();
        assert!(error.starts_with("t.jsonl:1: `safety_label`: expected safe, unsafe"), "{error}");
    }
}
