//! What is asked for, in words that every front and every upstream shares.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// The mark of parameters in a prompt.
const HIDDEN: &str = "sd_cpp_extra_args";

/// A way of speaking HTTP to a text-to-image server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// AUTOMATIC1111 and Forge, `/sdapi/v1`.
    A1111,
    /// OpenAI Images, `/v1/images`.
    OpenAi,
    /// ComfyUI, `/prompt` and `/ws`.
    ComfyUi,
    /// stable-diffusion.cpp's own, `/sdcpp/v1`.
    SdCpp,
    /// The generator in this process.
    BuiltIn,
}

impl Dialect {
    /// Name as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A1111 => "a1111",
            Self::OpenAi => "openai",
            Self::ComfyUi => "comfyui",
            Self::SdCpp => "sdcpp",
            Self::BuiltIn => "builtin",
        }
    }
}

/// A request for pictures. What is `None` is left to the upstream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PictureRequest {
    /// What to draw.
    pub prompt: String,
    /// What not to draw.
    pub negative_prompt: Option<String>,
    /// Number of pictures, at least 1.
    pub count: u32,
    /// Seed of the first picture; the others follow.
    pub seed: Option<u64>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Number of denoising steps.
    pub steps: Option<u32>,
    /// Weight of the prompt (classifier-free guidance).
    pub guidance: Option<f64>,
    /// Sampler by the upstream's name, such as `Euler a` or `euler`.
    pub sampler: Option<String>,
    /// Noise schedule by the upstream's name, such as `karras`.
    pub scheduler: Option<String>,
    /// Checkpoint by the upstream's name.
    pub model: Option<String>,
    /// Pictures to start from.
    pub source: Option<Source>,
    /// What only the front's own dialect can say. An upstream of another dialect refuses the request if there is any.
    pub native: Option<Native>,
}

/// Pictures to start from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Source {
    /// The pictures as the client sent them, encoded; at least one. They come from the client and go to the upstream:
    /// they are never sent back.
    pub pictures: Vec<Bytes>,
    /// White where the picture may change.
    pub mask: Option<Bytes>,
    /// From 0, as it is, to 1, anew.
    pub strength: Option<f64>,
}

/// Parameters that have no word in [`PictureRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Native {
    /// Whose words they are.
    pub dialect: Dialect,
    /// The parameters by that dialect's names, each checked against an allow-list by the front.
    pub parameters: Map<String, Value>,
}

impl PictureRequest {
    /// Refuses parameters that hide in a prompt. stable-diffusion.cpp reads JSON between `<sd_cpp_extra_args>` and its end
    /// out of the prompts of its OpenAI and A1111 routes (`routes_openai.cpp`, `routes_sdapi.cpp`), and that JSON can
    /// change any parameter: past what was checked here.
    ///
    /// # Errors
    /// `BadRequest`.
    pub(crate) fn refuse_hidden_parameters(&self) -> Result<(), Problem> {
        let texts = [Some(&self.prompt), self.negative_prompt.as_ref()];
        if texts.into_iter().flatten().any(|text| text.to_ascii_lowercase().contains(HIDDEN)) {
            let message =
                format!("a prompt with `<{HIDDEN}>` is refused: name parameters in the request itself");
            return Err(Problem::bad_request(message));
        }
        Ok(())
    }

    /// The parameters that only `dialect` understands.
    ///
    /// # Errors
    /// The names of what another dialect alone can express.
    pub fn native_for(&self, dialect: Dialect) -> Result<Option<&Map<String, Value>>, String> {
        match &self.native {
            Some(native) if native.dialect == dialect => Ok(Some(&native.parameters)),
            Some(native) if !native.parameters.is_empty() => {
                let names: Vec<&str> = native.parameters.keys().map(String::as_str).collect();
                Err(names.join(", "))
            }
            _ => Ok(None),
        }
    }
}
