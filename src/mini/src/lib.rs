//! The embedded model suite and the scene world that it knows.
//!
//! The suite is five small models in the file layout of their full-size counterparts, trained from scratch on
//! synthetic *scenes*: a background and one to six emoji sprites, some of which touch. This crate holds their files
//! (feature `suite`), and, independently of the models, the scene world itself: a sampler with exact labels, a
//! renderer, and the benchmark *Mini OS Bench*. It knows nothing of tensors; the files are loaded by the code that
//! loads any checkpoint folder.

mod background;
pub mod osbench;
mod render;
mod sample;
mod scene;
mod world;

pub use render::{Style, render};
pub use sample::{Sampler, Situation};
pub use scene::{Object, RULE_IDS, Scene};
pub use world::{Category, Class, Role, World, WorldError};

/// The files of the embedded suite: paths relative to its root, with `/`, and contents. Empty without the feature
/// `suite`.
pub static SUITE_FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/suite_files.rs"));
