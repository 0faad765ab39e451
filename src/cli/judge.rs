//! `cluegate judge`: files in, one verdict each out.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use cluegate_constitution::Revision;
use cluegate_gate::{InspectionError, Inspector, JudgeProvider};
use cluegate_judge::{DecidedBy, Outcome, Report, Verdict};
use cluegate_perception::{Call, DecodeOptions, Picture, decode};
use serde_json::{Map, Value, json};

use super::args::{JudgeArgs, LineFormat};
use super::{Exit, load_constitution, open_engine, progress, say};

/// Longest judgment of one picture before it is given up as an error.
const DEADLINE: Duration = Duration::from_secs(600);

/// Why there is no verdict on a file: a stable reason and a sentence.
struct Failure {
    reason: &'static str,
    message: String,
}

impl From<InspectionError> for Failure {
    fn from(error: InspectionError) -> Self {
        Self { reason: error.kind(), message: error.to_string() }
    }
}

pub(super) fn run(arguments: &JudgeArgs) -> anyhow::Result<Exit> {
    let constitution = load_constitution(&arguments.constitution)?.with_parameters(&arguments.settings)?;
    let engine = open_engine(&arguments.models)?;
    let judges = engine.judges(arguments.force).with_rationale(true);
    let revision = constitution.revision();
    // A constitution that the models do not know is an error of every picture: each still gets its line.
    let inspector = judges.inspector(constitution);
    let bar = progress::bar(arguments.images.len() as u64, "judging");
    let mut exit = Exit::Clean;
    for path in &arguments.images {
        let judged = catch(|| judge(path, arguments, inspector.as_ref()));
        bar.suspend(|| print(path, &judged, revision, arguments.format))?;
        bar.inc(1);
        exit = exit.max(match &judged {
            Ok(report) if report.verdict() == Verdict::Safe => Exit::Clean,
            Ok(_) => Exit::Violation,
            Err(_) => Exit::Error,
        });
    }
    bar.finish_and_clear();
    Ok(exit)
}

/// Makes a failure of a panic, so that one file that a decoder or a model trips over costs no other its verdict.
fn catch(judge: impl FnOnce() -> Result<Report, Failure>) -> Result<Report, Failure> {
    // What was touched is asked again for the next file only; a lock that is poisoned then is an error of that file.
    catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|_| {
        let message =
            "the judge panicked, as standard error says; that is a defect of this program: report it with \
                       the file"
                .to_owned();
        Err(Failure { reason: "panic", message })
    })
}

fn judge(
    path: &Path,
    arguments: &JudgeArgs,
    inspector: Result<&Arc<dyn Inspector>, &InspectionError>,
) -> Result<Report, Failure> {
    let options = DecodeOptions {
        max_bytes: arguments.max_bytes,
        max_pixels: arguments.max_pixels,
        convert: arguments.convert,
    };
    let picture = read_picture(path, &options)
        .map_err(|error| Failure { reason: "bad-input", message: format!("{error:#}") })?;
    let inspector = inspector.map_err(|error| Failure::from(error.clone()))?;
    let call = Call::default().until(Instant::now() + DEADLINE);
    Ok(inspector.inspect(&picture, arguments.prompt.as_deref(), &call)?)
}

/// Reads and decodes a picture file. Errors do not name it.
pub(super) fn read_picture(path: &Path, options: &DecodeOptions) -> anyhow::Result<Picture> {
    if path.is_dir() {
        return Err(anyhow!("this is a folder; expected a picture file: name the files in it"));
    }
    let file = std::fs::File::open(path).context("cannot open the file")?;
    let mut bytes = Vec::new();
    // One byte over the limit is enough to know, whatever the file's real size.
    file.take((options.max_bytes as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .context("cannot read the file")?;
    Ok(decode(&bytes, options)?)
}

fn print(
    path: &Path,
    judged: &Result<Report, Failure>,
    revision: Revision,
    format: LineFormat,
) -> anyhow::Result<()> {
    match (format, judged) {
        (LineFormat::Jsonl, _) => say(line(path, judged, revision)?)?,
        (LineFormat::Text, Ok(report)) => print_text(path, report)?,
        (LineFormat::Text, Err(failure)) => {
            say(format_args!("{}: error ({}): {}", path.display(), failure.reason, failure.message))?;
        }
    }
    Ok(())
}

/// The line of a picture, as the contract has it: `image` and `verdict` first, and every key whatever the verdict.
fn line(path: &Path, judged: &Result<Report, Failure>, revision: Revision) -> anyhow::Result<Value> {
    let mut line = Map::new();
    line.insert("image".to_owned(), json!(path.to_string_lossy()));
    match judged {
        Ok(report) => {
            // Through text, so that 32-bit numbers keep their short form.
            if let Value::Object(report) = serde_json::from_str(&serde_json::to_string(report)?)? {
                line.extend(report);
            }
        }
        Err(failure) => {
            line.insert("verdict".to_owned(), json!("error"));
            line.insert("reason".to_owned(), json!(failure.reason));
            line.insert("message".to_owned(), json!(failure.message));
            line.insert("violated".to_owned(), json!([]));
            line.insert("rules".to_owned(), json!([]));
            line.insert("revision".to_owned(), json!(revision));
            line.insert("timings_ms".to_owned(), Value::Null);
            line.insert("passes".to_owned(), Value::Null);
        }
    }
    Ok(Value::Object(line))
}

fn print_text(path: &Path, report: &Report) -> anyhow::Result<()> {
    let violated = report.violated();
    if violated.is_empty() {
        let cleared = report.prefilter().is_some_and(|said| said.cleared);
        let by = if cleared { "by the pre-filter, no chain was asked; " } else { "" };
        say(format_args!("{}: safe ({by}{:.0} ms)", path.display(), report.timings().total))?;
        return Ok(());
    }
    say(format_args!(
        "{}: UNSAFE, violates {} ({:.0} ms)",
        path.display(),
        violated.join(", "),
        report.timings().total
    ))?;
    for rule in report.rules().iter().filter(|rule| rule.outcome == Outcome::Violated) {
        say(format_args!("  {}", rule.id))?;
        if let Some(projection) = &rule.projection {
            say(format_args!("    likely to follow: {}", projection.replace(['\r', '\n'], " ")))?;
        }
        let statements = rule.preconditions.iter().flat_map(|precondition| &precondition.statements);
        for statement in statements.filter(|statement| statement.holds == Some(true)) {
            let score = statement.score.unwrap_or(f64::NAN);
            say(format_args!(
                "    {} ({score:.2}; without the picture {:.2}; {})",
                statement.text,
                statement.score_without_image,
                decided(statement.decided_by),
            ))?;
            for region in &statement.region {
                say(format_args!(
                    "      {} at {:.0},{:.0} to {:.0},{:.0}",
                    region.word, region.left, region.top, region.right, region.bottom
                ))?;
            }
        }
    }
    Ok(())
}

/// What decided a statement, in words.
pub(crate) fn decided(by: DecidedBy) -> &'static str {
    match by {
        DecidedBy::BelowAlpha1 => "rejected by its score",
        DecidedBy::AboveAlpha2 => "accepted by its score",
        DecidedBy::Region => "accepted: the score falls when the object is removed",
        DecidedBy::Reasoning => "decided by reasoning",
        DecidedBy::Score => "decided by its score alone",
        DecidedBy::NotNeeded => "not needed",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_file() {
        let failure = catch(|| panic!("out of range")).unwrap_err();
        assert_eq!(failure.reason, "panic");
    }

    #[test]
    fn the_highest_byte_limit_is_no_limit_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::RgbImage::new(3, 2).save(&path).unwrap();
        let options = DecodeOptions { max_bytes: usize::MAX, ..DecodeOptions::default() };
        assert_eq!(read_picture(&path, &options).unwrap().width(), 3);
    }
}
