//! The decisions of one tenant.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::routing::get;
use cluegate_audit::{Place, Query as LogQuery, parse_time};
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::{Names, no_such};
use super::route;
use crate::app::App;
use crate::problem::{Problem, ProblemKind};
use crate::router::Route;

/// Most decisions in one answer, and as many as there are if nothing is said.
const MOST: u64 = 1000;
const PAGE: u64 = 100;

pub(super) fn routes() -> Vec<Route> {
    vec![
        route("/admin/v1/tenants/{tenant}/decisions", &["GET"], get(list)),
        route("/admin/v1/tenants/{tenant}/decisions/{decision}", &["GET"], get(show)),
    ]
}

/// Which decisions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    since: Option<String>,
    until: Option<String>,
    outcome: Option<String>,
    rule: Option<String>,
    request_id: Option<String>,
    cursor: Option<String>,
    limit: Option<u64>,
}

async fn list(
    State(app): State<Arc<App>>,
    names: Names,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let wrong = |error: cluegate_audit::AuditError| Problem::bad_request(error.to_string());
    let time = |text: Option<String>| text.as_deref().map(parse_time).transpose().map_err(wrong);
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, MOST);
    let query = LogQuery {
        since: time(asked.since)?,
        until: time(asked.until)?,
        outcome: asked.outcome,
        rule: asked.rule,
        request: asked.request_id,
        cursor: asked.cursor.as_deref().map(str::parse::<Place>).transpose().map_err(wrong)?,
        limit: Some(limit),
        ..LogQuery::for_tenant(names.get("tenant"))
    };
    let (found, last) = find(&app, query).await?;
    let cursor = last.filter(|_| found.len() as u64 == limit);
    Ok(Json(json!({ "decisions": found, "cursor": cursor.map(|place| place.to_string()) })))
}

async fn show(State(app): State<Arc<App>>, names: Names) -> Result<Json<Value>, Problem> {
    let decision = names.get("decision");
    let query = LogQuery {
        decision: Some(decision.to_owned()),
        limit: Some(1),
        ..LogQuery::for_tenant(names.get("tenant"))
    };
    let (found, _) = find(&app, query).await?;
    found.into_iter().next().map(Json).ok_or_else(|| no_such("decision", decision))
}

/// The decisions that are asked for, and where the last of them stands.
async fn find(app: &App, query: LogQuery) -> Result<(Vec<Value>, Option<Place>), Problem> {
    let Some(log) = app.decisions.clone() else {
        return Err(Problem::new(ProblemKind::NotFound, "this gateway's decision log cannot be queried"));
    };
    let search = tokio::task::spawn_blocking(move || {
        let (mut found, mut last) = (Vec::new(), None);
        log.query(&query, &mut |entry| {
            last = Some(Place::of(&entry));
            found.push(serde_json::to_value(&entry).unwrap_or_default());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((found, last))
    });
    let failed = |error: String| {
        tracing::error!(error, "the decision log could not be queried");
        Problem::new(
            ProblemKind::Internal,
            "the decision log could not be queried; the gateway's log says why",
        )
    };
    let found: Result<_, cluegate_audit::AuditError> =
        search.await.map_err(|panic| failed(panic.to_string()))?;
    found.map_err(|error| failed(error.to_string()))
}
