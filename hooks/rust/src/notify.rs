//! Tells a webhook of each picture that is kept back.
//!
//! A layer over the log: what is told has been logged first, and nobody waits for the telling. A notice may be lost (a full
//! queue, a receiver that is gone): the log is the record, and `[log.webhook]` of the gateway delivers all of it, signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use cluegate_gate::{Decision, DecisionLog, LogError, Outcome, Reason};
use serde::Serialize;

/// What is told of a picture that was kept back. Nothing of its prompt and nothing of its pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// In the log.
    pub decision_id: String,
    /// Whose policy decided.
    pub tenant: String,
    /// The request's name.
    pub request_id: String,
    /// Index of the picture in the request.
    pub member: u32,
    /// Withheld or held; released only where mode `shadow` watches.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Ids of the violated rules.
    pub violated: Vec<String>,
}

impl Notice {
    /// What there is to tell about a decision: nothing if the picture was released as the policy wants it.
    fn of(decision: &Decision<'_>) -> Option<Self> {
        let record = decision.record;
        let kept_back = record.outcome != Outcome::Released || record.reason == Reason::Shadow;
        kept_back.then(|| Self {
            decision_id: record.decision_id.clone(),
            tenant: record.tenant.clone(),
            request_id: record.request.id.clone(),
            member: record.member,
            outcome: record.outcome,
            reason: record.reason,
            violated: record.violated.clone(),
        })
    }
}

/// A log that tells of what it logs. Dropped, it waits for the notices that are queued.
pub struct Notify {
    log: Arc<dyn DecisionLog>,
    queue: Option<SyncSender<Notice>>,
    teller: Option<JoinHandle<()>>,
    lost: Arc<AtomicU64>,
}

impl Notify {
    /// Logs with `log` and tells with `tell`, on a thread of its own; at most `queue` notices wait.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(
        log: Arc<dyn DecisionLog>,
        queue: usize,
        tell: impl Fn(&Notice) -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (send, notices): (_, Receiver<Notice>) = sync_channel(queue);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        let teller = std::thread::Builder::new().name("notify".to_owned()).spawn(move || {
            for notice in notices {
                if let Err(problem) = tell(&notice) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(decision = notice.decision_id, problem, "a notice was not delivered");
                }
            }
        })?;
        Ok(Self { log, queue: Some(send), teller: Some(teller), lost })
    }

    /// Tells by POST of a JSON object to `url`, which has `timeout` to answer with a status of success.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn webhook(
        log: Arc<dyn DecisionLog>,
        url: impl Into<String>,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        /// Notices that wait while the receiver is slow.
        const QUEUE: usize = 256;
        let url = url.into();
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(timeout)).max_redirects(0).build().into();
        Self::new(log, QUEUE, move |notice| {
            let body = serde_json::to_string(notice).map_err(|error| error.to_string())?;
            let posted = agent.post(&url).header("content-type", "application/json").send(body);
            posted.map(drop).map_err(|error| error.to_string())
        })
    }

    /// Notices that nobody got.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl DecisionLog for Notify {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        self.log.append(decision)?;
        if let (Some(notice), Some(queue)) = (Notice::of(decision), &self.queue)
            && let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(notice)
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(teller) = self.teller.take() {
            // It ends when the queue is empty; a panic in it has nothing left to harm.
            let _ = teller.join();
        }
    }
}
