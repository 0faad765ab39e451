//! The plugin's configuration: as it is written, then checked. `config.schema.json` says the same to the host.

use std::path::{Path, PathBuf};

use cluegate_abi::{Draw, Setup};
use serde::Deserialize;

use crate::error::{Result, TorchError};

/// JSON Schema of the configuration.
pub(crate) const SCHEMA: &str = include_str!("config.schema.json");

/// Largest guidance.
const MAX_GUIDANCE: f64 = 100.0;

/// The configuration as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    model: String,
    #[serde(default = "steps")]
    steps: u32,
    #[serde(default = "guidance")]
    guidance: f64,
    width: Option<u32>,
    height: Option<u32>,
    #[serde(default = "max_side")]
    max_side: u32,
    #[serde(default = "max_steps")]
    max_steps: u32,
    #[serde(default = "max_prompt_bytes")]
    max_prompt_bytes: usize,
    #[serde(default)]
    sliced_attention: bool,
    threads: Option<u32>,
}

fn steps() -> u32 {
    20
}

fn guidance() -> f64 {
    7.5
}

fn max_side() -> u32 {
    1024
}

fn max_steps() -> u32 {
    150
}

fn max_prompt_bytes() -> usize {
    16 * 1024
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The model's folder.
    pub(crate) model: PathBuf,
    /// Whether attention is computed head by head.
    pub(crate) sliced_attention: bool,
    /// Threads of an operation; `None` leaves it to libtorch.
    pub(crate) threads: Option<i32>,
    steps: u32,
    guidance: f64,
    width: Option<u32>,
    height: Option<u32>,
    max_side: u32,
    max_steps: u32,
    max_prompt_bytes: usize,
}

/// A checked drawing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) seed: u64,
    /// 1 or more; there is no guidance at 1.
    pub(crate) guidance: f64,
    pub(crate) steps: u32,
    /// In pixels, a multiple of the VAE's factor, as is `height`.
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// What a request has to fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelSize {
    /// What the model was trained for, in pixels.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Pixels for one of the latents.
    pub(crate) factor: u32,
    /// Most steps that the scheduler can plan.
    pub(crate) steps: u32,
}

impl Config {
    /// Reads the plugin's configuration.
    ///
    /// # Errors
    /// An unknown key, a missing or misspelled one, a number out of range.
    pub(crate) fn read(setup: &Setup<'_>) -> Result<Self> {
        let raw: Raw =
            serde_json::from_str(setup.config).map_err(|error| TorchError::Config(error.to_string()))?;
        for (key, value, range) in [
            ("steps", u64::from(raw.steps), 1..=u64::from(raw.max_steps)),
            ("max_side", raw.max_side.into(), 8..=4096),
            ("max_steps", raw.max_steps.into(), 1..=1000),
            ("max_prompt_bytes", raw.max_prompt_bytes as u64, 1..=1 << 20),
            ("threads", raw.threads.unwrap_or(1).into(), 1..=1024),
        ] {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                return Err(TorchError::Config(format!("`{key}` is {value}, expected {least} to {most}")));
            }
        }
        if !(1.0..=MAX_GUIDANCE).contains(&raw.guidance) {
            let found = raw.guidance;
            return Err(TorchError::Config(format!("`guidance` is {found}, expected 1 to {MAX_GUIDANCE}")));
        }
        if raw.model.is_empty() {
            return Err(TorchError::Config("`model` is empty, expected the folder of a model".to_owned()));
        }
        Ok(Self {
            model: Path::new(setup.folder).join(&raw.model),
            sliced_attention: raw.sliced_attention,
            threads: raw.threads.and_then(|threads| i32::try_from(threads).ok()),
            steps: raw.steps,
            guidance: raw.guidance,
            width: raw.width,
            height: raw.height,
            max_side: raw.max_side,
            max_steps: raw.max_steps,
            max_prompt_bytes: raw.max_prompt_bytes,
        })
    }

    /// Fills in what `draw` leaves to the plugin, and checks every field. Words to avoid go to the negative prompt.
    ///
    /// # Errors
    /// The first field that is out of range, with its range and its value.
    pub(crate) fn request(&self, draw: &Draw<'_>, model: ModelSize) -> Result<Request> {
        if let Some(other) = draw.sampler.filter(|sampler| *sampler != "ddim") {
            return Err(TorchError::request("sampler", "ddim", other));
        }
        let negative = [draw.negative_prompt].into_iter().chain(draw.avoid.iter().copied());
        let negative: Vec<&str> = negative.map(str::trim).filter(|words| !words.is_empty()).collect();
        let request = Request {
            prompt: draw.prompt.to_owned(),
            negative_prompt: negative.join(", "),
            seed: draw.seed,
            guidance: draw.guidance.unwrap_or(self.guidance),
            steps: draw.steps.unwrap_or(self.steps),
            width: draw.width.or(self.width).unwrap_or(model.width),
            height: draw.height.or(self.height).unwrap_or(model.height),
        };
        self.check(&request, model)?;
        Ok(request)
    }

    fn check(&self, request: &Request, model: ModelSize) -> Result<()> {
        for (field, text) in [("prompt", &request.prompt), ("negative_prompt", &request.negative_prompt)] {
            if text.len() > self.max_prompt_bytes {
                let expected = format!("at most {} bytes (`max_prompt_bytes`)", self.max_prompt_bytes);
                return Err(TorchError::request(field, expected, text.len().to_string()));
            }
        }
        if !(1.0..=MAX_GUIDANCE).contains(&request.guidance) {
            let expected = format!("1 (no guidance) to {MAX_GUIDANCE}");
            return Err(TorchError::request("guidance", expected, request.guidance.to_string()));
        }
        let most = self.max_steps.min(model.steps);
        if !(1..=most).contains(&request.steps) {
            let expected = format!("1 to {most} (the least of `max_steps` and what the schedule has)");
            return Err(TorchError::request("steps", expected, request.steps.to_string()));
        }
        for (field, side) in [("width", request.width), ("height", request.height)] {
            if side == 0 || side > self.max_side || !side.is_multiple_of(model.factor) {
                let expected = format!(
                    "a multiple of {} of at most {} pixels (`max_side`)",
                    model.factor, self.max_side
                );
                return Err(TorchError::request(field, expected, side.to_string()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelSize = ModelSize { width: 128, height: 96, factor: 4, steps: 999 };

    fn read(config: &str) -> Result<Config> {
        Config::read(&Setup { config, folder: "/models" })
    }

    #[test]
    fn what_a_drawing_leaves_out_is_the_configurations_or_the_models() {
        let config = read(r#"{"model": "sd", "height": 64, "steps": 9}"#).unwrap();
        assert_eq!(config.model, Path::new("/models/sd"));
        let draw = Draw { prompt: "a cat", seed: 3, ..Draw::default() };
        let request = config.request(&draw, MODEL).unwrap();
        assert_eq!((request.steps, request.width, request.height, request.guidance), (9, 128, 64, 7.5));
        let draw = Draw { negative_prompt: " fog ", avoid: vec!["a knife", ""], ..draw };
        assert_eq!(config.request(&draw, MODEL).unwrap().negative_prompt, "fog, a knife");
    }

    #[test]
    fn the_schema_has_the_keys_and_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let plain = read(r#"{"model": "sd"}"#).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        for (key, property) in properties.iter().filter(|(key, _)| *key != "model") {
            let value = property.get("default").or(property.get("minimum")).unwrap();
            let written = read(&serde_json::json!({"model": "sd", key: value}).to_string()).unwrap();
            assert_eq!(written == plain, property.get("default").is_some(), "{key}");
        }
        let unknown = read(r#"{"model": "sd", "x": 1}"#).unwrap_err().to_string();
        let named: Vec<&str> = unknown.split('`').skip(3).step_by(2).collect();
        assert_eq!(named.len(), properties.len(), "{unknown}");
        assert!(named.iter().all(|key| properties.contains_key(*key)), "{unknown}");
    }

    #[test]
    fn each_bad_field_is_named() {
        let config = read(r#"{"model": "sd", "max_side": 256, "max_prompt_bytes": 20}"#).unwrap();
        let draw = Draw { prompt: "a cat", ..Draw::default() };
        for (field, bad) in [
            ("sampler", Draw { sampler: Some("euler"), ..draw.clone() }),
            ("steps", Draw { steps: Some(151), ..draw.clone() }),
            ("guidance", Draw { guidance: Some(0.5), ..draw.clone() }),
            ("guidance", Draw { guidance: Some(f64::INFINITY), ..draw.clone() }),
            ("width", Draw { width: Some(130), ..draw.clone() }),
            ("height", Draw { height: Some(260), ..draw.clone() }),
            ("prompt", Draw { prompt: "a cat on a green sofa", ..draw.clone() }),
            ("negative_prompt", Draw { avoid: vec!["a cat on a sofa", "a dog"], ..draw.clone() }),
        ] {
            let error = config.request(&bad, MODEL).unwrap_err().to_string();
            assert!(error.starts_with(field) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_used_is_refused_by_key() {
        for (config, word) in [
            ("{}", "model"),
            (r#"{"model": ""}"#, "model"),
            (r#"{"model": "sd", "step": 3}"#, "step"),
            (r#"{"model": "sd", "steps": 0}"#, "steps"),
            (r#"{"model": "sd", "steps": 151}"#, "steps"),
            (r#"{"model": "sd", "guidance": 0}"#, "guidance"),
            (r#"{"model": "sd", "max_side": 9999}"#, "max_side"),
            (r#"{"model": "sd", "threads": 0}"#, "threads"),
            ("[", "EOF"),
        ] {
            let error = read(config).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
