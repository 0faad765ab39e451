//! Tenants and templates: their policies as TOML, with the version that `If-Match` names.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cluegate_store::{Author, Edit, Expect, Kind, Store, StoreError, TenantState};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::{Admin, Names, no_such, text};
use super::{in_files, route};
use crate::app::App;
use crate::live::{Proposal, Stored};
use crate::problem::{Problem, ProblemKind};
use crate::router::Route;

/// Most names in one answer.
const MOST: u32 = 1000;

pub(super) fn routes() -> Vec<Route> {
    vec![
        route("/admin/v1/tenants", &["GET"], get(list)),
        route(
            "/admin/v1/tenants/{tenant}",
            &["GET", "PUT", "DELETE"],
            get(show_tenant).put(put_tenant).delete(remove_tenant),
        ),
        route("/admin/v1/tenants/{tenant}/suspend", &["POST"], post(suspend)),
        route("/admin/v1/tenants/{tenant}/resume", &["POST"], post(resume)),
        route("/admin/v1/tenants/{tenant}/policy", &["GET"], get(effective)),
        route("/admin/v1/tenants/{tenant}/usage", &["GET"], get(usage)),
        route("/admin/v1/tenants/{tenant}/history", &["GET"], get(tenant_history)),
        route("/admin/v1/templates/{template}/history", &["GET"], get(template_history)),
        route("/admin/v1/templates", &["GET"], get(list_templates)),
        route(
            "/admin/v1/templates/{template}",
            &["GET", "PUT", "DELETE"],
            get(show_template).put(put_template).delete(remove_template),
        ),
    ]
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Names after this one.
    #[serde(default)]
    pub(super) after: String,
    /// At most so many.
    #[serde(default = "most")]
    pub(super) limit: u32,
}

fn most() -> u32 {
    MOST
}

impl Page {
    pub(super) fn limit(&self) -> u32 {
        self.limit.clamp(1, MOST)
    }
}

/// The store that policies and keys come from.
pub(super) fn stored(app: &App) -> Result<&Arc<Stored>, Problem> {
    app.live.source().stored().ok_or_else(in_files)
}

pub(super) fn store(app: &App) -> Result<&Store, Problem> {
    stored(app).map(|stored| stored.store())
}

/// Begins a change in the name of whoever asks.
pub(super) async fn edit(app: &App, admin: &Admin) -> Result<Edit, Problem> {
    let author = Author { by: &admin.name(), at_ms: Timestamp::now().as_millisecond() };
    store(app)?.edit(author).await.map_err(refused)
}

/// Looks whether the store could be used after a change, makes it, and has this gateway read it.
pub(super) async fn make(
    app: &Arc<App>,
    admin: &Admin,
    headers: &HeaderMap,
    proposal: Proposal,
) -> Result<Response, Problem> {
    let expected = expected(headers)?;
    let policies = stored(app)?.check(vec![proposal.clone()]).await?;
    app.gate
        .check_signer(&policies)
        .map_err(|error| Problem::new(ProblemKind::Unusable, error.to_string()))?;
    let mut edit = edit(app, admin).await?;
    let version = proposal.make(&mut edit, expected).await.map_err(refused)?;
    edit.commit().await.map_err(refused)?;
    changed(app, admin, version).await
}

/// What the store refuses, for whoever asked.
pub(super) fn refused(error: StoreError) -> Problem {
    let kind = match &error {
        StoreError::Database(error) => {
            tracing::error!(%error, "the administration cannot use the store");
            return Problem::new(ProblemKind::StoreGone, "the store cannot be reached; nothing was changed");
        }
        StoreError::Conflict { .. } | StoreError::Exists { .. } | StoreError::KeyTaken { .. } => {
            ProblemKind::Conflict
        }
        StoreError::Missing { .. } => ProblemKind::NotFound,
        StoreError::OtherText { .. } => ProblemKind::Conflict,
        StoreError::Invalid { .. } => ProblemKind::Unusable,
        StoreError::Unknown { .. } => ProblemKind::Internal,
    };
    Problem::new(kind, error.to_string())
}

/// What `If-Match` and `If-None-Match` expect.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expect, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Expect::Any),
        (None, Some("*")) => Ok(Expect::Absent),
        (Some(version), None) => {
            let number = version.trim_start_matches("W/").trim_matches('"').parse();
            number.map(Expect::Version).map_err(|_| {
                Problem::bad_request(format!(
                    "expected `If-Match` to be a version such as \"3\", got {version:.40}"
                ))
            })
        }
        _ => {
            Err(Problem::bad_request("expected `If-Match: \"VERSION\"` or `If-None-Match: *`, and not both"))
        }
    }
}

/// TOML with its version.
pub(super) fn toml_with_version(text: String, version: i64) -> Response {
    let tag = HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    ([(CONTENT_TYPE, HeaderValue::from_static("application/toml")), (ETAG, tag)], text).into_response()
}

/// The answer to a change: the new version, and whether this gateway has it in use already.
pub(super) async fn changed(
    app: &Arc<App>,
    admin: &Admin,
    version: Option<i64>,
) -> Result<Response, Problem> {
    let reloaded = app.reload(&admin.name()).await;
    let body = json!({
        "version": version,
        "in_use": reloaded.is_ok(),
        "generation": app.live.status().generation,
        "problem": reloaded.err().map(|error| error.to_string()),
    });
    let mut response = Json(body).into_response();
    if let Some(tag) = version.and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok()) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

async fn list(State(app): State<Arc<App>>, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let Ok(store) = store(&app) else {
        let names = app.gate.tenants().into_iter().filter(|name| **name > *page.after);
        let names: Vec<Value> = names
            .take(page.limit() as usize)
            .map(|name| json!({ "name": &*name, "state": state(&app, &name) }))
            .collect();
        return Ok(Json(json!({ "tenants": names })));
    };
    let tenants = store.tenants(&page.after, page.limit()).await.map_err(refused)?;
    let told = tenants.iter().map(|tenant| {
        json!({
            "name": tenant.name, "state": tenant.state, "version": tenant.version,
            "changed_by": tenant.changed_by, "changed_ms": tenant.changed_ms,
        })
    });
    Ok(Json(json!({ "tenants": told.collect::<Vec<_>>() })))
}

/// Whether a tenant is served, by its policy.
fn state(app: &App, name: &str) -> &'static str {
    let suspended = app.gate.policy(name).is_some_and(|policy| policy.suspended);
    if suspended { TenantState::Suspended.name() } else { TenantState::Active.name() }
}

async fn show_tenant(State(app): State<Arc<App>>, names: Names) -> Result<Response, Problem> {
    let name = names.get("tenant");
    let tenant = store(&app)?.tenant(name).await.map_err(refused)?.ok_or_else(|| no_such("tenant", name))?;
    let mut response = toml_with_version(tenant.policy, tenant.version);
    response.headers_mut().insert("x-cluegate-state", HeaderValue::from_static(tenant.state.name()));
    Ok(response)
}

async fn put_tenant(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let proposal = Proposal::Tenant(names.get("tenant").to_owned(), Some(text(body).await?));
    make(&app, &admin, &headers, proposal).await
}

async fn remove_tenant(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = names.get("tenant");
    if admin.tenant().is_some() {
        let message = "a key that is limited to a tenant does not remove it";
        return Err(Problem::new(ProblemKind::Forbidden, message));
    }
    if app.config.anonymous.as_deref() == Some(name) {
        let message = "it is the tenant of those who bring no key (`keys.anonymous`)";
        return Err(Problem::new(ProblemKind::Conflict, message));
    }
    make(&app, &admin, &headers, Proposal::Tenant(name.to_owned(), None)).await
}

async fn suspend(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    set_state(&app, &admin, names.get("tenant"), TenantState::Suspended, expected(&headers)?).await
}

async fn resume(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    set_state(&app, &admin, names.get("tenant"), TenantState::Active, expected(&headers)?).await
}

async fn set_state(
    app: &Arc<App>,
    admin: &Admin,
    name: &str,
    state: TenantState,
    expected: Expect,
) -> Result<Response, Problem> {
    if admin.tenant().is_some() {
        let message = "a key that is limited to a tenant neither suspends nor resumes it";
        return Err(Problem::new(ProblemKind::Forbidden, message));
    }
    let mut edit = edit(app, admin).await?;
    let version = edit.set_state(name, state, expected).await.map_err(refused)?;
    edit.commit().await.map_err(refused)?;
    changed(app, admin, Some(version)).await
}

/// Which policy of a tenant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfModel {
    model: Option<String>,
}

/// Every value of the policy in use, and where it comes from.
async fn effective(
    State(app): State<Arc<App>>,
    names: Names,
    Query(OfModel { model }): Query<OfModel>,
) -> Result<Json<Value>, Problem> {
    let name = names.get("tenant");
    let policies = app.live.policies();
    let values = policies.explain(name, model.as_deref()).map_err(|_| no_such("tenant", name))?;
    let constitution = app.gate.constitution(name).ok_or_else(|| no_such("tenant", name))?;
    Ok(Json(json!({
        "tenant": name,
        "model": model,
        "constitution": { "name": constitution.name(), "revision": constitution.revision().to_hex() },
        "values": values,
    })))
}

/// What the tenant has used in the windows of now, and what it may.
async fn usage(State(app): State<Arc<App>>, names: Names) -> Result<Json<Value>, Problem> {
    let name = names.get("tenant");
    let policy = app.policy(name, None).map_err(|_| no_such("tenant", name))?;
    let usage = app.quotas.usage(name).await.map_err(|gone| {
        tracing::error!(%gone, "the administration cannot read usage");
        Problem::new(ProblemKind::StoreGone, "usage cannot be read: the store cannot be reached")
    })?;
    Ok(Json(json!({ "tenant": name, "quota": policy.quota, "usage": usage })))
}

async fn list_templates(
    State(app): State<Arc<App>>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let templates = store(&app)?.templates(&page.after, page.limit()).await.map_err(refused)?;
    let told = templates.iter().map(|template| {
        json!({
            "name": template.name, "version": template.version,
            "changed_by": template.changed_by, "changed_ms": template.changed_ms,
        })
    });
    Ok(Json(json!({ "templates": told.collect::<Vec<_>>() })))
}

async fn show_template(State(app): State<Arc<App>>, names: Names) -> Result<Response, Problem> {
    let name = names.get("template");
    let found = store(&app)?.template(name).await.map_err(refused)?;
    let template = found.ok_or_else(|| no_such("template", name))?;
    Ok(toml_with_version(template.policy, template.version))
}

async fn put_template(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let proposal = Proposal::Template(names.get("template").to_owned(), Some(text(body).await?));
    make(&app, &admin, &headers, proposal).await
}

async fn remove_template(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    make(&app, &admin, &headers, Proposal::Template(names.get("template").to_owned(), None)).await
}

/// Which versions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Earlier {
    /// Before this number of the store.
    before: Option<i64>,
    /// At most so many.
    #[serde(default = "most")]
    limit: u32,
}

async fn tenant_history(
    State(app): State<Arc<App>>,
    names: Names,
    Query(earlier): Query<Earlier>,
) -> Result<Json<Value>, Problem> {
    history(&app, Kind::Tenant, names.get("tenant"), &earlier).await
}

async fn template_history(
    State(app): State<Arc<App>>,
    names: Names,
    Query(earlier): Query<Earlier>,
) -> Result<Json<Value>, Problem> {
    history(&app, Kind::Template, names.get("template"), &earlier).await
}

/// What a policy said before, and who wrote it.
async fn history(app: &App, kind: Kind, name: &str, earlier: &Earlier) -> Result<Json<Value>, Problem> {
    let limit = earlier.limit.clamp(1, MOST);
    let versions = store(app)?.policy_versions(kind, name, earlier.before, limit).await.map_err(refused)?;
    if versions.is_empty() && earlier.before.is_none() {
        return Err(no_such(kind.name(), name));
    }
    Ok(Json(json!({ "versions": versions })))
}

/// The status of what was made.
pub(super) fn created(body: Value) -> Response {
    (StatusCode::CREATED, Json(body)).into_response()
}
