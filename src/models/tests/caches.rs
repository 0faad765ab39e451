//! What the models keep: texts across restarts, pictures while they are in use.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clip_support;

use candle_core::{DType, Device};
use cluegate_cache::{Cache, Counts};
use cluegate_models::RelevanceModel;
use cluegate_models::owlv2::Owlv2Model;
use cluegate_models::{FileTree, Suite};
use cluegate_perception::{
    Call, Detection, DetectionRequest, Embedding, Picture, RegionDetector, RelevanceEncoder,
};

use clip_support::{change_weights, copy, golden, pictures};

const TEXTS: [&str; 4] = ["a person on fire", "fire", "", "a person on fire"];
const QUERIES: [&str; 3] = ["fire", "a dog", "fire"];

fn suite(folder: &std::path::Path, cache: Cache) -> Suite {
    let (clip, owlv2) = (golden("clip/current"), golden("owlv2"));
    let models = format!("[relevance]\nfolder = {clip:?}\n[detector]\nfolder = {owlv2:?}\n");
    std::fs::write(folder.join("models.toml"), models).unwrap();
    Suite::open(&FileTree::open(folder).unwrap()).unwrap().with_cache(cache)
}

fn detect(model: &dyn RegionDetector, pictures: &[Picture]) -> Vec<Vec<Detection>> {
    let requests: Vec<_> =
        pictures.iter().map(|picture| DetectionRequest { picture, queries: &QUERIES }).collect();
    model.detect(&requests, 0.1, &Call::default()).unwrap()
}

fn bits(embeddings: &[Embedding]) -> Vec<Vec<u32>> {
    embeddings.iter().map(|e| e.values().iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn a_restart_runs_no_text_tower() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures();
    let start = || {
        let cache = Cache::open(folder.path().join("cache"));
        let suite = suite(folder.path(), cache.clone());
        let embeddings = suite.relevance().unwrap().embed_texts(&TEXTS, &Call::default()).unwrap();
        (bits(&embeddings), detect(suite.detector().unwrap().as_ref(), &pictures[..2]), cache.counts())
    };
    let first = start();
    assert_eq!(first.2, Counts { memory: 0, disk: 0, missed: 5 });
    assert!(first.1.iter().any(|found| !found.is_empty()));
    let second = start();
    // A tower runs for what the cache misses, and for nothing else.
    assert_eq!(second.2, Counts { memory: 0, disk: 5, missed: 0 });
    // To the bit: what is read is what was computed.
    assert_eq!((second.0, second.1), (first.0, first.1));
}

#[test]
fn a_half_precision_detector_reads_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let start = |dtype| {
        let cache = Cache::open(folder.path());
        let model = Owlv2Model::load(&FileTree::open(golden("owlv2")).unwrap(), &Device::Cpu, dtype).unwrap();
        let found = detect(&model.with_cache(cache.clone()), &pictures()[..1]);
        (found, cache.counts().missed)
    };
    let first = start(DType::F32);
    assert_eq!(first.1, 2);
    // Rounded weights give other numbers, which have names of their own.
    let rounded = start(DType::BF16);
    assert_eq!(rounded.1, 2);
    assert_eq!(start(DType::BF16), (rounded.0, 0));
    assert_eq!(start(DType::F32), (first.0, 0));
}

#[test]
fn other_weights_share_nothing() {
    let cache = Cache::in_memory();
    let load = |folder: &std::path::Path| {
        let tree = FileTree::open(folder).unwrap();
        RelevanceModel::load(&tree, &Device::Cpu, DType::F32).unwrap().with_cache(cache.clone())
    };
    let embed = |model: &RelevanceModel| bits(&model.embed_texts(&TEXTS, &Call::default()).unwrap());
    let own = embed(&load(&golden("clip/current")));
    let folder = copy("clip/current");
    change_weights(folder.path(), |weights| {
        let name = "text_projection.weight";
        let doubled = (&weights[name] * -2.0).unwrap();
        weights.insert(name.to_owned(), doubled);
    });
    let other = embed(&load(folder.path()));
    assert_eq!(cache.counts().missed, 6);
    assert!(own.iter().zip(&other).all(|(own, other)| own != other));
}

#[test]
fn a_picture_seen_before_has_the_same_answer_and_its_neighbour_its_own() {
    let clip = || {
        RelevanceModel::load(&FileTree::open(golden("clip/current")).unwrap(), &Device::Cpu, DType::F32)
            .unwrap()
    };
    let owlv2 =
        || Owlv2Model::load(&FileTree::open(golden("owlv2")).unwrap(), &Device::Cpu, DType::F32).unwrap();
    let picture = pictures().remove(0);
    // The same size and so the same number of tokens: only the pixels tell them apart.
    let neighbour = {
        let mut pixels = picture.pixels().clone();
        for pixel in pixels.pixels_mut().take(400) {
            pixel.0 = pixel.0.map(|value| 255 - value);
        }
        Picture::new(pixels)
    };
    let embed = |model: &RelevanceModel, picture: &Picture| {
        bits(&model.embed_pictures(std::slice::from_ref(picture), &Call::default()).unwrap())
    };
    let (encoder, detector) = (clip(), owlv2());
    for _ in 0..2 {
        for picture in [&picture, &neighbour] {
            assert_eq!(embed(&encoder, picture), embed(&clip(), picture));
            let one = std::slice::from_ref(picture);
            assert_eq!(detect(&detector, one), detect(&owlv2(), one));
        }
    }
    assert_ne!(embed(&encoder, &picture), embed(&encoder, &neighbour));
    assert_ne!(detect(&detector, &[picture]), detect(&detector, &[neighbour]));
}
