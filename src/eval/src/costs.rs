//! What answers cost in time: kept beside the answers and apart from the figures, which are to be the same whenever they
//! are counted.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError, lines};

/// Name of the file in the folder of a run.
pub const COSTS_FILE: &str = "costs.jsonl";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// A run that has something to ask.
    Run(Machine),
    /// One answer that was made.
    Answer { method: String, revision: String, ms: f64 },
}

/// Where and when a run computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// What it computes with, in words.
    pub machine: String,
}

/// Times, being written.
#[derive(Debug)]
pub struct CostLog {
    journal: Journal,
    /// Written with the first answer: a run that asks nothing leaves the file as it is.
    machine: Option<Machine>,
}

impl CostLog {
    /// Opens the times in `folder`, which is made if need be.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(folder: &Path, machine: Machine) -> Result<Self, JournalError> {
        let (journal, _) = Journal::open::<Line>(folder, COSTS_FILE)?;
        Ok(Self { journal, machine: Some(machine) })
    }

    /// Keeps what an answer took.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, method: &str, revision: &str, ms: f64) -> Result<(), JournalError> {
        if let Some(machine) = self.machine.take() {
            self.journal.add(&Line::Run(machine))?;
        }
        let (method, revision) = (method.to_owned(), revision.to_owned());
        self.journal.add(&Line::Answer { method, revision, ms }).map(|_| ())
    }
}

/// Times of all runs into one folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Costs {
    /// The runs that asked anything, in order.
    pub runs: Vec<Machine>,
    by_method: HashMap<(String, String), Vec<f64>>,
}

/// Milliseconds an answer of one method took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Answers that were timed.
    pub answers: usize,
    /// Their mean.
    pub mean: f64,
    /// Their median.
    pub median: f64,
    /// Their 95th percentile.
    pub p95: f64,
    /// The longest.
    pub longest: f64,
}

impl Costs {
    /// Reads the times in `folder`; none if there are none.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn read(folder: &Path) -> Result<Self, JournalError> {
        let mut costs = Self::default();
        for line in lines(folder, COSTS_FILE)? {
            match line {
                Line::Run(machine) => costs.runs.push(machine),
                Line::Answer { method, revision, ms } => {
                    costs.by_method.entry((method, revision)).or_default().push(ms);
                }
            }
        }
        Ok(costs)
    }

    /// What answers of a method took; none if none was timed.
    pub fn of(&self, method: &str, revision: &str) -> Option<Cost> {
        let mut times = self.by_method.get(&(method.to_owned(), revision.to_owned()))?.clone();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
            times[place - 1]
        };
        Some(Cost {
            answers: times.len(),
            mean: times.iter().sum::<f64>() / times.len() as f64,
            median: at(0.5),
            p95: at(0.95),
            longest: at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_outlive_their_run_and_a_run_that_asks_nothing_adds_none() {
        let folder = tempfile::tempdir().unwrap();
        let machine =
            |day: u8| Machine { started: format!("2026-01-0{day}T00:00:00Z"), machine: "m".to_owned() };
        let mut log = CostLog::open(folder.path(), machine(1)).unwrap();
        (1..=20).for_each(|ms| log.add("clue", "r", f64::from(ms)).unwrap());
        drop(log);
        drop(CostLog::open(folder.path(), machine(2)).unwrap());
        CostLog::open(folder.path(), machine(3)).unwrap().add("clue", "other", 7.0).unwrap();
        let costs = Costs::read(folder.path()).unwrap();
        assert_eq!(costs.runs, [machine(1), machine(3)]);
        let cost = costs.of("clue", "r").unwrap();
        assert_eq!((cost.answers, cost.median, cost.p95, cost.longest), (20, 10.0, 19.0, 20.0));
        assert!((cost.mean - 10.5).abs() < 1e-12);
        assert_eq!(costs.of("clue", "none"), None);
        assert_eq!(Costs::read(&folder.path().join("nowhere")).unwrap(), Costs::default());
    }
}
