//! What is asked for, in words that every front and every upstream shares.

use std::io::Cursor;

use bytes::Bytes;
use cluegate_perception::DecodeOptions;
use image::ImageReader;
use serde_json::{Map, Value};

use crate::problem::{Problem, ProblemKind};

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
    /// The end user on whose behalf the client asks, as the body names them. For the log; no upstream is told.
    pub subject: Option<String>,
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

    /// Refuses pictures to start from that claim more than they may: perhaps bombs, which must not go on to the upstream.
    ///
    /// # Errors
    /// As [`refuse_bomb`].
    pub(crate) fn refuse_bombs(&self, limits: &DecodeOptions) -> Result<(), Problem> {
        let mut pictures = self.source.iter().flat_map(|source| source.pictures.iter().chain(&source.mask));
        pictures.try_for_each(|picture| refuse_bomb(picture, limits))
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

/// Refuses a client's picture by its head: one of a format that the gate does not read, or of more bytes or pixels than
/// `limits` allow. Whether the rest can be read is for whoever reads it.
///
/// # Errors
/// `BadRequest`, or `TooLarge`.
pub(crate) fn refuse_bomb(picture: &[u8], limits: &DecodeOptions) -> Result<(), Problem> {
    let too_large = |message| Err(Problem::new(ProblemKind::TooLarge, message));
    if picture.len() > limits.max_bytes {
        let (found, most) = (picture.len(), limits.max_bytes);
        return too_large(format!("a picture to start from has {found} bytes; at most {most} are allowed"));
    }
    let size = ImageReader::new(Cursor::new(picture)).with_guessed_format().ok();
    let size = size.and_then(|reader| reader.into_dimensions().ok());
    let unread = "a picture to start from cannot be read: expected a PNG, JPEG, WebP, GIF or BMP file";
    let (width, height) = size.ok_or_else(|| Problem::bad_request(unread))?;
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        let most = limits.max_pixels;
        return too_large(format!(
            "a picture to start from claims {width} x {height} pixels; at most {most} are allowed"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn claims(side: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        // The begin of the data, which a reader of the head looks for.
        writer.write_chunk(png::chunk::IDAT, &[0x78, 1]).unwrap();
        drop(writer);
        bytes
    }

    #[test]
    fn a_bomb_is_known_by_its_head() {
        let limits = DecodeOptions { max_bytes: 1000, max_pixels: 4096, convert: true };
        assert_eq!(refuse_bomb(&claims(64), &limits), Ok(()));
        let kind = |picture: &[u8]| refuse_bomb(picture, &limits).unwrap_err().kind();
        assert_eq!(kind(&claims(60_000)), ProblemKind::TooLarge);
        assert_eq!(kind(&[claims(64), vec![0; 1000]].concat()), ProblemKind::TooLarge);
        for other in [&b""[..], b"a", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"] {
            assert_eq!(kind(other), ProblemKind::BadRequest);
        }
        let source =
            Source { pictures: vec![claims(64).into()], mask: Some(claims(65).into()), strength: None };
        let request = PictureRequest { source: Some(source), ..PictureRequest::default() };
        assert_eq!(request.refuse_bombs(&limits).unwrap_err().kind(), ProblemKind::TooLarge);
    }
}
