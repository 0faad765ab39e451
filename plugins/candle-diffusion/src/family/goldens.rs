//! Every family against diffusers: `goldens/make_families.py` says how the values were made. Tolerance: 1e-4 of the largest
//! value in f32, 1e-3 for a whole generation, and half a level for the picture's rounding to 8 bits.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, ModelErrorKind};
use image::{GrayImage, RgbImage};
use serde::Deserialize;
use serde_json::Value;

use super::{FamilyKind, Text};
use crate::run::Run;
use crate::{
    Control, DiffusionError, GenerateRequest, NoHook, NoiseSource, Notice, Outcome, Pipeline, PreviewKind,
    Result, SchedulerKind, Source, Step, StepHook,
};

const CASES: [(&str, FamilyKind, SchedulerKind); 7] = [
    ("stable-diffusion-2", FamilyKind::StableDiffusion, SchedulerKind::Ddim),
    ("inpaint-9", FamilyKind::StableDiffusion, SchedulerKind::Ddim),
    ("sdxl", FamilyKind::StableDiffusionXl, SchedulerKind::Euler),
    ("sdxl-turbo", FamilyKind::StableDiffusionXl, SchedulerKind::EulerAncestral),
    ("sd3", FamilyKind::StableDiffusion3, SchedulerKind::FlowMatchEuler),
    ("flux-schnell", FamilyKind::Flux, SchedulerKind::FlowMatchEuler),
    ("flux-dev", FamilyKind::Flux, SchedulerKind::FlowMatchEuler),
];
const TOLERANCE: f32 = 1e-4;
const WHOLE: f32 = 1e-3;
const STEPS: usize = 4;

#[derive(Deserialize)]
struct Case {
    files: BTreeMap<String, Value>,
    tensors: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    guidance: f64,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/families")
}

/// The numbers of a tensor, as the script's `values`.
fn values(name: &str, shape: &[usize]) -> Tensor {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let unit = |i: u64| {
        let mut z = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    let norm = name.contains("norm") && !name.contains("linear") && name.ends_with("weight");
    let table = name.contains("embeddings") || name.contains("pos_embed.pos") || name == "shared.weight";
    let fan_in: usize = shape.iter().skip(1).product();
    let (shift, stretch) = match () {
        () if norm => (1.0, 0.3),
        () if table => (0.0, 0.8),
        () if shape.len() >= 2 => (0.0, (3.0 / fan_in as f64).sqrt()),
        () => (0.0, 0.15),
    };
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (1..=count as u64).map(|i| (shift + stretch * unit(i)) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn case(name: &str) -> Case {
    serde_json::from_slice(&std::fs::read(goldens().join(format!("{name}.json"))).unwrap()).unwrap()
}

/// The case's diffusers folder on disk.
fn folder(case: &Case) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in &case.files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.get("same as").and_then(Value::as_str) {
            Some(other) => drop(std::fs::copy(goldens().join("tokenizers").join(other), path).unwrap()),
            None => std::fs::write(path, content.to_string()).unwrap(),
        }
    }
    for (part, shapes) in &case.tensors {
        let tensors: HashMap<&str, Tensor> =
            shapes.iter().map(|(name, shape)| (name.as_str(), values(name, shape))).collect();
        let stem = if part.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        let path = folder.path().join(part).join(format!("{stem}.safetensors"));
        candle_core::safetensors::save(&tensors, path).unwrap();
    }
    folder
}

fn open(folder: &tempfile::TempDir) -> Result<Pipeline> {
    Pipeline::load(&FileTree::open(folder.path()).unwrap(), &Device::Cpu, DType::F32)
}

fn load(name: &str) -> (Pipeline, HashMap<String, Tensor>, f64) {
    let case = case(name);
    let tensors =
        candle_core::safetensors::load(goldens().join(format!("{name}.safetensors")), &Device::Cpu).unwrap();
    (open(&folder(&case)).unwrap(), tensors, case.guidance.max(1.0))
}

/// Fails unless the largest difference is within `tolerance` of the largest expected value.
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (flat(found), flat(expected));
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, |m, d| {
        // `max` would drop a NaN.
        if d <= m { m } else { d }
    });
    assert!(
        scale > 0.0 && error <= tolerance * scale,
        "{what}: off by {:e} of the largest value",
        error / scale
    );
}

/// Slices of a golden tensor, one after the other.
struct Replay<'a>(&'a Tensor, usize);

impl NoiseSource for Replay<'_> {
    fn draw(&mut self, shape: &[usize], _device: &Device) -> Result<Tensor> {
        self.1 += 1;
        let drawn = self.0.narrow(0, self.1 - 1, 1)?;
        assert_eq!(drawn.dims(), shape);
        Ok(drawn)
    }
}

const PROMPT: &str = "a dog and a cat on the grass";
const NEGATIVE: &str = "a man at night";

/// The request of a kind of generation: `text`, `image`, `mask` or `mask-all`.
fn request(
    pipeline: &Pipeline,
    golden: &HashMap<String, Tensor>,
    guidance: f64,
    kind: &str,
) -> GenerateRequest {
    let bytes = |name: &str| -> Vec<u8> {
        golden[name].flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| *v as u8).collect()
    };
    let source = Source {
        picture: Arc::new(RgbImage::from_raw(24, 16, bytes("image")).unwrap()),
        mask: kind.starts_with("mask").then(|| Arc::new(GrayImage::from_raw(24, 16, bytes("mask")).unwrap())),
        strength: if kind == "mask-all" { 1.0 } else { 0.6 },
    };
    GenerateRequest {
        negative_prompt: NEGATIVE.to_owned(),
        steps: STEPS,
        guidance_scale: guidance,
        width: 24,
        height: 16,
        source: (kind != "text").then_some(source),
        ..pipeline.default_request(PROMPT)
    }
}

fn kinds(name: &str) -> &'static [&'static str] {
    if name == "inpaint-9" { &["mask", "mask-all"] } else { &["text", "image", "mask", "mask-all"] }
}

#[test]
fn families_and_schedulers_are_recognised() {
    for (name, family, scheduler) in CASES {
        let (pipeline, ..) = load(name);
        let request = pipeline.default_request("");
        assert_eq!((pipeline.family(), request.scheduler), (family, scheduler), "{name}");
        assert_eq!(pipeline.is_few_step(), name == "sdxl-turbo", "{name}");
        let expected = match name {
            "stable-diffusion-2" | "inpaint-9" => (20, 7.5),
            "sdxl" => (30, 5.0),
            "sdxl-turbo" | "flux-schnell" => (4, 1.0),
            "sd3" => (28, 7.0),
            _ => (28, 3.5),
        };
        assert_eq!((request.steps, request.guidance_scale), expected, "{name}");
    }
}

#[test]
fn parts_equal_diffusers() {
    for (name, ..) in CASES {
        let (pipeline, golden, guidance) = load(name);
        let texts = [Text::negative(NEGATIVE), Text::prompt(PROMPT)];
        let rows = golden["states"].dim(0).unwrap();
        let mut notices = Vec::new();
        let conditioning = pipeline.model().encode(&texts[2 - rows..], &mut notices).unwrap();
        assert!(notices.is_empty());
        assert_close(&conditioning.states, &golden["states"], TOLERANCE, &format!("{name}, states"));
        if let Some(pooled) = golden.get("pooled") {
            assert_close(conditioning.pooled().unwrap(), pooled, TOLERANCE, &format!("{name}, pooled"));
        }
        let latents = golden["noise"].narrow(0, 0, 1).unwrap();
        let mut input = Tensor::cat(&vec![&latents; rows], 0).unwrap();
        if pipeline.about().inpaints {
            let mask = input.narrow(1, 0, 1).unwrap();
            input = Tensor::cat(&[&input, &mask, &input], 1).unwrap();
        }
        let request = request(&pipeline, &golden, guidance, "text");
        let call = pipeline.model().predict(&input, 501.0, &conditioning, &request).unwrap();
        assert_close(&call, &golden["call"], TOLERANCE, &format!("{name}, denoiser"));
        let decoded = pipeline.vae().decode(&golden["noise"].narrow(0, 1, 1).unwrap()).unwrap();
        assert_close(&decoded, &golden["decoded"], TOLERANCE, &format!("{name}, decoder"));
        let source = super::goldens::request(&pipeline, &golden, guidance, "image").source.unwrap();
        let pixels = source.pixels((24, 16), &Device::Cpu).unwrap();
        let encoded = pipeline.vae().encode_mean(&pixels).unwrap();
        assert_close(&encoded, &golden["encoded"], TOLERANCE, &format!("{name}, encoder"));
    }
}

#[test]
fn latents_of_whole_generations_equal_diffusers_step_by_step() {
    for (name, ..) in CASES {
        let (pipeline, golden, guidance) = load(name);
        for kind in kinds(name) {
            let request = request(&pipeline, &golden, guidance, kind);
            pipeline.check(&request).unwrap();
            let mut noise = Replay(&golden["noise"], 0);
            let mut run = Run::new(&pipeline, &request).unwrap();
            let conditioning = run.encode_texts().unwrap();
            let mut state = run.begin(&mut noise).unwrap();
            let expected = &golden[&format!("{kind}.latents")];
            for step in 0..expected.dim(0).unwrap() {
                run.step(step, &mut state, &conditioning, &mut noise).unwrap();
                let what = format!("{name}, {kind}, step {step}");
                assert_close(&state.latents, &expected.narrow(0, step, 1).unwrap(), WHOLE, &what);
            }
        }
    }
}

/// Wants every preview and keeps the last; aborts at a step.
#[derive(Default)]
struct Watch {
    abort_at: Option<usize>,
    steps: usize,
    last: Option<RgbImage>,
}

impl StepHook for Watch {
    fn wants_preview(&mut self, index: usize, _total: usize) -> bool {
        self.abort_at != Some(index)
    }

    fn on_step(&mut self, step: Step) -> Control {
        assert_eq!(step.index, self.steps);
        self.steps += 1;
        self.last = step.preview.or(self.last.take());
        if self.abort_at == Some(step.index) { Control::Abort } else { Control::Continue }
    }
}

#[test]
fn pictures_equal_diffusers_and_the_last_preview_is_the_picture() {
    for (name, ..) in CASES {
        let (pipeline, golden, guidance) = load(name);
        for kind in kinds(name) {
            let request = request(&pipeline, &golden, guidance, kind);
            let (mut noise, mut watch) = (Replay(&golden["noise"], 0), Watch::default());
            let outcome = pipeline.generate_with_noise(&request, &mut noise, &mut watch).unwrap();
            let Outcome::Finished { picture, steps, notices, .. } = outcome else { panic!("{outcome:?}") };
            let expected = golden[&format!("{kind}.latents")].dim(0).unwrap();
            assert_eq!((steps, watch.steps), (expected, expected), "{name}, {kind}");
            let pixels: Vec<f32> = picture.as_raw().iter().map(|v| f32::from(*v) / 255.0).collect();
            let pixels = Tensor::from_vec(pixels, (16, 24, 3), &Device::Cpu).unwrap();
            let expected = &golden[&format!("{kind}.picture")];
            assert_close(&pixels, expected, WHOLE + 0.5 / 255.0, &format!("{name}, {kind}"));
            // Ancestral and deterministic steps alike end at what the last prediction takes the picture to be.
            if request.scheduler != SchedulerKind::Ddim {
                let preview = watch.last.unwrap();
                let off = preview.as_raw().iter().zip(picture.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off <= Some(1), "{name}, {kind}: {off:?}");
            }
            let unguided = guidance <= 1.0 || pipeline.family() == FamilyKind::Flux;
            assert_eq!(notices.contains(&Notice::NegativePromptUnused), unguided, "{name}");
        }
    }
}

/// Wants every preview, and keeps them all.
#[derive(Default)]
struct Keep(Vec<RgbImage>);

impl StepHook for Keep {
    fn wants_preview(&mut self, _: usize, _: usize) -> bool {
        true
    }

    fn on_step(&mut self, step: Step) -> Control {
        self.0.extend(step.preview);
        Control::Continue
    }
}

#[test]
fn a_look_ahead_by_every_step_foretells_the_picture_of_each_family() {
    for (name, ..) in CASES {
        let (pipeline, golden, guidance) = load(name);
        for kind in kinds(name) {
            let request = request(&pipeline, &golden, guidance, kind);
            let request = GenerateRequest {
                // Fresh noise cannot be foretold.
                scheduler: match request.scheduler {
                    SchedulerKind::EulerAncestral => SchedulerKind::Euler,
                    other => other,
                },
                look_ahead: Some(STEPS),
                ..request
            };
            let mut keep = Keep::default();
            let outcome = pipeline.generate(&request, &mut keep).unwrap();
            assert!(matches!(outcome, Outcome::Finished { .. }));
            let [first, .., last] = keep.0.as_slice() else { panic!("{} previews", keep.0.len()) };
            let off = first.as_raw().iter().zip(last.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(1), "{name}, {kind}: {off:?}");
        }
    }
}

#[test]
fn an_abort_at_any_step_decodes_nothing() {
    for (name, ..) in CASES {
        let (pipeline, golden, guidance) = load(name);
        for abort_at in 0..STEPS {
            let kind = if name == "inpaint-9" { "mask-all" } else { "text" };
            let request = request(&pipeline, &golden, guidance, kind);
            let mut watch = Watch { abort_at: Some(abort_at), ..Watch::default() };
            let outcome = pipeline.generate(&request, &mut watch).unwrap();
            let Outcome::Aborted { at_step, timings, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!((at_step, watch.steps), (abort_at + 1, abort_at + 1), "{name}");
            assert!(timings.decode.is_zero(), "{name}");
        }
    }
}

#[test]
fn outside_of_the_mask_the_latents_stay_those_of_the_picture() {
    for name in ["sdxl-turbo", "sd3", "flux-dev"] {
        let (pipeline, golden, guidance) = load(name);
        let request = request(&pipeline, &golden, guidance, "mask-all");
        let mut run = Run::new(&pipeline, &request).unwrap();
        let conditioning = run.encode_texts().unwrap();
        let mut noise = Replay(&golden["noise"], 0);
        let mut state = run.begin(&mut noise).unwrap();
        for step in 0..STEPS {
            run.step(step, &mut state, &conditioning, &mut noise).unwrap();
        }
        let source = request.source.as_ref().unwrap();
        let origin = pipeline.vae().encode_scaled(&source.pixels((24, 16), &Device::Cpu).unwrap()).unwrap();
        let drawn = source.latent_mask((24, 16), 2, &Device::Cpu).unwrap().unwrap();
        let moved = (&state.latents - &origin).unwrap().abs().unwrap();
        let sum = |x: Tensor| x.sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(sum(moved.broadcast_mul(&(1.0 - &drawn).unwrap()).unwrap()) < 1e-4, "{name}");
        assert!(sum(moved.broadcast_mul(&drawn).unwrap()) > 1.0, "{name}");
    }
}

#[test]
fn linear_previews_need_a_map_and_change_nothing() {
    let (pipeline, golden, guidance) = load("flux-dev");
    let plain = request(&pipeline, &golden, guidance, "text");
    let linear = GenerateRequest { previews: PreviewKind::Linear, ..plain.clone() };
    let error = pipeline.generate(&linear, &mut NoHook).unwrap_err().to_string();
    assert!(error.starts_with("previews") && error.contains("latent_rgb.json"), "{error}");
    let folder = folder(&case("flux-dev"));
    let factors = vec![[0.2, 0.1, -0.1]; 8];
    let map = serde_json::json!({ "factors": factors, "bias": [0.1, 0.0, 0.0] });
    std::fs::write(folder.path().join("latent_rgb.json"), map.to_string()).unwrap();
    let mapped = open(&folder).unwrap();
    let draw = |pipeline: &Pipeline, request: &GenerateRequest, watch: &mut dyn StepHook| match pipeline
        .generate(request, watch)
        .unwrap()
    {
        Outcome::Finished { picture, .. } => picture,
        other => panic!("{other:?}"),
    };
    let (mut by_vae, mut by_map) = (Watch::default(), Watch::default());
    assert_eq!(draw(&pipeline, &plain, &mut by_vae), draw(&mapped, &linear, &mut by_map));
    let (by_vae, by_map) = (by_vae.last.unwrap(), by_map.last.unwrap());
    assert_eq!(by_map.dimensions(), (24, 16));
    assert_ne!(by_vae, by_map);
}

#[test]
fn what_a_model_cannot_draw_is_refused_by_name() {
    type Change = fn(&mut GenerateRequest);
    let cases: [(&str, &str, Change); 6] = [
        ("sdxl", "scheduler", |r| r.scheduler = SchedulerKind::FlowMatchEuler),
        ("sd3", "scheduler", |r| r.scheduler = SchedulerKind::Ddim),
        ("sd3", "width", |r| r.width = 32),
        ("flux-dev", "height", |r| r.height = 18),
        ("inpaint-9", "mask", |r| r.source = None),
        ("sdxl", "strength", |r| r.source.as_mut().unwrap().strength = 0.1),
    ];
    for (name, field, change) in cases {
        let (pipeline, golden, guidance) = load(name);
        let mut request = request(&pipeline, &golden, guidance, "mask");
        pipeline.check(&request).unwrap();
        change(&mut request);
        let error = pipeline.check(&request).unwrap_err().to_string();
        assert!(error.starts_with(field), "{name}: {error}");
    }
}

#[test]
fn an_empty_negative_prompt_of_sdxl_is_zeros() {
    let (pipeline, ..) = load("sdxl");
    let texts = [Text::negative(""), Text::prompt(PROMPT)];
    let conditioning = pipeline.model().encode(&texts, &mut Vec::new()).unwrap();
    for tensor in [&conditioning.states, conditioning.pooled().unwrap()] {
        let size = |row: usize| {
            let row = tensor.get(row).unwrap().abs().unwrap();
            row.sum_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(size(0) == 0.0 && size(1) > 0.0);
    }
}

#[test]
fn stable_diffusion_3_draws_without_t5() {
    let mut case = case("sd3");
    case.tensors.remove("text_encoder_3");
    case.files.retain(|name, _| !name.starts_with("text_encoder_3") && !name.starts_with("tokenizer_3"));
    let index = case.files.get_mut("model_index.json").unwrap();
    index["text_encoder_3"] = serde_json::json!([null, null]);
    index["tokenizer_3"] = serde_json::json!([null, null]);
    let pipeline = open(&folder(&case)).unwrap();
    let conditioning = pipeline.model().encode(&[Text::prompt(PROMPT)], &mut Vec::new()).unwrap();
    assert_eq!(conditioning.states.dims(), [1, 20 + 256, 24]);
}

/// What loading a changed case says.
fn refused(case: &Case, change: impl FnOnce(&Path)) -> (ModelErrorKind, String) {
    let folder = folder(case);
    change(folder.path());
    match open(&folder).unwrap_err() {
        DiffusionError::Model(error) => (error.kind(), error.to_string()),
        other => panic!("{other}"),
    }
}

#[test]
fn missing_misshapen_and_unknown_tensors_of_every_part_are_named() {
    for (name, ..) in CASES {
        let case = case(name);
        for (part, shapes) in &case.tensors {
            // The largest tensor is one that no option makes superfluous.
            let (tensor, _) = shapes.iter().max_by_key(|(_, shape)| shape.iter().product::<usize>()).unwrap();
            let altered = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
                refused(&case, |folder| {
                    let stem = if part.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
                    let path = folder.join(part).join(format!("{stem}.safetensors"));
                    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
                    change(&mut tensors);
                    candle_core::safetensors::save(&tensors, &path).unwrap();
                })
            };
            let wrong = || Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap();
            let (kind, message) = altered(&|t| drop(t.remove(tensor)));
            assert!(message.contains(tensor), "{name}/{part}: {message}");
            assert_eq!(kind, ModelErrorKind::MissingTensor, "{name}/{part}: {message}");
            let (kind, message) = altered(&|t| drop(t.insert(tensor.clone(), wrong())));
            assert_eq!(kind, ModelErrorKind::ShapeMismatch, "{name}/{part}: {message}");
            let (kind, message) = altered(&|t| drop(t.insert("extra.weight".to_owned(), wrong())));
            assert_eq!(kind, ModelErrorKind::UnknownTensor, "{name}/{part}: {message}");
        }
    }
}

#[test]
fn parts_of_other_classes_and_sizes_are_refused() {
    let cases = [
        ("sdxl", "model_index.json", "_class_name", serde_json::json!("KandinskyPipeline"), "FluxPipeline"),
        ("sdxl", "model_index.json", "text_encoder_2", serde_json::json!([null, null]), "WithProjection"),
        ("sdxl", "model_index.json", "requires_aesthetics_score", serde_json::json!(true), "aesthetics"),
        ("sdxl", "text_encoder_2/config.json", "projection_dim", serde_json::json!(9), "text_projection"),
        ("sd3", "transformer/config.json", "qk_norm", serde_json::json!("layer_norm"), "qk_norm"),
        ("sd3", "text_encoder_3/config.json", "feed_forward_proj", serde_json::json!("relu"), "feed_forward"),
        (
            "sd3",
            "scheduler/scheduler_config.json",
            "_class_name",
            serde_json::json!("DDIMScheduler"),
            "FlowMatch",
        ),
        (
            "flux-dev",
            "transformer/config.json",
            "guidance_embeds",
            serde_json::json!(false),
            "guidance_embedder",
        ),
        ("flux-dev", "vae/config.json", "shift_factor", serde_json::json!("no"), "vae/config.json"),
        ("stable-diffusion-2", "unet/config.json", "in_channels", serde_json::json!(5), "conv_in"),
    ];
    for (name, file, key, value, word) in cases {
        let mut case = case(name);
        case.files.get_mut(file).unwrap()[key] = value;
        let (_, message) = refused(&case, |_| {});
        assert!(message.contains(word), "{name}, {file}: {message}");
    }
}

/// Latents of Stable Diffusion 1.x, from the goldens of its parts (`goldens/make_goldens.py`).
#[test]
fn latents_of_the_first_layout_equal_diffusers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/data");
    let golden = candle_core::safetensors::load(folder.join("pipeline.safetensors"), &Device::Cpu).unwrap();
    let tree = FileTree::open(folder.join("pipeline")).unwrap();
    let pipeline = Pipeline::load(&tree, &Device::Cpu, DType::F32).unwrap();
    for (name, scheduler) in [("ddim", SchedulerKind::Ddim), ("euler-a", SchedulerKind::EulerAncestral)] {
        let request = GenerateRequest {
            negative_prompt: NEGATIVE.to_owned(),
            guidance_scale: 4.0,
            steps: 5,
            width: 24,
            height: 16,
            scheduler,
            ..pipeline.default_request(PROMPT)
        };
        let mut noise = Replay(&golden["noise"], 0);
        let mut run = Run::new(&pipeline, &request).unwrap();
        let conditioning = run.encode_texts().unwrap();
        let mut state = run.begin(&mut noise).unwrap();
        for step in 0..5 {
            run.step(step, &mut state, &conditioning, &mut noise).unwrap();
            let expected = golden[&format!("{name}.latents")].narrow(0, step, 1).unwrap();
            assert_close(&state.latents, &expected, WHOLE, &format!("{name}, step {step}"));
        }
    }
}
