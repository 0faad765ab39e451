//! What clients ask for when they start: lists of models, samplers and the like, and the options.
//!
//! An upstream of this dialect is asked, and its answer is built anew from the fields named here: folders of the server,
//! training data, command-line flags (`--api-auth` is one) and whatever else it says stay behind. Any other upstream has
//! nothing to say, and the lists are empty. Fields are those of `modules/api/models.py`.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Desk;
use super::request::check_option;
use crate::app::App;
use crate::client::Client;
use crate::problem::Problem;
use crate::request::Dialect;
use crate::router::Route;

/// Longest text that is passed on, in bytes: no picture fits.
const MAX_TEXT: usize = 256;
/// Most entries of a list that are passed on.
const MAX_ENTRIES: usize = 10_000;

/// What of a field is passed on.
#[derive(Debug, Clone, Copy)]
enum Field {
    Text,
    Texts,
    Number,
    Flag,
    /// The name of a file without its folder.
    File,
    /// Nothing: clients expect the field, and it is the server's own business.
    Null,
    Object,
}

impl Field {
    fn pass(self, value: Option<&Value>) -> Value {
        let text = |value: &Value| value.as_str().filter(|text| text.len() <= MAX_TEXT).map(str::to_owned);
        let passed = match self {
            Self::Text => value.and_then(text).map(Value::from),
            Self::Texts => value.and_then(Value::as_array).map(|texts| {
                texts.iter().filter_map(text).take(MAX_ENTRIES).map(Value::from).collect::<Vec<_>>().into()
            }),
            Self::Number => value.filter(|value| value.is_number()).cloned(),
            Self::Flag => value.filter(|value| value.is_boolean()).cloned(),
            Self::File => value.and_then(text).map(|path| path.rsplit(['/', '\\']).next().into()),
            Self::Null => None,
            Self::Object => Some(json!({})),
        };
        passed.unwrap_or(Value::Null)
    }
}

/// A list of named things.
#[derive(Debug)]
struct List {
    path: &'static str,
    what: &'static str,
    fields: &'static [(&'static str, Field)],
}

const LISTS: [List; 12] = [
    List {
        path: "/sdapi/v1/sd-models",
        what: "sd-models",
        fields: &[
            ("title", Field::Text),
            ("model_name", Field::Text),
            ("hash", Field::Text),
            ("sha256", Field::Text),
            ("filename", Field::File),
            ("config", Field::Null),
        ],
    },
    List {
        path: "/sdapi/v1/samplers",
        what: "samplers",
        fields: &[("name", Field::Text), ("aliases", Field::Texts), ("options", Field::Object)],
    },
    List {
        path: "/sdapi/v1/schedulers",
        what: "schedulers",
        fields: &[
            ("name", Field::Text),
            ("label", Field::Text),
            ("aliases", Field::Texts),
            ("default_rho", Field::Number),
            ("need_inner_model", Field::Flag),
        ],
    },
    List {
        path: "/sdapi/v1/upscalers",
        what: "upscalers",
        fields: &[
            ("name", Field::Text),
            ("model_name", Field::Text),
            ("model_path", Field::Null),
            ("model_url", Field::Null),
            ("scale", Field::Number),
        ],
    },
    List {
        path: "/sdapi/v1/latent-upscale-modes",
        what: "latent-upscale-modes",
        fields: &[("name", Field::Text)],
    },
    List {
        path: "/sdapi/v1/sd-vae",
        what: "sd-vae",
        fields: &[("model_name", Field::Text), ("filename", Field::File)],
    },
    List {
        path: "/sdapi/v1/sd-modules",
        what: "sd-modules",
        fields: &[("model_name", Field::Text), ("filename", Field::File)],
    },
    List {
        path: "/sdapi/v1/hypernetworks",
        what: "hypernetworks",
        fields: &[("name", Field::Text), ("path", Field::Null)],
    },
    List {
        path: "/sdapi/v1/loras",
        what: "loras",
        fields: &[
            ("name", Field::Text),
            ("alias", Field::Text),
            ("path", Field::File),
            ("metadata", Field::Object),
        ],
    },
    List {
        path: "/sdapi/v1/face-restorers",
        what: "face-restorers",
        fields: &[("name", Field::Text), ("cmd_dir", Field::Null)],
    },
    List {
        path: "/sdapi/v1/realesrgan-models",
        what: "realesrgan-models",
        fields: &[("name", Field::Text), ("path", Field::Null), ("scale", Field::Number)],
    },
    List {
        path: "/sdapi/v1/prompt-styles",
        what: "prompt-styles",
        fields: &[("name", Field::Text), ("prompt", Field::Null), ("negative_prompt", Field::Null)],
    },
];

/// What an embedding is.
const EMBEDDING: [(&str, Field); 5] = [
    ("step", Field::Number),
    ("sd_checkpoint", Field::Text),
    ("sd_checkpoint_name", Field::Text),
    ("shape", Field::Number),
    ("vectors", Field::Number),
];

/// The routes of what is only read.
pub(super) fn routes() -> Vec<Route> {
    let lists = LISTS.iter().map(|list| Route {
        path: list.path,
        methods: &["GET"],
        handler: get(move |State(app): State<Arc<App>>| async move { passed(&app, list).await }),
    });
    let route = |path, handler| Route { path, methods: &["GET"], handler };
    let others = [
        route("/sdapi/v1/embeddings", get(embeddings)),
        route("/sdapi/v1/memory", get(memory)),
        route("/sdapi/v1/scripts", get(scripts)),
        // Flags of the command line are the server's own business, and one of them is its passwords.
        route("/sdapi/v1/cmd-flags", get(nothing)),
        route("/internal/ping", get(nothing)),
    ];
    lists.chain(others).collect()
}

/// What an upstream of this dialect says of `what`.
async fn told(app: &App, what: &'static str) -> Result<Value, Problem> {
    match &app.upstream {
        Some(upstream) if upstream.dialect() == Dialect::A1111 => {
            Ok(upstream.describe(what).await?.unwrap_or_default())
        }
        _ => Ok(Value::Null),
    }
}

async fn passed(app: &App, list: &List) -> Result<Json<Value>, Problem> {
    let told = told(app, list.what).await?;
    let entries = told.as_array().map(Vec::as_slice).unwrap_or_default().iter().take(MAX_ENTRIES);
    Ok(Json(entries.filter(|entry| entry.is_object()).map(|entry| rebuilt(entry, list.fields)).collect()))
}

fn rebuilt(entry: &Value, fields: &[(&str, Field)]) -> Value {
    fields.iter().map(|(name, field)| ((*name).to_owned(), field.pass(entry.get(*name)))).collect()
}

async fn embeddings(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let told = told(&app, "embeddings").await?;
    let named = |which: &str| -> Map<String, Value> {
        let entries = told.get(which).and_then(Value::as_object).into_iter().flatten().take(MAX_ENTRIES);
        let short = entries.filter(|(name, _)| name.len() <= MAX_TEXT);
        short.map(|(name, entry)| (name.clone(), rebuilt(entry, &EMBEDDING))).collect()
    };
    Ok(Json(json!({ "loaded": named("loaded"), "skipped": named("skipped") })))
}

async fn memory(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let told = told(&app, "memory").await?;
    let numbers = |value: Option<&Value>, names: &[&str]| -> Value {
        let named = names.iter().filter_map(|name| Some((*name, value?.get(*name)?)));
        named
            .filter(|(_, value)| value.is_number())
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    };
    let cuda = |part: &str, names: &[&str]| numbers(told.get("cuda").and_then(|cuda| cuda.get(part)), names);
    Ok(Json(json!({
        "ram": numbers(told.get("ram"), &["free", "used", "total"]),
        "cuda": {
            "system": cuda("system", &["free", "used", "total"]),
            "active": cuda("active", &["current", "peak"]),
            "allocated": cuda("allocated", &["current", "peak"]),
            "reserved": cuda("reserved", &["current", "peak"]),
            "inactive": cuda("inactive", &["current", "peak"]),
            "events": cuda("events", &["retries", "oom"]),
        },
    })))
}

/// The scripts that clients may use. Clients look here before they send any, as `webuiapi` does.
async fn scripts(State(app): State<Arc<App>>) -> Json<Value> {
    let speaks = app.upstream.as_ref().is_some_and(|upstream| upstream.dialect() == Dialect::A1111);
    let allowed = if speaks { app.config.a1111.scripts.as_slice() } else { &[] };
    let names: Vec<String> = allowed.iter().map(|name| name.to_lowercase()).collect();
    Json(json!({ "txt2img": names, "img2img": names }))
}

async fn nothing() -> Json<Value> {
    Json(json!({}))
}

/// `GET /sdapi/v1/options`: the options that clients may set, as the server has them and the tenant set them.
pub(super) async fn options(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
) -> Result<Json<Value>, Problem> {
    let told = told(&app, "options").await?;
    let mut options = Map::new();
    for name in &app.config.a1111.options {
        let value = match told.get(name) {
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.clone(),
            value => Field::Text.pass(value),
        };
        if !value.is_null() {
            options.insert(name.clone(), value);
        }
    }
    options.extend(desk.options_of(&client.tenant));
    Ok(Json(options.into()))
}

/// `POST /sdapi/v1/options`: sets options for the tenant. They are kept here and sent along with each of its requests, so
/// that no tenant changes what another one gets.
pub(super) async fn set_options(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked = super::object(&body)?;
    for (name, value) in &asked {
        check_option(&app.config.a1111, name, value)?;
    }
    desk.set_options(&client.tenant, asked);
    Ok(Json(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_anew_without_folders_and_long_texts() {
        let entry = json!({
            "title": "fine.safetensors [abcd]", "model_name": "fine", "hash": "a".repeat(257), "sha256": null,
            "filename": "C:\\secret\\fine.safetensors", "config": "/secret/fine.yaml", "other": "iVBORw0KGgo=",
        });
        let expected = json!({
            "title": "fine.safetensors [abcd]", "model_name": "fine", "hash": null, "sha256": null,
            "filename": "fine.safetensors", "config": null,
        });
        assert_eq!(rebuilt(&entry, LISTS[0].fields), expected);
        let sampler =
            json!({ "name": "Euler", "aliases": ["k_euler", 3, "b".repeat(257)], "options": { "x": "y" } });
        let expected = json!({ "name": "Euler", "aliases": ["k_euler"], "options": {} });
        assert_eq!(rebuilt(&sampler, LISTS[1].fields), expected);
    }
}
