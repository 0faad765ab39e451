//! `cluegate distill`: a student from labels.

use std::path::Path;

use anyhow::{Context as _, ensure};
use cluegate_eval::data::{DataError, DataSet, FileSet, Format as LabelFormat, Row, Truth};
use cluegate_judge::{parts, views};
use cluegate_perception::{Call, Picture, RelevanceEncoder};
use cluegate_student::{
    CloserOptions, ConstitutionName, Distilled, Example, Goal, PartsOf, Student, StudentError, TrainOptions,
    distill as train,
};
use rayon::prelude::*;
use serde_json::json;

use super::args::DistillArgs;
use super::{ABOUT_FILE, About};
use crate::cli::args::Format;
use crate::cli::{Exit, open_engine, progress, say, say_json};

/// Pictures that are embedded at a time.
const BATCH: usize = 32;

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
        closer: CloserOptions { epochs: arguments.closer_epochs, ..CloserOptions::default() },
        goal: Goal {
            recall: share("recall", arguments.recall)?,
            confidence: share("confidence", arguments.confidence)?,
        },
        ..TrainOptions::default()
    };
    let labelled = labelled(arguments)?;
    let engine = open_engine(&arguments.models)?;
    let encoder = engine.relevance();
    let mut examples = Vec::new();
    // Where each example is: which labels, which of their rows.
    let mut rows = Vec::new();
    for (at, (about, set)) in labelled.iter().enumerate() {
        examples.extend(labels_and_views(set, &about.rules, encoder)?);
        rows.extend((0..set.rows().len()).map(|row| (at, row)));
    }
    let mut parts = |places: &[usize]| {
        let pictures = places.iter().map(|place| rows[*place]);
        let read = pictures.map(|(at, row)| (&labelled[at].1, row)).collect::<Vec<_>>();
        features(&read, encoder, "looking closer", |picture| parts(&views(picture)))
            .map(|features| features.into_iter().map(|(_, features)| features).collect())
            .map_err(DistillError::Features)
    };
    let parts: Option<PartsOf<'_, DistillError>> =
        if options.closer.epochs > 0 { Some(&mut parts) } else { None };
    let distilled = train(&examples, &options, parts)?;
    let About { constitution: name, revision, rules, method, .. } =
        labelled.into_iter().next().map(|(about, _)| about).context("no labels")?;
    let fingerprint = encoder.fingerprint().clone();
    let words = (arguments.domain.clone(), fingerprint, ConstitutionName { name, revision }, method);
    let student = Student::new(&distilled, &options, rules, words)?;
    student.save(&arguments.out)?;
    report(arguments, &student, &examples, &distilled)?;
    Ok(Exit::Clean)
}

/// The folders of labels, of one method under one constitution.
fn labelled(arguments: &DistillArgs) -> anyhow::Result<Vec<(About, FileSet)>> {
    let (labels, pictures) = (&arguments.labels, &arguments.pictures);
    ensure!(
        pictures.is_empty() || pictures.len() == labels.len(),
        "{} --pictures for {} --labels, expected one for each or none",
        pictures.len(),
        labels.len()
    );
    let mut all: Vec<(About, FileSet)> = Vec::new();
    for (index, folder) in labels.iter().enumerate() {
        let path = folder.join(ABOUT_FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; expected a folder that `cluegate label` wrote", path.display())
        })?;
        let about: About = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if let Some((first, _)) = all.first() {
            let same = (&first.revision, &first.rules, &first.method)
                == (&about.revision, &about.rules, &about.method);
            ensure!(
                same,
                "{} and {} were not labelled by the same method under the same constitution; label one of them again",
                labels[0].display(),
                folder.display()
            );
        }
        let set =
            FileSet::open(LabelFormat::Folder, folder, Some(pictures.get(index).unwrap_or(&about.pictures)))?;
        all.push((about, set));
    }
    Ok(all)
}

/// Why no student came of labels.
#[derive(Debug, thiserror::Error)]
enum DistillError {
    /// The labels do not do.
    #[error(transparent)]
    Student(#[from] StudentError),
    /// A picture could not be read or embedded.
    #[error(transparent)]
    Features(anyhow::Error),
}

/// Labels of every picture, and features of its views.
fn labels_and_views(
    set: &FileSet,
    rules: &[String],
    encoder: &dyn RelevanceEncoder,
) -> anyhow::Result<Vec<Example>> {
    let all: Vec<(&FileSet, usize)> = (0..set.rows().len()).map(|index| (set, index)).collect();
    let features = features(&all, encoder, "embedding", views)?;
    let example = |(row, (key, views)): (&Row, (String, Vec<Vec<f32>>))| {
        let Truth::Rules(violated) = &row.truth else {
            anyhow::bail!("{} has no rules; expected labels that `cluegate label` wrote", row.id);
        };
        if let Some(unknown) = violated.iter().find(|rule| !rules.contains(rule)) {
            anyhow::bail!("{} violates {unknown}, which is no rule of the labels' constitution", row.id);
        }
        Ok(Example { key, views, violated: rules.iter().map(|rule| violated.contains(rule)).collect() })
    };
    set.rows().iter().zip(features).map(example).collect()
}

/// Content hash and features of what is `looked_at` of each picture.
fn features(
    pictures: &[(&FileSet, usize)],
    encoder: &dyn RelevanceEncoder,
    what: &'static str,
    looked_at: impl Fn(&Picture) -> Vec<Picture> + Sync,
) -> anyhow::Result<Vec<(String, Vec<Vec<f32>>)>> {
    let bar = progress::bar(pictures.len() as u64, what);
    let mut all = Vec::with_capacity(pictures.len());
    for batch in pictures.chunks(BATCH) {
        let read = |(set, index): &(&FileSet, usize)| {
            let picture = set.picture(*index)?;
            Ok((picture.hash().to_hex(), looked_at(&picture)))
        };
        let seen = batch.par_iter().map(read).collect::<Result<Vec<(String, Vec<Picture>)>, DataError>>()?;
        let flat: Vec<Picture> = seen.iter().flat_map(|(_, pictures)| pictures).cloned().collect();
        let embeddings = encoder.embed_pictures(&flat, &Call::default())?;
        ensure!(embeddings.len() == flat.len(), "{} embeddings of {} pictures", embeddings.len(), flat.len());
        let mut features = embeddings.into_iter().map(|embedding| embedding.values().to_vec());
        all.extend(seen.into_iter().map(|(key, own)| (key, features.by_ref().take(own.len()).collect())));
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(all)
}

fn report(
    arguments: &DistillArgs,
    student: &Student,
    examples: &[Example],
    distilled: &Distilled,
) -> anyhow::Result<()> {
    let card = student.card();
    let rules = kept_by_rule(student, examples, distilled);
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
        100.0 * card.training.goal.confidence
    ))?;
    say(format_args!("  {:.1} % of all pictures go on to the judge", 100.0 * held.sent_on))?;
    if let Some(closer) = &card.closer {
        say(format_args!(
            "  {:.1} % of all pictures are looked at closer first",
            100.0 * closer.looked_closer
        ))?;
    }
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
fn kept_by_rule(student: &Student, examples: &[Example], distilled: &Distilled) -> Vec<(String, u64, u64)> {
    let rules = &student.card().outputs;
    let mut counts: Vec<(String, u64, u64)> = rules.iter().map(|rule| (rule.clone(), 0, 0)).collect();
    for (place, kept) in &distilled.held_out {
        let violated = &examples[*place].violated;
        for (count, _) in counts.iter_mut().zip(violated).filter(|(_, violated)| **violated) {
            count.1 += u64::from(*kept);
            count.2 += 1;
        }
    }
    counts
}
