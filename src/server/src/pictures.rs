//! The only bytes of pictures that a response may hold.

use bytes::Bytes;
use cluegate_gate::{Placeholder, ReleasedPicture};
pub(crate) use cluegate_perception::FileFormat as Format;

use crate::problem::{Problem, ProblemKind};

/// An encoded picture that a client may have: made from what a session released, or from what stands in for a picture
/// that it did not. Pixels only: no text and no profile, but for what a policy has the file of a released picture state
/// ([`ReleasedPicture::encode`]).
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
    /// `Internal` if the encoder fails, or what the policy has the file state cannot be written into it.
    pub(crate) fn released(picture: &ReleasedPicture, format: Format) -> Result<Self, Problem> {
        let bytes =
            picture.encode(format).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
        Ok(Self { bytes, format, size: picture.pixels().dimensions() })
    }

    /// Encodes what stands in for a picture.
    ///
    /// # Errors
    /// `Internal` if the encoder fails.
    pub(crate) fn placeholder(placeholder: &Placeholder, format: Format) -> Result<Self, Problem> {
        let pixels = placeholder.pixels();
        let failed =
            |error| Problem::new(ProblemKind::Internal, format!("a picture could not be encoded: {error}"));
        let bytes = cluegate_perception::encode(pixels, format).map_err(failed)?;
        Ok(Self { bytes: bytes.into(), format, size: pixels.dimensions() })
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
