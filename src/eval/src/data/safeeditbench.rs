//! SafeEditBench (huggingface.co/datasets/tyodd/SafeEditBench): JSON lines of `image_path,
//! safety_label, policy, policy_level`, as `eval/safeeditbench.py` of SafeGuard-VL reads them. Each picture is judged by
//! the policy of its row. `x.jpg` and `x_edited.jpg` are a pair.

use serde::Deserialize;

use super::error::DataError;
use super::unsafebench::Label;
use super::{Names, Policy, Row, Text, Truth, json};

/// What an edited picture's name ends with.
const EDITED: &str = "_edited";

#[derive(Deserialize)]
struct RawRow {
    image_path: String,
    safety_label: Label,
    policy: String,
    policy_level: Option<String>,
}

/// Reads JSON lines.
pub(super) fn parse(text: Text<'_>) -> Result<Vec<(usize, Row)>, DataError> {
    let mut names = Names::default();
    json::lines(text, "a row of SafeEditBench")?
        .into_iter()
        .map(|(line, raw): (usize, RawRow)| {
            let level = raw.policy_level.unwrap_or_else(|| "unknown".to_owned());
            let truth = Truth::Unsafe(raw.safety_label.is_unsafe(text.file, Some(line))?);
            let id = names.next(&format!("{}@{level}", raw.image_path));
            let pair = format!("{}@{level}", original(&raw.image_path));
            let mut row = Row::new(id, raw.image_path, truth);
            row.policy = Some(Policy::Text(raw.policy));
            row.level = Some(level);
            row.pair = Some(pair);
            Ok((line, row))
        })
        .collect()
}

/// The path of the picture that was edited, without its ending, which may differ.
fn original(path: &str) -> &str {
    let stem = match path.rsplit_once('.') {
        Some((stem, ending)) if !ending.contains('/') => stem,
        _ => path,
    };
    stem.strip_suffix(EDITED).unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pairs_are_found_by_their_names_within_a_level() {
        let line = |path: &str, label: &str, level: &str| {
            serde_json::json!({ "image_path": path, "safety_label": label, "policy": "No x.", "policy_level": level })
                .to_string()
        };
        let content = [
            line("t/1.jpg", "unsafe", "L3"),
            line("t/1_edited.png", "safe", "L3"),
            line("t/1_edited.png", "unsafe", "L5"),
        ]
        .join("\n");
        let rows = parse(Text { file: "test.jsonl", content: &content }).unwrap();
        let seen: Vec<_> =
            rows.iter().map(|(_, row)| (row.id.as_str(), row.pair.as_deref().unwrap())).collect();
        assert_eq!(
            seen,
            [("t/1.jpg@L3", "t/1@L3"), ("t/1_edited.png@L3", "t/1@L3"), ("t/1_edited.png@L5", "t/1@L5")]
        );
        assert_eq!(rows[0].1.policy, Some(Policy::Text("No x.".to_owned())));
        assert_eq!(rows[2].1.truth, Truth::Unsafe(true));
        assert_eq!(original("folder.x/name_edited"), "folder.x/name");
    }
}
