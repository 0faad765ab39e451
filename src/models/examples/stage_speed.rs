//! Where the time of a judgment goes: each stage of one picture through the three models of a suite, with the
//! arithmetic that it takes and how fast that is done.
//!
//! ```text
//! cargo run --release -p cluegate-models --example stage_speed -- FOLDER [PICTURE]
//! ```
//!
//! FOLDER is a suite with the checkpoints `relevance` (CLIP), `detector` (OWLv2) and `judge` (Qwen2-VL) in Hugging Face
//! layout, as `src/mini/suite` is; without PICTURE a generated one of 256 x 256 pixels is judged. The stages take
//! turns, so that a disturbance of the machine meets all of them, and each shows its fastest and its median time.
//! Every turn sees another picture: nothing is remembered unless the row says so. GFLOP counts the matrix products
//! and the attention only. Set `RAYON_NUM_THREADS` to the number of cores to use.

use std::hint::black_box;
use std::io::Cursor;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use cluegate_models::RelevanceModel;
use cluegate_models::chat::ChatTokenizer;
use cluegate_models::clip::{DualConfig, EncoderConfig};
use cluegate_models::owlv2::Owlv2Model;
use cluegate_models::qwen2_vl::{self, Config, ImageProcessor};
use cluegate_models::{FileTree, LanguageModel, LoadOptions, load_judge};
use cluegate_perception::{
    Call, CompletionRequest, DecodeOptions, Picture, Prefix, Prompt, VisionLanguageModel, decode,
};
use image::{ImageFormat, RgbImage, imageops};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const TURNS: usize = 25;
const QUESTIONS: usize = 24;
const BEGINNING: &str = "Look only at what this image shows. Is the following statement true of it? Answer \"Yes\" or \"No\". Statement: ";
const STATEMENTS: [&str; 3] =
    ["a person is holding a knife.", "the body of an animal is on fire.", "a dog is visible in the room."];

/// One run on the picture of a turn.
type Run<'a> = Box<dyn Fn(&Picture) -> Outcome<Duration> + 'a>;

/// One row of the table.
struct Stage<'a> {
    name: &'static str,
    /// Floating-point operations, in thousands of millions.
    gflop: f64,
    run: Run<'a>,
}

impl<'a> Stage<'a> {
    fn new(name: &'static str, flop: usize, run: impl Fn(&Picture) -> Outcome<Duration> + 'a) -> Self {
        Self { name, gflop: flop as f64 / 1e9, run: Box::new(run) }
    }

    /// A stage of which everything counts.
    fn whole<T>(name: &'static str, flop: usize, work: impl Fn(&Picture) -> Outcome<T> + 'a) -> Self {
        Self::new(name, flop, move |picture| timed(|| work(picture)))
    }
}

struct Models {
    clip: RelevanceModel,
    clip_config: DualConfig,
    owl: Owlv2Model,
    owl_config: DualConfig,
    judge: LanguageModel,
    judge_config: Config,
    judge_processor: ImageProcessor,
    tokenizer: ChatTokenizer,
}

impl Models {
    fn load(suite: &FileTree) -> Outcome<Self> {
        let (clip, owl, judge) =
            (suite.folder("relevance")?, suite.folder("detector")?, suite.folder("judge")?);
        let (device, dtype) = (Device::Cpu, DType::F32);
        Ok(Self {
            clip: RelevanceModel::load(&clip, &device, dtype)?,
            clip_config: DualConfig::load_clip(&clip)?,
            owl: Owlv2Model::load(&owl, &device, dtype)?,
            owl_config: DualConfig::load_owlv2(&owl)?,
            judge_processor: ImageProcessor::load(&judge, &qwen2_vl::config(&judge)?.vision)?,
            judge_config: qwen2_vl::config(&judge)?,
            tokenizer: ChatTokenizer::load(&judge)?,
            judge: load_judge(&judge, &LoadOptions::default())?,
        })
    }

    fn preprocessing(&self) -> Vec<Stage<'_>> {
        vec![
            Stage::new("decode PNG", 0, |picture| decoding(picture, ImageFormat::Png)),
            Stage::new("decode JPEG", 0, |picture| decoding(picture, ImageFormat::Jpeg)),
            Stage::new("decode WebP", 0, |picture| decoding(picture, ImageFormat::WebP)),
            Stage::whole("content hash", 0, |picture| Ok(Picture::new(picture.pixels().clone()).hash())),
            Stage::whole("CLIP: resize, normalise", 0, |p| {
                Ok(self.clip.pixel_values(std::slice::from_ref(p))?)
            }),
            Stage::whole("OWLv2: resize, normalise", 0, |picture| Ok(self.owl.pixel_values(&[picture])?)),
            Stage::whole("Qwen2-VL: resize, normalise", 0, |picture| {
                Ok(self.judge_processor.patches(picture.pixels())?)
            }),
        ]
    }

    fn towers(&self) -> Vec<Stage<'_>> {
        let vision = |config: &DualConfig| {
            let patches = config.vision.patches_per_side().pow(2);
            let width = config.vision.encoder.hidden_size;
            2 * patches * 3 * config.vision.patch_size.pow(2) * width
                + encoder(&config.vision.encoder, patches + 1)
        };
        let owl = &self.owl_config;
        let width = owl.vision.encoder.hidden_size;
        let heads =
            2 * owl.vision.patches_per_side().pow(2) * width * (4 * width + owl.text.encoder.hidden_size);
        vec![
            Stage::new("CLIP: vision tower", vision(&self.clip_config), |picture| {
                let pixels = self.clip.pixel_values(std::slice::from_ref(picture))?;
                timed(|| Ok(self.clip.picture_features(&pixels)?))
            }),
            Stage::new("OWLv2: vision tower, heads", vision(owl) + heads, |picture| {
                let pixels = self.owl.pixel_values(&[picture])?;
                timed(|| Ok(self.owl.network().forward(&pixels)?))
            }),
            Stage::whole("Qwen2-VL: resize, vision tower", self.judge_tower(), |picture| {
                Ok(self.judge.image_features(picture)?)
            }),
        ]
    }

    fn language(&self) -> Outcome<Vec<Stage<'_>>> {
        let vision = &self.judge_config.vision;
        let count = |text: &str| Ok::<_, Box<dyn std::error::Error>>(self.tokenizer.encode(text)?.len());
        let pixels = self.judge_processor.size(224, 224).map_or(0, |(w, h)| w as usize * h as usize);
        let prefix = pixels / (vision.patch * vision.merge).pow(2) + count(BEGINNING)?;
        // The end of a turn and the beginning of the answer come behind each statement.
        let lengths = (0..QUESTIONS)
            .map(|i| Ok(count(STATEMENTS[i % STATEMENTS.len()])? + 5))
            .collect::<Outcome<Vec<_>>>()?;
        let suffixes = lengths.iter().map(|length| self.decoder(*length, prefix)).sum::<usize>();
        let none: fn(&Picture) -> Prefix = |_| Prefix { picture: None, text: BEGINNING.into() };
        let own: fn(&Picture) -> Prefix =
            |picture| Prefix { picture: Some(picture.clone()), text: BEGINNING.into() };
        let asked = move |prefix: fn(&Picture) -> Prefix| {
            move |picture: &Picture| {
                let prompts = questions(&prefix(picture), QUESTIONS);
                self.judge.score(&prompts[..1], &Call::default())?;
                timed(|| Ok(self.judge.score(&prompts, &Call::default())?))
            }
        };
        let tower = self.judge_tower();
        let first = self.decoder(prefix, 0) + self.decoder(lengths[0], prefix);
        Ok(vec![
            Stage::whole("Qwen2-VL: first question about a picture", tower + first, move |picture| {
                Ok(self.judge.score(&questions(&own(picture), 1), &Call::default())?)
            }),
            Stage::new("Qwen2-VL: 24 questions, prefix remembered", suffixes, asked(own)),
            Stage::new("Qwen2-VL: 24 questions without a picture", suffixes, asked(none)),
            Stage::new(
                "Qwen2-VL: 24 questions, nothing remembered",
                tower + first + suffixes,
                move |picture| {
                    let prompts = questions(&own(picture), QUESTIONS);
                    timed(|| Ok(self.judge.score(&prompts, &Call::default())?))
                },
            ),
            Stage::new(
                "Qwen2-VL: one token behind a remembered question",
                self.decoder(1, prefix),
                move |picture| {
                    let request =
                        [CompletionRequest { prompt: questions(&own(picture), 1).remove(0), max_tokens: 1 }];
                    self.judge.complete(&request, &Call::default())?;
                    timed(|| Ok(self.judge.complete(&request, &Call::default())?))
                },
            ),
        ])
    }

    /// Operations of Qwen2-VL's vision tower.
    fn judge_tower(&self) -> usize {
        let tower = &self.judge_config.vision;
        let pixels = self.judge_processor.size(224, 224).map_or(0, |(w, h)| w as usize * h as usize);
        let patches = pixels / tower.patch.pow(2);
        let merged = tower.width * tower.merge.pow(2);
        let blocks = 2 * patches * tower.width * (4 * tower.width + 2 * tower.intermediate + 2 * patches);
        let merger = 2 * patches / tower.merge.pow(2) * merged * (merged + tower.hidden);
        2 * patches * 3 * tower.patch.pow(2) * tower.width + tower.depth * blocks + merger
    }

    /// Operations of the language model for `tokens` behind `past` others.
    fn decoder(&self, tokens: usize, past: usize) -> usize {
        let text = &self.judge_config.text;
        let (queries, keys) = (text.heads * text.head_dim, text.kv_heads * text.head_dim);
        let weights = text.hidden * (2 * queries + 2 * keys + 3 * text.intermediate);
        2 * tokens * text.layers * (weights + 2 * queries * (past + tokens / 2))
    }
}

/// Operations of an encoder for `tokens` that all see each other.
fn encoder(config: &EncoderConfig, tokens: usize) -> usize {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    2 * tokens * config.num_hidden_layers * width * (4 * width + 2 * inner + 2 * tokens)
}

fn decoding(picture: &Picture, format: ImageFormat) -> Outcome<Duration> {
    let mut file = Vec::new();
    picture.pixels().write_to(&mut Cursor::new(&mut file), format)?;
    timed(|| Ok(decode(&file, &DecodeOptions::default())?))
}

fn questions(prefix: &Prefix, count: usize) -> Vec<Prompt> {
    (0..count).map(|i| Prompt::new(prefix.clone(), STATEMENTS[i % STATEMENTS.len()])).collect()
}

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let begin = Instant::now();
    black_box(work()?);
    Ok(begin.elapsed())
}

/// The picture with one pixel of its own.
fn variant(pixels: &RgbImage, turn: usize) -> Picture {
    let mut pixels = pixels.clone();
    pixels.put_pixel(0, 0, image::Rgb([(turn % 256) as u8, (turn / 256) as u8, 7]));
    Picture::new(pixels)
}

#[allow(clippy::print_stdout)]
fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder? stage_speed FOLDER [PICTURE]")?;
    let pixels = match arguments.next() {
        Some(path) => image::open(path)?.to_rgb8(),
        None => {
            // Soft shapes: noise would make the compressed formats look slower than they are.
            let small =
                RgbImage::from_fn(16, 16, |x, y| image::Rgb([(x * 16) as u8, (y * 16) as u8, (x * y) as u8]));
            imageops::resize(&small, 256, 256, imageops::FilterType::CatmullRom)
        }
    };
    let begin = Instant::now();
    let models = Models::load(&FileTree::open(&folder)?)?;
    println!(
        "{} threads, models loaded in {:.0} ms\n",
        rayon::current_num_threads(),
        millis(begin.elapsed())
    );
    let mut stages = models.preprocessing();
    stages.extend(models.towers());
    stages.extend(models.language()?);
    let mut times = vec![Vec::with_capacity(TURNS); stages.len()];
    for turn in 0..TURNS {
        for (index, (stage, times)) in stages.iter().zip(&mut times).enumerate() {
            times.push((stage.run)(&variant(&pixels, turn * stages.len() + index))?);
        }
    }
    println!("| stage | fastest ms | median ms | GFLOP | GFLOP/s |\n|---|---|---|---|---|");
    for (stage, times) in stages.iter().zip(&mut times) {
        times.sort_unstable();
        let (fastest, median) = (millis(times[0]), millis(times[times.len() / 2]));
        let work = if stage.gflop > 0.0 {
            format!("{:.2} | {:.0}", stage.gflop, stage.gflop / fastest * 1e3)
        } else {
            "- | -".to_owned()
        };
        println!("| {} | {fastest:.2} | {median:.2} | {work} |", stage.name);
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
