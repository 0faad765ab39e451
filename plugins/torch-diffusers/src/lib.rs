//! Stable Diffusion through diffusers-rs and libtorch, as a plugin that draws pictures.
//!
//! The plugin reads a Hugging Face diffusers folder of a `StableDiffusionPipeline` and draws on the CPU. UNet, VAE and
//! scheduler are those of diffusers-rs, told the sizes of the folder's configuration; its text encoder knows two fixed sizes
//! only, so that one is written here. Weights are strict: a tensor that is missing, misshapen or unknown is an error that
//! names it.
//!
//! After each step the host may take a preview, which is what the step's prediction takes the finished picture to be,
//! decoded by the VAE, and may give the drawing up: then nothing more is computed or decoded.

mod config;
mod error;
mod files;
// The noise of the built-in generator, so that the same seed draws the same picture.
#[allow(unreachable_pub)]
#[path = "../../candle-diffusion/src/normal.rs"]
mod normal;
mod pipeline;
mod scheduler;
mod text_encoder;
mod tokenizer;
mod unet;
mod vae;
mod weights;

use cluegate_abi::{Call, Draw, Drawn, Generate, Host, LogLevel, Plugin, PluginError, Setup, Steps};

use config::Config;
use pipeline::Pipeline;

/// The plugin: a loaded model and how to draw with it.
struct TorchDiffusers {
    config: Config,
    pipeline: Pipeline,
}

impl Plugin for TorchDiffusers {
    const NAME: &'static str = "torch-diffusers";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = env!("CARGO_PKG_DESCRIPTION");
    const SCHEMA: &'static str = config::SCHEMA;

    fn create(setup: &Setup<'_>, host: Host) -> Result<Self, PluginError> {
        let config = Config::read(setup)?;
        let pipeline = Pipeline::load(&config, host)?;
        host.log(LogLevel::Detail, &format!("loaded {}", config.model.display()));
        let plugin = Self { config, pipeline };
        // The configuration's own numbers have to fit the model.
        plugin.check(&Draw::default()).map_err(|error| PluginError::config(error.message()))?;
        Ok(plugin)
    }

    fn fingerprint(&self) -> Result<String, PluginError> {
        Ok(self.pipeline.fingerprint().to_owned())
    }
}

impl Generate for TorchDiffusers {
    fn generate(
        &self,
        draw: &Draw<'_>,
        call: &Call<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<Drawn, PluginError> {
        let request = self.config.request(draw, self.pipeline.size())?;
        Ok(self.pipeline.draw(&request, call, steps)?)
    }

    fn check(&self, draw: &Draw<'_>) -> Result<(), PluginError> {
        self.config.request(draw, self.pipeline.size())?;
        Ok(())
    }
}

cluegate_abi::export_plugin!(TorchDiffusers: generate);
