//! Keys of tenants. A key is told once, when it is made; afterwards only its hash is there.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cluegate_store::{KeyHash, NewKey as StoredKey};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::{Admin, Names, no_such, text};
use super::route;
use super::tenants::{Page, created, edit, refused, store};
use crate::app::App;
use crate::keys::{Key, NewKey, rotated};
use crate::problem::Problem;
use crate::router::Route;

/// For how long a key holds beside the one in its place, if nothing is said: a day.
const OVERLAP_S: u64 = 86_400;
/// Most keys of a tenant that are looked at for a free name.
const MOST: u32 = 10_000;

pub(super) fn routes() -> Vec<Route> {
    vec![
        route("/admin/v1/tenants/{tenant}/keys", &["GET", "POST"], get(list).post(create)),
        route("/admin/v1/tenants/{tenant}/keys/{key}/rotate", &["POST"], post(rotate)),
        route("/admin/v1/tenants/{tenant}/keys/{key}/revoke", &["POST"], post(revoke)),
    ]
}

async fn list(
    State(app): State<Arc<App>>,
    names: Names,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let tenant = names.get("tenant");
    let Ok(store) = store(&app) else {
        let ring = app.authenticator.keys();
        let mut keys: Vec<&Arc<Key>> =
            ring.iter().filter(|key| key.tenant.as_deref() == Some(tenant) && key.id > page.after).collect();
        keys.sort_by(|one, other| one.id.cmp(&other.id));
        let now = Timestamp::now();
        let told = keys.into_iter().take(page.limit() as usize).map(|key| {
            json!({
                "id": key.id, "note": key.note, "not_before": key.not_before, "expires": key.expires,
                "revoked": key.revoked, "holds": key.lapse(now).is_none(),
            })
        });
        return Ok(Json(json!({ "keys": told.collect::<Vec<_>>() })));
    };
    let keys = store.keys(tenant, &page.after, page.limit()).await.map_err(refused)?;
    Ok(Json(json!({ "keys": keys.iter().map(told).collect::<Vec<_>>() })))
}

/// What may be known of a key: nothing that leads to it.
fn told(key: &cluegate_store::Key) -> Value {
    let time = |ms: i64| Timestamp::from_millisecond(ms).ok();
    let now = Timestamp::now().as_millisecond();
    json!({
        "id": key.id,
        "note": Some(&key.note).filter(|note| !note.is_empty()),
        "created": time(key.created_ms),
        "not_before": time(key.not_before_ms),
        "expires": key.expires_ms.and_then(time),
        "revoked": key.revoked_ms.and_then(time),
        "holds": key.state(now) == cluegate_store::KeyState::Valid,
    })
}

/// A key to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    id: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    not_before: Option<Timestamp>,
    #[serde(default)]
    expires: Option<Timestamp>,
}

/// How a key is replaced.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Replacing {
    /// The new key's id; by default the old one with the next free number.
    id: Option<String>,
    /// For how long the old one still holds, in seconds.
    overlap_s: Option<u64>,
    expires: Option<Timestamp>,
    note: Option<String>,
}

async fn json_body<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let text = text(body).await?;
    let text = if text.trim().is_empty() { "{}" } else { text.as_str() };
    serde_json::from_str(text).map_err(|error| Problem::bad_request(format!("the body: {error:.200}")))
}

async fn create(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    body: Body,
) -> Result<Response, Problem> {
    let (tenant, wanted): (_, Wanted) = (names.get("tenant"), json_body(body).await?);
    let new = NewKey::generate();
    let key = StoredKey {
        id: wanted.id,
        sha256: KeyHash(new.hash()),
        note: wanted.note,
        not_before_ms: wanted.not_before.map(Timestamp::as_millisecond),
        expires_ms: wanted.expires.map(Timestamp::as_millisecond),
    };
    let mut edit = edit(&app, &admin).await?;
    edit.add_key(tenant, &key).await.map_err(refused)?;
    edit.commit().await.map_err(refused)?;
    shown(&app, &admin, json!({ "id": key.id, "key": new.reveal() })).await
}

async fn rotate(
    State(app): State<Arc<App>>,
    admin: Admin,
    names: Names,
    body: Body,
) -> Result<Response, Problem> {
    let (tenant, old, how): (_, _, Replacing) =
        (names.get("tenant"), names.get("key"), json_body(body).await?);
    let store = store(&app)?;
    let missing = || no_such("key", old);
    let known = store.key(tenant, old).await.map_err(refused)?.ok_or_else(missing)?;
    let taken = store.keys(tenant, "", MOST).await.map_err(refused)?;
    let new = NewKey::generate();
    let replaced = new.of_tenant(old, tenant);
    let id = rotated(&replaced, how.id, new.hash(), |id| taken.iter().any(|key| key.id == id)).id;
    let key = StoredKey {
        id,
        sha256: KeyHash(new.hash()),
        note: how.note.unwrap_or(known.note),
        not_before_ms: None,
        expires_ms: how.expires.map(Timestamp::as_millisecond),
    };
    let overlap_ms = how.overlap_s.unwrap_or(OVERLAP_S).saturating_mul(1000);
    let until = Timestamp::now().as_millisecond().saturating_add_unsigned(overlap_ms);
    let mut edit = edit(&app, &admin).await?;
    edit.rotate_key(tenant, old, &key, until).await.map_err(refused)?;
    edit.commit().await.map_err(refused)?;
    let until = Timestamp::from_millisecond(until).ok();
    shown(
        &app,
        &admin,
        json!({ "id": key.id, "key": new.reveal(), "replaces": old, "old_holds_until": until }),
    )
    .await
}

async fn revoke(State(app): State<Arc<App>>, admin: Admin, names: Names) -> Result<Response, Problem> {
    let (tenant, id) = (names.get("tenant"), names.get("key"));
    let mut edit = edit(&app, &admin).await?;
    edit.revoke_key(tenant, id).await.map_err(refused)?;
    edit.commit().await.map_err(refused)?;
    let in_use = app.reload(&admin.name()).await.is_ok();
    Ok((StatusCode::OK, Json(json!({ "id": id, "in_use": in_use }))).into_response())
}

/// The answer that shows a key, which nobody on the way is to keep.
async fn shown(app: &Arc<App>, admin: &Admin, mut body: Value) -> Result<Response, Problem> {
    body["in_use"] = app.reload(&admin.name()).await.is_ok().into();
    let mut response = created(body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
