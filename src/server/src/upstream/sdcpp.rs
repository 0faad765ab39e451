//! stable-diffusion.cpp's own jobs as an upstream: submit, ask until it is done, cancel.
//!
//! The protocol is that of `examples/server/routes_sdcpp.cpp`, `async_jobs.cpp` and `api.md` of leejet/stable-diffusion.cpp
//! at commit 97d2990807fe; how a request's fields are read is in `examples/common/common.cpp` (`from_json_str`), which
//! passes over names that it does not know: they are refused here.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::http::Http;
use super::{
    Event, Order, Progress, Unjudged, Upstream, UpstreamError, UpstreamErrorKind as Kind, send_if_room,
};
use crate::config::{ConfigError, UpstreamConfig};
use crate::request::{Dialect, PictureRequest};

/// Most pictures of one job (`max_batch_count` in `routes_sdcpp.cpp`).
const MOST_PICTURES: u32 = 8;
/// How often in a row the server may not answer while it draws.
const MISSED_ANSWERS: u32 = 3;
/// Longest wait for the server to take note that a job is cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(5);
/// Longest name of a job.
const LONGEST_ID: usize = 128;

/// Sampling methods (`sample_method_to_str` in `src/stable-diffusion.cpp`).
pub(crate) const SAMPLERS: [&str; 21] = [
    "euler",
    "euler_a",
    "heun",
    "dpm2",
    "dpm++2s_a",
    "dpm++2m",
    "dpm++2mv2",
    "ipndm",
    "ipndm_v",
    "lcm",
    "ddim_trailing",
    "tcd",
    "res_multistep",
    "res_2s",
    "er_sde",
    "euler_cfg_pp",
    "euler_a_cfg_pp",
    "euler_ge",
    "dpm++2m_sde",
    "dpm++2m_sde_bt",
    "lms",
];

/// Noise schedules (`scheduler_to_str` there, and `normal`, another word for `discrete`).
pub(crate) const SCHEDULERS: [&str; 17] = [
    "discrete",
    "normal",
    "karras",
    "exponential",
    "ays",
    "gits",
    "sgm_uniform",
    "simple",
    "smoothstep",
    "kl_optimal",
    "lcm",
    "bong_tangent",
    "ltx2",
    "logit_normal",
    "flux2",
    "flux",
    "beta",
];

/// Other servers' words for samplers, in lower case with the server's own (`get_sdapi_sample_method` in
/// `examples/server/routes_sdapi.cpp`).
const ALIASES: [(&str, &str); 8] = [
    ("euler a", "euler_a"),
    ("euler_ancestral", "euler_a"),
    ("dpm++ 2m", "dpm++2m"),
    ("dpmpp_2m", "dpm++2m"),
    ("dpm++ 2m sde", "dpm++2m_sde"),
    ("dpmpp_2m_sde", "dpm++2m_sde"),
    ("dpm_2", "dpm2"),
    ("ddim", "ddim_trailing"),
];

/// A server with `/sdcpp/v1`.
pub(super) struct SdCpp {
    http: Http,
    fingerprint: String,
    batch: u32,
    model: Option<String>,
    poll: Duration,
}

impl SdCpp {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let http = Http::new(config)?;
        Ok(Self {
            fingerprint: format!("sdcpp {}", http.address()),
            http,
            batch: config.batch.min(MOST_PICTURES),
            model: config.model.clone(),
            poll: config.poll,
        })
    }

    /// Submits the job and returns its name.
    async fn submit(&self, order: &Order) -> Result<String, UpstreamError> {
        let request = self.http.post("/sdcpp/v1/img_gen").json(&body(order)?);
        let submitted: Submitted = self.http.json(request, order.deadline).await?;
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=LONGEST_ID).contains(&submitted.id.len()) && submitted.id.bytes().all(harmless) {
            return Ok(submitted.id);
        }
        Err(self.http.error(Kind::Malformed, "expected a job's id of letters, digits, `_` and `-`"))
    }

    /// Asks for the job until it has ended.
    async fn follow(
        &self,
        order: &Order,
        id: &str,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), UpstreamError> {
        let (mut missed, mut told) = (0, false);
        loop {
            let request = self.http.get(&format!("/sdcpp/v1/jobs/{id}"));
            let job: Job = match self.http.json(request, order.deadline).await {
                Ok(job) => job,
                Err(error) if error.kind() == Kind::Unreachable && missed < MISSED_ANSWERS => {
                    missed += 1;
                    tokio::time::sleep(self.poll).await;
                    continue;
                }
                // That it does not know the job is no fault of the client's.
                Err(error) if error.kind() == Kind::Refused => {
                    return Err(error.of_kind(Kind::Failed));
                }
                Err(error) => return Err(error),
            };
            missed = 0;
            match job.status.as_str() {
                "queued" => {}
                "generating" if told => {}
                "generating" => {
                    told = true;
                    send_if_room(events, Event::Progress(Progress::default()));
                }
                "completed" => return self.deliver(order, job, events).await,
                "failed" | "cancelled" => return Err(self.failure(&job)),
                _ => {
                    let expected = "expected the status queued, generating, completed, failed or cancelled";
                    return Err(self.http.error(Kind::Malformed, expected));
                }
            }
            tokio::time::sleep(self.poll).await;
        }
    }

    async fn deliver(
        &self,
        order: &Order,
        job: Job,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), UpstreamError> {
        let mut images = job.result.map(|result| result.images).unwrap_or_default();
        images.sort_by_key(|image| image.index);
        // The server leaves out pictures that it could not encode and numbers the others anew: which seed is whose cannot be
        // told then.
        let numbered = images.iter().enumerate().all(|(index, image)| image.index as usize == index);
        if images.len() != order.count as usize || !numbered {
            let what = format!("expected {} pictures, numbered from 0, got {}", order.count, images.len());
            return Err(self.http.error(Kind::Malformed, &what));
        }
        for image in images {
            let index = image.index;
            let event = match base64_simd::STANDARD.decode_to_vec(image.b64_json.trim()) {
                Ok(bytes) => Event::Picture { index, picture: Unjudged::encoded(bytes) },
                Err(_) => Event::Failed { index, why: "its picture is no base64".to_owned() },
            };
            if events.send(event).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn failure(&self, job: &Job) -> UpstreamError {
        let said = job.error.as_ref().map(|error| format!("{}: {}", error.code, error.message));
        let what = format!("the job ended as {}", job.status);
        self.http.error_with(Kind::Failed, &what, &said.unwrap_or_default())
    }

    /// Takes the job from the queue. One that is being drawn cannot be stopped: the server says so with 409, and draws on
    /// for nobody.
    async fn cancel(&self, id: &str) {
        let deadline = std::time::Instant::now() + CANCEL_TIME;
        let request = self.http.post(&format!("/sdcpp/v1/jobs/{id}/cancel"));
        if let Err(error) = self.http.send(request, deadline).await {
            tracing::info!(%error, "a job was not cancelled");
        }
    }
}

impl Upstream for SdCpp {
    fn dialect(&self) -> Dialect {
        Dialect::SdCpp
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn batch_size(&self) -> u32 {
        self.batch
    }

    fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError> {
        let refuse = |what: String| {
            let message = format!("stable-diffusion.cpp cannot express {what}");
            Err(UpstreamError::new(Kind::Inexpressible, message))
        };
        if let Err(names) = request.native_for(Dialect::SdCpp) {
            return refuse(format!("{names}; leave it out"));
        }
        if let Some(name) = &request.model
            && Some(name) != self.model.as_ref()
        {
            return refuse(format!("the model {name:?}: it has one, chosen when it starts"));
        }
        if let Some(name) = request.sampler.as_deref().filter(|name| sampler(name).is_none()) {
            return refuse(format!("the sampler {name:?}; it knows {}", SAMPLERS.join(", ")));
        }
        if let Some(name) = request.scheduler.as_deref().filter(|name| scheduler(name).is_none()) {
            return refuse(format!("the noise schedule {name:?}; it knows {}", SCHEDULERS.join(", ")));
        }
        let pictures = request.source.as_ref().map_or(1, |source| source.pictures.len());
        if pictures != 1 {
            return refuse(format!("{pictures} pictures to start from; it starts from one"));
        }
        let last = request.seed.unwrap_or_default().checked_add(request.count.into());
        if last.is_none_or(|last| i64::try_from(last).is_err()) {
            return refuse("seeds beyond 2^63".to_owned());
        }
        Ok(())
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            // Not left in the middle: a job whose name is not known cannot be cancelled.
            let id = self.submit(order).await?;
            let ended = tokio::select! {
                ended = self.follow(order, &id, &events) => match ended {
                    Err(error) if matches!(error.kind(), Kind::Timeout | Kind::Malformed) => Err(error),
                    ended => return ended,
                },
                () = order.cancel.cancelled() => {
                    Err(UpstreamError::new(Kind::Cancelled, "the order was called off"))
                }
                () = events.closed() => Err(UpstreamError::new(Kind::Cancelled, "nobody waits for the order")),
            };
            self.cancel(&id).await;
            ended
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async {
            let deadline = std::time::Instant::now() + CANCEL_TIME;
            let request = self.http.get("/sdcpp/v1/capabilities");
            let told: Capabilities = self.http.json(request, deadline).await?;
            if told.supported_modes.iter().any(|mode| mode == "img_gen") {
                return Ok(());
            }
            Err(self.http.error(Kind::Failed, "its model draws no pictures: it lacks the mode img_gen"))
        })
    }
}

/// What the server answers to a submission.
#[derive(Deserialize)]
struct Submitted {
    id: String,
}

/// `make_async_job_json` in `async_jobs.cpp`, as far as it matters here.
#[derive(Deserialize)]
struct Job {
    status: String,
    #[serde(default)]
    result: Option<JobResult>,
    #[serde(default)]
    error: Option<JobError>,
}

#[derive(Deserialize)]
struct JobResult {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    index: u32,
    b64_json: String,
}

#[derive(Deserialize)]
struct JobError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Capabilities {
    #[serde(default)]
    supported_modes: Vec<String>,
}

/// The server's word for a sampler.
fn sampler(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let name = name.strip_prefix("k_").unwrap_or(&name);
    let alias = || ALIASES.iter().find(|(other, _)| *other == name).map(|(_, own)| *own);
    SAMPLERS.into_iter().find(|own| *own == name).or_else(alias)
}

/// The server's word for a noise schedule.
fn scheduler(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace([' ', '-'], "_");
    SCHEDULERS.into_iter().find(|own| *own == name)
}

/// The request as the server reads it.
fn body(order: &Order) -> Result<Value, UpstreamError> {
    let request = &order.request;
    let mut body = Map::new();
    let native = request
        .native_for(Dialect::SdCpp)
        .map_err(|names| UpstreamError::new(Kind::Inexpressible, format!("it cannot express {names}")))?;
    for (path, value) in native.into_iter().flatten() {
        set(&mut body, path, value.clone());
    }
    // Ours come last: nothing that a client names stands above them.
    let mut own = |path: &str, value: Option<Value>| {
        if let Some(value) = value {
            set(&mut body, path, value);
        }
    };
    own("prompt", Some(json!(request.prompt)));
    own("negative_prompt", Some(json!(order.negative_prompt().unwrap_or_default())));
    own("batch_count", Some(json!(order.count)));
    own("seed", Some(json!(order.seed)));
    own("width", request.size.map(|(width, _)| json!(width)));
    own("height", request.size.map(|(_, height)| json!(height)));
    own("sample_params.sample_steps", request.steps.map(Value::from));
    own("sample_params.guidance.txt_cfg", request.guidance.map(Value::from));
    own("sample_params.sample_method", request.sampler.as_deref().and_then(sampler).map(Value::from));
    own("sample_params.scheduler", request.scheduler.as_deref().and_then(scheduler).map(Value::from));
    if let Some(source) = &request.source {
        own("init_image", source.pictures.first().map(|bytes| json!(BASE64_STANDARD.encode(bytes))));
        own("mask_image", source.mask.as_ref().map(|bytes| json!(BASE64_STANDARD.encode(bytes))));
        own("strength", source.strength.map(Value::from));
    }
    own("output_format", Some(json!("png")));
    own("embed_image_metadata", Some(json!(false)));
    Ok(Value::Object(body))
}

/// Puts `value` at a dotted path.
pub(crate) fn set(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = object.entry(first).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
