//! `cluegate probe`: raw scores of single statements, for whoever compares models or words a rule.

use anyhow::Context;
use cluegate::engine::open_suite;
use cluegate_judge::Templates;
use cluegate_models::{FileTree, load_judge};
use cluegate_perception::{DecodeOptions, Picture, Prompt, VisionLanguageModel};
use serde::Serialize;

use super::args::{Format, ProbeArgs};
use super::judge::read_picture;
use super::{Exit, say, say_json};

#[derive(Serialize)]
struct Row<'a> {
    statement: &'a str,
    score: f64,
    score_without_image: f64,
}

pub(super) fn run(arguments: &ProbeArgs) -> anyhow::Result<Exit> {
    let picture = read_picture(&arguments.image, &DecodeOptions::default())
        .with_context(|| arguments.image.display().to_string())?;
    let model = match &arguments.mllm {
        Some(folder) => load_judge(&FileTree::open(folder)?)?,
        None => open_suite(None)?.judge()?,
    };
    let templates = Templates::shipped()?;
    let with = scores(model.as_ref(), &templates, Some(picture), &arguments.statement)?;
    let without = scores(model.as_ref(), &templates, None, &arguments.statement)?;
    let rows: Vec<Row<'_>> = arguments
        .statement
        .iter()
        .zip(with.iter().zip(without))
        .map(|(statement, (&score, score_without_image))| Row { statement, score, score_without_image })
        .collect();
    match arguments.format {
        Format::Json => say_json(&rows)?,
        Format::Text => {
            say("score  without image  statement")?;
            for row in &rows {
                say(format_args!(
                    "{:.3}  {:.3}          {}",
                    row.score, row.score_without_image, row.statement
                ))?;
            }
        }
    }
    Ok(Exit::Clean)
}

fn scores(
    model: &dyn VisionLanguageModel,
    templates: &Templates,
    picture: Option<Picture>,
    statements: &[String],
) -> anyhow::Result<Vec<f64>> {
    let prefix = templates.statement_prefix(picture);
    let prompts: Vec<Prompt> = statements
        .iter()
        .map(|statement| Prompt::new(prefix.clone(), templates.statement_suffix(statement)))
        .collect();
    let scores = model.score(&prompts)?;
    Ok(scores.iter().map(cluegate_perception::AnswerScore::ratio).collect())
}
