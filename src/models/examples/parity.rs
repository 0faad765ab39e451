//! How far the models are from what Hugging Face transformers computed, and what published checkpoints need.
//!
//!     cargo run --release -p cluegate-models --example parity
//!
//! Prints two tables in Markdown. The first one runs every folder of `goldens/`: differences are the largest of all
//! values, relative to the largest value. The second one counts the tokens of a picture of 1024 x 1024 pixels with the
//! processors of published checkpoints (`goldens/make_published.py`), and states the memory of their weights by their
//! numbers of parameters.

// An example prints.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_models::owlv2::Owlv2Model;
use cluegate_models::{FileTree, LoadOptions, RelevanceModel, load_judge, load_text};
use cluegate_perception::Picture;
use image::RgbImage;
use serde::Deserialize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The pictures of `goldens/make_pixels.py`, in the order of the other scripts.
const PICTURES: [&str; 6] = ["square", "wide", "tall", "strip", "small", "large"];

fn main() -> Result<()> {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    println!("| golden | family | pictures | pixels | features | texts | same tokens | logits |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    for folder in folders(&goldens)? {
        let name = folder.strip_prefix(&goldens)?.display().to_string();
        let row = if folder.join("expected.json").exists() && folder.join("model").is_dir() {
            language(&folder)
        } else if name.starts_with("owlv2") {
            detector(&folder, &goldens)
        } else {
            relevance(&folder, &goldens)
        };
        println!("| {name} | {}", row.map_err(|error| format!("{name}: {error}"))?);
    }
    println!();
    published(&goldens.join("published"))
}

/// Golden folders: those of a model with expected tensors, one level deep or two.
fn folders(goldens: &Path) -> Result<Vec<PathBuf>> {
    let below = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter(|path| path.is_dir()).collect())
    };
    let mut all = below(goldens)?;
    for folder in all.clone() {
        all.extend(below(&folder)?);
    }
    let of_model =
        |folder: &Path| ["config.json", "model/config.json"].iter().any(|at| folder.join(at).exists());
    all.retain(|folder| folder.join("expected.safetensors").exists() && of_model(folder));
    all.sort();
    Ok(all)
}

/// The largest difference, relative to the largest expected value.
fn difference(got: &[f32], expected: &[f32]) -> Result<f32> {
    if got.len() != expected.len() {
        return Err(format!("{} values instead of {}", got.len(), expected.len()).into());
    }
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    let gap = got.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    Ok(gap / largest)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn expected(folder: &Path) -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu)?)
}

fn picture(path: PathBuf) -> Result<Picture> {
    Ok(Picture::new(image::open(path)?.to_rgb8()))
}

/// The rest of a row, after its name.
fn row(family: &str, counts: [usize; 2], same: Option<usize>, differences: [Option<f32>; 3]) -> String {
    let [pictures, texts] = counts;
    let same = same.map_or("-".to_owned(), |same| format!("{same} of {texts}"));
    let [pixels, features, logits] =
        differences.map(|value| value.map_or("-".to_owned(), |value| format!("{value:.1e}")));
    format!("{family} | {pictures} | {pixels} | {features} | {texts} | {same} | {logits} |")
}

/// The larger of two differences, where there are any.
fn worst(known: Option<f32>, more: f32) -> Option<f32> {
    Some(known.map_or(more, |known| known.max(more)))
}

#[derive(Deserialize)]
struct Family {
    model_type: String,
}

/// A conversation of `goldens/language.py`.
#[derive(Deserialize)]
struct Case {
    name: String,
    picture: Option<String>,
    prompt: Option<String>,
    tokens: Vec<u32>,
}

fn language(folder: &Path) -> Result<String> {
    let tree = FileTree::open(folder.join("model"))?;
    let model = load_text(&tree, &LoadOptions::default())?;
    let expected = expected(folder)?;
    let (mut pixels, mut features, mut logits) = (None, None, None);
    let mut pictures = 0;
    for (name, tensor) in expected.iter() {
        let Some(name) = name.strip_prefix("pixels.") else { continue };
        let picture = picture(folder.join(format!("{name}.png")))?;
        pictures += 1;
        pixels = worst(pixels, difference(&values(&model.pixel_values(&picture)?)?, &values(tensor)?)?);
        let wanted = &expected[&format!("features.{name}")];
        features = worst(features, difference(&values(&model.image_features(&picture)?)?, &values(wanted)?)?);
    }
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(folder.join("expected.json"))?)?;
    let (mut prompts, mut same) = (0, 0);
    for case in &cases {
        // Folders of older scripts do not say what the prompt was before the picture's tokens were put in.
        let Some(prompt) = &case.prompt else { continue };
        let shown =
            case.picture.as_ref().map(|name| picture(folder.join(format!("{name}.png")))).transpose()?;
        let probe = model.probe(prompt, shown.as_ref())?;
        prompts += 1;
        same += usize::from(probe.token_ids == case.tokens);
        let wanted = &expected[&format!("logits.{}", case.name.replace(' ', "_"))];
        logits = worst(logits, difference(&probe.logits, &values(wanted)?)?);
    }
    let family = tree.read_json::<Family>("config.json")?.model_type;
    Ok(row(&family, [pictures, prompts], Some(same), [pixels, features, logits]))
}

/// Token ids of a golden, cut to their lengths.
fn ids(expected: &HashMap<String, Tensor>) -> Result<Vec<Vec<u32>>> {
    let rows = expected["input_ids"].to_dtype(DType::U32)?.to_vec2::<u32>()?;
    let lengths = expected["lengths"].to_vec1::<i64>()?;
    Ok(rows.into_iter().zip(lengths).map(|(row, length)| row[..length as usize].to_vec()).collect())
}

fn common(goldens: &Path) -> Result<Vec<Picture>> {
    PICTURES.iter().map(|name| picture(goldens.join(format!("pixels/{name}.png")))).collect()
}

fn relevance(folder: &Path, goldens: &Path) -> Result<String> {
    let tree = FileTree::open(folder)?;
    let model = RelevanceModel::load(&tree, &Device::Cpu, DType::F32)?;
    let (expected, pictures) = (expected(folder)?, common(goldens)?);
    let pixels = difference(&values(&model.pixel_values(&pictures)?)?, &values(&expected["pixel_values"])?)?;
    let seen = model.picture_features(&expected["pixel_values"])?;
    let read = model.text_features(&ids(&expected)?)?;
    let features = difference(&values(&seen)?, &values(&expected["picture_features"])?)?
        .max(difference(&values(&read)?, &values(&expected["text_features"])?)?);
    let cosines = |pictures: &Tensor, texts: &Tensor| -> Result<Vec<f32>> {
        let unit = |x: &Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?);
        values(&unit(pictures)?.matmul(&unit(texts)?.t()?)?)
    };
    let logits = difference(
        &cosines(&seen, &read)?,
        &cosines(&expected["picture_features"], &expected["text_features"])?,
    )?;
    let family = tree.read_json::<Family>("config.json")?.model_type;
    let counts = [pictures.len(), ids(&expected)?.len()];
    Ok(row(&family, counts, None, [Some(pixels), Some(features), Some(logits)]))
}

fn detector(folder: &Path, goldens: &Path) -> Result<String> {
    let model = Owlv2Model::load(&FileTree::open(folder)?, &Device::Cpu, DType::F32)?;
    let (expected, pictures) = (expected(folder)?, common(goldens)?);
    let seen = model.pixel_values(&pictures.iter().collect::<Vec<_>>())?;
    let pixels = difference(&values(&seen)?, &values(&expected["pixel_values"])?)?;
    let found = model.network().forward(&expected["pixel_values"])?;
    let texts = model.network().embed_texts(&ids(&expected)?)?;
    let features = difference(&values(&found.boxes)?, &values(&expected["pred_boxes"])?)?
        .max(difference(&values(&texts)?, &values(&expected["text_embeds"])?)?);
    let queries = Tensor::stack(&vec![&texts; pictures.len()], 0)?;
    let logits = difference(&values(&found.logits(&queries, None)?)?, &values(&expected["logits"])?)?;
    let counts = [pictures.len(), texts.dim(0)?];
    Ok(row("owlv2", counts, None, [Some(pixels), Some(features), Some(logits)]))
}

/// See `goldens/make_published.py`.
#[derive(Deserialize)]
struct Geometry {
    checkpoints: BTreeMap<String, Parameters>,
    tokens: Option<Vec<[u32; 3]>>,
}

#[derive(Deserialize)]
struct Parameters {
    all: u64,
    matrices: u64,
    head: u64,
    /// Tokens of any picture, where pictures are brought to one size.
    positions: Option<u32>,
}

impl Parameters {
    /// GB of the weights: all in 32 bits, all in 16, and with the matrices of the language model's layers in 4.5 bits
    /// (blocks of 32 with a scale), its output layer in 8.5, and the rest in 16.
    fn gigabytes(&self) -> [f64; 3] {
        let [all, matrices, head] = [self.all, self.matrices, self.head].map(|count| count as f64 / 1e9);
        [4.0 * all, 2.0 * all, (4.5 * matrices + 8.5 * head) / 8.0 + 2.0 * (all - matrices - head)]
    }
}

fn published(folder: &Path) -> Result<()> {
    let text = std::fs::read(folder.join("published.json"))?;
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)?;
    println!("| checkpoint | parameters | f32 | bf16 | q4_0 | tokens of 1024 x 1024 |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (name, value) in all {
        let geometry: Geometry = serde_json::from_value(value)?;
        let tokens = match &geometry.tokens {
            Some(expected) => {
                Some(count(&folder.join(&name), expected).map_err(|error| format!("{name}: {error}"))?)
            }
            None => None,
        };
        for (checkpoint, parameters) in &geometry.checkpoints {
            let [f32, bf16, q4] = parameters.gigabytes();
            let q4 = if parameters.matrices == 0 { "-".to_owned() } else { format!("{q4:.1}") };
            let count = parameters.all as f64 / 1e9;
            let tokens = tokens.or(parameters.positions).map_or("-".to_owned(), |tokens| tokens.to_string());
            println!("| {checkpoint} | {count:.2} G | {f32:.1} | {bf16:.1} | {q4} | {tokens} |");
        }
    }
    Ok(())
}

/// Tokens of a picture of 1024 x 1024 pixels, after all sizes were found to give as many as the reference's processor.
fn count(folder: &Path, expected: &[[u32; 3]]) -> Result<u32> {
    let model = load_judge(&FileTree::open(folder)?, &LoadOptions::default())?;
    let mut answer = None;
    for &[width, height, wanted] in expected {
        let got = model.picture_token_count(&Picture::new(RgbImage::new(width, height)))?;
        if got != wanted as usize {
            return Err(format!("{got} tokens of {width} x {height}, the reference has {wanted}").into());
        }
        if (width, height) == (1024, 1024) {
            answer = Some(wanted);
        }
    }
    answer.ok_or_else(|| "no count of 1024 x 1024".into())
}
