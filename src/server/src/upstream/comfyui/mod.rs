//! ComfyUI as the upstream: each order opens a WebSocket with a client id of its own, queues prompts, follows them,
//! fetches what came out of them, and takes them out of the server's history again. ComfyUI `server.py`, `execution.py`,
//! `main.py` (`prompt_worker`, `hijack_progress`) and `script_examples/websockets_api_example.py`.
//!
//! Requests of other dialects are drawn with a workflow that has places for what they say; every picture is a prompt of
//! its own, so that picture `i` has the seed `seed + i`. A client's own workflow is drawn whole.

mod conversation;
mod plan;
mod workflow;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use self::conversation::Conversation;
use self::plan::Plan;
use self::workflow::{Uploaded, Workflows};
use super::http::Http;
use super::{Event, Order, Upstream, UpstreamError, UpstreamErrorKind as Kind};
use crate::comfyui::graph::{Graph, Output};
use crate::comfyui::{UPLOADS, WORKFLOW};
use crate::config::{ConfigError, UpstreamConfig};
use crate::request::{Dialect, PictureRequest};

/// Most nodes of a workflow. Fronts allow fewer.
const MAX_NODES: usize = 2000;
/// How long the server may take to say that it is there.
const READY: Duration = Duration::from_secs(5);
/// Folder for uploads, below the server's folder for what is temporary.
const FOLDER: &str = "cluegate";

/// A ComfyUI server.
pub(super) struct ComfyUi {
    http: Http,
    fingerprint: String,
    batch: u32,
    timeout: Duration,
    answer_bytes: usize,
    model: Option<String>,
    workflows: Workflows,
}

/// What the server says of an upload.
#[derive(Deserialize)]
struct Stored {
    name: String,
    #[serde(default)]
    subfolder: String,
}

impl ComfyUi {
    /// Reads the key, the certificates and the workflow that the configuration names.
    ///
    /// # Errors
    /// If they cannot be read or used.
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let http = Http::new(config)?;
        Ok(Self {
            fingerprint: format!("comfyui {}", http.address()),
            http,
            batch: config.batch,
            timeout: config.timeout,
            answer_bytes: config.answer_bytes,
            model: config.model.clone(),
            workflows: Workflows::open(config)?,
        })
    }

    /// The client's own workflow, if the request has one, and its outputs.
    fn native(&self, request: &PictureRequest) -> Result<Option<(Graph, Vec<Output>)>, UpstreamError> {
        let refuse = |message: String| UpstreamError::new(Kind::Inexpressible, message);
        let parameters = request.native_for(Dialect::ComfyUi);
        let parameters = parameters.map_err(|names| refuse(format!("ComfyUI has no word for: {names}")))?;
        let Some(workflow) = parameters.and_then(|parameters| parameters.get(WORKFLOW)) else {
            return Ok(None);
        };
        let graph = Graph::parse(workflow, MAX_NODES).map_err(|faults| {
            let details = faults.into_iter().next().map(|fault| fault.details);
            refuse(format!("the workflow cannot be read: {}", details.unwrap_or_default()))
        })?;
        let outputs =
            graph.outputs().map_err(|fault| refuse(format!("{}: {}", fault.message, fault.details)))?;
        let total: u32 = outputs.iter().fold(0, |sum, output| sum.saturating_add(output.count));
        if total != request.count {
            return Err(refuse(format!(
                "expected a workflow of {} pictures, got one of {total}",
                request.count
            )));
        }
        if total > self.batch {
            return Err(refuse(format!(
                "the workflow draws {total} pictures at once and at most {} may be (`upstream.batch`); ask for fewer",
                self.batch
            )));
        }
        Ok(Some((graph, outputs)))
    }

    /// Names of the server's files for the pictures that a client's own workflow loads.
    async fn upload_all(
        &self,
        request: &PictureRequest,
        deadline: Instant,
    ) -> Result<BTreeMap<String, String>, UpstreamError> {
        let empty = Map::new();
        let parameters = request.native.as_ref().map_or(&empty, |native| &native.parameters);
        let named = parameters.get(UPLOADS).and_then(Value::as_array).into_iter().flatten();
        let pictures = request.source.iter().flat_map(|source| &source.pictures);
        let mut names = BTreeMap::new();
        for (name, picture) in named.filter_map(Value::as_str).zip(pictures) {
            names.insert(name.to_owned(), self.upload(picture, deadline).await?);
        }
        Ok(names)
    }

    /// Gives the server a picture, under a name that tells its content only, among its temporary files.
    async fn upload(&self, picture: &Bytes, deadline: Instant) -> Result<String, UpstreamError> {
        let digest: String = Sha256::digest(picture).iter().map(|byte| format!("{byte:02x}")).collect();
        let length = picture.len() as u64;
        let part = Part::stream_with_length(picture.clone(), length).file_name(format!("{digest}.png"));
        let form = Form::new()
            .part("image", part)
            .text("type", "temp")
            .text("subfolder", FOLDER)
            .text("overwrite", "true");
        let request = self.http.post("/upload/image").multipart(form);
        let Stored { name, subfolder } = self.http.json(request, deadline).await?;
        let path = if subfolder.is_empty() { name } else { format!("{subfolder}/{name}") };
        // `folder_paths.py`, `annotated_filepath`: the folder stands behind the name.
        Ok(format!("{path} [temp]"))
    }

    async fn upload_source(
        &self,
        request: &PictureRequest,
        deadline: Instant,
    ) -> Result<Uploaded, UpstreamError> {
        let mut files = Uploaded::default();
        if let Some(source) = &request.source {
            if let Some(picture) = source.pictures.first() {
                files.image = Some(self.upload(picture, deadline).await?);
            }
            if let Some(mask) = &source.mask {
                files.mask = Some(self.upload(mask, deadline).await?);
            }
        }
        Ok(files)
    }

    async fn draw_all(&self, order: &Order, talk: &mut Conversation<'_>) -> Result<(), UpstreamError> {
        let request = &order.request;
        let failed = |message: &str| self.http.error(Kind::Failed, message);
        if let Some((graph, outputs)) = self.native(request)? {
            let plan = Plan::native(graph, &outputs, order);
            let mut plan = plan
                .ok_or_else(|| failed("the workflow has no seed, so that it can only draw the same again"))?;
            plan.rename(&self.upload_all(request, order.deadline).await?);
            return talk.draw(&plan, (0, 1)).await;
        }
        let files = self.upload_source(request, order.deadline).await?;
        let workflow = self.workflows.of(request);
        for index in 0..order.count {
            let seed = order.seed.wrapping_add(index.into());
            let graph = workflow.fill(order, seed, self.model.as_deref(), &files);
            let plan = Plan::single(graph, workflow.output(), index);
            talk.draw(&plan, (index, order.count)).await?;
        }
        Ok(())
    }
}

impl Upstream for ComfyUi {
    fn dialect(&self) -> Dialect {
        Dialect::ComfyUi
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn batch_size(&self) -> u32 {
        self.batch
    }

    fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError> {
        if self.native(request)?.is_some() {
            return Ok(());
        }
        self.workflows.of(request).check(request, self.model.as_deref())
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            let gone = events.clone();
            let called_off = async {
                tokio::select! {
                    () = order.cancel.cancelled() => {}
                    () = gone.closed() => {}
                }
            };
            tokio::pin!(called_off);
            let cancelled = || Err(self.http.error(Kind::Cancelled, "the order was called off"));
            let mut talk = tokio::select! {
                biased;
                () = &mut called_off => return cancelled(),
                talk = Conversation::open(self, order, events) => talk?,
            };
            let ended = tokio::select! {
                biased;
                () = &mut called_off => cancelled(),
                ended = self.draw_all(order, &mut talk) => ended,
            };
            talk.close().await;
            ended
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async {
            let request = self.http.get("/prompt");
            self.http.json::<Value>(request, Instant::now() + READY).await.map(drop)
        })
    }

    fn describe(&self, what: &'static str) -> BoxFuture<'_, Result<Option<Value>, UpstreamError>> {
        Box::pin(async move {
            let path = match what {
                "object_info" => "/object_info",
                "embeddings" => "/embeddings",
                _ => return Ok(None),
            };
            let deadline = Instant::now() + self.timeout;
            self.http.json(self.http.get(path), deadline).await.map(Some)
        })
    }
}
