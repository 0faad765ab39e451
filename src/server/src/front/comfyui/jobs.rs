//! Prompts that wait or are drawn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::comfyui::graph::Output;

/// What a client asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// Place in the order in which prompts came.
    pub(super) number: u64,
    /// Whose it is.
    pub(super) tenant: Arc<str>,
    /// Its id.
    pub(super) prompt_id: String,
    /// Whose WebSocket hears of it.
    pub(super) client_id: Option<String>,
    /// The workflow as the client sent it.
    pub(super) workflow: Value,
    /// Where pictures come out.
    pub(super) outputs: Vec<Output>,
    /// The node that draws, for events about progress: its id and class.
    pub(super) sampler: (String, String),
    /// Seed of all pictures of the first attempt, where it is one batch; otherwise each has its own.
    pub(super) batch_seed: Option<u64>,
    /// When it came, in milliseconds since 1970.
    pub(super) created: i64,
    /// Ends it.
    pub(super) cancel: CancellationToken,
}

impl Asked {
    /// The prompt as queue and history show it: `[number, id, workflow, extra_data, outputs]`, ComfyUI `server.py`,
    /// `post_prompt`.
    pub(super) fn item(&self) -> Value {
        let mut extra = json!({ "create_time": self.created });
        if let Some(client_id) = &self.client_id {
            extra["client_id"] = json!(client_id);
        }
        let outputs: Vec<&str> = self.outputs.iter().map(|output| output.node.as_str()).collect();
        json!([self.number, self.prompt_id, self.workflow, extra, outputs])
    }
}

/// The prompts that have not ended, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    jobs: BTreeMap<u64, (Arc<Asked>, Stage)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    Runs,
    /// Its client has yet to hear of the end.
    Ends,
}

/// A prompt on the list of those that have not ended. Dropped, it is off the list.
#[derive(Debug)]
pub(super) struct Listed {
    desk: Arc<Desk>,
    asked: Arc<Asked>,
}

impl Listed {
    /// Adds a prompt that waits; none if the tenant has one of this id.
    pub(super) fn add(desk: &Arc<Desk>, asked: &Arc<Asked>) -> Option<Self> {
        let added = desk.jobs.add(asked);
        added.then(|| Self { desk: Arc::clone(desk), asked: Arc::clone(asked) })
    }

    /// Whose list.
    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// The prompt.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.desk.jobs.remove(&self.asked);
    }
}

impl Jobs {
    /// The next number.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        state.next - 1
    }

    /// Adds a prompt that waits. `false` if the tenant has one of this id.
    fn add(&self, asked: &Arc<Asked>) -> bool {
        let mut state = self.lock();
        let same = |(other, _): &(Arc<Asked>, Stage)| {
            other.tenant == asked.tenant && other.prompt_id == asked.prompt_id
        };
        if state.jobs.values().any(same) {
            return false;
        }
        state.jobs.insert(asked.number, (Arc::clone(asked), Stage::Waits));
        true
    }

    /// Says that it is drawn now.
    pub(super) fn begin(&self, asked: &Asked) {
        self.set(asked, Stage::Runs);
    }

    /// Says that it is neither drawn nor waits any more.
    pub(super) fn end(&self, asked: &Asked) {
        self.set(asked, Stage::Ends);
    }

    fn set(&self, asked: &Asked, stage: Stage) {
        if let Some((_, now)) = self.lock().jobs.get_mut(&asked.number) {
            *now = stage;
        }
    }

    /// Removes it.
    fn remove(&self, asked: &Asked) {
        self.lock().jobs.remove(&asked.number);
    }

    /// The tenant's prompts that have not ended, and whether each is drawn.
    pub(super) fn of(&self, tenant: &str) -> Vec<(Arc<Asked>, bool)> {
        let state = self.lock();
        let own =
            state.jobs.values().filter(|(asked, stage)| &*asked.tenant == tenant && *stage != Stage::Ends);
        own.map(|(asked, stage)| (Arc::clone(asked), *stage == Stage::Runs)).collect()
    }

    /// Whether there is nothing more to be heard of the tenant's prompts.
    pub(super) fn are_over(&self, tenant: &str) -> bool {
        !self.lock().jobs.values().any(|(asked, _)| &*asked.tenant == tenant)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
