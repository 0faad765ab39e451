//! OpenAI Moderations for pictures: `POST /v1/moderations`, request and answer as in OpenAI's API reference
//! (platform.openai.com/docs/api-reference/moderations) and in `openai-python` 2.54, `types/moderation*.py`. The
//! categories are the rules of the tenant's constitution.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cluegate_gate::Reason;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::openai;
use super::verdict::{Asking, Failed, against_by_plugins, judgment, read_json, with_decisions};
use crate::app::App;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::router::{Front, Route};

/// The only category of a tenant that may not see evidence.
const POLICY: &str = "policy";
/// The category beside the rules that is there where a plugin keeps a picture back.
const PLUGINS: &str = "plugins";
/// Scores of rules that are violated are not lower, and all others are: one half tells them apart.
const LEAST_VIOLATED: f64 = 0.5;
/// Scores of rules that are not violated are not higher.
const MOST_CLEAN: f64 = 0.49;

/// The front end.
pub(crate) fn front() -> Front {
    let routes = vec![Route { path: "/v1/moderations", methods: &["POST"], handler: post(moderate) }];
    Front { routes, render: openai::render }
}

/// What a client asks. The forms of `input` are told apart by hand, for errors that name what is wrong.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    input: Value,
    /// Any is taken: the tenant's constitution decides, and the answer names it.
    #[serde(default)]
    #[allow(dead_code)]
    model: Option<String>,
}

async fn moderate(
    State(app): State<Arc<App>>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
    request: Request,
) -> Result<Response, Failed> {
    let asked: Asked = read_json(request).await?;
    let pictures = pictures(&asked.input)?;
    let asking = Asking { app: &app, client: &client, id: &id, deadline, subject: None };
    let outcomes = asking.judge_all(&pictures).await?;
    if outcomes.iter().any(|outcome| outcome.reason() == Reason::Unjudged) {
        // The policy lets it pass without a verdict, and this answer would be one.
        let message = "a picture could not be judged; this is no verdict on it";
        let problem = Problem::new(ProblemKind::JudgeFailed, message);
        return Ok(with_decisions(problem.into_response(), &outcomes));
    }
    let missing = || Problem::new(ProblemKind::Internal, "the tenant has no constitution");
    let constitution = app.gate.constitution(&client.tenant).ok_or_else(missing)?;
    let rules: Option<Vec<&str>> = asking
        .policy(None)?
        .client
        .evidence
        .then(|| constitution.rules().iter().map(|rule| rule.id.as_str()).collect());
    let revision = constitution.revision().to_hex();
    let answer = json!({
        "id": format!("modr-{}", id.as_str()),
        "model": format!("cluegate/{}@{}", constitution.name(), &revision[..12.min(revision.len())]),
        "results": [result(&outcomes, rules.as_deref())?],
    });
    Ok(with_decisions(Json(answer).into_response(), &outcomes))
}

/// The pictures of an input, which is one list of parts: one result.
fn pictures(input: &Value) -> Result<Vec<&str>, Problem> {
    let expected = "expected `input` to be a list of parts with at least one {\"type\": \"image_url\", \"image_url\": \
                    {\"url\": ...}}: this server judges pictures";
    let refused = |what: &str| Err(Problem::bad_request(format!("{expected}; {what}")));
    let parts = match input {
        Value::String(_) => return refused("got text alone"),
        Value::Array(parts) => parts,
        _ => return refused("got neither text nor a list"),
    };
    let mut pictures = Vec::new();
    for part in parts {
        match (part, part["type"].as_str()) {
            (Value::String(_), _) => {}
            (Value::Object(_), Some("text")) if part["text"].is_string() => {}
            (Value::Object(_), Some("image_url")) => match part["image_url"]["url"].as_str() {
                Some(url) => pictures.push(url),
                None => return refused("got an `image_url` part without a `url`"),
            },
            _ => return refused("got a part that is neither `text` with a text nor `image_url`"),
        }
    }
    // A list of texts asks for a result for each, and the pictures between them for one: nobody sends both.
    if !pictures.is_empty() && parts.iter().any(Value::is_string) {
        return refused("got plain texts between parts");
    }
    if pictures.is_empty() { refused("got text alone") } else { Ok(pictures) }
}

/// The result for the pictures of one input: a category holds if it holds for any of them. `rules` are those of the
/// constitution, if the client may know.
fn result(outcomes: &[Outcome], rules: Option<&[&str]>) -> Result<Value, Problem> {
    let flagged = outcomes
        .iter()
        .any(|outcome| !matches!(outcome.reason(), Reason::Safe | Reason::Allowed | Reason::Shadow));
    let mut scores: BTreeMap<&str, (bool, f64)> = BTreeMap::new();
    for outcome in outcomes {
        let Some(rules) = rules else { continue };
        let missing = || Problem::new(ProblemKind::Internal, "a verdict came without its evidence");
        let kept_back = against_by_plugins(outcome);
        if let Some(finding) = kept_back {
            let entry = scores.entry(PLUGINS).or_insert((true, 0.0));
            entry.1 = entry.1.max(finding.score).max(LEAST_VIOLATED);
        }
        let judged = match judgment(outcome) {
            Some(judged) => judged,
            // The judge was not asked about it.
            None if kept_back.is_some() => continue,
            None => return Err(missing()),
        };
        let evidence = Evidence::deserialize(judged.evidence.as_ref().ok_or_else(missing)?);
        let evidence = evidence.map_err(|_| missing())?;
        for rule in rules {
            let violated = judged.violated.iter().any(|id| id == rule);
            let score = evidence.score(rule, violated);
            let entry = scores.entry(rule).or_insert((false, 0.0));
            *entry = (entry.0 || violated, entry.1.max(score));
        }
    }
    let (mut categories, mut category_scores, mut types) = (Map::new(), Map::new(), Map::new());
    let told = match rules {
        Some(rules) => {
            let plugins = scores.contains_key(PLUGINS).then_some(PLUGINS);
            let all = rules.iter().copied().chain(plugins);
            all.map(|category| (category, scores.get(category).copied().unwrap_or_default())).collect()
        }
        None => vec![(POLICY, (flagged, if flagged { 1.0 } else { 0.0 }))],
    };
    for (category, (holds, score)) in told {
        categories.insert(category.to_owned(), json!(holds));
        category_scores.insert(category.to_owned(), json!(score));
        types.insert(category.to_owned(), json!(["image"]));
    }
    Ok(json!({
        "flagged": flagged,
        "categories": categories,
        "category_scores": category_scores,
        "category_applied_input_types": types,
    }))
}

/// What a score is made of: the part of the judge's evidence about statements.
#[derive(Debug, Deserialize)]
struct Evidence {
    rules: Vec<RuleEvidence>,
}

#[derive(Debug, Deserialize)]
struct RuleEvidence {
    id: String,
    preconditions: Vec<LinkEvidence>,
}

#[derive(Debug, Deserialize)]
struct LinkEvidence {
    statements: Vec<StatementEvidence>,
}

#[derive(Debug, Deserialize)]
struct StatementEvidence {
    score: Option<f64>,
    rating: Option<f64>,
}

impl Evidence {
    /// A number for a rule, 0 to 1. A rule's chain is as strong as its weakest link, and a link as its strongest
    /// statement; a statement counts with the probability of Yes after reasoning, or, where it took none, with the one
    /// that the judge read from the picture. An irrelevant rule has 0. The judge does not decide by one threshold, so
    /// the number is kept on the verdict's side of one half.
    fn score(&self, rule: &str, violated: bool) -> f64 {
        let chain = self.rules.iter().find(|evidence| evidence.id == rule);
        let links = chain.map_or(&[][..], |chain| &chain.preconditions);
        let reached = links.iter().filter_map(|link| {
            let scores = link.statements.iter().filter_map(|statement| statement.rating.or(statement.score));
            scores.reduce(f64::max)
        });
        let weakest = reached.reduce(f64::min).unwrap_or(0.0).clamp(0.0, 1.0);
        if violated { weakest.max(LEAST_VIOLATED) } else { weakest.min(MOST_CLEAN) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn evidence(links: &Value) -> Evidence {
        serde_json::from_value(json!({ "rules": [{ "id": "r", "preconditions": links }] })).unwrap()
    }

    #[test]
    fn a_score_is_the_weakest_links_strongest_statement() {
        let statements = json!([
            { "statements": [{ "score": 0.2, "rating": 0.9 }, { "score": 0.3, "rating": null }] },
            { "statements": [{ "score": 0.7, "rating": null }] },
        ]);
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        close(evidence(&statements).score("r", true), 0.7);
        close(evidence(&statements).score("r", false), MOST_CLEAN);
        close(evidence(&statements).score("another", false), 0.0);
        let weak = json!([{ "statements": [{ "score": 0.1 }] }, { "statements": [{ "score": null }] }]);
        close(evidence(&weak).score("r", false), 0.1);
        close(evidence(&weak).score("r", true), LEAST_VIOLATED);
        close(evidence(&json!([])).score("r", false), 0.0);
    }

    #[test]
    fn pictures_are_found_and_text_alone_is_refused() {
        let picture = json!({ "type": "image_url", "image_url": { "url": "data:x" } });
        let text = json!({ "type": "text", "text": "a cat" });
        assert_eq!(pictures(&json!([text, picture, picture])).unwrap(), ["data:x", "data:x"]);
        for (input, said) in [
            (json!("a cat"), "text alone"),
            (json!(["a cat"]), "text alone"),
            (json!([text]), "text alone"),
            (json!([]), "text alone"),
            (json!(null), "neither"),
            (json!(["a cat", picture]), "between"),
            (json!([{ "type": "image_url", "image_url": "data:x" }]), "without a `url`"),
            (json!([{ "type": "audio" }]), "neither"),
            (json!([7]), "neither"),
        ] {
            let problem = pictures(&input).unwrap_err();
            assert!(problem.message().contains(said), "{input}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn a_score_tells_the_verdict(values in prop::collection::vec((any::<f64>(), any::<bool>()), 0..6)) {
            let links: Vec<Value> = values.iter().map(|(score, reached)| {
                json!({ "statements": [{ "score": reached.then_some(*score) }] })
            }).collect();
            let evidence = evidence(&json!(links));
            prop_assert!((0.5..=1.0).contains(&evidence.score("r", true)));
            prop_assert!((0.0..0.5).contains(&evidence.score("r", false)));
        }
    }
}
