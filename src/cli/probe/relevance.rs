//! How well texts fit a picture, as the relevance scan sees it.

use std::path::Path;

use anyhow::ensure;
use cluegate_models::{FileTree, RelevanceModel};
use cluegate_perception::{Call, RelevanceEncoder as _};
use serde::Serialize;

use super::super::args::{Format, ProbeArgs};
use super::super::{say, say_json};
use super::required_picture;

#[derive(Serialize)]
struct Row<'a> {
    text: &'a str,
    cosine: f32,
    /// The logit of a match, in families that have one (SigLIP).
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
}

pub(super) fn run(folder: &Path, arguments: &ProbeArgs) -> anyhow::Result<()> {
    let picture = required_picture(arguments)?;
    let options = arguments.compute.load_options()?;
    let model = RelevanceModel::load(&FileTree::open(folder)?, &options.device, options.dtype)?;
    let texts: Vec<&str> = arguments.text.iter().map(String::as_str).collect();
    let pictures = model.embed_pictures(&[picture], &Call::default())?;
    let embeddings = model.embed_texts(&texts, &Call::default())?;
    ensure!(
        pictures.len() == 1 && embeddings.len() == texts.len(),
        "expected embeddings of 1 picture and {} texts, got {} and {}",
        texts.len(),
        pictures.len(),
        embeddings.len()
    );
    let rows = texts.iter().zip(pictures.iter().cycle().zip(&embeddings)).map(|(text, (picture, own))| {
        let cosine = own.cosine(picture);
        Row { text, cosine, logit: model.sigmoid_logit(cosine) }
    });
    let rows: Vec<Row<'_>> = rows.collect();
    match arguments.format {
        Format::Json => say_json(&rows)?,
        Format::Text => {
            let logits = rows.iter().any(|row| row.logit.is_some());
            say(if logits { "  cosine     logit  text" } else { "  cosine  text" })?;
            for row in &rows {
                let logit = row.logit.map(|logit| format!("  {logit:8.4}")).unwrap_or_default();
                say(format_args!("{:8.5}{logit}  {}", row.cosine, row.text))?;
            }
        }
    }
    Ok(())
}
