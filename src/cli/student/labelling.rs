//! `cluegate label`: every picture of a folder, judged by the whole method.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cluegate::{Engine, EngineOptions};
use cluegate_eval::data::quoted;
use cluegate_eval::methods::{Clue, Method, Subject};
use cluegate_eval::outcome::{Judgment, Outcome};
use cluegate_eval::results::{ResultKey, Results};
use cluegate_gate::JudgeProvider as _;
use cluegate_perception::{Call, DecodeOptions, Picture};
use serde_json::json;

use super::args::LabelArgs;
use super::{ABOUT_FILE, About};
use crate::cli::args::Format;
use crate::cli::judge::read_picture;
use crate::cli::{Exit, engine_options, load_constitution, progress, say, say_json, write_file};

/// What pictures are called at their end.
const ENDINGS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// Most pictures of a folder.
const MAX_PICTURES: usize = 10_000_000;

/// Folders in folders.
const MAX_DEPTH: usize = 32;

/// Judges every picture, keeps each answer as soon as it is there, and writes the labels at the end.
pub(in crate::cli) fn label(arguments: &LabelArgs) -> anyhow::Result<Exit> {
    let constitution = load_constitution(&arguments.constitution)?;
    let pictures = pictures(&arguments.folder)?;
    let options = EngineOptions { verdicts: None, ..engine_options(&arguments.judging.models.compute)? };
    let engine = Engine::open_with(arguments.judging.models.models.as_deref(), &options)?;
    if !arguments.judging.force {
        engine.judges(false).inspector(constitution.clone())?;
    }
    let judge = engine.judge();
    let clue = Clue::whole(Arc::clone(judge), judge.prepare(&constitution)?);
    let mut results = Results::open(&arguments.out)?;
    let mut labels = "image,rules,label\n".to_owned();
    let mut errors = String::new();
    let (mut labelled, mut unsafe_pictures, mut failed) = (0, 0, 0);
    let bar = progress::bar(pictures.len() as u64, "labelling");
    for image in &pictures {
        let judged =
            judge_one(&engine, &clue, &mut results, &arguments.folder.join(image), arguments.judging.force);
        let image = image.to_string_lossy();
        match judged {
            Ok(judgment) => {
                let rules = judgment.violated.unwrap_or_default().join(";");
                let word = if judgment.flagged { "unsafe" } else { "safe" };
                labels.push_str(&format!("{},{},{word}\n", quoted(&image), quoted(&rules)));
                labelled += 1;
                unsafe_pictures += usize::from(judgment.flagged);
            }
            Err(error) => {
                failed += 1;
                errors.push_str(&(json!({"image": image, "error": format!("{error:#}")}).to_string() + "\n"));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let about = About {
        constitution: constitution.name().to_owned(),
        revision: constitution.revision().to_string(),
        rules: constitution.rules().iter().map(|rule| rule.id.clone()).collect(),
        method: clue.revision().to_owned(),
        pictures: std::path::absolute(&arguments.folder)?,
        labelled,
        unsafe_pictures,
        failed,
    };
    write_file(&arguments.out.join("labels.csv"), labels.as_bytes())?;
    write_file(&arguments.out.join("errors.jsonl"), errors.as_bytes())?;
    let text = serde_json::to_string_pretty(&about)? + "\n";
    write_file(&arguments.out.join(ABOUT_FILE), text.as_bytes())?;
    match arguments.judging.format {
        Format::Json => say_json(&about)?,
        Format::Text => {
            let out = arguments.out.display();
            say(format_args!("{labelled} labelled, {unsafe_pictures} of them unsafe, {failed} failed"))?;
            say(format_args!("wrote {out}: cluegate distill --labels {out} --out head"))?;
        }
    }
    Ok(if failed > 0 { Exit::Error } else { Exit::Clean })
}

/// The judgment of one picture, found or made.
fn judge_one(
    engine: &Engine,
    clue: &Clue,
    results: &mut Results,
    path: &Path,
    force: bool,
) -> anyhow::Result<Judgment> {
    let picture = read_picture(path, &DecodeOptions::default())?;
    let key = ResultKey {
        method: clue.name().to_owned(),
        revision: clue.revision().to_owned(),
        picture: picture.hash().to_hex(),
        policy: None,
    };
    if results.get(&key).is_none() {
        refuse_foreign(engine, &picture, force)?;
        let outcome = clue.judge(&Subject { picture: &picture, policy: None }, &Call::default())?;
        results.add(key.clone(), outcome)?;
    }
    match results.get(&key) {
        Some(Outcome::Judged(judgment)) => Ok(judgment.clone()),
        _ => anyhow::bail!("the judge gave no verdict"),
    }
}

/// Refuses a picture that the models do not know.
fn refuse_foreign(engine: &Engine, picture: &Picture, force: bool) -> anyhow::Result<()> {
    let Some(domain) = engine.domain().filter(|_| !force) else { return Ok(()) };
    if let Some(outside) = domain.check_picture(picture, engine.relevance(), &Call::default())? {
        anyhow::bail!("the picture is {outside}. {}", domain.advice());
    }
    Ok(())
}

/// Pictures below a folder, by their paths in it, sorted.
pub(in crate::cli) fn pictures(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = open.pop() {
        let here = folder.join(&below);
        let entries =
            std::fs::read_dir(&here).with_context(|| format!("cannot read the folder {}", here.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            // A link may lead anywhere, also around in a circle.
            let kind = entry.file_type()?;
            let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
            if kind.is_dir() {
                ensure!(depth < MAX_DEPTH, "{} lies in more than {MAX_DEPTH} folders", here.display());
                open.push((path, depth + 1));
            } else if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
                found.push(path);
            }
        }
        ensure!(
            found.len() <= MAX_PICTURES,
            "more than {MAX_PICTURES} pictures; label a part of them at a time"
        );
    }
    ensure!(!found.is_empty(), "{} holds no picture ({})", folder.display(), ENDINGS.join(", "));
    found.sort();
    Ok(found)
}
