//! The second turn's JSON: `{"rating": "Yes"|"No", "rationale": string}` (CLUE s 3.5).

use serde::Deserialize;

use crate::templates::RATING_START;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summary {
    rating: Rating,
    rationale: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Rating {
    Yes,
    No,
}

/// What is put into the model's mouth: at the first attempt the beginning of the rating, so that the model writes it
/// itself; at the second, after an answer that could not be used, the rating as scored. Decoding is greedy, so that
/// the same words again would bring the same answer.
pub(crate) fn answer_start(scored_yes: bool, retry: bool) -> String {
    if retry {
        let rating = if scored_yes { "Yes" } else { "No" };
        format!("{RATING_START}{rating}\", \"rationale\": \"")
    } else {
        RATING_START.to_owned()
    }
}

/// Reads an answer whose beginning was `start`. The rating must be the scored one: the score is what the verdict
/// rests on, and a rationale for the opposite would be false evidence.
pub(crate) fn parse(start: &str, text: &str, scored_yes: bool) -> Result<String, String> {
    let summary: Summary =
        serde_json::from_str(&format!("{start}{text}")).map_err(|error| format!("not that JSON: {error}"))?;
    if (summary.rating == Rating::Yes) != scored_yes {
        return Err(format!("rated {:?}, but its probability says otherwise", summary.rating));
    }
    if summary.rationale.trim().is_empty() {
        return Err("the rationale is blank".to_owned());
    }
    Ok(summary.rationale.trim().to_owned())
}
