//! `cluegate models fit-previews`: the map of latents to colours of a model whose VAE is none of the published ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use candle_core::{DType, Device};
use clap::Args;
use cluegate_candle_diffusion::{FitReport, GenerateRequest, LATENT_RGB, LatentRgb, Pipeline, PreviewFit};
use cluegate_constitution::Constitution;
use cluegate_models::FileTree;
use cluegate_perception::DecodeOptions;
use serde_json::json;

use crate::cli::args::Format;
use crate::cli::calibrate::{Prompts, embedded_prompts, read_prompts};
use crate::cli::judge::read_picture;
use crate::cli::student::pictures_below;
use crate::cli::{Exit, progress, say, say_json, write_file};

/// Arguments of `models fit-previews`.
#[derive(Debug, Args)]
pub(crate) struct FitPreviewsArgs {
    /// The model: a folder as Hugging Face diffusers writes it.
    #[arg(value_name = "FOLDER")]
    pub(crate) model: PathBuf,
    /// Encode the pictures of this folder by the model's VAE; default: pictures that the model draws.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) pictures: Option<PathBuf>,
    /// Prompts to draw, one a line; default: some of the embedded ones.
    #[arg(long, value_name = "FILE", conflicts_with = "pictures")]
    pub(crate) prompts: Option<PathBuf>,
    /// How many pictures; every other one is held out to tell how well the map does.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) count: u32,
    /// Denoising steps of a picture that is drawn; default: the model's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: Option<u32>,
    /// Seed of the first drawing; the others follow.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Replace a map that is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// The constitution whose embedded prompts are drawn where none are named.
const SCENE: &str = "scene";

pub(super) fn run(arguments: &FitPreviewsArgs) -> anyhow::Result<Exit> {
    let path = arguments.model.join(LATENT_RGB);
    ensure!(
        arguments.force || !path.exists(),
        "{} is there: replace it with --force, or use it as it is",
        path.display()
    );
    // What is drawn and encoded has nothing to do with the map, and a damaged one must not keep from a better.
    let tree = FileTree::open(&arguments.model)?;
    let pipeline = Pipeline::load_without_map(&tree, &Device::Cpu, DType::F32)?;
    let begun = Instant::now();
    let (map, report) = match &arguments.pictures {
        Some(folder) => from_pictures(&pipeline, folder, arguments)?,
        None => from_drawings(&pipeline, arguments)?,
    };
    write_file(&path, (serde_json::to_string_pretty(&map)? + "\n").as_bytes())?;
    let seconds = begun.elapsed().as_secs_f64();
    match arguments.format {
        Format::Json => say_json(&json!({"file": path, "seconds": seconds, "report": report, "map": map}))?,
        Format::Text => {
            say(format_args!(
                "fitted to {} samples in {seconds:.1} s; of {} held out it explains {:.1} % of the colours' variance, and its \
                 previews are {:.1} dB from the VAE's",
                report.fitted,
                report.held_out,
                100.0 * report.r_squared,
                report.psnr_db
            ))?;
            say(format_args!(
                "a preview takes {:.2} ms, by the VAE {:.1} ms",
                report.linear_ms, report.vae_ms
            ))?;
            say(format_args!("wrote {}: --previews linear uses it", path.display()))?;
        }
    }
    Ok(Exit::Clean)
}

fn from_pictures(
    pipeline: &Pipeline,
    folder: &Path,
    arguments: &FitPreviewsArgs,
) -> anyhow::Result<(LatentRgb, FitReport)> {
    let found = pictures_below(folder)?;
    let count = found.len().min(arguments.count as usize);
    let mut fit = PreviewFit::new(pipeline);
    let bar = progress::bar(count as u64, "encoding");
    for index in 0..count {
        // Spread evenly: folders are often sorted by what their pictures show.
        let path = folder.join(&found[index * found.len() / count]);
        let limits = DecodeOptions { convert: true, ..DecodeOptions::default() };
        let picture = read_picture(&path, &limits)?;
        fit.add_picture(picture.pixels()).with_context(|| format!("cannot encode {}", path.display()))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(fit.finish()?)
}

fn from_drawings(pipeline: &Pipeline, arguments: &FitPreviewsArgs) -> anyhow::Result<(LatentRgb, FitReport)> {
    let prompts: Prompts = match &arguments.prompts {
        Some(file) => read_prompts(file)?,
        None => embedded_prompts(&Constitution::shipped(SCENE)?, 2, arguments.seed)?,
    };
    let mut fit = PreviewFit::new(pipeline);
    let bar = progress::bar(arguments.count.into(), "drawing");
    for number in 0..arguments.count {
        let prompt = &prompts[number as usize % prompts.len()];
        let default = pipeline.default_request(prompt);
        let steps = arguments.steps.map_or(default.steps, |steps| steps as usize);
        let seed = arguments.seed.wrapping_add(number.into());
        fit.add_drawing(&GenerateRequest { seed, steps, ..default })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(fit.finish()?)
}
