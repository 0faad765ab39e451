//! Times of a Qwen2-VL judge on this machine.
//!
//! ```text
//! cargo run --release -p cluegate-models --example judge_speed -- FOLDER [PICTURE]
//! ```
//!
//! FOLDER is a checkpoint in Hugging Face layout; without PICTURE a generated one of 224 x 224 pixels is judged. Each
//! row is the median of several runs; every run sees another picture, so that nothing is remembered unless the row
//! says so. Set `RAYON_NUM_THREADS`: without it candle 0.11 counts the cores anew, by reading /proc/cpuinfo, before
//! every matrix product, which makes a generated token about three times as slow.

use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use cluegate_models::{FileTree, Qwen2Vl};
use cluegate_perception::{Call, CompletionRequest, Picture, Prefix, Prompt, VisionLanguageModel};
use image::RgbImage;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const RUNS: usize = 15;
const STATEMENTS: usize = 24;
const BEGINNING: &str = "Look only at what this image shows. Is the following statement true of it? Answer \"Yes\" or \"No\". Statement: ";

#[allow(clippy::print_stdout)]
fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder? judge_speed FOLDER [PICTURE]")?;
    let pixels = match arguments.next() {
        Some(path) => image::open(path)?.to_rgb8(),
        None => RgbImage::from_fn(224, 224, |x, y| image::Rgb([x as u8, y as u8, (x * y / 200) as u8])),
    };
    let tree = FileTree::open(&folder)?;
    let begin = Instant::now();
    let model = Qwen2Vl::load(&tree, &Device::Cpu, DType::F32)?;
    println!("| {} cores | ms |\n|---|---|", std::thread::available_parallelism()?);
    println!("| load | {:.1} |", millis(begin.elapsed()));
    row("vision tower", |run| {
        let picture = variant(&pixels, run);
        timed(|| Ok(model.image_features(&picture)?))
    })?;
    row("first question about a picture", |run| {
        let prompts = questions(Some(variant(&pixels, 100 + run)), 1);
        timed(|| Ok(model.score(&prompts, &Call::default())?))
    })?;
    row(&format!("{STATEMENTS} questions about a picture, nothing remembered"), |run| {
        let prompts = questions(Some(variant(&pixels, 200 + run)), STATEMENTS);
        timed(|| Ok(model.score(&prompts, &Call::default())?))
    })?;
    row(&format!("{STATEMENTS} questions, picture remembered"), |run| {
        let prompts = questions(Some(variant(&pixels, 300 + run)), STATEMENTS);
        model.score(&prompts[..1], &Call::default())?;
        timed(|| Ok(model.score(&prompts, &Call::default())?))
    })?;
    row(&format!("{STATEMENTS} questions without a picture"), |_| {
        let prompts = questions(None, STATEMENTS);
        timed(|| Ok(model.score(&prompts, &Call::default())?))
    })?;
    row("one generated token", |run| {
        let prompt = questions(Some(variant(&pixels, 400 + run)), 1).remove(0);
        model.score(std::slice::from_ref(&prompt), &Call::default())?;
        let answer = |max_tokens| -> Outcome<(Duration, usize)> {
            let request = CompletionRequest { prompt: prompt.clone(), max_tokens };
            let begin = Instant::now();
            let tokens = model.complete(&[request], &Call::default())?[0].tokens;
            Ok((begin.elapsed(), tokens))
        };
        let (one, _) = answer(1)?;
        let (many, tokens) = answer(64)?;
        Ok(many.saturating_sub(one) / (tokens.max(2) - 1) as u32)
    })?;
    Ok(())
}

fn questions(picture: Option<Picture>, count: usize) -> Vec<Prompt> {
    let prefix = Prefix { picture, text: BEGINNING.into() };
    let statements =
        ["a person is holding a knife", "the body of an animal is on fire", "a dog is visible in the room"];
    (0..count)
        .map(|i| Prompt::new(prefix.clone(), format!("{}.", statements[i % statements.len()])))
        .collect()
}

/// The picture with one pixel of its own.
fn variant(pixels: &RgbImage, run: usize) -> Picture {
    let mut pixels = pixels.clone();
    pixels.put_pixel(0, 0, image::Rgb([(run % 256) as u8, (run / 256) as u8, 7]));
    Picture::new(pixels)
}

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

#[allow(clippy::print_stdout)]
fn row(name: &str, mut run: impl FnMut(usize) -> Outcome<Duration>) -> Outcome<()> {
    let mut times = (0..RUNS).map(&mut run).collect::<Outcome<Vec<_>>>()?;
    times.sort();
    println!("| {name} | {:.1} (fastest {:.1}) |", millis(times[RUNS / 2]), millis(times[0]));
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
