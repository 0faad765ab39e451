//! What is in work for a tenant, as `/sdapi/v1/progress` tells it, and its end by `/interrupt` and `/skip`
//! (`modules/api/api.py`, `progressapi`; `modules/shared_state.py`, `State.dict`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::Desk;
use crate::app::App;
use crate::client::Client;
use crate::pictures::Shown;
use crate::running;

/// Whose request, and its id.
type Key = (Arc<str>, String);

/// Requests of this front that are in work, with what only this front wants to know of them.
#[derive(Debug, Default)]
pub(super) struct Work(Mutex<HashMap<Key, Entry>>);

#[derive(Debug, Clone)]
struct Entry {
    job: &'static str,
    /// For people and clients: when it began.
    timestamp: String,
    begun: Instant,
    preview: Option<Shown>,
    interrupted: bool,
}

/// A request in work. Dropped, it is none any more.
#[derive(Debug)]
pub(super) struct Working {
    desk: Arc<Desk>,
    key: Key,
}

impl Working {
    /// Puts a request on the list; `job` is `txt2img` or `img2img`.
    pub(super) fn begin(desk: &Arc<Desk>, tenant: &Arc<str>, id: &str, job: &'static str) -> Self {
        let key = (Arc::clone(tenant), id.to_owned());
        let timestamp = jiff::Zoned::now().strftime("%Y%m%d%H%M%S").to_string();
        let entry = Entry { job, timestamp, begun: Instant::now(), preview: None, interrupted: false };
        desk.work.lock().insert(key.clone(), entry);
        Self { desk: Arc::clone(desk), key }
    }

    /// Keeps the newest preview. It was judged.
    pub(super) fn show(&self, preview: Shown) {
        if let Some(entry) = self.desk.work.lock().get_mut(&self.key) {
            entry.preview = Some(preview);
        }
    }

    /// Whether its tenant interrupted it.
    pub(super) fn is_interrupted(&self) -> bool {
        self.desk.work.lock().get(&self.key).is_some_and(|entry| entry.interrupted)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.desk.work.lock().remove(&self.key);
    }
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        // Nothing that runs under the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant's oldest request in work: the web UI draws one after another, and tells of that one.
    fn oldest(&self, app: &App, tenant: &Arc<str>) -> Option<(running::Entry, Entry)> {
        let entries = self.lock();
        app.running.of(tenant).into_iter().find_map(|running| {
            let entry = entries.get(&(Arc::clone(tenant), running.request_id.clone()))?.clone();
            Some((running, entry))
        })
    }
}

/// `GET /sdapi/v1/progress`: how far the tenant's oldest request is. Its picture is the newest preview that was judged and
/// may be seen, or none.
pub(super) async fn progress(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    RawQuery(query): RawQuery,
) -> Json<Value> {
    let Some((running, entry)) = desk.work.oldest(&app, &client.tenant) else {
        return Json(told((0.0, 0.0), state(None), None));
    };
    let now = *running.progress.borrow();
    // Above 0, as the web UI says of whatever has begun.
    let fraction = (0.01 + now.fraction.clamp(0.0, 1.0)).min(1.0);
    let eta = entry.begun.elapsed().as_secs_f64() * (1.0 / fraction - 1.0);
    let steps = (now.step.unwrap_or(0), now.steps.unwrap_or(0));
    let done = (now.fraction.clamp(0.0, 1.0) * f64::from(running.count)) as u32;
    let picture = entry.preview.as_ref().filter(|_| !skips_picture(query.as_deref())).map(Shown::base64);
    let mut answer = told((fraction, eta), state(Some((&entry, running.count, done, steps))), picture);
    answer["current_task"] = running.request_id.into();
    Json(answer)
}

fn told((progress, eta): (f64, f64), state: Value, picture: Option<String>) -> Value {
    json!({
        "progress": progress, "eta_relative": eta, "state": state, "current_image": picture, "textinfo": null,
    })
}

fn state(of: Option<(&Entry, u32, u32, (u32, u32))>) -> Value {
    let interrupted = of.is_some_and(|(entry, ..)| entry.interrupted);
    let (count, done, (step, steps)) =
        of.map_or((0, 0, (0, 0)), |(_, count, done, steps)| (count, done, steps));
    json!({
        "skipped": false,
        "interrupted": interrupted,
        "stopping_generation": false,
        "job": of.map_or("", |(entry, ..)| entry.job),
        "job_count": count,
        "job_timestamp": of.map_or("0", |(entry, ..)| entry.timestamp.as_str()),
        "job_no": done,
        "sampling_step": step,
        "sampling_steps": steps,
    })
}

fn skips_picture(query: Option<&str>) -> bool {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut asked = pairs.filter(|(name, _)| *name == "skip_current_image");
    asked.next().is_some_and(|(_, value)| matches!(&*value.to_ascii_lowercase(), "true" | "1" | "yes" | "on"))
}

/// `POST /sdapi/v1/interrupt`: ends the tenant's oldest request, the one that `/progress` tells of.
pub(super) async fn interrupt(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
) -> Json<Value> {
    stop(&app, &desk, &client);
    Json(json!({}))
}

/// `POST /sdapi/v1/skip`: the same. A picture of a request cannot be given up alone.
pub(super) async fn skip(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
) -> Json<Value> {
    stop(&app, &desk, &client);
    Json(Value::Null)
}

fn stop(app: &App, desk: &Desk, client: &Client) {
    let Some((running, _)) = desk.work.oldest(app, &client.tenant) else { return };
    if let Some(entry) = desk.work.lock().get_mut(&(Arc::clone(&client.tenant), running.request_id.clone())) {
        entry.interrupted = true;
    }
    tracing::info!(tenant = &*client.tenant, request = running.request_id, "interrupted by its tenant");
    running.canceller.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_skipped_when_asked() {
        assert!(skips_picture(Some("a=b&skip_current_image=True")));
        for query in [None, Some(""), Some("skip_current_image=false"), Some("skip_current_image")] {
            assert!(!skips_picture(query), "{query:?}");
        }
    }
}
