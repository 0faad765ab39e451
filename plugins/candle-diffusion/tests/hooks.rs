//! The step hook, determinism, and what a generator may not pass off as a picture.

// Helpers outside of test functions fail a test as the functions do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use candle_core::{DType, Device, Tensor};
use cluegate_candle_diffusion::{
    Control, DiffusionError, GenerateRequest, GeneratorFailureKind, NoHook, Notice, Outcome, Pipeline,
    PreviewKind, SafeGuidance, SchedulerKind, Start, Step, StepHook, VAE_APPROX,
};
use cluegate_models::FileTree;
use image::RgbImage;
use support::{altered_pipeline, load, pipeline, tree};

/// Writes down what it is told, wants previews at some steps and aborts at one.
#[derive(Default)]
struct Recorder {
    previews_at: Vec<usize>,
    abort_at: Option<usize>,
    refuse_start: bool,
    /// Whether its previews are for somebody's eyes alone.
    only_shown: bool,
    starts: Vec<Start>,
    asked: Vec<(usize, usize)>,
    steps: Vec<Step>,
}

impl StepHook for Recorder {
    fn start(&mut self, start: &Start) -> Control {
        self.starts.push(*start);
        if self.refuse_start { Control::Abort } else { Control::Continue }
    }

    fn wants_preview(&mut self, index: usize, total: usize) -> bool {
        self.asked.push((index, total));
        self.previews_at.contains(&index)
    }

    fn looks_ahead(&mut self, _: usize, _: usize) -> bool {
        !self.only_shown
    }

    fn on_step(&mut self, step: Step) -> Control {
        let control = if self.abort_at == Some(step.index) { Control::Abort } else { Control::Continue };
        self.steps.push(step);
        control
    }
}

fn request(pipeline: &Pipeline) -> GenerateRequest {
    GenerateRequest {
        steps: 4,
        guidance_scale: 3.0,
        seed: 11,
        ..pipeline.default_request("a dog on the grass")
    }
}

fn picture(pipeline: &Pipeline, request: &GenerateRequest) -> RgbImage {
    match pipeline.generate(request, &mut NoHook).unwrap() {
        Outcome::Finished { picture, .. } => picture,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hook_hears_of_start_and_every_step() {
    let pipeline = pipeline();
    let mut hook = Recorder { previews_at: vec![1, 3], ..Recorder::default() };
    let outcome = pipeline.generate(&request(&pipeline), &mut hook).unwrap();
    let Outcome::Finished { picture, seed, index, steps, timings, notices } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((picture.width(), picture.height()), pipeline.default_size());
    assert_eq!((seed, index, steps), (11, 0, 4));
    assert!(notices.is_empty());
    assert!(timings.denoise > timings.hook && timings.previews.as_nanos() > 0);
    assert_eq!(hook.starts, [Start { total: 4, seed: 11, index: 0, width: 16, height: 16 }]);
    assert_eq!(hook.asked, [(0, 4), (1, 4), (2, 4), (3, 4)]);
    assert!(hook.steps.windows(2).all(|w| w[0].timestep > w[1].timestep));
    let with_preview: Vec<bool> = hook.steps.iter().map(|s| s.preview.is_some()).collect();
    assert_eq!(with_preview, [false, true, false, true]);
    let last = hook.steps[3].preview.as_ref().unwrap();
    assert_eq!((last.width(), last.height()), pipeline.default_size());
}

#[test]
fn previews_do_not_change_the_picture() {
    let pipeline = pipeline();
    let request = request(&pipeline);
    let mut hook = Recorder { previews_at: vec![0, 1, 2, 3], ..Recorder::default() };
    let Outcome::Finished { picture: watched, .. } = pipeline.generate(&request, &mut hook).unwrap() else {
        panic!("not finished")
    };
    assert_eq!(watched, picture(&pipeline, &request));
}

#[test]
fn previews_that_decide_look_ahead_and_change_nothing() {
    let pipeline = pipeline();
    let watch = |look_ahead: Option<usize>, safety: bool, only_shown: bool| {
        let safety = safety.then(|| SafeGuidance::maximum("a cat"));
        let request = GenerateRequest { steps: 6, look_ahead, safety, ..request(&pipeline) };
        let mut hook = Recorder { previews_at: vec![1], only_shown, ..Recorder::default() };
        let Outcome::Finished { picture, .. } = pipeline.generate(&request, &mut hook).unwrap() else {
            panic!("not finished")
        };
        (picture, hook.steps[1].preview.clone().unwrap())
    };
    for safety in [false, true] {
        let (plain, near) = watch(Some(0), safety, false);
        for predictions in 1..4 {
            let (picture, far) = watch(Some(predictions), safety, false);
            assert_eq!(picture, plain, "nothing of a look ahead is kept");
            assert_ne!(far, near);
            assert_eq!(
                watch(Some(predictions), safety, true),
                (picture, near.clone()),
                "a preview for somebody's eyes"
            );
        }
    }
    // By default the predictions are at most a fifth of what is left.
    assert_eq!(watch(None, false, false), watch(Some(0), false, false));
}

#[test]
fn a_small_decoder_shows_previews_unless_the_vae_is_asked_for() {
    let bare = pipeline();
    assert_eq!(bare.default_request("").previews, PreviewKind::Vae);
    let folder = tempfile::tempdir().unwrap();
    for tree in [tree("pipeline"), tree("vae_approx")] {
        let within = folder.path().join(if tree.exists("model_index.json") { "" } else { VAE_APPROX });
        for name in tree.list().unwrap() {
            let path = within.join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &*tree.read(&name).unwrap()).unwrap();
        }
    }
    let folder = FileTree::open(folder.path()).unwrap();
    let pipeline = Pipeline::load(&folder, &Device::Cpu, DType::F32).unwrap();
    let tiny = request(&pipeline);
    assert_eq!(tiny.previews, PreviewKind::Tiny);
    let watch = |request: &GenerateRequest| {
        let mut hook = Recorder { previews_at: vec![2], ..Recorder::default() };
        let Outcome::Finished { picture, .. } = pipeline.generate(request, &mut hook).unwrap() else {
            panic!("not finished")
        };
        (picture, hook.steps[2].preview.clone().unwrap())
    };
    let by_vae = GenerateRequest { previews: PreviewKind::Vae, ..tiny.clone() };
    let [(drawn, small), (same, large)] = [watch(&tiny), watch(&by_vae)];
    assert_eq!(drawn, same);
    assert_eq!(small.dimensions(), large.dimensions());
    assert_ne!(small, large);
    // What previews look like is part of the model: thresholds for them are chosen anew.
    assert_ne!(Pipeline::fingerprint(&folder).unwrap(), Pipeline::fingerprint(&tree("pipeline")).unwrap());
    let error = bare.generate(&tiny, &mut NoHook).unwrap_err().to_string();
    assert!(error.starts_with("previews") && error.contains("vae_approx"), "{error}");
}

#[test]
fn an_abort_stops_at_once() {
    let pipeline = pipeline();
    for abort_at in [0, 2, 3] {
        let mut hook = Recorder { abort_at: Some(abort_at), ..Recorder::default() };
        let outcome = pipeline.generate(&request(&pipeline), &mut hook).unwrap();
        let Outcome::Aborted { at_step, timings, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(at_step, abort_at + 1);
        assert_eq!(hook.steps.len(), abort_at + 1, "no step after the abort");
        assert!(timings.decode.is_zero() && timings.previews.is_zero(), "nothing is decoded");
    }
}

#[test]
fn an_abort_at_the_start_computes_nothing() {
    let pipeline = pipeline();
    let mut hook = Recorder { refuse_start: true, ..Recorder::default() };
    let outcome = pipeline.generate(&request(&pipeline), &mut hook).unwrap();
    let Outcome::Aborted { at_step: 0, timings, .. } = outcome else { panic!("{outcome:?}") };
    assert!(timings.computing().is_zero() && hook.steps.is_empty());
}

#[test]
fn seed_and_index_decide_the_picture() {
    let pipeline = pipeline();
    for scheduler in [SchedulerKind::Ddim, SchedulerKind::EulerAncestral] {
        let first = GenerateRequest { scheduler, ..request(&pipeline) };
        let again = picture(&pipeline, &first);
        assert_eq!(picture(&pipeline, &first), again);
        assert_ne!(picture(&pipeline, &GenerateRequest { seed: 12, ..first.clone() }), again);
        let third = picture(&pipeline, &first.with_index(3));
        assert_ne!(third, again);
        // A freshly loaded pipeline draws picture 3 without having drawn 0 to 2.
        assert_eq!(picture(&support::pipeline(), &first.with_index(3)), third);
    }
}

#[test]
fn guidance_and_negative_prompt_matter() {
    let pipeline = pipeline();
    let guided = request(&pipeline);
    let plain = GenerateRequest { guidance_scale: 1.0, ..guided.clone() };
    let negative = GenerateRequest { negative_prompt: "a cup in a room".to_owned(), ..guided.clone() };
    assert_ne!(picture(&pipeline, &guided), picture(&pipeline, &plain));
    assert_ne!(picture(&pipeline, &guided), picture(&pipeline, &negative));
    let plain_negative = GenerateRequest { guidance_scale: 1.0, ..negative };
    assert_eq!(picture(&pipeline, &plain_negative), picture(&pipeline, &plain));
}

#[test]
fn what_is_to_be_kept_out_pushes_after_the_warm_up_and_says_where_it_cannot() {
    let pipeline = pipeline();
    let guided = request(&pipeline);
    let keeping = |safety: SafeGuidance| GenerateRequest { safety: Some(safety), ..guided.clone() };
    let apart = |a: &RgbImage, b: &RgbImage| {
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default()
    };
    let plain = picture(&pipeline, &guided);
    let pushed = picture(&pipeline, &keeping(SafeGuidance::maximum("a cup in a room")));
    assert!(apart(&pushed, &plain) > 2, "nothing was pushed");
    // Three predictions at once are rounded otherwise than two.
    for harmless in [
        SafeGuidance { scale: 0.0, ..SafeGuidance::maximum("a cup in a room") },
        SafeGuidance { warm_up: 1.0, ..SafeGuidance::maximum("a cup in a room") },
    ] {
        assert!(apart(&picture(&pipeline, &keeping(harmless)), &plain) <= 1);
    }
    let alone = GenerateRequest { guidance_scale: 1.0, ..keeping(SafeGuidance::maximum("a cup in a room")) };
    let Outcome::Finished { picture: unguided, notices, .. } =
        pipeline.generate(&alone, &mut NoHook).unwrap()
    else {
        panic!("not finished")
    };
    assert_eq!(notices, [Notice::SafeGuidanceUnused]);
    assert_eq!(unguided, picture(&pipeline, &GenerateRequest { guidance_scale: 1.0, ..guided.clone() }));
}

#[test]
fn a_prompt_that_is_cut_is_told() {
    let pipeline = pipeline();
    let request = GenerateRequest { prompt: "a dog and a cat ".repeat(20), ..request(&pipeline) };
    let Outcome::Finished { notices, .. } = pipeline.generate(&request, &mut NoHook).unwrap() else {
        panic!("not finished")
    };
    let [Notice::TextCut { field: "prompt", tokens, limit: 20, lost }] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert!(*tokens > 20 && lost.contains("dog"));
}

#[test]
fn sizes_off_the_grid_and_too_many_steps_are_refused() {
    let pipeline = pipeline();
    for (field, bad) in [
        ("width", GenerateRequest { width: 17, ..request(&pipeline) }),
        ("steps", GenerateRequest { steps: 1000, ..request(&pipeline) }),
    ] {
        // 1,000 steps with steps_offset 1 would start at timestep 1,000 of 0 to 999.
        let error = pipeline.generate(&bad, &mut NoHook).unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

fn failure(pipeline: &Pipeline, hook: &mut dyn StepHook) -> (GeneratorFailureKind, Option<usize>) {
    match pipeline.generate(&request(pipeline), hook).unwrap_err() {
        DiffusionError::Generator(failure) => (failure.kind, failure.step),
        other => panic!("{other}"),
    }
}

/// The tensor with every value replaced.
fn filled(tensor: &Tensor, value: f64) -> Tensor {
    (tensor.zeros_like().unwrap() + value).unwrap()
}

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

#[test]
fn weights_that_are_not_numbers_fail_the_generator() {
    for value in [f64::NAN, f64::INFINITY] {
        for name in ["conv_out.bias", "mid_block.attentions.0.norm.weight", "time_embedding.linear_1.bias"] {
            let folder = altered_pipeline(UNET, |t| {
                let bad = filled(&t[name], value);
                t.insert(name.to_owned(), bad);
            });
            let found = failure(&load(&folder).unwrap(), &mut NoHook);
            assert_eq!(found, (GeneratorFailureKind::LatentsNotFinite, Some(0)), "{name} {value}");
        }
    }
}

#[test]
fn pixels_that_are_not_numbers_fail_the_generator() {
    let folder = altered_pipeline(VAE, |t| {
        let bad = filled(&t["decoder.conv_out.bias"], f64::NAN);
        t.insert("decoder.conv_out.bias".to_owned(), bad);
    });
    let pipeline = load(&folder).unwrap();
    assert_eq!(failure(&pipeline, &mut NoHook), (GeneratorFailureKind::PixelsNotFinite, None));
    let mut hook = Recorder { previews_at: vec![2], ..Recorder::default() };
    assert_eq!(failure(&pipeline, &mut hook), (GeneratorFailureKind::PixelsNotFinite, Some(2)));
}

#[test]
fn a_black_picture_fails_the_generator() {
    let folder = altered_pipeline(VAE, |t| {
        let black = filled(&t["decoder.conv_out.bias"], -50.0);
        t.insert("decoder.conv_out.bias".to_owned(), black);
    });
    assert_eq!(failure(&load(&folder).unwrap(), &mut NoHook), (GeneratorFailureKind::AllBlack, None));
}
