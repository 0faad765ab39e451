//! `POST /prompt`: a workflow is checked, and drawn in a task of its own.

use std::collections::BTreeSet;
use std::future::Future as _;
use std::sync::Arc;
use std::task::Poll;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::jobs::{Asked, Listed};
use super::{Desk, same_site, standard, task};
use crate::app::{App, Ordered};
use crate::body::Taken;
use crate::client::Client;
use crate::comfyui::graph::{Fault, Graph, Output};
use crate::comfyui::{LOADERS, UPLOADS, WORKFLOW};
use crate::deadline::Deadline;
use crate::pictures::Format;
use crate::problem::Problem;
use crate::request::{Dialect, Native, PictureRequest, Source};

/// Longest client id that is remembered, in bytes.
const LONGEST_ID: usize = 128;

/// Body of `POST /prompt`. `number` and `front`, which would put a prompt before others, and `extra_data` are taken and
/// not used: the queue is everybody's, and the files hold nothing but the picture.
#[derive(Deserialize)]
struct Body {
    prompt: Option<Value>,
    client_id: Option<String>,
    prompt_id: Option<Value>,
    partial_execution_targets: Option<Value>,
}

/// A workflow that was understood.
pub(super) struct Understood {
    pub(super) request: PictureRequest,
    pub(super) outputs: Vec<Output>,
    pub(super) sampler: (String, String),
    pub(super) batch_seed: Option<u64>,
}

/// `POST /prompt`.
pub(super) async fn queue(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    (deadline, taken): (Deadline, Taken),
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    same_site(&headers)?;
    let body: Body = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("expected JSON as ComfyUI's clients send it: {e}")))?;
    let whole = |kind, message, details: &str| refused(&[Fault::whole(kind, message, details)]);
    let Some(workflow) = body.prompt else {
        return Ok(whole("no_prompt", "No prompt provided", "No prompt provided"));
    };
    let prompt_id = match prompt_id(body.prompt_id.as_ref()) {
        Ok(id) => id,
        Err(details) => return Ok(whole("invalid_prompt_id", "prompt_id must be a valid UUID", details)),
    };
    if body.partial_execution_targets.is_some_and(|targets| !targets.is_null()) {
        let details = "partial_execution_targets is not offered here; send the part of the workflow that is to be drawn";
        return Ok(whole("invalid_prompt", "Cannot execute prompt", details));
    }
    if body.client_id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(Problem::bad_request(format!("expected a client_id of at most {LONGEST_ID} bytes")));
    }
    let graph = match Graph::parse(&workflow, desk.max_nodes) {
        Ok(graph) => graph,
        Err(faults) => return Ok(refused(&faults)),
    };
    let understood = match app.upstream()?.dialect() {
        Dialect::ComfyUi => native(&desk, &client, &graph),
        _ => standard::read(&desk, &client, &graph),
    };
    let Understood { request, outputs, sampler, batch_seed } = match understood {
        Ok(understood) => understood,
        Err(faults) => return Ok(refused(&faults)),
    };
    let asked = Arc::new(Asked {
        number: desk.jobs.number(),
        tenant: Arc::clone(&client.tenant),
        prompt_id,
        client_id: body.client_id.filter(|id| !id.is_empty()),
        workflow,
        outputs,
        sampler,
        batch_seed,
        created: jiff::Timestamp::now().as_millisecond(),
        cancel: CancellationToken::new(),
    });
    let ordered = app.order(&client, request).await?;
    // Listed first: a prompt of this id that ends meanwhile is in the history before it is off the list.
    let listed = Listed::add(&desk, &asked);
    let Some(listed) = listed.filter(|_| desk.history.get(&asked.tenant, &asked.prompt_id).is_none()) else {
        let details = "there is a prompt of this id; omit it to let the server generate one";
        return Ok(whole("invalid_prompt_id", "prompt_id must be new", details));
    };
    let caller = Caller { app, client, deadline, taken };
    start(caller, listed, asked, ordered).await
}

/// Who asks, and what it takes to draw.
struct Caller {
    app: Arc<App>,
    client: Client,
    deadline: Deadline,
    taken: Taken,
}

/// Begins to draw, and answers when it is known that the request is taken.
async fn start(
    Caller { app, client, deadline, taken }: Caller,
    listed: Listed,
    asked: Arc<Asked>,
    ordered: Ordered,
) -> Result<Response, Problem> {
    let id = asked.prompt_id.clone();
    let mut drawing = Box::pin(async move { app.draw(&client, &id, deadline, ordered, Format::Png).await });
    // What is refused is refused before the first wait, which is the one for a place.
    let first = std::future::poll_fn(|context| Poll::Ready(drawing.as_mut().poll(context))).await;
    let answer = json!({ "prompt_id": asked.prompt_id, "number": asked.number, "node_errors": {} });
    let begun = match first {
        Poll::Ready(Ok(drawing)) => futures_util::future::Either::Left(std::future::ready(Ok(drawing))),
        Poll::Ready(Err(problem)) => return Err(problem),
        Poll::Pending => futures_util::future::Either::Right(drawing),
    };
    tokio::spawn(async move {
        task::run(listed, begun).await;
        // Until now it held the pictures to start from.
        drop(taken);
    });
    Ok(Json(answer).into_response())
}

/// The id of a prompt: the client's if it is a UUID in the usual form (`comfy_execution/jobs.py`, `validate_job_id`), else
/// a new one.
fn prompt_id(asked: Option<&Value>) -> Result<String, &'static str> {
    let Some(asked) = asked.filter(|asked| !asked.is_null()) else {
        return Ok(uuid::Uuid::now_v7().to_string());
    };
    let usual = |text: &str| uuid::Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text);
    asked.as_str().filter(|text| usual(text)).map(str::to_owned).ok_or(
        "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one",
    )
}

/// The workflow as the upstream's own words, if all of its nodes are allowed.
fn native(desk: &Desk, client: &Client, graph: &Graph) -> Result<Understood, Vec<Fault>> {
    let mut faults: Vec<Fault> = graph
        .nodes()
        .iter()
        .filter(|node| !desk.nodes.contains(&node.class))
        .map(|node| {
            let details = format!("{} is not among the classes that this server allows", node.class);
            Fault::of(node, "node_not_allowed", "Node class is not allowed", details)
        })
        .collect();
    let uploads = uploads(desk, client, graph).unwrap_or_else(|more| {
        faults.extend(more);
        Vec::new()
    });
    if !faults.is_empty() {
        return Err(faults);
    }
    let outputs = graph.outputs().map_err(|fault| vec![fault])?;
    let prompt = graph.words(&graph.prompted());
    let negative = graph.words(&graph.texts_behind("negative"));
    let seed = graph.seeds().first().map(|(_, seed)| *seed);
    let (names, pictures): (Vec<Value>, Vec<Bytes>) =
        uploads.into_iter().map(|(name, bytes)| (Value::from(name), bytes)).unzip();
    let parameters =
        Map::from_iter([(WORKFLOW.to_owned(), graph.to_json()), (UPLOADS.to_owned(), Value::from(names))]);
    let request = PictureRequest {
        prompt,
        negative_prompt: (!negative.is_empty()).then_some(negative),
        count: outputs.iter().fold(0, |sum, output| sum + output.count),
        seed,
        size: largest(graph),
        source: (!pictures.is_empty()).then(|| Source { pictures, ..Source::default() }),
        native: Some(Native { dialect: Dialect::ComfyUi, parameters }),
        ..PictureRequest::default()
    };
    Ok(Understood { request, sampler: sampler(graph, &outputs), outputs, batch_seed: seed })
}

/// The uploads that a workflow loads, by the names that it gives them.
pub(super) fn uploads(
    desk: &Desk,
    client: &Client,
    graph: &Graph,
) -> Result<Vec<(String, Bytes)>, Vec<Fault>> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for node in graph.nodes().iter().filter(|node| LOADERS.contains(&node.class.as_str())) {
        let name = node.inputs.get("image").and_then(Value::as_str);
        // Clients put the folder that they asked for before the name, and where it lies behind it.
        let upload = name.and_then(|name| {
            let plain = name.rsplit('/').next().unwrap_or(name).trim_end_matches(" [input]");
            desk.uploads.get(&client.tenant, plain)
        });
        match (name, upload) {
            (Some(name), Some(bytes)) => {
                if seen.insert(name) {
                    found.push((name.to_owned(), bytes));
                }
            }
            _ => {
                let details = format!("image - Invalid image file: {}", name.unwrap_or("expected a name"));
                let message = "Custom validation failed for node";
                faults.push(Fault::input(node, "image", "custom_validation_failed", message, details));
            }
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// The largest size that a node of the workflow names.
fn largest(graph: &Graph) -> Option<(u32, u32)> {
    let side = |node, name| u32::try_from(graph.literal(node, name)?.as_u64()?).ok();
    let sizes = graph.nodes().iter().filter_map(|node| Some((side(node, "width")?, side(node, "height")?)));
    sizes.max_by_key(|(width, height)| u64::from(*width) * u64::from(*height))
}

/// The node that progress is told of: the first with a seed, else the first output.
fn sampler(graph: &Graph, outputs: &[Output]) -> (String, String) {
    let samples = graph
        .nodes()
        .iter()
        .find(|node| ["seed", "steps"].iter().any(|name| node.inputs.contains_key(*name)));
    let output =
        || outputs.first().map(|output| (output.node.clone(), output.class.clone())).unwrap_or_default();
    samples.map_or_else(output, |node| (node.id.clone(), node.class.clone()))
}

/// A workflow's faults in ComfyUI's shape: `execution.py`, `validate_prompt`.
fn refused(faults: &[Fault]) -> Response {
    let mut nodes = Map::new();
    for fault in faults {
        let Some((id, class)) = fault.node.as_deref() else { continue };
        let extra = fault.input.as_ref().map_or_else(|| json!({}), |input| json!({ "input_name": input }));
        let error = json!({
            "type": fault.kind, "message": fault.message, "details": fault.details, "extra_info": extra,
        });
        let empty = || json!({ "errors": [], "dependent_outputs": [], "class_type": class });
        let node = nodes.entry(id.clone()).or_insert_with(empty);
        if let Some(errors) = node.get_mut("errors").and_then(Value::as_array_mut) {
            errors.push(error);
        }
    }
    let all: Vec<String> =
        faults.iter().map(|fault| format!("{}: {}", fault.message, fault.details)).collect();
    let (kind, message) = match faults {
        [fault] if fault.node.is_none() => (fault.kind, fault.message),
        _ => ("prompt_outputs_failed_validation", "Prompt outputs failed validation"),
    };
    let error = json!({ "type": kind, "message": message, "details": all.join("\n"), "extra_info": {} });
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error, "node_errors": nodes }))).into_response()
}
