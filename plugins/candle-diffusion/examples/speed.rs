//! How long a picture takes with random weights of the embedded generator's shape, or with a pipeline on disk.
//!
//! ```text
//! cargo run --release -p cluegate-candle-diffusion --example speed              # random weights
//! cargo run --release -p cluegate-candle-diffusion --example speed -- FOLDER    # a diffusers folder
//! ```
//!
//! Prints a table: time of one UNet call for a batch of two, of a whole picture of 20 steps with guidance, of a
//! preview and of the last decoding, and the processor time of all threads for the picture. It is a measurement, never a test.

// A program for a person: it prints, and stops where something fails.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use cluegate_candle_diffusion::config::{TextEncoderConfig, UNetConfig, VaeConfig};
use cluegate_candle_diffusion::text_encoder::TextEncoder;
use cluegate_candle_diffusion::unet::UNet;
use cluegate_candle_diffusion::vae::Vae;
use cluegate_candle_diffusion::{
    Control, GenerateRequest, NoHook, Outcome, Pipeline, Result, Step, StepHook, Timings,
};
use cluegate_models::FileTree;

/// Text encoder, UNet and VAE in the shape of the embedded generator: 128 px, latents of 32 x 32.
const TEXT: &str = r#"{"vocab_size": 512, "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4,
 "num_attention_heads": 6, "max_position_embeddings": 32, "hidden_act": "quick_gelu"}"#;
const VAE: &str = r#"{"block_out_channels": [48, 64, 96], "layers_per_block": 1, "norm_num_groups": 16,
 "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
 "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
const SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
 "beta_schedule": "scaled_linear", "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1}"#;
const INDEX: &str = r#"{"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"],
 "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
 "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"]}"#;

/// A shape of UNet: channels of its levels (one head for each 32), and whether the two upper levels attend to the text
/// or the two lower ones.
type UNetShape = ([usize; 3], bool);

/// That of the embedded generator, and a wider one that also attends at the full resolution.
const UNETS: [UNetShape; 2] = [([64, 128, 160], false), ([96, 192, 256], true)];

fn unet_config((channels, upper): UNetShape) -> String {
    let heads = channels.map(|c| c / 32);
    let (plain, cross) = ("DownBlock2D", "CrossAttnDownBlock2D");
    let down = if upper { [cross, cross, plain] } else { [plain, cross, cross] };
    let mut up = down.map(|name| name.replace("Down", "Up"));
    up.reverse();
    format!(
        r#"{{"sample_size": 32, "block_out_channels": {channels:?}, "layers_per_block": 1, "norm_num_groups": 32,
 "down_block_types": {down:?}, "up_block_types": {up:?}, "cross_attention_dim": 192,
 "attention_head_dim": {heads:?}}}"#
    )
}

/// A source of weights that makes up what it is asked for and keeps it.
#[derive(Clone, Default)]
struct MadeUp(Arc<Mutex<HashMap<String, Tensor>>>);

impl SimpleBackend for MadeUp {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let fan_in: usize = shape.dims()[1..].iter().product();
        let mean = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        let deviation = (fan_in as f64).sqrt().recip() * if shape.rank() > 1 { 1.0 } else { 0.1 };
        let tensor = Tensor::randn(mean, deviation, shape, device)?.to_dtype(dtype)?;
        self.0.lock().unwrap().insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _dtype: DType, _device: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: no shape to make it up from")
    }

    fn contains_tensor(&self, _name: &str) -> bool {
        false
    }
}

/// Writes random weights for one part of the pipeline; answers their number.
fn random_weights(folder: &Path, part: &str, stem: &str) -> usize {
    let tree = FileTree::open(folder.join(part)).unwrap();
    let made = MadeUp::default();
    let vb = VarBuilder::from_backend(Box::new(made.clone()), DType::F32, Device::Cpu);
    match part {
        "unet" => drop(UNet::from_builder(UNetConfig::load(&tree).unwrap(), vb).unwrap()),
        "vae" => drop(Vae::from_builder(VaeConfig::load(&tree).unwrap(), &vb).unwrap()),
        _ => drop(TextEncoder::from_builder(TextEncoderConfig::load(&tree).unwrap(), &vb).unwrap()),
    }
    let tensors = made.0.lock().unwrap();
    candle_core::safetensors::save(&*tensors, folder.join(part).join(format!("{stem}.safetensors"))).unwrap();
    tensors.values().map(Tensor::elem_count).sum()
}

/// Processor time of all threads so far, where the system tells (Linux; in ticks of 10 ms).
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold spaces: state, ten numbers, user and system time.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn random_pipeline(shape: UNetShape) -> (tempfile::TempDir, usize) {
    let folder = tempfile::tempdir().unwrap();
    let unet = unet_config(shape);
    let files = [
        ("model_index.json", INDEX),
        ("scheduler/scheduler_config.json", SCHEDULER),
        ("text_encoder/config.json", TEXT),
        ("unet/config.json", &unet),
        ("vae/config.json", VAE),
        ("tokenizer/tokenizer_config.json", r#"{"pad_token": "<|endoftext|>"}"#),
        ("tokenizer/vocab.json", r#"{"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}"#),
        ("tokenizer/merges.txt", "#version: 0.2\n"),
    ];
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    random_weights(folder.path(), "text_encoder", "model");
    random_weights(folder.path(), "vae", "diffusion_pytorch_model");
    let parameters = random_weights(folder.path(), "unet", "diffusion_pytorch_model");
    (folder, parameters)
}

/// Steps of a default request.
const STEPS: f64 = 20.0;

/// Asks for one preview.
struct OnePreview;

impl StepHook for OnePreview {
    fn wants_preview(&mut self, index: usize, _total: usize) -> bool {
        index == 0
    }

    fn on_step(&mut self, _step: Step) -> Control {
        Control::Continue
    }
}

/// What one row of the table shows.
struct Measured {
    whole: Timings,
    preview: Duration,
    processor: Option<Duration>,
}

fn measure(pipeline: &Pipeline) -> Result<Measured> {
    let request = pipeline.default_request("a");
    let timings = |outcome: Outcome| match outcome {
        Outcome::Finished { timings, .. } | Outcome::Aborted { timings, .. } => timings,
    };
    let short = GenerateRequest { steps: 2, ..request.clone() };
    // Also warms up caches and threads.
    let preview = timings(pipeline.generate(&short, &mut OnePreview)?).previews;
    let before = processor_time();
    let whole = timings(pipeline.generate(&request, &mut NoHook)?);
    let processor = processor_time().zip(before).map(|(after, before)| after - before);
    Ok(Measured { whole, preview, processor })
}

fn row(name: &str, pipeline: &Pipeline) -> Result<()> {
    let Measured { whole, preview, processor } = measure(pipeline)?;
    let ms = |d: Duration| format!("{:.0}", d.as_secs_f64() * 1000.0);
    println!(
        "| {name} | {} | {:.1} | {} | {} | {} | {} |",
        ms(whole.text),
        whole.denoise.as_secs_f64() * 1000.0 / STEPS,
        ms(preview),
        ms(whole.decode),
        ms(whole.computing()),
        processor.map_or_else(|| "-".to_owned(), ms),
    );
    Ok(())
}

fn main() -> Result<()> {
    let clock = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("20 DDIM steps with guidance, f32, {threads} hardware threads; milliseconds");
    println!("| pipeline | text | one step | preview | decode | one picture | its processor time |");
    println!("|---|---|---|---|---|---|---|");
    if let Some(folder) = std::env::args().nth(1) {
        let pipeline = Pipeline::load(&FileTree::open(&folder)?, &Device::Cpu, DType::F32)?;
        return row(&folder, &pipeline);
    }
    for shape in UNETS {
        let (folder, parameters) = random_pipeline(shape);
        let pipeline = Pipeline::load(&FileTree::open(folder.path())?, &Device::Cpu, DType::F32)?;
        row(&format!("random, UNet {:?}, {:.1} M", shape.0, parameters as f64 / 1e6), &pipeline)?;
    }
    println!("(all in {:.1} s)", clock.elapsed().as_secs_f64());
    Ok(())
}
