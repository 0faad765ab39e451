//! The one thread that writes: it gives entries their places, writes all that wait together, and answers each when every
//! durable place has it.
//!
//! A batch that could not be written everywhere is kept and written first when the log is asked again, so that no place
//! has a gap and no number is given twice. Those who waited for it were told that it failed, and withheld their pictures;
//! once it is written after all, an entry names their decisions as withdrawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::json;

use crate::chain::{Chain, Placed};
use crate::database::LogTables;
use crate::entry::{Draft, Entry, Position, WITHDRAWN};
use crate::error::{AuditError, Result};
use crate::file::LogFile;
use crate::log::Labels;
use crate::progress::Progress;

/// Most entries of one batch, and most bytes.
const BATCH_ENTRIES: usize = 512;
const BATCH_BYTES: usize = 8 << 20;
/// Most decisions that one entry withdraws.
const WITHDRAWN_AT_ONCE: usize = 1000;
/// How long the writer waits for something to do before it brings the head to the disk.
const IDLE: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const GIVEN_UP: u8 = 1;
const ANSWERED: u8 = 2;

/// Somebody who waits until an entry is kept.
#[derive(Debug)]
pub(crate) struct Request {
    draft: Draft,
    waiting: Waiting,
}

/// The one who waits.
#[derive(Debug)]
struct Waiting {
    decision_id: String,
    state: Arc<AtomicU8>,
    answer: Sender<std::result::Result<(), String>>,
}

/// The other end of a [`Request`].
#[derive(Debug)]
pub(crate) struct Pending {
    state: Arc<AtomicU8>,
    answer: Receiver<std::result::Result<(), String>>,
}

impl Request {
    pub(crate) fn new(draft: Draft) -> (Self, Pending) {
        let state = Arc::new(AtomicU8::new(WAITING));
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let decision_id = draft.index.decision_id.clone();
        let waiting = Waiting { decision_id, state: Arc::clone(&state), answer: sender };
        (Self { draft, waiting }, Pending { state, answer: receiver })
    }
}

impl Waiting {
    /// Answers; says whether somebody still waited.
    fn answer(&self, answer: std::result::Result<(), String>) -> bool {
        let waited = self.state.swap(ANSWERED, Ordering::AcqRel) == WAITING;
        // The channel has a place for it.
        let _ = self.answer.try_send(answer);
        waited
    }
}

impl Pending {
    /// Waits for the answer until `deadline`.
    pub(crate) fn wait(&self, deadline: Instant) -> std::result::Result<(), String> {
        match self.answer.recv_deadline(deadline) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(AuditError::Closed.to_string()),
            Err(RecvTimeoutError::Timeout) => {
                if self.state.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
                {
                    return Err("was not written in time".to_owned());
                }
                // Answered just now.
                self.answer.recv().unwrap_or_else(|_| Err(AuditError::Closed.to_string()))
            }
        }
    }
}

/// The places that every entry must reach before it counts.
pub(crate) struct Places {
    pub(crate) file: Option<LogFile>,
    pub(crate) tables: Option<(LogTables, tokio::runtime::Handle)>,
}

/// A batch that is not everywhere yet.
struct Unwritten {
    entries: Arc<Vec<Placed>>,
    before: Option<Position>,
    in_file: bool,
    in_database: bool,
}

/// The state of the writing thread.
pub(crate) struct Writer {
    pub(crate) places: Places,
    pub(crate) chain: Chain,
    pub(crate) labels: Labels,
    pub(crate) progress: Arc<Progress>,
    unwritten: Option<Unwritten>,
    withdrawn: Vec<String>,
}

impl Writer {
    pub(crate) fn new(places: Places, chain: Chain, labels: Labels, progress: Arc<Progress>) -> Self {
        Self { places, chain, labels, progress, unwritten: None, withdrawn: Vec::new() }
    }

    /// Writes until nobody can ask any more.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        let mut idle = false;
        loop {
            let first = match requests.recv_timeout(IDLE) {
                Ok(request) => request,
                Err(RecvTimeoutError::Timeout) => {
                    if !std::mem::replace(&mut idle, true) {
                        self.rest();
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            idle = false;
            let mut bytes = first.draft.text.len();
            let mut batch = vec![first];
            while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
                let Ok(request) = requests.try_recv() else { break };
                bytes += request.draft.text.len();
                batch.push(request);
            }
            self.write(batch);
        }
        self.rest();
        self.progress.end();
    }

    /// Finishes what can be finished while nobody asks.
    fn rest(&mut self) {
        if let Err(problem) = self.catch_up().and_then(|()| self.sync_head()) {
            tracing::error!(%problem, "the decision log is behind");
        }
    }

    fn sync_head(&mut self) -> Result<()> {
        self.places.file.as_mut().map_or(Ok(()), LogFile::sync_head)
    }

    /// Writes a batch and answers everyone who waits for it.
    fn write(&mut self, batch: Vec<Request>) {
        let begun = Instant::now();
        // Whoever has given up gets no picture, so there is nothing to log.
        let (drafts, waiting): (Vec<Draft>, Vec<Waiting>) = batch
            .into_iter()
            .filter(|request| request.waiting.state.load(Ordering::Acquire) == WAITING)
            .map(|request| (request.draft, request.waiting))
            .unzip();
        let caught_up = self.catch_up();
        let placed = caught_up.is_ok();
        let written = caught_up.and_then(|()| self.append(drafts));
        metrics::histogram!("cluegate_log_write_seconds").record(begun.elapsed().as_secs_f64());
        metrics::histogram!("cluegate_log_batch_entries").record(waiting.len() as f64);
        let answer = written.map_err(|problem| problem.to_string());
        if let Err(problem) = &answer {
            tracing::error!(%problem, decisions = waiting.len(), "decisions could not be logged");
            metrics::counter!("cluegate_log_failures_total").increment(waiting.len() as u64);
        }
        // Whatever stands, or will stand, in some place.
        let kept = placed && (answer.is_ok() || self.unwritten.is_some());
        for waiting in waiting {
            let heard = waiting.answer(answer.clone());
            if kept && !(heard && answer.is_ok()) {
                self.withdrawn.push(waiting.decision_id);
            }
        }
    }

    /// Brings what is unwritten to the places that lack it, and says whose decisions were withdrawn.
    fn catch_up(&mut self) -> Result<()> {
        if let Some(mut unwritten) = self.unwritten.take() {
            let written = self.bring(&mut unwritten);
            if written.is_err() {
                self.unwritten = Some(unwritten);
            }
            written?;
        }
        while !self.withdrawn.is_empty() {
            let some: Vec<String> = self.withdrawn.iter().take(WITHDRAWN_AT_ONCE).cloned().collect();
            let count = some.len();
            let entry = Entry::about_log(WITHDRAWN, json!({ "decisions": some }), &self.labels);
            let draft = entry.draft()?;
            self.withdrawn.drain(..count);
            self.append(vec![draft])?;
        }
        Ok(())
    }

    /// Gives drafts their places in the chain and writes them.
    pub(crate) fn append(&mut self, drafts: Vec<Draft>) -> Result<()> {
        if drafts.is_empty() {
            return Ok(());
        }
        let before = self.chain.position();
        // The chain moves on only when all of them have a place.
        let mut chain = self.chain.clone();
        let entries = drafts.into_iter().map(|draft| chain.place(draft)).collect::<Result<Vec<_>>>()?;
        self.chain = chain;
        let mut unwritten = Unwritten {
            entries: Arc::new(entries),
            before,
            in_file: self.places.file.is_none(),
            in_database: self.places.tables.is_none(),
        };
        let written = self.bring(&mut unwritten);
        if written.is_err() {
            self.unwritten = Some(unwritten);
        }
        written
    }

    /// Writes a batch to the places that lack it, at the same time.
    fn bring(&mut self, batch: &mut Unwritten) -> Result<()> {
        let Places { file, tables } = &mut self.places;
        let database = tables.as_ref().filter(|_| !batch.in_database).map(|(tables, runtime)| {
            let (tables, before) = (tables.clone(), batch.before.clone());
            let entries = Arc::clone(&batch.entries);
            (runtime.spawn(async move { tables.append(before.as_ref(), &entries).await }), runtime)
        });
        let mut result = Ok(());
        if let Some(file) = file.as_mut().filter(|_| !batch.in_file) {
            let mut lines =
                String::with_capacity(batch.entries.iter().map(|entry| entry.text.len() + 1).sum());
            for entry in batch.entries.iter() {
                lines.push_str(&entry.text);
                lines.push('\n');
            }
            result = file.append(lines.as_bytes());
            batch.in_file = result.is_ok();
            failed(&result, "file");
        }
        if let Some((task, runtime)) = database {
            let written = runtime.block_on(task).map_err(|_| AuditError::Closed).and_then(|written| written);
            batch.in_database = written.is_ok();
            failed(&written, "database");
            result = result.and(written);
        }
        result?;
        let last = batch.entries.last().map(|entry| entry.link.position());
        if let (Some(file), Some(last)) = (file, &last) {
            file.keep_head(last.clone())?;
        }
        metrics::counter!("cluegate_log_entries_total").increment(batch.entries.len() as u64);
        self.progress.reached(last.map_or(0, |last| last.seq));
        Ok(())
    }
}

fn failed(result: &Result<()>, sink: &'static str) {
    if result.is_err() {
        metrics::counter!("cluegate_log_sink_failures_total", "sink" => sink).increment(1);
    }
}
