//! A server with OpenAI's Images API behind the gate: `POST /v1/images/generations` and `/v1/images/edits`. Names are
//! those of openai-python 3.54.0 (`types/image_generate_params.py`, `types/image_edit_params.py`,
//! `types/images_response.py`, `types/image_gen_stream_event.py`); what other servers of this API do differently is from
//! stable-diffusion.cpp, `examples/server/routes_openai.cpp` at 0137f16.

mod form;
mod sse;

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::sse::{SseEvent, SseParser};
use super::http::Http;
use super::{
    Event, Order, Progress, Unjudged, Upstream, UpstreamError, UpstreamErrorKind as Kind, few_words,
    send_if_room,
};
use crate::config::{ConfigError, UpstreamConfig};
use crate::request::{Dialect, PictureRequest};

/// Most partial images that the API knows.
const PARTIAL_IMAGES: u32 = 3;
/// Longest wait for a sign of life.
const READY: Duration = Duration::from_secs(10);
/// Most models that are listed.
const MODELS: usize = 1000;

/// A server with OpenAI's Images API.
pub(crate) struct OpenAi {
    http: Http,
    /// What comes before `/images`: nothing if the configured address ends with `/v1` already, as it does in clients.
    prefix: &'static str,
    fingerprint: String,
    model: Option<String>,
    batch: u32,
}

impl OpenAi {
    /// The server that the configuration names.
    ///
    /// # Errors
    /// If its key or certificates cannot be read.
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let http = Http::new(config)?;
        Ok(Self {
            prefix: if http.address().ends_with("/v1") { "" } else { "/v1" },
            fingerprint: format!("openai {}", http.address()),
            model: config.model.clone(),
            batch: config.batch,
            http,
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// A request for `count` pictures; with `partial` a stream of one picture and so many previews.
    async fn request(
        &self,
        order: &Order,
        count: u32,
        partial: Option<u32>,
    ) -> Result<RequestBuilder, UpstreamError> {
        let asked = &order.request;
        let mut words = asked.native_for(Dialect::OpenAi).ok().flatten().cloned().unwrap_or_default();
        words.remove("partial_images");
        words.insert("prompt".to_owned(), json!(asked.prompt));
        words.insert("n".to_owned(), json!(count));
        if let Some((width, height)) = asked.size {
            words.insert("size".to_owned(), json!(format!("{width}x{height}")));
        }
        let model = asked.model.as_ref().or(self.model.as_ref());
        if let Some(model) = model {
            words.insert("model".to_owned(), json!(model));
        }
        // GPT image models always answer so, and refuse to be asked for it.
        if !model.is_some_and(|model| model.starts_with("gpt-image") || model.starts_with("chatgpt-image")) {
            words.insert("response_format".to_owned(), json!("b64_json"));
        }
        if let Some(partial) = partial {
            words.insert("stream".to_owned(), json!(true));
            words.insert("partial_images".to_owned(), json!(partial));
        }
        let request = match &asked.source {
            None => self.http.post(&self.path("/images/generations")).json(&words),
            Some(source) => {
                let form = form::edits(&words, source).await;
                let form = form.map_err(|problem| self.http.error(Kind::Refused, &problem))?;
                self.http.post(&self.path("/images/edits")).multipart(form)
            }
        };
        Ok(request)
    }

    /// Draws all pictures with one call.
    async fn at_once(&self, order: &Order, events: &mpsc::Sender<Event>) -> Result<(), UpstreamError> {
        let request = self.request(order, order.count, None).await?;
        let answer: Answer = self.http.json(request, order.deadline).await?;
        for (index, entry) in (0..order.count).zip(answer.data) {
            self.deliver(index, entry, order.deadline, events).await;
        }
        Ok(())
    }

    /// Draws picture `index` with a call of its own: events do not say which picture of several they belong to.
    async fn streamed(
        &self,
        order: &Order,
        index: u32,
        partial: u32,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), UpstreamError> {
        let request = self.request(order, 1, Some(partial)).await?.header(ACCEPT, "text/event-stream");
        let mut response = self.http.send(request, order.deadline).await?;
        if !is_event_stream(&response) {
            // A server that cannot stream answers as if it had not been asked to.
            let body = self.http.bytes(response).await?;
            let answer: Answer = serde_json::from_slice(&body).map_err(|e| self.http.nonsense(&e))?;
            if let Some(entry) = answer.data.into_iter().next() {
                self.deliver(index, entry, order.deadline, events).await;
            }
            return Ok(());
        }
        let (mut parser, mut read) = (SseParser::default(), 0);
        while let Some(chunk) = self.http.chunk(&mut response, read).await? {
            read += chunk.len();
            for event in parser.push(&chunk) {
                match self.read_event(&event)? {
                    Told::Nothing => {}
                    Told::Partial { number, picture } => {
                        let total = partial + 1;
                        let step = number.saturating_add(1).min(partial);
                        let fraction = f64::from(step) / f64::from(total);
                        let progress = Progress { fraction, ..Progress::default() };
                        send_if_room(events, Event::Progress(progress));
                        let preview = Event::Preview { index, step, total, picture };
                        order.send_preview(events, preview).await;
                    }
                    Told::Finished(entry) => {
                        self.deliver(index, entry, order.deadline, events).await;
                        return Ok(());
                    }
                }
            }
        }
        Err(self.http.error(Kind::Malformed, "its stream ended before the picture was finished"))
    }

    fn read_event(&self, event: &SseEvent) -> Result<Told, UpstreamError> {
        if event.data == b"[DONE]" {
            return Ok(Told::Nothing);
        }
        let frame: Frame = serde_json::from_slice(&event.data).map_err(|e| self.http.nonsense(&e))?;
        let name = frame.kind.as_deref().unwrap_or(&event.name);
        if name == "error" || frame.error.is_some() {
            return Err(self.stream_error(&frame.error.unwrap_or_default()));
        }
        match name {
            "image_generation.partial_image" | "image_edit.partial_image" => {
                let Some(Ok(picture)) = frame.entry.b64_json.as_deref().map(decode) else {
                    return Ok(Told::Nothing);
                };
                Ok(Told::Partial { number: frame.partial_image_index.unwrap_or(0), picture })
            }
            "image_generation.completed" | "image_edit.completed" => Ok(Told::Finished(frame.entry)),
            _ => Ok(Told::Nothing),
        }
    }

    /// Passes on a finished picture, or says why there is none.
    async fn deliver(&self, index: u32, entry: Entry, deadline: Instant, events: &mpsc::Sender<Event>) {
        let event = match self.picture(entry, deadline).await {
            Ok(picture) => Event::Picture { index, picture },
            Err(why) => Event::Failed { index, why },
        };
        // Nobody may be there any more.
        let _ = events.send(event).await;
    }

    async fn picture(&self, entry: Entry, deadline: Instant) -> Result<Unjudged, String> {
        if let Some(withheld) = entry.cluegate.filter(|report| report["outcome"] != "released") {
            // What stands in for a picture is no picture.
            let words = withheld["message"].as_str().unwrap_or("no reason is given");
            return Err(format!("a gate before this one withheld the picture: {}", few_words(words)));
        }
        if let Some(text) = entry.b64_json {
            return decode(&text);
        }
        let Some(address) = entry.url else {
            return Err("the upstream's answer has neither `b64_json` nor `url` for it".to_owned());
        };
        let request = self.http.get_own(&address).ok_or(
            "the upstream names an address on another host for it, where nothing is fetched from; make it answer with \
             `b64_json`",
        )?;
        let bytes = async { self.http.bytes(self.http.send(request, deadline).await?).await };
        bytes.await.map(Unjudged::encoded).map_err(|error| {
            tracing::warn!(%error, "a picture could not be fetched");
            error.told().to_owned()
        })
    }

    /// What a stream says when it fails (`types/shared/error_object.py`): the request's fault where it says so, and the
    /// server's otherwise.
    fn stream_error(&self, error: &Value) -> UpstreamError {
        let blames = ["moderation_blocked", "content_policy_violation"];
        let blames = |word: &str| blames.contains(&word) || word.ends_with("_user_error");
        let refused = ["code", "type"]
            .iter()
            .filter_map(|name| error[*name].as_str())
            .any(|word| blames(word) || word == "invalid_request_error");
        let words = error["message"].as_str().or(error.as_str()).unwrap_or("it does not say why");
        let kind = if refused { Kind::Refused } else { Kind::Failed };
        self.http.error_with(kind, "it failed", words)
    }

    async fn draw_all(&self, order: &Order, events: &mpsc::Sender<Event>) -> Result<(), UpstreamError> {
        match partial_images(order) {
            0 => self.at_once(order, events).await,
            partial => {
                let calls = (0..order.count).map(|index| self.streamed(order, index, partial, events));
                join_all(calls).await.into_iter().collect()
            }
        }
    }
}

impl Upstream for OpenAi {
    fn dialect(&self) -> Dialect {
        Dialect::OpenAi
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn batch_size(&self) -> u32 {
        self.batch
    }

    fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError> {
        let refuse = |message: String| Err(UpstreamError::new(Kind::Inexpressible, message));
        let strength = request.source.as_ref().and_then(|source| source.strength);
        let unknown = [
            ("negative prompt", request.negative_prompt.as_ref().is_some_and(|text| !text.is_empty())),
            ("seed", request.seed.is_some()),
            ("steps", request.steps.is_some()),
            ("guidance", request.guidance.is_some()),
            ("sampler", request.sampler.is_some()),
            ("scheduler", request.scheduler.is_some()),
            ("denoising strength", strength.is_some()),
        ];
        let names: Vec<&str> = unknown.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            return refuse(format!(
                "the upstream speaks OpenAI Images, which has no word for {names}; leave it out"
            ));
        }
        if let Err(names) = request.native_for(Dialect::OpenAi) {
            return refuse(format!(
                "the upstream speaks OpenAI Images and cannot express {names}; leave it out"
            ));
        }
        if request.source.as_ref().is_some_and(|source| source.pictures.is_empty()) {
            return refuse("expected a picture to start from, got none".to_owned());
        }
        Ok(())
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            // The API has no word for giving up: closing the connection is all there is.
            tokio::select! {
                drawn = self.draw_all(order, &events) => drawn,
                () = order.cancel.cancelled() => Err(self.http.error(Kind::Cancelled, "the order was called off")),
                () = events.closed() => Ok(()),
            }
        })
    }

    /// `models`: the names of those that the server lists.
    fn describe(&self, what: &'static str) -> BoxFuture<'_, Result<Option<Value>, UpstreamError>> {
        Box::pin(async move {
            if what != "models" {
                return Ok(None);
            }
            let request = self.http.get(&self.path("/models"));
            let list: Value = match self.http.json(request, Instant::now() + READY).await {
                // Not every server lists them.
                Err(error) if error.kind() == Kind::Refused => return Ok(None),
                list => list?,
            };
            let models = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(Some(
                models.iter().filter_map(|model| model["id"].as_str()).take(MODELS).map(few_words).collect(),
            ))
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async {
            let request = self.http.get(&self.path("/models"));
            match self.http.send(request, Instant::now() + READY).await {
                // Not every server lists models; one that says so is there.
                Err(error) if error.kind() != Kind::Refused => Err(error),
                _ => Ok(()),
            }
        })
    }
}

/// How many previews to ask for. An OpenAI front says how many its client wants; the policy's own looks need all.
fn partial_images(order: &Order) -> u32 {
    if !order.wants_previews() {
        return 0;
    }
    let native = order.request.native_for(Dialect::OpenAi).ok().flatten();
    let wanted = native.and_then(|words| words.get("partial_images")).and_then(Value::as_u64);
    match wanted.and_then(|wanted| u32::try_from(wanted).ok()) {
        Some(wanted) if order.previews.is_empty() => wanted.min(PARTIAL_IMAGES),
        _ => PARTIAL_IMAGES,
    }
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// A picture in base64; some servers write it as a data URL.
fn decode(text: &str) -> Result<Unjudged, String> {
    let text = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map_or("", |(_, text)| text),
        None => text,
    };
    let bytes = base64_simd::STANDARD.decode_to_vec(text.trim());
    bytes.map(Unjudged::encoded).map_err(|_| "the upstream's `b64_json` for it is not base64".to_owned())
}

/// `types/images_response.py`, as much as is used.
#[derive(Deserialize)]
struct Answer {
    data: Vec<Entry>,
}

/// `types/image.py`, and what another gate adds to it.
#[derive(Deserialize, Default)]
struct Entry {
    b64_json: Option<String>,
    url: Option<String>,
    cluegate: Option<Value>,
}

/// An event of a stream: `types/image_gen_partial_image_event.py`, `image_gen_completed_event.py`, the same for edits,
/// and an error.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: Option<String>,
    partial_image_index: Option<u32>,
    error: Option<Value>,
    #[serde(flatten)]
    entry: Entry,
}

/// What an event tells.
enum Told {
    Nothing,
    Partial { number: u32, picture: Unjudged },
    Finished(Entry),
}
