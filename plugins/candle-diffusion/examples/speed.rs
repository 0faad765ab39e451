//! How long a picture takes with random weights of the embedded generator's shape, or with a pipeline on disk.
//!
//! ```text
//! cargo run --release -p cluegate-candle-diffusion --example speed              # random weights
//! cargo run --release -p cluegate-candle-diffusion --example speed -- FOLDER    # a diffusers folder
//! ```
//!
//! Prints a table: time of one UNet call for a batch of two, of a whole picture of 20 steps with guidance, of a
//! preview and of the last decoding. It is a measurement, never a test.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use cluegate_candle_diffusion::{Control, NoHook, Outcome, Pipeline, Result, Step, StepHook, Timings};
use cluegate_models::FileTree;

/// Text encoder, UNet and VAE in the shape of the embedded generator: 128 px, latents of 32 x 32.
const TEXT: &str = r#"{"vocab_size": 512, "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4,
 "num_attention_heads": 3, "max_position_embeddings": 32, "hidden_act": "quick_gelu"}"#;
const VAE: &str = r#"{"block_out_channels": [48, 96, 128], "layers_per_block": 1, "norm_num_groups": 16,
 "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
 "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
const SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
 "beta_schedule": "scaled_linear", "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1}"#;
const INDEX: &str = r#"{"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"],
 "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
 "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"]}"#;

/// Two shapes of UNet: of the size that is planned, and that of the first trial.
const UNETS: [(&str, [usize; 3]); 2] = [("10 M", [80, 144, 192]), ("17 M", [96, 192, 256])];

fn unet_config(channels: [usize; 3]) -> String {
    format!(
        r#"{{"sample_size": 32, "block_out_channels": {channels:?}, "layers_per_block": 1, "norm_num_groups": 16,
 "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
 "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
 "cross_attention_dim": 192, "attention_head_dim": 4}}"#
    )
}

/// Asks the loader which tensor is missing until none is, and makes each up.
fn random_weights(folder: &Path, part: &str, stem: &str) -> usize {
    let path = folder.join(part).join(format!("{stem}.safetensors"));
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    loop {
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let tree = FileTree::open(folder.join(part)).unwrap();
        let device = Device::Cpu;
        let missing = match part {
            "unet" => cluegate_candle_diffusion::unet::UNet::load(&tree, DType::F32, &device).err(),
            "vae" => cluegate_candle_diffusion::vae::Vae::load(&tree, DType::F32, &device).err(),
            _ => cluegate_candle_diffusion::text_encoder::TextEncoder::load(&tree, &device).err(),
        };
        match missing {
            None => return tensors.values().map(Tensor::elem_count).sum(),
            Some(cluegate_models::ModelError::MissingTensor { name, expected, .. }) => {
                let fan_in: usize = expected[1..].iter().product();
                let mean = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
                let deviation = (fan_in as f64).sqrt().recip() * if expected.len() > 1 { 1.0 } else { 0.1 };
                let tensor = Tensor::randn(mean, deviation, expected, &Device::Cpu).unwrap();
                tensors.insert(name, tensor.to_dtype(DType::F32).unwrap());
            }
            Some(other) => panic!("{other}"),
        }
    }
}

fn random_pipeline(channels: [usize; 3]) -> (tempfile::TempDir, usize) {
    let folder = tempfile::tempdir().unwrap();
    let unet = unet_config(channels);
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

fn measure(pipeline: &Pipeline) -> Result<(Timings, Timings)> {
    let request = pipeline.default_request("a");
    let timings = |outcome: Outcome| match outcome {
        Outcome::Finished { timings, .. } | Outcome::Aborted { timings, .. } => timings,
    };
    pipeline
        .generate(&cluegate_candle_diffusion::GenerateRequest { steps: 2, ..request.clone() }, &mut NoHook)?;
    let whole = timings(pipeline.generate(&request, &mut NoHook)?);
    let preview = timings(pipeline.generate(&request, &mut OnePreview)?);
    Ok((whole, preview))
}

fn row(name: &str, pipeline: &Pipeline) -> Result<()> {
    let (whole, preview) = measure(pipeline)?;
    let ms = |d: Duration| format!("{:.0}", d.as_secs_f64() * 1000.0);
    println!(
        "| {name} | {} | {:.1} | {} | {} | {} |",
        ms(whole.text),
        whole.denoise.as_secs_f64() * 1000.0 / 20.0,
        ms(preview.previews),
        ms(whole.decode),
        ms(whole.computing()),
    );
    Ok(())
}

fn main() -> Result<()> {
    let clock = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("20 DDIM steps with guidance, f32, {threads} hardware threads; milliseconds");
    println!("| pipeline | text | one step | preview | decode | one picture |");
    println!("|---|---|---|---|---|---|");
    if let Some(folder) = std::env::args().nth(1) {
        let pipeline = Pipeline::load(&FileTree::open(&folder)?, &Device::Cpu, DType::F32)?;
        return row(&folder, &pipeline);
    }
    for (name, channels) in UNETS {
        let (folder, parameters) = random_pipeline(channels);
        let pipeline = Pipeline::load(&FileTree::open(folder.path())?, &Device::Cpu, DType::F32)?;
        row(&format!("random, UNet {name} ({:.1} M) {channels:?}", parameters as f64 / 1e6), &pipeline)?;
    }
    println!("(all in {:.1} s)", clock.elapsed().as_secs_f64());
    Ok(())
}
