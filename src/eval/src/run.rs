//! Asks methods about the pictures of a data set and keeps what they say.

use std::time::{Duration, Instant};

use cluegate_perception::Call;
use serde::Serialize;

use crate::costs::CostLog;
use crate::data::DataSet;
use crate::methods::{Method, Subject};
use crate::metrics::{Bootstrap, Judged, Measures, NamedPolicy, Said, measure};
use crate::results::{ResultKey, Results, ResultsError};

/// What a run of one method over a data set gave.
#[derive(Debug)]
pub struct MethodRun {
    /// For each row that was looked at, in order: where its answer is, or why there is none.
    rows: Vec<Result<ResultKey, String>>,
    /// The content hash of each row's picture, where it could be read.
    pictures: Vec<Option<String>>,
    /// How many answers were made now, and not found.
    pub made: usize,
    /// How long those took.
    pub time: Duration,
}

impl MethodRun {
    /// Content hash of the picture of the row at `at`, of those looked at; none if it could not be read.
    pub fn picture(&self, at: usize) -> Option<&str> {
        self.pictures.get(at)?.as_deref()
    }

    /// Rows without an answer, with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &str)> {
        self.rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.as_ref().err()?.as_str())))
    }
}

/// Rows of a data set: `limit` of them spread evenly, or all.
pub fn chosen(set: &dyn DataSet, limit: Option<usize>) -> Vec<usize> {
    let all = set.rows().len();
    let count = limit.map_or(all, |limit| limit.min(all));
    (0..count).map(|index| index * all / count.max(1)).collect()
}

/// Asks `method` about the rows `indices` of `set`, except those whose answer is known. An answer is kept as soon as it
/// is there; a failure is not, so that the next run tries again. Calls `progress` after each row.
///
/// # Errors
/// The results cannot be written. A row that fails is no error of the run.
pub fn run(
    set: &dyn DataSet,
    indices: &[usize],
    method: &dyn Method,
    results: &mut Results,
    progress: impl FnMut(),
) -> Result<MethodRun, ResultsError> {
    run_timed(set, indices, method, (results, None), progress)
}

/// The same, and keeps in `costs` what each answer took that was made now.
///
/// # Errors
/// As [`run`].
pub fn run_timed(
    set: &dyn DataSet,
    indices: &[usize],
    method: &dyn Method,
    (results, mut costs): (&mut Results, Option<&mut CostLog>),
    mut progress: impl FnMut(),
) -> Result<MethodRun, ResultsError> {
    let mut done = MethodRun { rows: Vec::new(), pictures: Vec::new(), made: 0, time: Duration::ZERO };
    let call = Call::default();
    for index in indices {
        let policy = set.rows()[*index].policy.as_ref().filter(|_| method.reads_policy());
        let picture = set.picture(*index);
        done.pictures.push(picture.as_ref().ok().map(|picture| picture.hash().to_hex()));
        let row = match picture {
            Err(error) => Err(error.to_string()),
            Ok(picture) => {
                let key = ResultKey {
                    method: method.name().to_owned(),
                    revision: method.revision().to_owned(),
                    picture: picture.hash().to_hex(),
                    policy: policy.map(crate::data::Policy::hash),
                };
                if results.get(&key).is_some() {
                    Ok(key)
                } else {
                    let begun = Instant::now();
                    let outcome = method.judge(&Subject { picture: &picture, policy }, &call);
                    let time = begun.elapsed();
                    done.time += time;
                    done.made += 1;
                    match outcome {
                        Ok(outcome) => {
                            results.add(key.clone(), outcome)?;
                            if let Some(costs) = &mut costs {
                                costs.add(method.name(), method.revision(), time.as_secs_f64() * 1e3)?;
                            }
                            Ok(key)
                        }
                        Err(error) => Err(error.to_string()),
                    }
                }
            }
        };
        done.rows.push(row);
        progress();
    }
    Ok(done)
}

/// What is to be counted.
#[derive(Debug, Clone, Copy)]
pub struct Counting<'a> {
    /// The rules that count at the level of rules: those that the set labels and the constitution has.
    pub rules: &'a [String],
    /// The policies under which pairs are looked at.
    pub policies: &'a [NamedPolicy],
    /// Intervals.
    pub bootstrap: Bootstrap,
}

/// The figures of one method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodReport {
    /// Name of the method.
    pub method: String,
    /// Its revision.
    pub revision: String,
    /// The figures.
    #[serde(flatten)]
    pub measures: Measures,
    /// Rows without an answer, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// Counts what `method` said of the rows `indices` of `set` in `run`.
pub fn report(
    set: &dyn DataSet,
    indices: &[usize],
    method: &dyn Method,
    (run, results): (&MethodRun, &Results),
    counting: Counting<'_>,
) -> MethodReport {
    let said = |row: &Result<ResultKey, String>| {
        row.as_ref().ok().and_then(|key| results.get(key)).map(Said::Outcome)
    };
    let judged: Vec<Judged<'_>> = indices
        .iter()
        .zip(&run.rows)
        .map(|(index, row)| Judged { row: &set.rows()[*index], said: said(row).unwrap_or(Said::Nothing) })
        .collect();
    let name = |at: usize| &set.rows()[indices[at]].id;
    MethodReport {
        method: method.name().to_owned(),
        revision: method.revision().to_owned(),
        measures: measure(&judged, counting.rules, counting.policies, counting.bootstrap),
        failures: run.failures().map(|(at, reason)| format!("{}: {reason}", name(at))).collect(),
    }
}
