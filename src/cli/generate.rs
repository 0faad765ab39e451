//! `cluegate generate`: draw, judge, and write only what the policy releases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cluegate::CandleGenerator;
use cluegate_gate::{
    DrawOptions, DrawSource, Gate, Generator as _, JsonlLog, MemberOutcome, Outcome, Placeholder, Policies,
    RequestInfo,
};
use cluegate_perception::DecodeOptions;
use serde_json::{Value, json};

use super::args::{Format, GenerateArgs};
use super::drawing::{generator, plain_options};
use super::judge::read_picture;
use super::provenance::signer_of;
use super::{Exit, PART, open_engine, say, say_json, write_file};

/// The decision log in the output folder.
pub(super) const LOG: &str = "decisions.jsonl";
/// How the names of the files begin that the requester gets: released pictures, and what stands in for others.
const HANDED_OUT: [&str; 2] = ["picture-", "placeholder-"];

pub(super) fn run(arguments: &GenerateArgs) -> anyhow::Result<Exit> {
    let policies = match &arguments.policy {
        Some(file) => Policies::load(file)?,
        None => shipped_policies()?,
    };
    policies.require(&arguments.tenant)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the folder {}", arguments.out.display()))?;
    let signer = signer_of(arguments.config.as_deref())?;
    let engine = open_engine(&arguments.models)?;
    let (generator, options) = (Arc::new(generator(&arguments.drawing, &engine)?), options(arguments)?);
    generator.check(&options)?;
    let log = Arc::new(JsonlLog::open(arguments.out.join(LOG))?);
    let gate = Gate::with_signer(&policies, Arc::new(engine.judges(false)), log, signer)?
        .with_painter(Arc::<CandleGenerator>::clone(&generator))?;
    gate.prepare_all()?;
    let seed = arguments.seed.unwrap_or_else(clock_seed);
    let request = RequestInfo {
        size: Some(generator.size(&options)),
        ..RequestInfo::new(&arguments.tenant, &arguments.prompt, seed, arguments.count)
    };
    clear_earlier(&arguments.out)?;
    let outcomes = gate.drive(generator.as_ref(), request, options)?;
    let rows =
        outcomes.iter().map(|outcome| save(outcome, &arguments.out)).collect::<anyhow::Result<Vec<_>>>()?;
    match arguments.format {
        Format::Json => say_json(&json!({
            "prompt": arguments.prompt, "tenant": arguments.tenant, "seed": seed,
            "log": arguments.out.join(LOG), "pictures": rows,
        }))?,
        Format::Text => {
            for row in &rows {
                say(in_words(row))?;
            }
        }
    }
    Ok(outcomes.iter().map(exit_of).max().unwrap_or(Exit::Clean))
}

/// How to draw, with the pictures to begin from.
fn options(arguments: &GenerateArgs) -> anyhow::Result<DrawOptions> {
    let read = |path: &PathBuf| {
        let limits = DecodeOptions { convert: true, ..DecodeOptions::default() };
        read_picture(path, &limits).with_context(|| format!("cannot begin from {}", path.display()))
    };
    let mask = arguments.mask.as_ref().map(read).transpose()?;
    let picture = arguments.image.as_ref().map(read).transpose()?;
    Ok(DrawOptions {
        negative_prompt: Some(arguments.negative_prompt.clone()),
        source: picture.map(|picture| DrawSource { picture, mask, strength: arguments.strength }),
        ..plain_options(&arguments.drawing)
    })
}

/// A row of the answer for people.
fn in_words(row: &Value) -> String {
    let text = |key: &str| row[key].as_str();
    let part = |key: &str| text(key).unwrap_or_default();
    let file = text("file").unwrap_or("no picture");
    let review = text("review").map(|path| format!(" in {path}")).unwrap_or_default();
    format!("{file}: {} ({}): {}{review}", part("outcome"), part("reason"), part("message"))
}

/// The policies that need no file: the default one and those of the demonstration.
pub(super) fn shipped_policies() -> anyhow::Result<Policies> {
    let text = format!("{}\n{}", Policies::with_defaults_toml(), Policies::demo_toml());
    Ok(Policies::from_toml(&text, "the shipped policies")?)
}

/// A seed that differs from call to call; below 2^32, which every generator takes.
fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64 & 0xFFFF_FFFF)
}

/// Removes the pictures and placeholders of earlier runs from the output folder: beside a picture that is withheld now,
/// an earlier one of its number would pass for it.
fn clear_earlier(out: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot remove the pictures of earlier runs from {}", out.display());
    for entry in std::fs::read_dir(out).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let is_ours = entry.file_name().to_str().is_some_and(is_handed_out);
        if is_ours && !entry.file_type().with_context(failed)?.is_dir() {
            std::fs::remove_file(entry.path()).with_context(failed)?;
        }
    }
    Ok(())
}

/// Whether a file has a name that [`save`] gives, also one that it did not come to finish.
fn is_handed_out(name: &str) -> bool {
    let name = name.strip_suffix(PART).unwrap_or(name);
    let number = HANDED_OUT.iter().find_map(|kind| name.strip_prefix(kind)?.strip_suffix(".png"));
    number.is_some_and(|digits| digits.len() >= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Makes the folder for pictures that wait for a person, open to its owner only: it may lie where requesters read.
fn review_folder(out: &Path) -> anyhow::Result<PathBuf> {
    let folder = out.join("review");
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made.with_context(|| format!("cannot make the folder {}", folder.display())),
    }
    .map(|()| folder)
}

/// Writes what the requester gets for one picture, and returns its row of the answer.
fn save(outcome: &MemberOutcome, out: &Path) -> anyhow::Result<Value> {
    let decision = outcome.decision();
    let number = decision.member;
    let [picture_kind, placeholder_kind] = HANDED_OUT;
    let mut review = None;
    let (kind, bytes) = match outcome {
        MemberOutcome::Released(picture) => (picture_kind, Some(picture.encode_png())),
        MemberOutcome::Withheld(withheld) => {
            (placeholder_kind, withheld.placeholder().map(Placeholder::encode_png))
        }
        MemberOutcome::Held(held) => {
            let path = review_folder(out)?.join(format!("{}.png", decision.decision_id));
            write_file(&path, &held.encode_png_for_review()?)?;
            review = Some(path);
            (placeholder_kind, held.placeholder().map(Placeholder::encode_png))
        }
    };
    let path = bytes
        .transpose()?
        .map(|bytes| {
            let path = out.join(format!("{kind}{number:03}.png"));
            write_file(&path, &bytes).map(|()| path)
        })
        .transpose()?;
    Ok(json!({
        "member": number,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "message": decision.message,
        "file": path,
        "review": review,
        "violated": decision.violated,
        "attempts": decision.attempts.len(),
        "strategy": decision.attempts.last().map(|attempt| attempt.strategy),
        "cost": decision.cost,
        "fidelity": decision.fidelity,
        "seed": decision.attempts.last().map(|attempt| attempt.seed),
        "decision_id": decision.decision_id,
    }))
}

fn exit_of(outcome: &MemberOutcome) -> Exit {
    let decision = outcome.decision();
    match decision.outcome {
        Outcome::Released => Exit::Clean,
        _ if decision.reason.is_violation() => Exit::Violation,
        _ => Exit::Error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_earlier_runs_handed_out_is_removed_and_nothing_else() {
        let out = tempfile::tempdir().unwrap();
        let old = ["picture-000.png", "picture-1000.png", "placeholder-003.png", "picture-001.png.part"];
        let kept =
            ["decisions.jsonl", "picture-.png", "picture-1.png", "picture-00x.png", "my-picture-000.png"];
        for name in old.iter().chain(&kept) {
            std::fs::write(out.path().join(name), "old").unwrap();
        }
        std::fs::create_dir(out.path().join("picture-007.png")).unwrap();
        clear_earlier(out.path()).unwrap();
        for name in old {
            assert!(!out.path().join(name).exists(), "{name}");
        }
        for name in kept.iter().chain(&["picture-007.png"]) {
            assert!(out.path().join(name).exists(), "{name}");
        }
        assert!(clear_earlier(&out.path().join("nowhere")).is_err());
    }

    #[test]
    fn who_reads_the_answer_learns_where_a_held_picture_waits() {
        let mut row = json!({
            "file": "o/placeholder-000.png", "review": "o/review/1.png", "outcome": "held",
            "reason": "held-for-review", "message": "violates armed, and waits for a person",
        });
        let start = "o/placeholder-000.png: held (held-for-review): violates armed, and waits for a person";
        assert_eq!(in_words(&row), format!("{start} in o/review/1.png"));
        row["review"] = Value::Null;
        assert_eq!(in_words(&row), start);
    }

    #[test]
    #[cfg(unix)]
    fn what_waits_for_a_person_lies_where_only_its_owner_reads() {
        use std::os::unix::fs::PermissionsExt;
        let out = tempfile::tempdir().unwrap();
        let folder = review_folder(out.path()).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(review_folder(out.path()).unwrap(), folder);
        std::fs::write(out.path().join("file"), "").unwrap();
        assert!(review_folder(&out.path().join("file")).is_err());
    }
}
