//! Byte pairs over bytes: `vocab.json` and `merges.txt`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Converted;
use crate::error::{ModelError, Result};

/// How Qwen2 cuts text into words (`Qwen2Converter`).
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pairs of `merges.txt`, first ones first.
///
/// # Errors
/// `Tokenizer` for a line that is no pair.
pub(super) fn merges(path: &str, text: &str) -> Result<Vec<(String, String)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .filter(|(number, line)| *number > 0 || !line.starts_with("#version"))
        .map(|(number, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => {
                let detail = format!("line {} is `{line}`, expected two tokens", number + 1);
                Err(ModelError::tokenizer(path, detail))
            }
        })
        .collect()
}

/// Qwen2's tokenizer.
pub(super) fn convert(vocabulary: BTreeMap<String, u32>, merges: &[(String, String)]) -> Converted {
    let size = vocabulary.len();
    let json: Value = json!({
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": WORDS }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        ]},
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
    });
    Converted { json, size, added: BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_that_is_no_pair_is_named() {
        assert_eq!(merges("m", "#version: 0.2\na b\n").unwrap(), [("a".to_owned(), "b".to_owned())]);
        for text in ["a b\nab\n", "a b\na b c\n"] {
            let error = merges("merges.txt", text).unwrap_err().to_string();
            assert!(error.contains("merges.txt") && error.contains("line 2"), "{error}");
        }
    }
}
