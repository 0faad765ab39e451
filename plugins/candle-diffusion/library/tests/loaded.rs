//! The plugin as a host sees it: found, loaded and called across the boundary, with the small pipeline of the goldens.

// Helpers outside of test functions fail a test as the functions do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use cluegate_candle_diffusion::{NoHook, Outcome, Pipeline, Source};
use cluegate_gate::DrawSource;
use cluegate_models::FileTree;
use cluegate_perception::{Call, Picture};
use cluegate_plugin_host::{Change, Drawing, HostError, Plugin, Search, Spec, Unwatched, Watch};
use serde_json::json;

/// The library, which lies beside the tests.
fn library() -> String {
    let name = format!("{}candle_diffusion{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    folder.join(name).display().to_string()
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../goldens/data")
}

fn open(config: serde_json::Value) -> Result<Plugin, HostError> {
    let config = config.as_object().unwrap().clone();
    let spec = Spec { config, folder: goldens(), ..Spec::new("draws", library()) };
    Plugin::open(spec, &Search::new(Vec::new(), []).allowing_all(true))
}

fn drawing() -> Drawing {
    Drawing { prompt: "a dog on the grass".to_owned(), seed: 11, steps: Some(4), ..Drawing::default() }
}

#[test]
fn a_loaded_plugin_draws_what_the_linked_pipeline_draws() {
    let plugin = open(json!({ "model": "pipeline", "guidance": 3.0 })).unwrap();
    assert!(plugin.can("generate") && plugin.can("inpaint") && !plugin.can("classify"));
    let drawn = plugin.generate(drawing(), &Call::default(), &mut Unwatched).unwrap().unwrap();
    let tree = FileTree::open(goldens().join("pipeline")).unwrap();
    let linked = Pipeline::load(&tree, &candle_core::Device::Cpu, candle_core::DType::F32).unwrap();
    let mut request = linked.default_request("a dog on the grass");
    (request.seed, request.steps, request.guidance_scale) = (11, 4, 3.0);
    let Outcome::Finished { picture, .. } = linked.generate(&request, &mut NoHook).unwrap() else {
        panic!("not finished")
    };
    assert_eq!(drawn.pixels(), &picture);
}

#[test]
fn a_loaded_plugin_begins_from_a_picture_as_the_linked_pipeline_does() {
    let plugin = open(json!({ "model": "pipeline", "guidance": 3.0 })).unwrap();
    let pixels = image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([(x * 15) as u8, (y * 15) as u8, 77]));
    let mask = image::RgbImage::from_fn(16, 16, |x, _| image::Rgb([if x < 8 { 255 } else { 0 }; 3]));
    let tree = FileTree::open(goldens().join("pipeline")).unwrap();
    let linked = Pipeline::load(&tree, &candle_core::Device::Cpu, candle_core::DType::F32).unwrap();
    for (mask, strength) in [(None, Some(0.5)), (None, None), (Some(mask), None)] {
        let source = DrawSource {
            picture: Picture::new(pixels.clone()),
            mask: mask.clone().map(Picture::new),
            strength,
        };
        plugin.check_from(drawing(), &source, &Call::default()).unwrap();
        let drawn =
            plugin.generate_from(drawing(), &source, &Call::default(), &mut Unwatched).unwrap().unwrap();
        let mut request = linked.default_request("a dog on the grass");
        (request.seed, request.steps, request.guidance_scale) = (11, 4, 3.0);
        (request.width, request.height) = linked.nearest_size((16, 16));
        let mask = mask.as_ref().map(image::imageops::grayscale);
        request.source = Some(Source::new(pixels.clone(), mask, strength));
        let Outcome::Finished { picture, .. } = linked.generate(&request, &mut NoHook).unwrap() else {
            panic!("not finished")
        };
        assert_eq!(drawn.pixels(), &picture, "{strength:?}");
    }
    let much = DrawSource { picture: Picture::new(pixels), mask: None, strength: Some(1.5) };
    let error = plugin.check_from(drawing(), &much, &Call::default()).unwrap_err();
    assert!(error.to_string().contains("strength"), "{error}");
}

/// Wants one preview and stops after a step.
struct Stop(Vec<(u32, bool)>);

impl Watch for Stop {
    fn wants(&mut self, step: u32, _total: u32) -> bool {
        step == 2
    }

    fn step(&mut self, step: u32, total: u32, preview: Option<Picture>) -> bool {
        assert_eq!(total, 4);
        self.0.push((step, preview.is_some()));
        step < 3
    }
}

#[test]
fn a_host_sees_previews_and_stops_a_drawing() {
    let plugin = open(json!({ "model": "pipeline" })).unwrap();
    let mut watch = Stop(Vec::new());
    assert!(plugin.generate(drawing(), &Call::default(), &mut watch).unwrap().is_none());
    assert_eq!(watch.0, [(1, false), (2, true), (3, false)]);
}

#[test]
fn painting_anew_changes_the_regions_alone() {
    let plugin = open(json!({ "model": "pipeline", "steps": 4 })).unwrap();
    let pixels = image::RgbImage::from_fn(19, 13, |x, y| image::Rgb([(x * 12) as u8, (y * 18) as u8, 77]));
    let picture = Picture::new(pixels.clone());
    let change =
        Change { regions: vec![[4.0, 3.0, 10.0, 9.0]], prompt: "a cat".to_owned(), ..Change::default() };
    let painted = plugin.inpaint(&picture, change, &Call::default()).unwrap();
    assert_eq!(painted.pixels().dimensions(), (19, 13));
    let inside = |x: u32, y: u32| (4..10).contains(&x) && (3..9).contains(&y);
    let mut changed = 0;
    for (x, y, pixel) in painted.pixels().enumerate_pixels() {
        if inside(x, y) {
            changed += usize::from(pixel != pixels.get_pixel(x, y));
        } else {
            assert_eq!(pixel, pixels.get_pixel(x, y), "{x}, {y}");
        }
    }
    assert!(changed > 20, "{changed} of 36");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_name() {
    for (config, word) in [
        (json!({ "model": "nowhere" }), "nowhere"),
        (json!({ "model": "unet-second" }), "model_index.json"),
        (json!({ "model": "pipeline", "modle": 1 }), "modle"),
        (json!({ "model": "pipeline", "previews": "linear" }), "latent_rgb.json"),
        (json!({ "model": "pipeline", "previews": "tiny" }), "vae_approx"),
    ] {
        let error = open(config).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    let plugin = open(json!({ "model": "pipeline" })).unwrap();
    let wide = Drawing { width: Some(17), ..drawing() };
    assert!(plugin.check(wide, &Call::default()).unwrap_err().to_string().contains("width"));
    let heun = Drawing { sampler: Some("Heun".to_owned()), ..drawing() };
    assert!(plugin.check(heun, &Call::default()).unwrap_err().to_string().contains("Heun"));
}
