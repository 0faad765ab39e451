//! `cluegate distill`: a student from labels.

use std::path::Path;

use anyhow::{Context as _, ensure};
use cluegate_eval::data::{DataSet, FileSet, Format as LabelFormat, Truth};
use cluegate_judge::views;
use cluegate_perception::{Call, Picture, RelevanceEncoder};
use cluegate_student::{
    ConstitutionName, Example, Goal, Student, TrainOptions, distill as train, is_held_out,
};
use serde_json::json;

use super::args::DistillArgs;
use super::{ABOUT_FILE, About};
use crate::cli::args::Format;
use crate::cli::{Exit, open_engine, progress, say, say_json};

/// Pictures that are embedded at a time.
const BATCH: usize = 16;

/// Trains, calibrates and writes.
pub(in crate::cli) fn distill(arguments: &DistillArgs) -> anyhow::Result<Exit> {
    let share = |name: &str, value: f64| {
        ensure!(value > 0.0 && value < 1.0, "--{name} is {value}, expected a share between 0 and 1");
        Ok(value)
    };
    let options = TrainOptions {
        seed: arguments.seed,
        held_out: share("held-out", arguments.held_out)?,
        hidden: arguments.hidden.clone(),
        epochs: arguments.epochs,
        goal: Goal {
            recall: share("recall", arguments.recall)?,
            confidence: share("confidence", arguments.confidence)?,
        },
        ..TrainOptions::default()
    };
    let path = arguments.labels.join(ABOUT_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read {}; expected a folder that `cluegate label` wrote", path.display())
    })?;
    let about: About = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let pictures = arguments.pictures.clone().unwrap_or(about.pictures);
    let set = FileSet::open(LabelFormat::Folder, &arguments.labels, Some(&pictures))?;
    let engine = open_engine(&arguments.models)?;
    let examples = examples(&set, &about.rules, engine.relevance())?;
    let distilled = train(&examples, &options)?;
    let constitution = ConstitutionName { name: about.constitution, revision: about.revision };
    let encoder = engine.relevance().fingerprint().clone();
    let words = (arguments.domain.clone(), encoder, constitution, about.method);
    let student = Student::new(&distilled, &options, about.rules.clone(), words)?;
    student.save(&arguments.out)?;
    report(arguments, &student, &examples, &options)?;
    Ok(Exit::Clean)
}

/// Features and labels of every picture.
fn examples(set: &FileSet, rules: &[String], encoder: &dyn RelevanceEncoder) -> anyhow::Result<Vec<Example>> {
    let bar = progress::bar(set.rows().len() as u64, "embedding");
    let indices: Vec<usize> = (0..set.rows().len()).collect();
    let mut examples = Vec::with_capacity(indices.len());
    for part in indices.chunks(BATCH) {
        let pictures = part.iter().map(|index| set.picture(*index)).collect::<Result<Vec<Picture>, _>>()?;
        let looked_at: Vec<Vec<Picture>> = pictures.iter().map(views).collect();
        let all: Vec<Picture> = looked_at.iter().flatten().cloned().collect();
        let embeddings = encoder.embed_pictures(&all, &Call::default())?;
        ensure!(embeddings.len() == all.len(), "{} embeddings of {} views", embeddings.len(), all.len());
        let mut embeddings = embeddings.into_iter();
        for ((index, picture), views) in part.iter().zip(&pictures).zip(&looked_at) {
            let row = &set.rows()[*index];
            let Truth::Rules(violated) = &row.truth else {
                anyhow::bail!("{} has no rules; expected labels that `cluegate label` wrote", row.id);
            };
            if let Some(unknown) = violated.iter().find(|rule| !rules.contains(rule)) {
                anyhow::bail!("{} violates {unknown}, which is no rule of the labels' constitution", row.id);
            }
            let own = embeddings.by_ref().take(views.len());
            examples.push(Example {
                key: picture.hash().to_hex(),
                views: own.map(|embedding| embedding.values().to_vec()).collect(),
                violated: rules.iter().map(|rule| violated.contains(rule)).collect(),
            });
        }
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    Ok(examples)
}

fn report(
    arguments: &DistillArgs,
    student: &Student,
    examples: &[Example],
    options: &TrainOptions,
) -> anyhow::Result<()> {
    let card = student.card();
    let rules = kept_by_rule(student, examples, options)?;
    if arguments.format == Format::Json {
        let rules: serde_json::Map<String, serde_json::Value> = rules
            .into_iter()
            .map(|(rule, kept, all)| (rule, json!({"kept": kept, "pictures": all})))
            .collect();
        return say_json(&json!({"out": arguments.out, "card": card, "held_out_by_rule": rules}));
    }
    for choice in &card.cross_validation {
        let sent = 100.0 * choice.sent_on;
        say(format_args!("cross-validation, {} hidden units: {sent:.1} % sent on", choice.hidden))?;
    }
    let held = &card.held_out;
    say(format_args!(
        "held out: {} pictures, {} unsafe, {} of them cleared: recall {:.2} %, at least {:.2} % with a confidence of {} %",
        held.pictures,
        held.unsafe_pictures,
        held.missed,
        100.0 * held.recall,
        100.0 * held.recall_lower_bound,
        100.0 * options.goal.confidence
    ))?;
    say(format_args!("  {:.1} % of all pictures go on to the judge", 100.0 * held.sent_on))?;
    for (rule, kept, all) in rules.iter().filter(|(_, kept, all)| kept < all) {
        say(format_args!("  {rule}: {kept} of {all} kept"))?;
    }
    let out = std::path::absolute(Path::new(&arguments.out))?;
    say(format_args!(
        "wrote {0}: name it in a models file with [prefilter] folder = \"{0}\"",
        out.display()
    ))?;
    Ok(())
}

/// For each rule how many of the held-out pictures that violate it are kept, of how many.
fn kept_by_rule(
    student: &Student,
    examples: &[Example],
    options: &TrainOptions,
) -> anyhow::Result<Vec<(String, u64, u64)>> {
    let rules = &student.card().outputs;
    let mut counts: Vec<(String, u64, u64)> = rules.iter().map(|rule| (rule.clone(), 0, 0)).collect();
    for example in examples.iter().filter(|example| is_held_out(&example.key, options)) {
        let kept = student.score(example.views.iter().map(Vec::as_slice))? >= student.threshold();
        for (count, _) in counts.iter_mut().zip(&example.violated).filter(|(_, violated)| **violated) {
            count.1 += u64::from(kept);
            count.2 += 1;
        }
    }
    Ok(counts)
}
