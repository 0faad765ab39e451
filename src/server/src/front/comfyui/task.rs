//! A prompt's life after its answer: drawn, told of over the WebSocket, and written into the history.

use std::future::Future;
use std::sync::Arc;

use axum::http::HeaderValue;
use cluegate_gate::Reason;
use serde_json::{Map, Value, json};

use super::Desk;
use super::jobs::{Asked, Listed};
use crate::drawing::{Drawing, Update, cut_short};
use crate::outcome::{Finished, Outcome, decision_header};
use crate::pictures::Shown;
use crate::problem::Problem;
use crate::upstream::Progress;

/// Steps that are told of where the upstream counts none.
const HUNDRED: u32 = 100;
/// What a value of an entry of the history takes beside its text, in bytes, about.
const VALUE_BYTES: usize = 64;

/// A file that a client may fetch.
#[derive(Debug)]
pub(super) struct File {
    pub(super) shown: Shown,
    /// `output` or `temp`.
    pub(super) folder: &'static str,
    /// The decision about it.
    pub(super) decision: Option<HeaderValue>,
}

/// A prompt in the history.
#[derive(Debug)]
pub(super) struct Entry {
    /// As ComfyUI writes it: `execution.py`, `task_done`.
    pub(super) json: Value,
    /// What it takes in memory, about.
    pub(super) bytes: usize,
    /// The decisions about its pictures.
    pub(super) decision: Option<HeaderValue>,
}

/// What an entry takes in memory, in bytes, about.
fn entry_bytes(entry: &Value) -> usize {
    let inside = match entry {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(entry_bytes).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + entry_bytes(value)).sum(),
    };
    VALUE_BYTES + inside
}

/// Draws a prompt to its end. Whatever happens, it is off the list afterwards.
pub(super) async fn run(listed: Listed, begun: impl Future<Output = Result<Drawing, Problem>> + Send) {
    let (desk, asked) = (listed.desk(), listed.asked());
    desk.tell_queue(&asked.tenant);
    let mut teller = Teller { desk, asked, messages: Vec::new(), told: (0, 0) };
    let drawing = tokio::select! {
        biased;
        () = asked.cancel.cancelled() => None,
        drawing = begun => Some(drawing),
    };
    let finished = match drawing {
        None => Ok(Finished { outcomes: Vec::new(), failure: None }),
        Some(Err(problem)) => Err(problem),
        Some(Ok(drawing)) => {
            desk.jobs.begin(asked);
            teller.begin();
            teller.follow(drawing).await
        }
    };
    teller.end(finished);
}

/// Tells a prompt's client what becomes of it, and remembers it for the history.
struct Teller<'a> {
    desk: &'a Desk,
    asked: &'a Asked,
    messages: Vec<Value>,
    /// Last step and number of steps that were told.
    told: (u32, u32),
}

impl Teller<'_> {
    fn tell(&self, kind: &str, data: &Value) {
        if let Some(client_id) = &self.asked.client_id {
            self.desk.sockets.tell(&self.asked.tenant, client_id, kind, data);
        }
    }

    /// An event that is kept in the history too: `execution.py`, `add_message`.
    fn note(&mut self, kind: &str, mut data: Value) {
        data["prompt_id"] = json!(self.asked.prompt_id);
        data["timestamp"] = json!(jiff::Timestamp::now().as_millisecond());
        self.tell(kind, &data);
        self.messages.push(json!([kind, data]));
    }

    fn executing(&self, node: Option<&str>) {
        let mut data = json!({ "node": node, "prompt_id": self.asked.prompt_id });
        if node.is_some() {
            data["display_node"] = json!(node);
        }
        self.tell("executing", &data);
    }

    fn begin(&mut self) {
        self.note("execution_start", json!({}));
        self.note("execution_cached", json!({ "nodes": [] }));
        self.executing(Some(&self.asked.sampler.0));
    }

    fn step(&mut self, value: u32, max: u32) {
        if self.told == (value, max) || max == 0 {
            return;
        }
        self.told = (value, max);
        let node = &self.asked.sampler.0;
        self.tell(
            "progress",
            &json!({ "value": value, "max": max, "prompt_id": self.asked.prompt_id, "node": node }),
        );
    }

    fn progress(&mut self, progress: Progress) {
        match (progress.step, progress.steps) {
            (Some(step), Some(steps)) => self.step(step, steps),
            // An upstream that counts steps says no more at the end.
            _ if self.told.1 != 0 && self.told.1 != HUNDRED => {}
            _ => self.step((progress.fraction.clamp(0.0, 1.0) * f64::from(HUNDRED)).round() as u32, HUNDRED),
        }
    }

    async fn follow(&mut self, mut drawing: Drawing) -> Result<Finished, Problem> {
        let (mut progress, canceller) = (drawing.progress().clone(), drawing.canceller().clone());
        let (mut outcomes, mut tells, mut off) = (Vec::new(), true, false);
        loop {
            tokio::select! {
                update = drawing.next() => match update {
                    Some(Update::Preview { step, total, shown, .. }) => {
                        self.step(step, total);
                        if let Some(client_id) = &self.asked.client_id {
                            let (tenant, node) = (&self.asked.tenant, &self.asked.sampler.0);
                            self.desk.sockets.preview(tenant, client_id, &shown, node, &self.asked.prompt_id);
                        }
                    }
                    Some(Update::Outcome(outcome)) => outcomes.push(outcome),
                    Some(Update::End { failure }) => {
                        outcomes.sort_by_key(Outcome::member);
                        return Ok(Finished { outcomes, failure });
                    }
                    None => return Err(cut_short()),
                },
                changed = progress.changed(), if tells => match changed {
                    Ok(()) => {
                        let now = *progress.borrow_and_update();
                        self.progress(now);
                    }
                    Err(_) => tells = false,
                },
                () = self.asked.cancel.cancelled(), if !off => {
                    off = true;
                    canceller.cancel();
                }
            }
        }
    }

    /// Writes the history and tells the end, in the order in which ComfyUI does (`main.py`, `prompt_worker`): whoever
    /// hears the last event finds the history written.
    fn end(mut self, finished: Result<Finished, Problem>) {
        let (outcomes, problem) = match &finished {
            Ok(finished) => (finished.outcomes.as_slice(), finished.problem()),
            Err(problem) => (&[][..], Some(problem.clone())),
        };
        let (outputs, reports) = self.put_files(outcomes);
        let cluegate = json!({ "pictures": reports, "error": problem.as_ref().map(|p| p.kind().code()) });
        let stopped = |outcome: &Outcome| outcome.reason() == Reason::Cancelled;
        let never_begun = outcomes.is_empty() && problem.is_none();
        let interrupted = self.asked.cancel.is_cancelled() && (never_begun || outcomes.iter().any(stopped));
        let failure = match (&problem, outcomes.iter().any(|outcome| outcome.shown().is_some())) {
            (Some(problem), _) => Some((problem.kind().code(), problem.message().to_owned())),
            (None, true) => None,
            (None, false) => outcomes.first().map(|outcome| ("withheld", outcome.message())),
        };
        let success = failure.is_none() && !interrupted;
        self.last_event(interrupted, failure, &cluegate);
        let (asked, desk) = (self.asked, self.desk);
        let meta = |node: &String| {
            (
                node.clone(),
                json!({ "node_id": node, "display_node": node, "parent_node": null, "real_node_id": node }),
            )
        };
        let meta: Map<String, Value> = outputs.keys().map(meta).collect();
        let status = json!({
            "status_str": if success { "success" } else { "error" },
            "completed": success,
            "messages": self.messages,
            "cluegate": cluegate,
        });
        let json = json!({ "prompt": asked.item(), "outputs": outputs, "status": status, "meta": meta });
        let bytes = entry_bytes(&json);
        let entry = Arc::new(Entry { json, bytes, decision: decision_header(outcomes) });
        desk.history.put(&asked.tenant, asked.prompt_id.as_str(), entry, bytes);
        desk.jobs.end(asked);
        desk.tell_queue(&asked.tenant);
        self.executing(None);
    }

    fn last_event(&mut self, interrupted: bool, failure: Option<(&str, String)>, cluegate: &Value) {
        let (node, class) = &self.asked.sampler;
        let at = json!({ "node_id": node, "node_type": class, "executed": [], "cluegate": cluegate });
        match failure {
            _ if interrupted => self.note("execution_interrupted", at),
            Some((code, message)) => {
                let mut data = at;
                data["exception_type"] = json!(format!("cluegate.{code}"));
                data["exception_message"] = json!(message);
                data["traceback"] = json!([]);
                data["current_inputs"] = json!({});
                data["current_outputs"] = json!([]);
                self.note("execution_error", data);
            }
            None => self.note("execution_success", json!({ "cluegate": cluegate })),
        }
    }

    /// Keeps what is shown of each picture as a file. The outputs by node, and a report of each picture.
    fn put_files(&self, outcomes: &[Outcome]) -> (Map<String, Value>, Vec<Value>) {
        let (mut nodes, mut reports) = (Map::new(), Vec::new());
        for output in &self.asked.outputs {
            let range = output.first as usize..(output.first + output.count) as usize;
            let own: Vec<&Outcome> =
                outcomes.iter().filter(|outcome| range.contains(&outcome.member())).collect();
            if own.is_empty() {
                continue;
            }
            let folder = if output.class == "PreviewImage" { "temp" } else { "output" };
            let mut images = Vec::new();
            for outcome in own {
                let name = self.put_file(outcome, folder);
                images.extend(
                    name.as_ref().map(|name| json!({ "filename": name, "subfolder": "", "type": folder })),
                );
                reports.push(self.report(outcome, &output.node, name));
            }
            let data = json!({ "images": images });
            self.executing(Some(&output.node));
            let (node, id) = (&output.node, &self.asked.prompt_id);
            self.tell(
                "executed",
                &json!({ "node": node, "display_node": node, "output": data, "prompt_id": id }),
            );
            nodes.insert(output.node.clone(), data);
        }
        (nodes, reports)
    }

    fn put_file(&self, outcome: &Outcome, folder: &'static str) -> Option<String> {
        let shown = outcome.shown()?.clone();
        let name =
            format!("{}_{:05}_.{}", self.asked.prompt_id, outcome.member() + 1, shown.format().extension());
        let bytes = shown.bytes().len();
        let file = File { shown, folder, decision: decision_header([outcome]) };
        self.desk.files.put(&self.asked.tenant, name.as_str(), Arc::new(file), bytes);
        Some(name)
    }

    fn report(&self, outcome: &Outcome, node: &str, file: Option<String>) -> Value {
        let mut report = outcome.report();
        report["node"] = json!(node);
        report["filename"] = json!(file);
        if let Some(seed) = self.asked.batch_seed
            && outcome.decision().attempts.len() <= 1
        {
            report["seed"] = json!(seed);
        }
        report
    }
}
