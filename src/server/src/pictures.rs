//! The only bytes of pictures that a response may hold.

use std::io::Cursor;

use bytes::Bytes;
use cluegate_gate::{Placeholder, ReleasedPicture};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageResult, RgbImage};

use crate::problem::{Problem, ProblemKind};

/// How pictures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// PNG.
    #[default]
    Png,
    /// JPEG of a quality from 1 to 100.
    Jpeg(u8),
    /// WebP without loss.
    WebP,
}

impl Format {
    /// Media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg(_) => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// Usual ending of a file's name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg(_) => "jpg",
            Self::WebP => "webp",
        }
    }
}

/// An encoded picture that a client may have: made from what a session released, or from what stands in for a picture
/// that it did not. Pixels only: no text and no profile ([`cluegate_perception::Picture::png`]), but for the stamp of a released
/// picture whose policy wants one.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    bytes: Bytes,
    format: Format,
    size: (u32, u32),
}

impl Shown {
    /// Encodes a released picture.
    ///
    /// # Errors
    /// `Internal` if the encoder fails.
    pub(crate) fn released(picture: &ReleasedPicture, format: Format) -> Result<Self, Problem> {
        let shown = Self::encode(picture.pixels(), format, || picture.picture().png())?;
        let Some(stamp) = picture.stamp() else { return Ok(shown) };
        let stamped = match format {
            Format::Png => stamp.on_png(&shown.bytes),
            Format::Jpeg(_) => stamp.on_jpeg(&shown.bytes),
            Format::WebP => return Ok(shown),
        };
        let bytes = stamped.map_err(|e| Problem::new(ProblemKind::Internal, e.to_string()))?.into();
        Ok(Self { bytes, ..shown })
    }

    /// Encodes what stands in for a picture.
    ///
    /// # Errors
    /// `Internal` if the encoder fails.
    pub(crate) fn placeholder(placeholder: &Placeholder, format: Format) -> Result<Self, Problem> {
        let pixels = placeholder.pixels();
        Self::encode(pixels, format, || cluegate_perception::encode_png(pixels).map(Bytes::from))
    }

    fn encode(
        pixels: &RgbImage,
        format: Format,
        png: impl FnOnce() -> ImageResult<Bytes>,
    ) -> Result<Self, Problem> {
        let mut bytes = Cursor::new(Vec::new());
        let failed = |e| Problem::new(ProblemKind::Internal, format!("a picture could not be encoded: {e}"));
        let (width, height) = pixels.dimensions();
        let (raw, rgb) = (pixels.as_raw(), ExtendedColorType::Rgb8);
        let written = match format {
            Format::Png => {
                return png().map_err(failed).map(|bytes| Self { bytes, format, size: (width, height) });
            }
            Format::Jpeg(quality) => JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
                .write_image(raw, width, height, rgb),
            Format::WebP => WebPEncoder::new_lossless(&mut bytes).write_image(raw, width, height, rgb),
        };
        written.map_err(failed)?;
        Ok(Self { bytes: bytes.into_inner().into(), format, size: (width, height) })
    }

    /// The file.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The file in base64, as most dialects want it.
    pub(crate) fn base64(&self) -> String {
        base64_simd::STANDARD.encode_to_string(&self.bytes)
    }

    /// How it is written.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Width and height in pixels.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.size
    }
}
