//! Streamed answers: `types/image_gen_partial_image_event.py`, `types/image_gen_completed_event.py`, the same for edits,
//! and the error of `_streaming.py`, after which a client reads no further.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::answer::{self, format_name, nothing, now, size};
use super::params::Shape;
use crate::body::Taken;
use crate::drawing::{Drawing, Update, cut_short};
use crate::outcome::{Finished, Outcome};
use crate::pictures::Shown;

/// The answer to a streamed request. When the client goes away it is dropped, and the drawing with it.
pub(super) fn respond(drawing: Drawing, shape: Shape, partial_images: u32, taken: Taken) -> Response {
    let streaming = Streaming {
        drawing,
        teller: Teller { shape, partial_images, partial: BTreeMap::new(), outcomes: Vec::new(), kept: 0 },
        ready: VecDeque::new(),
        over: false,
        _taken: taken,
    };
    let events = stream::unfold(streaming, |mut streaming| async move {
        let event = streaming.next().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

struct Streaming {
    drawing: Drawing,
    teller: Teller,
    ready: VecDeque<(String, Value)>,
    over: bool,
    /// The pictures to start from are in memory until then.
    _taken: Taken,
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((name, data)) = self.ready.pop_front() {
                return Some(Event::default().event(name).data(data.to_string()));
            }
            if self.over {
                return None;
            }
            match self.drawing.next().await {
                Some(Update::Preview { member, step, total, shown }) => {
                    self.ready.extend(self.teller.preview(member, (step, total), &shown));
                }
                Some(Update::Outcome(outcome)) => self.ready.extend(self.teller.outcome(outcome)),
                Some(Update::End { failure }) => {
                    self.over = true;
                    self.ready.extend(self.teller.end(failure));
                }
                None => {
                    self.over = true;
                    self.ready.push_back(failed(answer::error(&cut_short(), None)));
                }
            }
        }
    }
}

/// Says what to tell when.
struct Teller {
    shape: Shape,
    /// Most partial images of a picture.
    partial_images: u32,
    /// Partial images so far, by picture.
    partial: BTreeMap<usize, u32>,
    outcomes: Vec<Outcome>,
    /// How many of them were withheld before anything was released, and are not told yet.
    kept: usize,
}

impl Teller {
    /// Spreads the partial images over the steps: picture `i` of `n` comes after `(i + 1) / (n + 1)` of them.
    fn preview(
        &mut self,
        member: usize,
        (step, total): (u32, u32),
        shown: &Shown,
    ) -> Option<(String, Value)> {
        let sent = self.partial.entry(member).or_default();
        let due =
            u64::from(step) * u64::from(self.partial_images + 1) >= u64::from(total) * u64::from(*sent + 1);
        if *sent >= self.partial_images || !due {
            return None;
        }
        let index = *sent;
        *sent += 1;
        let mut event = self.event("partial_image", Some(shown));
        event["partial_image_index"] = json!(index);
        event["cluegate"] = json!({ "member": member, "step": step, "steps": total });
        Some((self.shape.task.event("partial_image"), event))
    }

    /// A picture that was withheld is told as one among others. While there are no others it waits: whether the whole
    /// request was blocked is an error, and nobody reads on after an error.
    fn outcome(&mut self, outcome: Outcome) -> Vec<(String, Value)> {
        self.outcomes.push(outcome);
        if !self.outcomes.iter().any(Outcome::is_released) {
            return Vec::new();
        }
        let told: Vec<_> = self.outcomes[self.kept..].iter().map(|outcome| self.completed(outcome)).collect();
        self.kept = self.outcomes.len();
        told
    }

    fn end(&mut self, failure: Option<crate::upstream::UpstreamError>) -> Option<(String, Value)> {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        outcomes.sort_by_key(Outcome::member);
        nothing(&Finished { outcomes, failure }).map(|nothing| failed(nothing.error()))
    }

    fn completed(&self, outcome: &Outcome) -> (String, Value) {
        let mut event = self.event("completed", outcome.shown());
        // The gate counts no tokens, and the type wants figures.
        let details = json!({ "image_tokens": 0, "text_tokens": 0 });
        event["usage"] = json!({ "input_tokens": 0, "input_tokens_details": details, "output_tokens": 0, "total_tokens": 0 });
        if let Some(identifier) = &self.shape.safety_identifier {
            event["safety_identifier"] = json!(identifier);
        }
        event["cluegate"] = outcome.report();
        (self.shape.task.event("completed"), event)
    }

    fn event(&self, what: &str, shown: Option<&Shown>) -> Value {
        json!({
            "type": self.shape.task.event(what),
            "b64_json": shown.map(Shown::base64),
            "background": "opaque",
            "created_at": now(),
            "output_format": format_name(self.shape.format),
            "quality": self.shape.quality.as_deref().unwrap_or("auto"),
            "size": shown.map_or_else(|| "auto".to_owned(), size),
        })
    }
}

fn failed(error: Value) -> (String, Value) {
    ("error".to_owned(), json!({ "type": "error", "error": error }))
}
