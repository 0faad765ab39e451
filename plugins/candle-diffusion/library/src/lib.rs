//! The diffusion pipelines in candle as a plugin: draws pictures, and paints regions of a picture anew.
//!
//! Its configuration names a diffusers folder of any family that is implemented: `{"model": "models/sdxl"}`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use cluegate_abi::{
    Call, Draw, DrawSource, Drawn, Edit, ErrorCode, Generate, Host, Inpaint, LogLevel, PictureBuf,
    PictureView, Plugin, PluginError, Preview, Region, Setup, Steps,
};
use cluegate_candle_diffusion::{
    Control, DiffusionError, DiffusionErrorKind, GenerateRequest, Outcome, Pipeline, PreviewKind,
    SchedulerKind, Source, Step, StepHook,
};
use cluegate_models::FileTree;
use image::imageops::{self, FilterType};
use image::{GrayImage, Luma, RgbImage};
use serde::Deserialize;

/// What an instance is configured with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The diffusers folder.
    model: PathBuf,
    /// Steps where a drawing names none, and of painting anew.
    steps: Option<usize>,
    /// Guidance scale where a drawing names none, and of painting anew.
    guidance: Option<f64>,
    /// How previews are made; by default as the pipeline has it.
    previews: Option<PreviewKind>,
    /// Predictions that a preview takes beyond that of its step.
    #[serde(default)]
    look_ahead: usize,
}

/// A loaded model.
struct CandleDiffusion {
    pipeline: Pipeline,
    fingerprint: String,
    config: Config,
    host: Host,
}

impl Plugin for CandleDiffusion {
    const NAME: &'static str = "candle-diffusion";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Draws with Stable Diffusion 1.x to 3.5, XL, Turbo and Flux from diffusers folders, and paints regions anew.";
    const SCHEMA: &'static str = r#"{
  "type": "object",
  "additionalProperties": false,
  "required": ["model"],
  "properties": {
    "model": { "type": "string", "description": "the diffusers folder, with model_index.json" },
    "steps": { "type": "integer", "minimum": 1, "maximum": 1000, "description": "default: the model's" },
    "guidance": { "type": "number", "minimum": 1, "maximum": 100, "description": "default: the model's" },
    "previews": { "enum": ["vae", "tiny", "linear"], "description": "default: tiny if the folder has vae_approx, else vae" },
    "look_ahead": { "type": "integer", "minimum": 0, "maximum": 1000, "description": "predictions that a preview takes beyond that of its step; default: 0" }
  }
}"#;

    fn create(setup: &Setup<'_>, host: Host) -> Result<Self, PluginError> {
        let config: Config =
            serde_json::from_str(setup.config).map_err(|e| PluginError::config(e.to_string()))?;
        let unusable = |error: &dyn std::fmt::Display| PluginError::config(error.to_string());
        let tree = FileTree::open(Path::new(setup.folder).join(&config.model)).map_err(|e| unusable(&e))?;
        let pipeline = Pipeline::load(&tree, &Device::Cpu, DType::F32).map_err(|e| unusable(&e))?;
        let fingerprint = Pipeline::fingerprint(&tree).map_err(|e| unusable(&e))?;
        let loaded = Self { pipeline, fingerprint, config, host };
        loaded.pipeline.check(&loaded.defaults("")).map_err(|e| unusable(&e))?;
        Ok(loaded)
    }

    fn fingerprint(&self) -> Result<String, PluginError> {
        Ok(self.fingerprint.clone())
    }
}

impl CandleDiffusion {
    /// What the configuration and the model say of a drawing.
    fn defaults(&self, prompt: &str) -> GenerateRequest {
        let default = self.pipeline.default_request(prompt);
        GenerateRequest {
            steps: self.config.steps.unwrap_or(default.steps),
            guidance_scale: self.config.guidance.unwrap_or(default.guidance_scale),
            previews: self.config.previews.unwrap_or(default.previews),
            look_ahead: Some(self.config.look_ahead),
            ..default
        }
    }

    fn request(&self, draw: &Draw<'_>) -> Result<GenerateRequest, PluginError> {
        let default = self.defaults(draw.prompt);
        let source = draw.source.as_ref().map(source).transpose()?;
        // Without a size of its own a drawing is as large as the picture that it begins from, as near as the model comes to it.
        let size = source.as_ref().map_or((default.width, default.height), |source| {
            self.pipeline.nearest_size(source.picture.dimensions())
        });
        let named = draw.sampler.map(|name| {
            SchedulerKind::named(name).ok_or_else(|| {
                PluginError::request(format!(
                    "expected the sampler `DDIM`, `Euler` or `Euler a`, or none, got {name:?}"
                ))
            })
        });
        Ok(GenerateRequest {
            negative_prompt: [draw.negative_prompt]
                .into_iter()
                .chain(draw.avoid.iter().copied())
                .filter(|text| !text.trim().is_empty())
                .collect::<Vec<_>>()
                .join(", "),
            seed: draw.seed,
            steps: draw.steps.map_or(default.steps, |steps| steps as usize),
            guidance_scale: draw.guidance.unwrap_or(default.guidance_scale),
            width: draw.width.unwrap_or(size.0),
            height: draw.height.unwrap_or(size.1),
            scheduler: named.transpose()?.unwrap_or(default.scheduler),
            source,
            ..default
        })
    }

    /// The picture, or `None` if the hook gave it up.
    fn run(
        &self,
        request: &GenerateRequest,
        hook: &mut dyn StepHook,
    ) -> Result<Option<RgbImage>, PluginError> {
        match self.pipeline.generate(request, hook).map_err(failed)? {
            Outcome::Finished { picture, notices, .. } => {
                for notice in notices {
                    let message = format!("not all that was asked was used: {notice:?}");
                    self.host.log(LogLevel::Warning, &message);
                }
                Ok(Some(picture))
            }
            Outcome::Aborted { .. } => Ok(None),
        }
    }
}

fn failed(error: DiffusionError) -> PluginError {
    let code = match error.kind() {
        DiffusionErrorKind::Request => ErrorCode::Request,
        DiffusionErrorKind::Model | DiffusionErrorKind::Generator => ErrorCode::Failed,
    };
    PluginError::new(code, error.to_string())
}

/// The host's hooks as the pipeline's. The host counts finished steps, the pipeline begins at 0.
struct Watched<'a, 's> {
    call: &'a Call<'a>,
    steps: Option<&'a mut Steps<'s>>,
    /// What the boundary refused.
    refused: Option<PluginError>,
}

impl StepHook for Watched<'_, '_> {
    fn wants_preview(&mut self, index: usize, total: usize) -> bool {
        self.steps.as_mut().is_some_and(|steps| steps.wants_preview(index as u32 + 1, total as u32))
    }

    fn on_step(&mut self, step: Step) -> Control {
        if self.call.is_cancelled() {
            return Control::Abort;
        }
        let Some(steps) = self.steps.as_mut() else { return Control::Continue };
        let preview = step.preview.as_ref().map(|picture| {
            PictureView::new(picture.as_raw(), picture.width(), picture.height()).map(Preview::Picture)
        });
        match preview.transpose() {
            Err(error) => {
                self.refused = Some(error);
                Control::Abort
            }
            Ok(preview) => match steps.step(step.index as u32 + 1, step.total as u32, preview) {
                cluegate_abi::Control::Continue => Control::Continue,
                cluegate_abi::Control::Abort => Control::Abort,
            },
        }
    }
}

impl Generate for CandleDiffusion {
    const FROM_PICTURES: bool = true;

    fn generate(
        &self,
        draw: &Draw<'_>,
        call: &Call<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<Drawn, PluginError> {
        call.check()?;
        let mut hook = Watched { call, steps: Some(steps), refused: None };
        let picture = self.run(&self.request(draw)?, &mut hook)?;
        match (picture, hook.refused) {
            (_, Some(error)) => Err(error),
            (Some(picture), None) => {
                let (width, height) = picture.dimensions();
                Ok(Drawn::Finished(PictureBuf::new(picture.into_raw(), width, height)?))
            }
            (None, None) => {
                call.check()?;
                Ok(Drawn::Aborted)
            }
        }
    }

    fn check(&self, draw: &Draw<'_>) -> Result<(), PluginError> {
        self.pipeline.check(&self.request(draw)?).map_err(failed)
    }
}

impl Inpaint for CandleDiffusion {
    fn inpaint(&self, edit: &Edit<'_>, call: &Call<'_>) -> Result<PictureBuf, PluginError> {
        call.check()?;
        let picture = copied(&edit.picture)?;
        let (width, height) = picture.dimensions();
        let marks = marks(&edit.regions, (width, height));
        let mask = grown(&marks, self.pipeline.factor() as u32);
        let source = Source::new(picture.clone(), Some(mask), None);
        let near = self.pipeline.nearest_size((width, height));
        let request = GenerateRequest {
            seed: edit.seed,
            width: near.0,
            height: near.1,
            source: Some(source),
            ..self.defaults(edit.prompt)
        };
        let mut hook = Watched { call, steps: None, refused: None };
        let Some(drawn) = self.run(&request, &mut hook)? else {
            return Err(PluginError::new(ErrorCode::Cancelled, "the call was called off"));
        };
        let drawn = imageops::resize(&drawn, width, height, FilterType::Lanczos3);
        // Outside of the regions the pixels stay as they came: the way through the VAE changes all a little.
        let pixels = RgbImage::from_fn(width, height, |x, y| {
            *if marks.get_pixel(x, y).0[0] > 0 { drawn.get_pixel(x, y) } else { picture.get_pixel(x, y) }
        });
        PictureBuf::new(pixels.into_raw(), width, height)
    }
}

/// A picture as the pipeline takes it.
fn copied(view: &PictureView<'_>) -> Result<RgbImage, PluginError> {
    let (width, height) = (view.width(), view.height());
    RgbImage::from_raw(width, height, view.to_buf().into_pixels())
        .ok_or_else(|| PluginError::failed("the picture's bytes do not fit its size"))
}

/// A picture to begin from, as the pipeline takes it.
fn source(source: &DrawSource<'_>) -> Result<Source, PluginError> {
    let mask = source.mask.as_ref().map(copied).transpose()?;
    Ok(Source::new(copied(&source.picture)?, mask.map(|mask| imageops::grayscale(&mask)), source.strength))
}

/// White where a region is.
fn marks(regions: &[Region], (width, height): (u32, u32)) -> GrayImage {
    let mut marks = GrayImage::new(width, height);
    for region in regions {
        // A pixel that a region touches belongs to it; what is no number touches none.
        let (left, top) = (region.left.max(0.0) as u32, region.top.max(0.0) as u32);
        let (right, bottom) = (region.right.ceil() as u32, region.bottom.ceil() as u32);
        for y in top..bottom.min(height) {
            for x in left..right.min(width) {
                marks.put_pixel(x, y, Luma([255]));
            }
        }
    }
    marks
}

/// The marks with every tile of `side` x `side` white in which there is one: a latent stands for a whole tile.
fn grown(marks: &GrayImage, side: u32) -> GrayImage {
    let (width, height) = marks.dimensions();
    let mut grown = GrayImage::new(width, height);
    for (x, y, _) in marks.enumerate_pixels().filter(|(_, _, mark)| mark.0[0] > 0) {
        let (left, top) = (x / side * side, y / side * side);
        if grown.get_pixel(left, top).0[0] > 0 {
            continue;
        }
        for y in top..(top + side).min(height) {
            for x in left..(left + side).min(width) {
                grown.put_pixel(x, y, Luma([255]));
            }
        }
    }
    grown
}

cluegate_abi::export_plugin!(CandleDiffusion: generate, inpaint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_cover_what_a_region_touches_and_nothing_beyond_the_picture() {
        let region = |left, top, right, bottom| Region { left, top, right, bottom };
        let regions =
            [region(1.5, -4.0, 2.2, 1.0), region(3.0, 2.0, 900.0, 900.0), region(f32::NAN, 0.0, 0.0, 0.0)];
        let marks = marks(&regions, (4, 3));
        let white: Vec<(u32, u32)> =
            marks.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 0).map(|(x, y, _)| (x, y)).collect();
        assert_eq!(white, [(1, 0), (2, 0), (3, 2)]);
        let tiles = grown(&marks, 2);
        assert_eq!(tiles.as_raw(), &[255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 255, 255]);
    }
}
