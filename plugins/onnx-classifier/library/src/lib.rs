//! Any ONNX image classifier or detector as a plugin: labels, with boxes for a detector, and an opinion.
//!
//! Its configuration names the file that describes the model: `{"config": "nudenet.toml"}`.

use std::path::{Path, PathBuf};

use cluegate_abi::{
    Call, Classification, Classify, ErrorCode, Host, Label, PictureView, Plugin, PluginError, Region, Setup,
};
use cluegate_onnx_classifier::OnnxClassifier;
use cluegate_perception::{Picture, PictureClassifier as _};
use image::RgbImage;
use serde::Deserialize;

/// What an instance is configured with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The description of the model.
    config: PathBuf,
}

/// A loaded model.
struct Onnx(OnnxClassifier);

impl Plugin for Onnx {
    const NAME: &'static str = "onnx-classifier";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Finds what an ONNX image classifier or detector was trained to find.";
    const SCHEMA: &'static str = r#"{
  "type": "object",
  "additionalProperties": false,
  "required": ["config"],
  "properties": {
    "config": { "type": "string", "description": "the file that describes the model, such as nudenet.toml" }
  }
}"#;
    const CONCURRENT: bool = true;

    fn create(setup: &Setup<'_>, _: Host) -> Result<Self, PluginError> {
        let Config { config } =
            serde_json::from_str(setup.config).map_err(|error| PluginError::config(error.to_string()))?;
        let loaded = OnnxClassifier::load(&Path::new(setup.folder).join(config));
        loaded.map(Self).map_err(|error| PluginError::config(error.to_string()))
    }

    fn fingerprint(&self) -> Result<String, PluginError> {
        Ok(self.0.fingerprint().to_string())
    }
}

impl Classify for Onnx {
    fn classify(&self, picture: &PictureView<'_>, call: &Call<'_>) -> Result<Classification, PluginError> {
        call.check()?;
        let (width, height) = (picture.width(), picture.height());
        let pixels = RgbImage::from_raw(width, height, picture.to_buf().into_pixels())
            .ok_or_else(|| PluginError::failed("the picture's bytes do not fit its size"))?;
        // One run of the model is not broken off: the host waits for it, or gives it up.
        let said = self.0.classify(&[Picture::new(pixels)], &cluegate_perception::Call::default());
        let failed = |error: cluegate_perception::PerceptionError| {
            PluginError::new(ErrorCode::Failed, error.to_string())
        };
        let said =
            said.map_err(failed)?.pop().ok_or_else(|| PluginError::failed("the model gave no answer"))?;
        let labels = said.labels.into_iter().map(|label| Label {
            name: label.name,
            score: label.score,
            region: label.region.map(|found| Region {
                left: found.left,
                top: found.top,
                right: found.right,
                bottom: found.bottom,
            }),
        });
        Ok(Classification { flagged: said.flagged, score: said.score, labels: labels.collect() })
    }
}

cluegate_abi::export_plugin!(Onnx: classify);
