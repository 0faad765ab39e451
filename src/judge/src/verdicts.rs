//! The reports of pictures judged before, so that the same picture is judged once under one constitution.
//!
//! In memory only, and only complete reports: a file could forge the permission to release a picture, and an error
//! says nothing about the picture. The key holds the hash of the picture's very pixels and everything else that the
//! report depends on, so that a hit is what judging again would give.
//!
//! Inspections of the same key that run at the same time are one: the first computes, the others wait for it. If it
//! fails, panics, is called off or runs out of time, those who wait do not share its fate; one of them computes in its
//! place.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluegate_cache::{Bound, Recent};
use cluegate_constitution::Revision;
use cluegate_perception::{Call, ContentHash};

use crate::error::JudgeError;
use crate::options::Stages;
use crate::report::{Models, Report, Stage};

/// How soon somebody who waits notices that the call was called off, for which there is no signal.
const NOTICE: Duration = Duration::from_millis(20);

/// Everything that a report depends on but the options of the judge, which are the same for all its inspections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VerdictKey {
    pub(crate) picture: ContentHash,
    pub(crate) revision: Revision,
    pub(crate) models: Models,
    pub(crate) templates: String,
    /// Bits of the threshold of the relevance scan, which may be the encoder's own.
    pub(crate) relevance_threshold: u32,
    pub(crate) stages: Stages,
    pub(crate) without_prefilter: bool,
    pub(crate) rationale: bool,
    /// The words that the picture was made from, where a rule of the constitution is shown them.
    pub(crate) prompt: Option<Arc<str>>,
}

/// The reports of one judge.
#[derive(Debug)]
pub(crate) struct Verdicts {
    reports: Recent<VerdictKey, Arc<Report>>,
    running: Mutex<HashMap<VerdictKey, Arc<Running>>>,
}

/// An inspection that others may wait for.
#[derive(Debug)]
struct Running {
    /// Of whoever computes: when it is over, the inspection will fail as soon as it notices.
    call: Call,
    end: Mutex<Option<End>>,
    ended: Condvar,
}

/// How an inspection ended, as far as it concerns those who wait.
#[derive(Debug, Clone)]
enum End {
    Judged(Arc<Report>),
    GivenUp,
}

/// What an inspection begins with.
enum Start<'a> {
    Known(Arc<Report>),
    Wait(Arc<Running>),
    Compute(Box<Computing<'a>>),
}

impl Verdicts {
    pub(crate) fn new(bound: Bound) -> Self {
        Self { reports: Recent::new(bound), running: Mutex::default() }
    }

    /// The report of `key`: a remembered one, that of an inspection that is under way, or what `judge` gives.
    ///
    /// # Errors
    /// Those of `judge`, which are not remembered; `call` is over before there is a report.
    pub(crate) fn get_or_judge(
        &self,
        key: VerdictKey,
        call: &Call,
        judge: impl FnOnce() -> Result<Report, JudgeError>,
    ) -> Result<Report, JudgeError> {
        let begun = Instant::now();
        loop {
            check(call)?;
            let report = match self.start(&key, call) {
                Start::Known(report) => report,
                Start::Compute(computing) => return Ok((*computing).end(judge()?)),
                Start::Wait(running) => match running.wait(call)? {
                    End::Judged(report) => report,
                    End::GivenUp => continue,
                },
            };
            tracing::debug!(picture = %key.picture, revision = %key.revision, "judged before");
            return Ok(report.recalled(begun.elapsed()));
        }
    }

    fn start(&self, key: &VerdictKey, call: &Call) -> Start<'_> {
        let mut running = lock(&self.running);
        // Under the lock: an inspection remembers its report before it is taken off the list.
        if let Some(report) = self.reports.get(key) {
            return Start::Known(report);
        }
        if let Some(other) = running.get(key).filter(|other| other.call.check().is_ok()) {
            return Start::Wait(Arc::clone(other));
        }
        let own = Arc::new(Running { call: call.clone(), end: Mutex::default(), ended: Condvar::new() });
        running.insert(key.clone(), Arc::clone(&own));
        let computing = Computing { verdicts: self, key: key.clone(), running: own, end: End::GivenUp };
        Start::Compute(Box::new(computing))
    }

    /// How many wait for an inspection that is under way.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        // One owner is the list, one whoever computes.
        lock(&self.running).values().map(|running| Arc::strong_count(running) - 2).sum()
    }

    /// Number and bytes of the reports.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        self.reports.size()
    }
}

impl Running {
    fn wait(&self, call: &Call) -> Result<End, JudgeError> {
        let mut end = lock(&self.end);
        loop {
            if let Some(end) = &*end {
                return Ok(end.clone());
            }
            check(call)?;
            if self.call.check().is_err() {
                return Ok(End::GivenUp);
            }
            let longest = call.time_left().map_or(NOTICE, |left| left.min(NOTICE));
            end = self.ended.wait_timeout(end, longest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The duty to tell those who wait how the inspection ended, by whatever way it ends.
struct Computing<'a> {
    verdicts: &'a Verdicts,
    key: VerdictKey,
    running: Arc<Running>,
    end: End,
}

impl Computing<'_> {
    fn end(mut self, report: Report) -> Report {
        let shared = Arc::new(report.clone());
        // About what it takes in memory: texts and numbers, and the names of fields for their alignment.
        if let Ok(json) = serde_json::to_vec(&report) {
            self.verdicts.reports.insert(self.key.clone(), Arc::clone(&shared), json.len());
        }
        self.end = End::Judged(shared);
        report
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.verdicts.running);
        // Somebody may have taken over.
        if running.get(&self.key).is_some_and(|listed| Arc::ptr_eq(listed, &self.running)) {
            running.remove(&self.key);
        }
        drop(running);
        *lock(&self.running.end) = Some(self.end.clone());
        self.running.ended.notify_all();
    }
}

fn check(call: &Call) -> Result<(), JudgeError> {
    call.check().map_err(|source| JudgeError::Perception { stage: Stage::Relevance, source })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is changed by single assignments, insertions and removals only.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
