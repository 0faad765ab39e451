//! A decoded picture with its identity.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use image::{ImageResult, RgbImage};

use crate::encode::{FileFormat, encode, encode_png};
use crate::plain::PlainPng;

/// BLAKE3 over width, height and pixels of a picture: the only key under which anything about it may be cached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({})", self.to_hex())
    }
}

/// An upright, opaque RGB picture of 8 bits a channel, shared without copying.
#[derive(Clone)]
pub struct Picture {
    pixels: Arc<RgbImage>,
    hash: ContentHash,
    /// The file that exactly these pixels were read from, if there is nothing else in it.
    file: Option<Bytes>,
}

impl Picture {
    /// Takes over decoded pixels. The caller has applied orientation and flattened transparency.
    pub fn new(pixels: RgbImage) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&pixels.width().to_le_bytes());
        hasher.update(&pixels.height().to_le_bytes());
        hasher.update(pixels.as_raw());
        Self { hash: ContentHash(*hasher.finalize().as_bytes()), pixels: Arc::new(pixels), file: None }
    }

    /// The pixels of a plain file, and the file.
    pub(crate) fn of_plain(PlainPng { file, pixels }: PlainPng) -> Self {
        Self { file: Some(file), ..Self::new(pixels) }
    }

    /// A PNG file of the pixels and nothing else: no text, no profile, no time. It is written now, unless the pixels were
    /// read from such a file: then it is that one, rewritten without whatever else stood in it, and with no byte that was
    /// not read.
    ///
    /// # Errors
    /// As [`encode_png`].
    pub fn png(&self) -> ImageResult<Bytes> {
        self.file.clone().map_or_else(|| encode_png(&self.pixels).map(Bytes::from), Ok)
    }

    /// A file of the pixels and nothing else, in any format; a PNG file is that of [`Picture::png`].
    ///
    /// # Errors
    /// As [`encode`].
    pub fn encode(&self, format: FileFormat) -> ImageResult<Bytes> {
        match format {
            FileFormat::Png => self.png(),
            other => encode(&self.pixels, other).map(Bytes::from),
        }
    }

    /// The pixels, row by row.
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.pixels.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.pixels.height()
    }

    /// Identity of the content.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{}, {})", self.width(), self.height(), self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_pixels_and_shape() {
        let a = Picture::new(RgbImage::new(2, 3));
        let b = Picture::new(RgbImage::new(3, 2));
        let mut changed = RgbImage::new(2, 3);
        changed.put_pixel(1, 2, image::Rgb([1, 0, 0]));
        assert_ne!(a.hash(), b.hash());
        assert_ne!(a.hash(), Picture::new(changed).hash());
        assert_eq!(a.hash(), Picture::new(RgbImage::new(2, 3)).hash());
    }
}
