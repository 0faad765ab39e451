//! What a picture of the published size takes in memory. Alone in its binary: the peak is that of the process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::clip::{Encoder, EncoderConfig};

/// Patches of 960 x 960 pixels in squares of 16, and the class token.
const TOKENS: usize = 60 * 60 + 1;
const WIDTH: usize = 768;
const INNER: usize = 3072;
const HEADS: usize = 12;

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
}

fn weights() -> HashMap<String, Tensor> {
    let shapes: [(&str, &[usize]); 8] = [
        ("self_attn.q_proj", &[WIDTH, WIDTH]),
        ("self_attn.k_proj", &[WIDTH, WIDTH]),
        ("self_attn.v_proj", &[WIDTH, WIDTH]),
        ("self_attn.out_proj", &[WIDTH, WIDTH]),
        ("mlp.fc1", &[INNER, WIDTH]),
        ("mlp.fc2", &[WIDTH, INNER]),
        ("layer_norm1", &[WIDTH]),
        ("layer_norm2", &[WIDTH]),
    ];
    let mut weights = HashMap::new();
    for (name, shape) in shapes {
        for (part, shape) in [("weight", shape), ("bias", &shape[..1])] {
            let values = Tensor::randn(0f32, 0.02, shape, &Device::Cpu).unwrap();
            weights.insert(format!("layers.0.{name}.{part}"), values);
        }
    }
    weights
}

#[test]
fn the_scores_of_all_tokens_with_all_others_are_never_in_memory() {
    let config = EncoderConfig {
        hidden_size: WIDTH,
        intermediate_size: INNER,
        num_hidden_layers: 1,
        num_attention_heads: HEADS,
        hidden_act: cluegate_models::clip::Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    let weights = VarBuilder::from_tensors(weights(), DType::F32, &Device::Cpu);
    let encoder = Encoder::load(&config, false, weights).unwrap();
    let x = Tensor::randn(0f32, 1.0, (TOKENS, WIDTH), &Device::Cpu).unwrap();
    let before = status("VmRSS");
    let states = encoder.forward(x, 1).unwrap();
    let more = status("VmHWM").saturating_sub(before);
    assert_eq!(states.dims(), [TOKENS, WIDTH]);
    let scores = HEADS * TOKENS * TOKENS * size_of::<f32>();
    assert!(more < scores / 3, "one layer took {} MB; all scores are {} MB", more >> 20, scores >> 20);
}
