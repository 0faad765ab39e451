//! How many tokens a picture becomes with the processors of published checkpoints, against transformers 5.17;
//! `goldens/make_published.py` made the narrow models and counted.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use cluegate_models::{FileTree, LoadOptions, load_judge};
use cluegate_perception::{Picture, Prefix, Prompt};
use image::RgbImage;
use serde_json::Value;

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/published");
    let all: Value = serde_json::from_slice(&std::fs::read(folder.join("published.json")).unwrap()).unwrap();
    let model = load_judge(&FileTree::open(folder.join(name)).unwrap(), &LoadOptions::default()).unwrap();
    let sizes = all[name]["tokens"].as_array().unwrap_or_else(|| panic!("no tokens of {name}"));
    assert!(sizes.len() >= 5);
    for size in sizes {
        let [width, height, tokens]: [u32; 3] = serde_json::from_value(size.clone()).unwrap();
        let picture = Picture::new(RgbImage::new(width, height));
        let found = model.picture_token_count(&picture).unwrap();
        assert_eq!(found, tokens as usize, "{name}: {width} x {height}");
        // A question about it has them all.
        let prompt = |picture| Prompt::new(Prefix { picture, text: "".into() }, "A cat?");
        let with = model.prompt_tokens(&prompt(Some(picture))).unwrap().len();
        let without = model.prompt_tokens(&prompt(None)).unwrap().len();
        assert!(with >= without + found, "{name}: {with} tokens with the picture, {without} without");
    }
}

#[test]
fn qwen2_vl() {
    check("qwen2_vl");
}

#[test]
fn qwen2_5_vl() {
    check("qwen2_5_vl");
}

#[test]
fn qwen3_vl() {
    check("qwen3_vl");
}

#[test]
fn internvl() {
    check("internvl");
}

#[test]
fn llava() {
    check("llava");
}

#[test]
fn llava_next() {
    check("llava_next");
}

#[test]
fn smolvlm_256m() {
    check("smolvlm_256m");
}

#[test]
fn idefics3() {
    check("idefics3");
}
