//! Constitutions: a text becomes a revision once it was checked, and any revision can become the current one again.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use cluegate_constitution::Constitution;
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::{Admin, Names, no_such, text};
use super::route;
use super::tenants::{Page, changed, edit, expected, make, refused, store, stored, toml_with_version};
use crate::app::App;
use crate::live::Proposal;
use crate::problem::{Problem, ProblemKind};
use crate::router::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        route("/admin/v1/constitutions", &["GET"], get(list)),
        route(
            "/admin/v1/constitutions/{constitution}",
            &["GET", "PUT", "DELETE"],
            get(show).put(put).delete(remove),
        ),
        route("/admin/v1/constitutions/{constitution}/revisions", &["GET"], get(revisions)),
        route("/admin/v1/constitutions/{constitution}/rollback", &["POST"], post(rollback)),
    ]
}

async fn list(State(app): State<Arc<App>>, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let all = store(&app)?.constitutions(&page.after, page.limit()).await.map_err(refused)?;
    let told = all.iter().map(|one| {
        json!({
            "name": one.name, "revision": one.revision, "version": one.version,
            "changed_by": one.changed_by, "changed_ms": one.changed_ms,
        })
    });
    Ok(Json(json!({ "constitutions": told.collect::<Vec<_>>() })))
}

/// Which revision.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRevision {
    revision: Option<String>,
}

async fn show(
    State(app): State<Arc<App>>,
    names: Names,
    Query(OfRevision { revision }): Query<OfRevision>,
) -> Result<Response, Problem> {
    let (name, store) = (names.get("constitution"), store(&app)?);
    let missing = || no_such("constitution", name);
    let current = store.constitution(name).await.map_err(refused)?.ok_or_else(missing)?;
    let text = match revision {
        None => current.text,
        Some(revision) => {
            let found = store.revision(name, &revision).await.map_err(refused)?;
            found.ok_or_else(|| no_such("revision", &revision))?.text
        }
    };
    Ok(toml_with_version(text, current.version))
}

async fn put(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, text) = (names.get("constitution"), text(body).await?);
    if cluegate_constitution::shipped_names().any(|shipped| shipped == name) {
        let message = format!("{name:?} is the name of a shipped constitution; choose another");
        return Err(Problem::new(ProblemKind::Conflict, message));
    }
    // Also one that no policy names yet.
    let unusable = |error: cluegate_constitution::ConstitutionError| {
        Problem::new(ProblemKind::Unusable, error.to_string())
    };
    Constitution::parse(&text, name).map_err(unusable)?;
    make(&app, &admin, &headers, Proposal::Constitution(name.to_owned(), Some(text))).await
}

async fn remove(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let proposal = Proposal::Constitution(names.get("constitution").to_owned(), None);
    make(&app, &admin, &headers, proposal).await
}

async fn revisions(
    State(app): State<Arc<App>>,
    names: Names,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let name = names.get("constitution");
    let all = store(&app)?.revisions(name, page.limit()).await.map_err(refused)?;
    if all.is_empty() {
        return Err(no_such("constitution", name));
    }
    let told = all
        .iter()
        .map(|one| json!({ "revision": one.revision, "added_by": one.added_by, "added_ms": one.added_ms }));
    Ok(Json(json!({ "revisions": told.collect::<Vec<_>>() })))
}

/// Makes a revision the current one again.
async fn rollback(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (name, expected) = (names.get("constitution"), expected(&headers)?);
    let asked: OfRevision = serde_json::from_str(&text(body).await?)
        .map_err(|error| Problem::bad_request(format!("the body: {error:.200}")))?;
    let revision =
        asked.revision.ok_or_else(|| Problem::bad_request("expected `revision`: which one to go back to"))?;
    let found = store(&app)?.revision(name, &revision).await.map_err(refused)?;
    let text = found.ok_or_else(|| no_such("revision", &revision))?.text;
    stored(&app)?.check(vec![Proposal::Constitution(name.to_owned(), Some(text))]).await?;
    let mut edit = edit(&app, &admin).await?;
    let version = edit.set_current(name, &revision, expected).await.map_err(refused)?;
    edit.commit().await.map_err(refused)?;
    changed(&app, &admin, Some(version)).await
}
