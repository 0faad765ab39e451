//! Every part against diffusers and transformers: `goldens/make_goldens.py` says how the values were made. Tolerance:
//! 1e-4 of the largest value in f32, 1e-3 for a whole generation.

// Helpers outside of test functions fail a test as the functions do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use candle_core::{DType, Device, Tensor};
use cluegate_candle_diffusion::config::{FlowConfig, NoiseConfig, UNetConfig, VaeConfig};
use cluegate_candle_diffusion::scheduler::Plan;
use cluegate_candle_diffusion::text_encoder::TextEncoder;
use cluegate_candle_diffusion::tiny::TinyDecoder;
use cluegate_candle_diffusion::tokenizer::PromptTokenizer;
use cluegate_candle_diffusion::unet::UNet;
use cluegate_candle_diffusion::vae::Vae;
use cluegate_candle_diffusion::{Control, GenerateRequest, Outcome, SchedulerKind, Step, StepHook};
use serde::Deserialize;
use support::{Replay, assert_close, golden, pipeline, tensors, tree};

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct TokenizerCase {
    text: String,
    ids: Vec<u32>,
    ids_padded_otherwise: Vec<u32>,
    tokens: usize,
}

#[test]
fn both_forms_of_the_tokenizer_equal_clips() {
    let text = std::fs::read_to_string(golden("tokenizer.json")).unwrap();
    let cases: Vec<TokenizerCase> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 4);
    let whole = PromptTokenizer::load(&tree("pipeline/tokenizer"), 20).unwrap();
    let files = PromptTokenizer::load(&tree("tokenizer-files"), 20).unwrap();
    for case in cases {
        let (a, b) = (whole.encode(&case.text).unwrap(), files.encode(&case.text).unwrap());
        assert_eq!(a.ids, case.ids, "{}", case.text);
        assert_eq!(b.ids, case.ids_padded_otherwise, "{}", case.text);
        assert_eq!((a.tokens, b.tokens), (case.tokens, case.tokens));
        assert_eq!(a.lost.is_some(), case.tokens > 20);
    }
}

#[test]
fn the_text_that_is_cut_off_is_named() {
    let tokenizer = PromptTokenizer::load(&tree("pipeline/tokenizer"), 20).unwrap();
    let head = "the girl's horse isn't on the beach";
    let lost = tokenizer.encode(&format!("{head} {head} {head}")).unwrap().lost.unwrap();
    assert!(!lost.is_empty() && head.ends_with(&lost[lost.len() - 5..]), "{lost}");
    assert!(tokenizer.encode(head).unwrap().lost.is_none());
}

#[test]
fn text_encoders_equal_transformers() {
    let expected = tensors("text.safetensors");
    let ids = expected["ids"].to_dtype(DType::U32).unwrap();
    for (folder, name) in [("pipeline/text_encoder", "quick_gelu"), ("text-gelu", "gelu")] {
        let encoder = TextEncoder::load(&tree(folder), &Device::Cpu).unwrap();
        assert_close(&encoder.forward(&ids).unwrap(), &expected[name], TOLERANCE, name);
    }
}

#[test]
fn unets_equal_diffusers() {
    let expected = tensors("unet.safetensors");
    for (folder, name) in [("pipeline/unet", "first"), ("unet-second", "second")] {
        let unet = UNet::load(&tree(folder), DType::F32, &Device::Cpu).unwrap();
        let text = &expected[&format!("{name}.text")];
        for timestep in [1, 500, 981] {
            let out = unet.forward(&expected[&format!("{name}.sample")], f64::from(timestep), text).unwrap();
            let what = format!("{name}.out.{timestep}");
            assert_close(&out, &expected[&what], TOLERANCE, &what);
        }
    }
}

#[test]
fn a_size_that_the_levels_do_not_divide_equals_diffusers() {
    let expected = tensors("unet.safetensors");
    let unet = UNet::load(&tree("unet-second"), DType::F32, &Device::Cpu).unwrap();
    let out = unet.forward(&expected["second.odd.sample"], 500.0, &expected["second.text"]).unwrap();
    assert_close(&out, &expected["second.odd.out.500"], TOLERANCE, "odd size");
}

#[test]
fn heads_are_what_the_file_calls_attention_head_dim() {
    let config = UNetConfig::load(&tree("unet-second")).unwrap();
    assert_eq!(config.levels.iter().map(|l| l.heads).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(config.levels.iter().map(|l| l.layers).collect::<Vec<_>>(), [1, 2, 1]);
    assert!(config.linear_projection && !config.flip_sin_to_cos);
}

#[test]
fn vae_equals_diffusers() {
    let expected = tensors("vae.safetensors");
    let vae = Vae::load(&tree("pipeline/vae"), DType::F32, &Device::Cpu).unwrap();
    assert_close(&vae.decode(&expected["latents"]).unwrap(), &expected["decoded"], TOLERANCE, "decode");
    assert_close(&vae.encode_mean(&expected["picture"]).unwrap(), &expected["mean"], TOLERANCE, "encode");
}

#[test]
fn the_small_decoder_equals_diffusers() {
    let expected = tensors("tiny.safetensors");
    let vae = VaeConfig::load(&tree("pipeline/vae")).unwrap();
    let tiny = TinyDecoder::load(&tree("vae_approx"), &vae, DType::F32, &Device::Cpu).unwrap();
    assert_close(
        &tiny.decode_scaled(&expected["latents"]).unwrap(),
        &expected["decoded"],
        TOLERANCE,
        "decode",
    );
    // One that is made for other latents is refused: it would draw something, and nothing like the picture.
    for other in [VaeConfig { latent_channels: 16, ..vae.clone() }, VaeConfig { channels: vec![8; 4], ..vae }]
    {
        let error = TinyDecoder::load(&tree("vae_approx"), &other, DType::F32, &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("4 channels at 1/2"), "{error}");
    }
}

#[derive(Deserialize)]
struct SchedulerCase {
    steps: usize,
    config: serde_json::Value,
}

fn noise_config(case: &SchedulerCase, kind: SchedulerKind) -> NoiseConfig {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scheduler_config.json"), case.config.to_string()).unwrap();
    NoiseConfig::load(&cluegate_models::FileTree::open(folder.path()).unwrap(), kind).unwrap()
}

#[test]
fn schedulers_equal_diffusers_step_by_step() {
    let text = std::fs::read_to_string(golden("schedulers.json")).unwrap();
    let cases: std::collections::BTreeMap<String, SchedulerCase> = serde_json::from_str(&text).unwrap();
    let expected = tensors("schedulers.safetensors");
    assert!(cases.len() >= 11);
    for (name, case) in &cases {
        let kind = match name {
            name if name.starts_with("ddim") => SchedulerKind::Ddim,
            name if name.starts_with("euler-a") => SchedulerKind::EulerAncestral,
            _ => SchedulerKind::Euler,
        };
        let plan = Plan::new(kind, &noise_config(case, kind), case.steps).unwrap();
        let at = |key: &str, i: usize| expected[&format!("{name}.{key}")].narrow(0, i, 1).unwrap();
        let timesteps: Vec<f32> = (0..plan.len()).map(|i| plan.timestep(i) as f32).collect();
        assert_eq!(timesteps, expected[&format!("{name}.timesteps")].to_vec1::<f32>().unwrap(), "{name}");
        let mut latents = (at("initial", 0) * plan.initial_scale()).unwrap();
        assert_close(&latents, &at("samples", 0), 1e-6, name);
        for i in 0..plan.len() {
            let what = format!("{name}, step {i}");
            assert_close(&plan.model_input(i, &latents).unwrap(), &at("inputs", i), TOLERANCE, &what);
            let noise = plan.takes_noise(i).then(|| at("noises", i));
            let result = plan.step(i, &latents, &at("outputs", i), noise.as_ref()).unwrap();
            assert_close(&result.origin, &at("origins", i), TOLERANCE, &what);
            assert_close(&result.latents, &at("samples", i + 1), TOLERANCE, &what);
            latents = result.latents;
        }
    }
}

#[derive(Deserialize)]
struct FlowCase {
    config: serde_json::Value,
    steps: usize,
    tokens: usize,
    even: bool,
    sigmas: Vec<f64>,
    timesteps: Vec<f64>,
}

#[test]
fn noise_levels_of_flows_equal_diffusers() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/families/flow.json");
    let cases: Vec<FlowCase> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() >= 7);
    let ones = Tensor::ones((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let value = |x: &Tensor| f64::from(x.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]);
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("scheduler_config.json"), case.config.to_string()).unwrap();
        let config = FlowConfig::load(&cluegate_models::FileTree::open(folder.path()).unwrap()).unwrap();
        let plan = Plan::flow(&config, case.steps, case.tokens, case.even).unwrap();
        assert_eq!((plan.len(), case.sigmas.len()), (case.steps, case.steps + 1));
        for i in 0..plan.len() {
            let (sigma, next) = (case.sigmas[i], case.sigmas[i + 1]);
            let step = plan.step(i, &ones, &ones, None).unwrap();
            let noised = plan.add_noise(i, &ones.zeros_like().unwrap(), &ones).unwrap();
            for (found, expected) in [
                (plan.timestep(i) / 1000.0, case.timesteps[i] / 1000.0),
                (value(&noised), sigma),
                (value(&step.origin), 1.0 - sigma),
                (value(&step.latents), 1.0 + next - sigma),
            ] {
                assert!((found - expected).abs() < 2e-6, "{}, step {i}: {found}, {expected}", case.config);
            }
        }
    }
}

/// Counts steps.
#[derive(Default)]
struct Count(usize);

impl StepHook for Count {
    fn on_step(&mut self, step: Step) -> Control {
        assert_eq!(step.index, self.0);
        self.0 += 1;
        Control::Continue
    }
}

#[test]
fn whole_generations_equal_diffusers() {
    let expected = tensors("pipeline.safetensors");
    let pipeline = pipeline();
    for (name, scheduler) in [("ddim", SchedulerKind::Ddim), ("euler-a", SchedulerKind::EulerAncestral)] {
        let request = GenerateRequest {
            prompt: "a dog and a cat on the grass".to_owned(),
            negative_prompt: "a man at night".to_owned(),
            steps: 5,
            guidance_scale: 4.0,
            width: 24,
            height: 16,
            scheduler,
            ..pipeline.default_request("")
        };
        let mut count = Count::default();
        let mut noise = Replay::new(expected["noise"].clone());
        let outcome = pipeline.generate_with_noise(&request, &mut noise, &mut count).unwrap();
        let Outcome::Finished { picture, steps, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((steps, count.0), (5, 5));
        // The picture has been rounded to 8 bits: half a level, and 1e-3 for the values before.
        let pixels: Vec<f32> = picture.as_raw().iter().map(|v| f32::from(*v) / 255.0).collect();
        let pixels = Tensor::from_vec(pixels, (16, 24, 3), &Device::Cpu).unwrap();
        assert_close(&pixels, &expected[&format!("{name}.picture")], 1e-3 + 0.5 / 255.0, name);
    }
}
