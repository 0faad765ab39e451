//! How long one pass of the vision networks takes at the sizes of the embedded suite. Not part of the normal run,
//! since another process on the machine disturbs it:
//!
//!     cargo test --release -p cluegate-models --test owlv2_speed -- --ignored --nocapture --test-threads 1

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use cluegate_models::clip::{Activation, DualConfig, EncoderConfig, TextConfig, VisionConfig, VisionTower};
use cluegate_models::owlv2::Owlv2Network;

/// On two cores, for one picture.
const MOST: Duration = Duration::from_millis(25);

fn encoder(layers: usize) -> EncoderConfig {
    EncoderConfig {
        hidden_size: 192,
        intermediate_size: 768,
        num_hidden_layers: layers,
        num_attention_heads: 3,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}

/// The fastest of 41 runs after 5 to warm up: what the machine takes when nothing disturbs it.
fn fastest(mut work: impl FnMut()) -> Duration {
    (0..5).for_each(|_| work());
    let times = (0..41).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

fn pixels() -> Tensor {
    Tensor::randn(0f32, 1.0, (1, 3, 224, 224), &Device::Cpu).unwrap()
}

#[test]
#[ignore = "measures time; run it alone"]
fn the_detector_looks_at_a_picture_in_time() {
    for (patch_size, layers) in [(16, 6), (14, 8)] {
        let config = DualConfig {
            text: TextConfig {
                encoder: encoder(2),
                vocab_size: 1000,
                max_position_embeddings: 16,
                eos_token_ids: vec![999],
                projection_dim: 192,
            },
            vision: VisionConfig { encoder: encoder(layers), image_size: 224, patch_size },
            projection_dim: 192,
        };
        let map = VarMap::new();
        let weights = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let network = Owlv2Network::load(&config, weights).unwrap();
        let pixels = pixels();
        let time = fastest(|| {
            network.forward(&pixels).unwrap();
        });
        println!("OWLv2, width 192, {layers} layers, patch {patch_size}: {time:?}");
        assert!(time <= MOST, "{time:?} for one picture, {MOST:?} at most");
    }
}

#[test]
#[ignore = "measures time; run it alone"]
fn the_relevance_encoder_looks_at_a_picture_in_time() {
    let config = VisionConfig { encoder: encoder(6), image_size: 224, patch_size: 16 };
    let map = VarMap::new();
    let weights = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let tower = VisionTower::load(&config, "pre_layrnorm", weights).unwrap();
    let pixels = pixels();
    let time = fastest(|| {
        tower.forward_class(&pixels).unwrap();
    });
    println!("CLIP, width 192, 6 layers, patch 16: {time:?}");
    assert!(time <= MOST, "{time:?} for one picture, {MOST:?} at most");
}
