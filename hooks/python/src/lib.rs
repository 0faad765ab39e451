//! The gate in a Python process.
//!
//! ```python
//! gate = cluegate.Gate(policy="policy.toml", log="decisions.jsonl")
//! session = gate.open("kids", "a cat on a beach", seed=1)
//! told, picture = session.finished(0, width, height, rgb)
//! ```
//!
//! It is the session of `cluegate-gate` and nothing beside it: the only pixels that come back are those that a session
//! released. Answers are pairs of a JSON text, shaped like the answers of `/v1/sessions`, and `(width, height, rgb)` or
//! None. The packages `cluegate-diffusers` and the hooks for ComfyUI and the web UI turn them into types.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluegate_core::Engine;
use cluegate_core::gate::{
    DecisionLog, DecisionRecord, Gate as CoreGate, HeldPicture, Instruction, JsonlLog, MemberOutcome,
    MemoryLog, Policies, PreviewInstruction, RequestInfo, Session as CoreSession,
};
use cluegate_core::perception::Picture;
use image::RgbImage;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Value, json};

/// Decisions that a gate without a log file remembers.
const REMEMBERED: usize = 1024;

/// Pixels on their way to Python: width, height, and three bytes a pixel.
type Pixels<'py> = Option<(u32, u32, Bound<'py, PyBytes>)>;
/// An answer: JSON, and pixels if there are any.
type Answer<'py> = (String, Pixels<'py>);

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn runtime_error(error: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// A gate over the embedded models, or over a models file.
#[pyclass(frozen, module = "cluegate")]
struct Gate {
    gate: CoreGate,
    review: Option<PathBuf>,
}

#[pymethods]
impl Gate {
    /// Opens the models and prepares every tenant of the policy. `policy` is a file (the shipped default policy with the
    /// tenant `default` if there is none), `models` a preset or a models file (the embedded models if there is none), `log`
    /// the file of the decision log, and `review` the folder for pictures that wait for a person. Raises ValueError if any of
    /// them cannot be used.
    #[new]
    #[pyo3(signature = (policy=None, *, models=None, log=None, review=None))]
    fn new(
        py: Python<'_>,
        policy: Option<PathBuf>,
        models: Option<PathBuf>,
        log: Option<PathBuf>,
        review: Option<PathBuf>,
    ) -> PyResult<Self> {
        py.detach(move || {
            let policies = match policy {
                Some(path) => Policies::load(path).map_err(value_error)?,
                None => Policies::shipped_default().map_err(value_error)?,
            };
            let log: Arc<dyn DecisionLog> = match log {
                Some(path) => Arc::new(JsonlLog::open(path).map_err(value_error)?),
                None => Arc::new(MemoryLog::new(REMEMBERED)),
            };
            let engine = Engine::open(models.as_deref()).map_err(value_error)?;
            let gate = CoreGate::new(&policies, Arc::new(engine.judges(false)), log).map_err(value_error)?;
            gate.prepare_all().map_err(value_error)?;
            Ok(Self { gate, review })
        })
    }

    /// Opens a session for a request of `tenant`. Raises ValueError if there is no such tenant, or the request is over one of
    /// its limits. `timeout` is in seconds.
    #[pyo3(signature = (tenant, prompt, *, count=1, seed=0, steps=0, size=None, model=None, generator=None, max_tries=None,
                        request_id=None, subject=None, timeout=None))]
    // The arguments are keywords in Python.
    #[allow(clippy::too_many_arguments)]
    fn open(
        &self,
        tenant: String,
        prompt: String,
        count: u32,
        seed: u64,
        steps: u32,
        size: Option<(u32, u32)>,
        model: Option<String>,
        generator: Option<String>,
        max_tries: Option<u32>,
        request_id: Option<String>,
        subject: Option<String>,
        timeout: Option<f64>,
    ) -> PyResult<Session> {
        let timeout = timeout.map(Duration::try_from_secs_f64).transpose().map_err(value_error)?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let info = RequestInfo {
            id: request_id,
            model,
            generator,
            subject,
            size,
            max_tries,
            deadline,
            ..RequestInfo::new(tenant, prompt, seed, count)
        };
        let session = self.gate.session(info).map_err(value_error)?;
        let policy = session.policy();
        let previews = (1..steps).filter(|step| policy.previews.is_due(*step, steps)).collect();
        let tries = max_tries.map_or(policy.tries, |host| host.clamp(1, policy.tries));
        Ok(Session {
            seeds: (0..session.count()).map(|member| session.first_seed(member)).collect(),
            tries,
            preview_steps: previews,
            request_id: session.request_id().to_owned(),
            session: Mutex::new(Some(session)),
            review: self.review.clone(),
        })
    }
}

/// A request in the hands of the gate. Dropped, it withholds what has no decision.
#[pyclass(frozen, module = "cluegate")]
struct Session {
    session: Mutex<Option<CoreSession>>,
    review: Option<PathBuf>,
    /// The gate's name for the request.
    #[pyo3(get)]
    request_id: String,
    /// Seed of each picture's first attempt.
    #[pyo3(get)]
    seeds: Vec<u64>,
    /// Most attempts at one picture.
    #[pyo3(get)]
    tries: u32,
    /// Finished steps after which the policy wants to see a preview.
    #[pyo3(get)]
    preview_steps: Vec<u32>,
}

#[pymethods]
impl Session {
    /// Judges a finished picture and says what to do with it.
    fn finished<'py>(
        &self,
        py: Python<'py>,
        member: usize,
        width: u32,
        height: u32,
        rgb: &[u8],
    ) -> PyResult<Answer<'py>> {
        let picture = picture(width, height, rgb)?;
        let told = py.detach(|| self.with(|session| session.finished(member, picture)))?;
        Ok(self.told(told).into_python(py))
    }

    /// Judges a preview after `step` of `total` steps, if the policy wants to see one, and says whether to draw on.
    #[pyo3(signature = (member, step, total, width, height, rgb))]
    // The arguments are a point in the loop and a picture.
    #[allow(clippy::too_many_arguments)]
    fn preview<'py>(
        &self,
        py: Python<'py>,
        member: usize,
        step: u32,
        total: u32,
        width: u32,
        height: u32,
        rgb: &[u8],
    ) -> PyResult<Answer<'py>> {
        let picture = picture(width, height, rgb)?;
        let told = py.detach(|| {
            self.with(|session| {
                if !session.wants_preview(member, step, total) {
                    return Ok(PreviewInstruction::Continue(None));
                }
                session.preview(member, step, total, &picture)
            })
        })?;
        let told = match told {
            PreviewInstruction::Continue(shown) => Told {
                json: json!({ "instruction": "continue" }),
                pixels: shown.map(|shown| shown.pixels().clone()),
            },
            PreviewInstruction::Abort(then) => {
                let then = self.told(then);
                Told { json: json!({ "instruction": "abort", "then": then.json }), pixels: then.pixels }
            }
        };
        Ok(told.into_python(py))
    }

    /// Says that no picture was made; `why` completes "the generator failed: ...".
    fn failed<'py>(&self, py: Python<'py>, member: usize, why: &str) -> PyResult<Answer<'py>> {
        let told = py.detach(|| self.with(|session| session.generator_failed(member, why)))?;
        Ok(self.told(told).into_python(py))
    }

    /// Ends the session: JSON with one outcome for each picture. What has no decision is withheld.
    fn close(&self, py: Python<'_>) -> PyResult<String> {
        let taken = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        let session = taken.ok_or_else(closed)?;
        let report = py.detach(move || session.close());
        let outcomes: Vec<Value> = report.decisions.iter().map(|decision| report_of(decision)).collect();
        Ok(json!({ "outcomes": outcomes }).to_string())
    }
}

impl Session {
    fn with<T>(
        &self,
        act: impl FnOnce(&mut CoreSession) -> Result<T, cluegate_core::gate::GateError>,
    ) -> PyResult<T> {
        // A session whose call panicked withholds what it has no decision on; it is not used any more.
        let mut session = self.session.lock().map_err(runtime_error)?;
        act(session.as_mut().ok_or_else(closed)?).map_err(value_error)
    }

    fn told(&self, instruction: Instruction) -> Told {
        let outcome = match instruction.into_outcome() {
            Ok(outcome) => outcome,
            Err(again) => {
                let json = json!({
                    "instruction": "draw_again", "attempt": again.attempt, "seed": again.seed,
                    "strategy": again.strategy.as_str(), "prompt": again.prompt, "avoid": again.avoid,
                    "message": again.message,
                });
                return Told { json, pixels: None };
            }
        };
        let json = |instruction: &str| json!({ "instruction": instruction, "outcome": report_of(outcome.decision()) });
        match &outcome {
            MemberOutcome::Released(picture) => {
                Told { json: json("release"), pixels: Some(picture.pixels().clone()) }
            }
            MemberOutcome::Withheld(withheld) => {
                Told { json: json("withhold"), pixels: withheld.placeholder().map(|it| it.pixels().clone()) }
            }
            MemberOutcome::Held(held) => {
                let mut json = json("hold");
                // The requester gets nothing of it either way.
                if let Err(problem) = self.keep(held) {
                    json["review_problem"] = Value::from(problem.to_string());
                }
                Told { json, pixels: held.placeholder().map(|it| it.pixels().clone()) }
            }
        }
    }

    /// Writes a held picture for whoever reviews it.
    fn keep(&self, held: &HeldPicture) -> Result<(), Box<dyn std::error::Error>> {
        let folder: &Path = self.review.as_deref().ok_or("the gate was opened without a `review` folder")?;
        std::fs::create_dir_all(folder)?;
        let file = folder.join(format!("{}.png", held.decision().decision_id));
        Ok(std::fs::write(file, held.encode_png_for_review()?)?)
    }
}

/// An answer that is not in Python yet.
struct Told {
    json: Value,
    pixels: Option<RgbImage>,
}

impl Told {
    fn into_python(self, py: Python<'_>) -> Answer<'_> {
        let pixels = self.pixels.map(|it| (it.width(), it.height(), PyBytes::new(py, it.as_raw())));
        (self.json.to_string(), pixels)
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("the session is closed")
}

/// A picture of `rgb`, three bytes a pixel, row by row.
fn picture(width: u32, height: u32, rgb: &[u8]) -> PyResult<Picture> {
    let image =
        RgbImage::from_raw(width, height, rgb.to_vec()).filter(|image| image.as_raw().len() == rgb.len());
    let image = image.ok_or_else(|| {
        value_error(format!("expected {width} x {height} x 3 bytes of pixels, got {}", rgb.len()))
    })?;
    Ok(Picture::new(image))
}

/// What became of a picture, with the evidence: whoever runs the process may see it.
fn report_of(decision: &DecisionRecord) -> Value {
    let last = decision.attempts.last();
    json!({
        "decision_id": decision.decision_id,
        "member": decision.member,
        "outcome": decision.outcome,
        "reason": decision.reason.as_str(),
        "message": decision.message,
        "seed": last.map_or(decision.request.seed.wrapping_add(u64::from(decision.member)), |attempt| attempt.seed),
        "violated": decision.violated,
        "action": decision.action,
        "evidence": last.and_then(|attempt| attempt.judgment.as_ref()).and_then(|judged| judged.evidence.clone()),
    })
}

/// The gate in a Python process.
#[pymodule]
fn cluegate(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Gate>()?;
    module.add_class::<Session>()
}
