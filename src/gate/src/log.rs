//! The decision log: one JSON object a line, written before a picture is handed out.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cluegate_perception::Picture;

use crate::{DecisionRecord, Policy};

/// A decision could not be logged; the picture it was about is withheld.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the decision log {place} {problem}")]
pub struct LogError {
    place: String,
    problem: String,
}

impl LogError {
    /// An error about the log at `place`; `problem` continues the sentence "the decision log PLACE ...".
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// A decision that is about to be carried out, with what a log may want to keep of it.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// What was decided, and why.
    pub record: &'a DecisionRecord,
    /// The finished picture of the last attempt, or the preview that the decision is about, as it was given to the judge;
    /// whether there is a verdict on it is in the record. None if nothing was drawn, or nothing that could be judged.
    pub judged: Option<&'a Picture>,
    /// The picture that will be handed out; not the judged one if something in it is hidden.
    pub released: Option<&'a Picture>,
    /// The policy that the decision was taken under.
    pub policy: &'a Policy,
}

/// Where decisions are kept. Called from several sessions at once.
pub trait DecisionLog: Send + Sync {
    /// Keeps `decision`. When this returns, its record must outlive this process.
    ///
    /// # Errors
    /// If the decision could not be kept; the gate then releases nothing.
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError>;
}

impl<L: DecisionLog + ?Sized> DecisionLog for Arc<L> {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        (**self).append(decision)
    }
}

/// A log file to which whole lines are appended; memory does not grow with it.
#[derive(Debug)]
pub struct JsonlLog {
    path: PathBuf,
    state: Mutex<State>,
    durable: bool,
}

#[derive(Debug)]
struct State {
    file: File,
    /// The file may end within a line: after a failed write, or when another process died while writing.
    torn: bool,
}

impl JsonlLog {
    /// Opens the file at `path` for appending, or creates it.
    ///
    /// # Errors
    /// If it cannot be opened for reading and appending.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let path = path.as_ref().to_path_buf();
        let fail = |what: &str, source: std::io::Error| {
            LogError::new(path.display().to_string(), format!("could not be {what}: {source}"))
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(|source| fail("opened", source))?;
        let torn = ends_within_a_line(&mut file).map_err(|source| fail("read", source))?;
        Ok(Self { path, state: Mutex::new(State { file, torn }), durable: false })
    }

    /// Waits after each line until the file system has stored it, so that a decision outlives a power cut too.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, problem: impl std::fmt::Display) -> LogError {
        LogError::new(self.path.display().to_string(), format!("could not be written: {problem}"))
    }
}

impl DecisionLog for JsonlLog {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(decision.record).map_err(|source| self.error(source))?;
        line.push(b'\n');
        let mut state = self.state.lock().map_err(|_| self.error("an earlier write panicked"))?;
        if state.torn {
            // Ends the broken line, so that it spoils no other.
            line.insert(0, b'\n');
        }
        state.torn = true;
        // One call for the whole line: with append mode, lines of several processes do not mix.
        state.file.write_all(&line).and_then(|()| state.file.flush()).map_err(|source| self.error(source))?;
        if self.durable {
            state.file.sync_data().map_err(|source| self.error(source))?;
        }
        state.torn = false;
        Ok(())
    }
}

fn ends_within_a_line(file: &mut File) -> std::io::Result<bool> {
    // A pipe or a terminal cannot be looked back into, and starts with a fresh line.
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    let mut last = [0_u8];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// The newest decisions in memory, for tests and for programs that show them. Older ones are forgotten, so this alone
/// is no audit log.
#[derive(Debug)]
pub struct MemoryLog {
    capacity: usize,
    records: Mutex<VecDeque<DecisionRecord>>,
}

impl MemoryLog {
    /// Keeps the newest `capacity` decisions.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, records: Mutex::new(VecDeque::new()) }
    }

    /// The kept decisions, oldest first.
    pub fn records(&self) -> Vec<DecisionRecord> {
        // A panic while a record is pushed leaves the queue whole.
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().cloned().collect()
    }
}

impl DecisionLog for MemoryLog {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        let mut records =
            self.records.lock().map_err(|_| LogError::new("in memory", "was left by a panicking writer"))?;
        while records.len() >= self.capacity.max(1) {
            records.pop_front();
        }
        records.push_back(decision.record.clone());
        Ok(())
    }
}
