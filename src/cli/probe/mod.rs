//! `cluegate probe`: what one model makes of one picture, raw, for whoever compares implementations or words a rule.

mod detector;
mod raw_prompt;
mod relevance;
mod statements;

use anyhow::{Context, ensure};
use cluegate::engine::open_suite;
use cluegate_models::{FileTree, language::LanguageModel, load_text};
use cluegate_perception::{DecodeOptions, Picture};

use super::Exit;
use super::args::ProbeArgs;
use super::judge::read_picture;

pub(super) fn run(arguments: &ProbeArgs) -> anyhow::Result<Exit> {
    if arguments.relevance.is_some() || arguments.detector.is_some() {
        ensure!(
            arguments.compute.quantize.is_none(),
            "--quantize is for language models; relevance encoders and detectors keep their weights in --dtype"
        );
    }
    match (&arguments.relevance, &arguments.detector, &arguments.raw_prompt) {
        (Some(folder), _, _) => relevance::run(folder, arguments)?,
        (_, Some(folder), _) => detector::run(folder, arguments)?,
        (_, _, Some(prompt)) => raw_prompt::run(prompt, arguments)?,
        (None, None, None) => statements::run(arguments)?,
    }
    Ok(Exit::Clean)
}

/// The picture, where one is named.
fn picture(arguments: &ProbeArgs) -> anyhow::Result<Option<Picture>> {
    let options = DecodeOptions { convert: arguments.convert, ..DecodeOptions::default() };
    let read =
        |path: &std::path::PathBuf| read_picture(path, &options).with_context(|| path.display().to_string());
    arguments.image.as_ref().map(read).transpose()
}

/// The picture, where the parser has seen to it that one is named.
fn required_picture(arguments: &ProbeArgs) -> anyhow::Result<Picture> {
    picture(arguments)?.context("expected a picture; name one with --image")
}

/// The language model that is named, whether it sees or not, or the embedded suite's.
fn judge(arguments: &ProbeArgs) -> anyhow::Result<LanguageModel> {
    let options = arguments.compute.load_options()?;
    let folder = match &arguments.mllm {
        Some(folder) => FileTree::open(folder)?,
        None => open_suite(None)?.judge_folder()?,
    };
    Ok(load_text(&folder, &options)?)
}
