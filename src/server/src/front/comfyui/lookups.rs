//! What a client may look up and change: history, files, its own queue, and what the server can do. ComfyUI `server.py`.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use axum::extract::multipart::{Multipart, MultipartError, MultipartRejection};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use image::{ImageFormat, ImageReader};
use serde_json::{Map, Value, json};

use super::{Desk, same_site};
use crate::app::App;
use crate::client::Client;
use crate::comfyui::LOADERS;
use crate::outcome::DECISION_HEADER;
use crate::problem::{Problem, ProblemKind};
use crate::request::Dialect;

/// The classes of the standard workflow, for servers that are no ComfyUI.
const STANDARD: &str = include_str!("object_info.json");

/// Most parts of the form of an upload: there are four that mean anything.
const UPLOAD_PARTS: usize = 16;
/// Most bytes of the entries of one answer about the history.
const HISTORY_BYTES: usize = 16 << 20;

type Params = Result<Query<HashMap<String, String>>, QueryRejection>;

fn params(params: Params) -> Result<HashMap<String, String>, Problem> {
    params.map(|Query(map)| map).map_err(|e| Problem::bad_request(e.body_text()))
}

/// `GET /prompt`: how many prompts have not ended.
pub(super) async fn counts(Extension(desk): Extension<Arc<Desk>>, client: Client) -> Json<Value> {
    Json(desk.queue_info(&client.tenant))
}

/// `GET /history?max_items=&offset=`.
pub(super) async fn history(
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    query: Params,
) -> Result<Json<Value>, Problem> {
    let query = params(query)?;
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<i64>()
            .map(Some)
            .map_err(|_| Problem::bad_request(format!("`{name}`: expected a whole number"))),
    };
    let (most, offset) = (number("max_items")?, number("offset")?.unwrap_or(-1));
    let entries = desk.history.of(&client.tenant);
    let most = most.map_or(entries.len(), |most| usize::try_from(most).unwrap_or(0));
    // Without an offset the newest ones (`execution.py`, `get_history`).
    let skip = usize::try_from(offset).unwrap_or_else(|_| entries.len().saturating_sub(most));
    let mut shown: Vec<_> = entries.into_iter().skip(skip).take(most).collect();
    // The newest, where all would be too much; the others can be asked for one by one, or by `offset`.
    let mut bytes = 0;
    let fit = shown.iter().rev().take_while(|(_, entry)| {
        bytes += entry.bytes;
        bytes <= HISTORY_BYTES
    });
    let fit = fit.count().max(1);
    shown.drain(..shown.len().saturating_sub(fit));
    let shown = shown.into_iter().map(|(id, entry)| (id, entry.json.clone()));
    Ok(Json(Value::Object(shown.collect())))
}

/// `GET /history/{prompt_id}`: an empty object for a prompt that has not ended or is not the tenant's.
pub(super) async fn entry(
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    Path(prompt_id): Path<String>,
) -> Response {
    let Some(entry) = desk.history.get(&client.tenant, &prompt_id) else {
        return Json(json!({})).into_response();
    };
    let mut response = Json(Value::Object(Map::from_iter([(prompt_id, entry.json.clone())]))).into_response();
    if let Some(decision) = &entry.decision {
        response.headers_mut().insert(DECISION_HEADER, decision.clone());
    }
    response
}

/// `GET /view?filename=&subfolder=&type=`: a file of one of the tenant's prompts, as it was encoded for it. What a client
/// uploaded is not shown: nobody has judged it.
pub(super) async fn view(
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    query: Params,
) -> Result<Response, Problem> {
    let query = params(query)?;
    let word = |name: &str| query.get(name).map_or("", String::as_str);
    if word("channel") == "a" {
        return Err(Problem::bad_request("`channel`: released pictures have no transparency"));
    }
    let folder = query.get("type").map_or("output", String::as_str);
    let file = desk.files.get(&client.tenant, word("filename"));
    let file =
        file.filter(|file| word("subfolder").is_empty() && file.folder == folder).ok_or_else(|| {
            Problem::new(
                ProblemKind::NotFound,
                "there is no such file of yours; names come with a prompt's outputs",
            )
        })?;
    let mut response = file.shown.bytes().clone().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.shown.format().media_type()));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    // The name was found, so it is one of ours.
    if let Ok(name) = HeaderValue::try_from(format!("filename=\"{}\"", word("filename"))) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    if let Some(decision) = &file.decision {
        headers.insert(DECISION_HEADER, decision.clone());
    }
    Ok(response)
}

/// `GET /queue`: the tenant's prompts.
pub(super) async fn queue(Extension(desk): Extension<Arc<Desk>>, client: Client) -> Json<Value> {
    let (running, pending): (Vec<_>, Vec<_>) =
        desk.jobs.of(&client.tenant).into_iter().partition(|(_, runs)| *runs);
    let items = |jobs: Vec<(Arc<super::jobs::Asked>, bool)>| -> Vec<Value> {
        jobs.iter().map(|(asked, _)| asked.item()).collect()
    };
    Json(json!({ "queue_running": items(running), "queue_pending": items(pending) }))
}

fn body(bytes: &Bytes) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(bytes).map_err(|e| Problem::bad_request(format!("expected JSON: {e}")))
}

/// `POST /queue {clear, delete: [id]}`: ends prompts of the tenant that wait.
pub(super) async fn unqueue(
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<StatusCode, Problem> {
    same_site(&headers)?;
    let body = body(&bytes)?;
    let all = body.get("clear").and_then(Value::as_bool) == Some(true);
    let ids: Vec<&str> = body
        .get("delete")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (asked, runs) in desk.jobs.of(&client.tenant) {
        if !runs && (all || ids.contains(&asked.prompt_id.as_str())) {
            asked.cancel.cancel();
        }
    }
    Ok(StatusCode::OK)
}

/// `POST /interrupt {prompt_id}`: ends that prompt if it is the tenant's and drawn. Without an id, the tenant's prompt that
/// has been drawn for longest, which is the one that a ComfyUI would be drawing; of the client that is named, if one is.
pub(super) async fn interrupt(
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<StatusCode, Problem> {
    same_site(&headers)?;
    let body = body(&bytes)?;
    let word = |name: &str| body.get(name).and_then(Value::as_str).filter(|word| !word.is_empty());
    let (prompt_id, client_id) = (word("prompt_id"), word("client_id"));
    let found = desk.jobs.of(&client.tenant).into_iter().find(|(asked, runs)| {
        *runs
            && prompt_id.is_none_or(|id| asked.prompt_id == id)
            && (prompt_id.is_some() || client_id.is_none_or(|id| asked.client_id.as_deref() == Some(id)))
    });
    if let Some((asked, _)) = found {
        asked.cancel.cancel();
    }
    Ok(StatusCode::OK)
}

/// `GET /system_stats`: that this is no ComfyUI, in the form in which clients read what one is.
pub(super) async fn system() -> Json<Value> {
    let system = json!({
        "os": "cluegate", "comfyui_version": concat!("cluegate ", env!("CARGO_PKG_VERSION")), "python_version": "none",
        "pytorch_version": "none", "embedded_python": false, "ram_total": 0, "ram_free": 0, "argv": [],
    });
    Json(json!({ "system": system, "devices": [] }))
}

/// `GET /features`.
pub(super) async fn features(State(app): State<Arc<App>>) -> Json<Value> {
    Json(server_features(&app))
}

/// What this server can do: `comfy_api/feature_flags.py`.
pub(super) fn server_features(app: &App) -> Value {
    json!({ "supports_preview_metadata": true, "max_upload_size": upload_bytes(app) })
}

fn upload_bytes(app: &App) -> usize {
    app.config.limits.body_bytes.min(app.config.pictures.decode.max_bytes)
}

/// `GET /embeddings`: the upstream's, if it is a ComfyUI.
pub(super) async fn embeddings(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let upstream = app.upstream()?;
    let told =
        if upstream.dialect() == Dialect::ComfyUi { upstream.describe("embeddings").await? } else { None };
    let names = told.as_ref().and_then(Value::as_array).into_iter().flatten().filter(|name| name.is_string());
    Ok(Json(names.cloned().collect()))
}

/// `GET /object_info`: the classes of nodes that may be used.
pub(super) async fn classes(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
) -> Result<Json<Value>, Problem> {
    known_classes(&app, &desk).await.map(|classes| Json(Value::Object(classes)))
}

/// `GET /object_info/{class}`: an empty object for a class that may not be used.
pub(super) async fn class(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut classes = known_classes(&app, &desk).await?;
    classes.retain(|class, _| *class == name);
    Ok(Json(Value::Object(classes)))
}

async fn known_classes(app: &App, desk: &Desk) -> Result<Map<String, Value>, Problem> {
    let upstream = app.upstream()?;
    if upstream.dialect() != Dialect::ComfyUi {
        return serde_json::from_str(STANDARD)
            .map_err(|e| Problem::new(ProblemKind::Internal, format!("the description of the nodes: {e}")));
    }
    let Some(Value::Object(mut classes)) = upstream.describe("object_info").await? else {
        let message = "the upstream did not describe its nodes";
        return Err(Problem::new(ProblemKind::UpstreamFailed, message));
    };
    classes.retain(|class, _| desk.nodes.contains(class));
    classes.iter_mut().for_each(|(class, info)| hide_files(class, info));
    Ok(classes)
}

/// Empties the lists of files that the server's other users gave it.
fn hide_files(class: &str, info: &mut Value) {
    let groups =
        info.get_mut("input").and_then(Value::as_object_mut).into_iter().flat_map(|all| all.values_mut());
    for (name, input) in groups.filter_map(Value::as_object_mut).flatten() {
        let loads = input.pointer("/1/image_upload").is_some()
            || (LOADERS.contains(&class) && name.as_str() == "image");
        if !loads {
            continue;
        }
        if let Some(list) = input.get_mut(0).filter(|list| list.is_array()) {
            *list = json!([]);
        }
        if let Some(options) = input.pointer_mut("/1/options") {
            *options = json!([]);
        }
    }
}

/// `POST /upload/image`, multipart with `image`: keeps a picture for the tenant's prompts. The name is made here.
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<Value>, Problem> {
    same_site(&headers)?;
    let mut form = form.map_err(|e| Problem::new(ProblemKind::UnsupportedType, e.body_text()))?;
    let (mut picture, mut parts) = (None, 0);
    while let Some(field) = form.next_field().await.map_err(|e| broken(&e))? {
        parts += 1;
        if parts > UPLOAD_PARTS {
            return Err(Problem::bad_request(format!("expected a form of at most {UPLOAD_PARTS} parts")));
        }
        match field.name() {
            Some("image") => picture = Some(field.bytes().await.map_err(|e| broken(&e))?),
            Some("type") => {
                let folder = field.text().await.map_err(|e| broken(&e))?;
                if folder != "input" {
                    return Err(Problem::bad_request("`type`: expected `input`: pictures to start from"));
                }
            }
            // Where it should lie, and whether over another: names are made here, so neither means anything.
            _ => {}
        }
    }
    let picture = picture.ok_or_else(|| Problem::bad_request("expected a picture in the field `image`"))?;
    let extension = readable(&app, &picture)?;
    let name = format!("{}.{extension}", uuid::Uuid::now_v7());
    let bytes = picture.len();
    desk.uploads.put(&client.tenant, name.as_str(), picture, bytes);
    Ok(Json(json!({ "name": name, "subfolder": "", "type": "input" })))
}

fn broken(error: &MultipartError) -> Problem {
    let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ProblemKind::TooLarge
    } else {
        ProblemKind::BadRequest
    };
    Problem::new(kind, error.body_text())
}

/// The usual ending of the file's name, if its head says that it is a picture within the limits. The rest is for whoever
/// loads it.
fn readable(app: &App, picture: &Bytes) -> Result<&'static str, Problem> {
    let limits = &app.config.pictures.decode;
    if picture.len() > limits.max_bytes {
        let message =
            format!("expected a picture of at most {} bytes, got {}", limits.max_bytes, picture.len());
        return Err(Problem::new(ProblemKind::TooLarge, message));
    }
    let unreadable = || Problem::bad_request("`image`: expected a PNG, JPEG or WebP file");
    let reader = ImageReader::new(Cursor::new(picture)).with_guessed_format().map_err(|_| unreadable())?;
    let extension = match reader.format() {
        Some(ImageFormat::Png) => "png",
        Some(ImageFormat::Jpeg) => "jpg",
        Some(ImageFormat::WebP) => "webp",
        _ => return Err(unreadable()),
    };
    let (width, height) = reader.into_dimensions().map_err(|_| unreadable())?;
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        let message =
            format!("expected a picture of at most {} pixels, got {width}x{height}", limits.max_pixels);
        return Err(Problem::new(ProblemKind::TooLarge, message));
    }
    Ok(extension)
}
