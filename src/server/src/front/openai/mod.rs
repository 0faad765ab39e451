//! OpenAI's Images API: `POST /v1/images/generations`, `POST /v1/images/edits`, and what its clients call beside them.
//! Names and shapes are those of openai-python 3.54.0 (`resources/images.py` and the types named below).

mod answer;
mod body;
mod files;
mod params;
mod source;
mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, http::header};
use serde_json::{Map, Value, json};

pub(crate) use self::answer::render;

use self::answer::Refusal;
use self::files::Files;
use self::params::{Asked, Delivery, Task};
use super::verdict::read_json;
use crate::app::App;
use crate::body::Taken;
use crate::client::Client;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::problem::{Problem, ProblemKind};
use crate::request::{Dialect, Source};
use crate::request_id::RequestId;
use crate::router::{Front, Route};

/// The front end.
pub(crate) fn front(config: &Config) -> Front {
    let files = Extension(Arc::new(Files::new(config)));
    let routes = vec![
        Route {
            path: "/v1/images/generations",
            methods: &["POST"],
            handler: post(generate).layer(files.clone()),
        },
        Route { path: "/v1/images/edits", methods: &["POST"], handler: post(edit).layer(files.clone()) },
        Route { path: "/v1/images/variations", methods: &["POST"], handler: post(vary) },
        Route { path: files::ROUTE, methods: &["GET"], handler: get(files::file).layer(files) },
        Route { path: "/v1/models", methods: &["GET"], handler: get(models) },
        // A name may have slashes.
        Route { path: "/v1/models/{*model}", methods: &["GET"], handler: get(model) },
    ];
    Front { routes, render }
}

/// Who asks, and what it takes to answer.
struct Caller {
    client: Client,
    id: RequestId,
    deadline: Deadline,
    headers: HeaderMap,
    files: Arc<Files>,
    taken: Taken,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Ok(id) = RequestId::from_request_parts(parts, app).await;
        let Ok(deadline) = Deadline::from_request_parts(parts, app).await;
        let Ok(taken) = Taken::from_request_parts(parts, app).await;
        let files = parts.extensions.get::<Arc<Files>>().cloned();
        Ok(Self {
            client: Client::from_request_parts(parts, app).await?,
            id,
            deadline,
            headers: parts.headers.clone(),
            taken,
            files: files.ok_or_else(|| Problem::new(ProblemKind::Internal, "the route keeps no files"))?,
        })
    }
}

async fn generate(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let fields: Map<String, Value> = read_json(request).await?;
    answer(&app, caller, params::read(&fields, Task::Generation, speaks_openai(&app)?)?, None).await
}

async fn edit(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Result<Multipart, MultipartRejection>,
) -> Result<Response, Refusal> {
    let form = body::form(body, app.config.pictures.decode.max_bytes).await?;
    let asked = params::read(&form.fields, Task::Edit, speaks_openai(&app)?)?;
    let source = source::check(form.pictures, form.mask, app.config.pictures.decode).await?;
    answer(&app, caller, asked, Some(source)).await
}

/// The route of a model that is gone (`types/image_create_variation_params.py`): pictures without a prompt.
async fn vary() -> Problem {
    let message =
        "variations have no prompt, which the gate draws nothing without; use /v1/images/edits with one";
    Problem::new(ProblemKind::Inexpressible, message)
}

async fn answer(
    app: &App,
    caller: Caller,
    asked: Asked,
    source: Option<Source>,
) -> Result<Response, Refusal> {
    let Asked { mut request, shape } = asked;
    request.source = source;
    let base = match shape.delivery {
        Delivery::Url => Some(files::base(&caller.headers, &app.config)?),
        Delivery::Base64 => None,
    };
    let Caller { client, id, deadline, files, taken, .. } = caller;
    let ordered = app.order(&client, request).await?;
    let drawing = app.draw(&client, id.as_str(), deadline, ordered, shape.format).await?;
    if let Some(partial_images) = shape.partial_images {
        return Ok(stream::respond(drawing, shape, partial_images, taken));
    }
    let finished = drawing.finish().await?;
    Ok(answer::respond(&finished, &shape, |shown, decision| match &base {
        None => ("b64_json", shown.base64()),
        Some(base) => ("url", format!("{base}{}", files.keep(&client.tenant, decision, shown))),
    }))
}

/// Whether the upstream is spoken to in the same words.
fn speaks_openai(app: &App) -> Result<bool, Problem> {
    Ok(app.upstream()?.dialect() == Dialect::OpenAi)
}

/// What may be asked for: what the upstream lists, else the configured model. Each as `types/model.py` has it.
async fn known_models(app: &App) -> Result<Vec<Value>, Problem> {
    let upstream = app.upstream()?;
    let listed = match upstream.dialect() {
        Dialect::OpenAi => upstream.describe("models").await?,
        _ => None,
    };
    let listed: Vec<String> = match listed.as_ref().and_then(Value::as_array) {
        Some(names) => names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
        None => app.config.upstream.iter().filter_map(|upstream| upstream.model.clone()).collect(),
    };
    let owner = upstream.dialect().as_str();
    let model = |id| json!({ "id": id, "object": "model", "created": 0, "owned_by": owner });
    Ok(listed.into_iter().map(model).collect())
}

async fn models(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let data = known_models(&app).await?;
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(json!({ "object": "list", "data": data }))).into_response())
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let mut known = known_models(&app).await?.into_iter();
    let model = known.find(|model| model["id"] == name.as_str());
    let unknown = "there is no such model here; GET /v1/models lists those that are known";
    let model = model.ok_or_else(|| Problem::new(ProblemKind::NotFound, unknown))?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(model)).into_response())
}
