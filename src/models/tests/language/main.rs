//! The language models and vision-language models against Hugging Face transformers, on the files made by
//! `goldens/make_*.py`. What holds for all of them is in `checks.rs`; a file for each family has what is its own.
//!
//! Tolerances: 1e-4 relative for features and logits in f32, 1/255 for pixel values, equal tokens for answers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checks;
mod decoding;
mod harness;
mod idefics3;
mod internvl;
mod llava;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod text;
