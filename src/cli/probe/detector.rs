//! Where in a picture a detector sees what words name, as the reference's post-processing reports it: each patch with
//! its best query, doubles included, boxes not clipped. The judge asks for each word on its own and drops doubles.

use std::path::Path;

use anyhow::ensure;
use cluegate_models::{FileTree, owlv2::Owlv2Model};
use serde::Serialize;

use super::super::args::{Format, ProbeArgs};
use super::super::{say, say_json};
use super::required_picture;

#[derive(Serialize)]
struct Row<'a> {
    query: &'a str,
    score: f32,
    /// Left, top, right and bottom edge in pixels of the picture.
    #[serde(rename = "box")]
    corners: [f32; 4],
}

pub(super) fn run(folder: &Path, arguments: &ProbeArgs) -> anyhow::Result<()> {
    ensure!(
        (0.0..=1.0).contains(&arguments.threshold),
        "--threshold: expected a score of 0 to 1, got {}",
        arguments.threshold
    );
    let picture = required_picture(arguments)?;
    let options = arguments.compute.load_options()?;
    let model = Owlv2Model::load(&FileTree::open(folder)?, &options.device, options.dtype)?;
    let queries: Vec<&str> = arguments.query.iter().map(String::as_str).collect();
    let found = model.post_process(&picture, &queries, arguments.threshold)?;
    let rows = found.iter().filter_map(|found| {
        let query = queries.get(found.query).copied()?;
        Some(Row { query, score: found.score, corners: found.corners })
    });
    let rows: Vec<Row<'_>> = rows.collect();
    match arguments.format {
        Format::Json => say_json(&rows)?,
        Format::Text if rows.is_empty() => {
            say(format_args!("nothing scores above {}", arguments.threshold))?;
        }
        Format::Text => {
            say("score      left       top     right    bottom  query")?;
            for Row { query, score, corners: [left, top, right, bottom] } in &rows {
                say(format_args!("{score:.3}  {left:8.1}  {top:8.1}  {right:8.1}  {bottom:8.1}  {query}"))?;
            }
        }
    }
    Ok(())
}
