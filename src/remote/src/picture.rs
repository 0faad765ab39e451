//! Pictures as data URLs: an engine that fetches addresses could be sent anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cluegate_cache::{Bound, Recent};
use cluegate_perception::{ContentHash, Picture};
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use crate::error::{RemoteError, RemoteErrorKind};

/// Pictures that are kept encoded: those under judgment, with their crops.
const KEPT: Bound = Bound { entries: 256, bytes: 128 << 20 };

/// Pictures encoded lately.
#[derive(Debug)]
pub(crate) struct DataUrls(Recent<ContentHash, Bytes>);

impl DataUrls {
    pub(crate) fn new() -> Self {
        Self(Recent::new(KEPT))
    }

    /// The picture as a PNG in a data URL: every pixel as it is here.
    pub(crate) fn of(&self, picture: &Picture) -> Result<Bytes, RemoteError> {
        let hash = picture.hash();
        if let Some(known) = self.0.get(&hash) {
            return Ok(known);
        }
        let mut png = Vec::new();
        let pixels = picture.pixels();
        PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
            .write_image(pixels.as_raw(), pixels.width(), pixels.height(), image::ExtendedColorType::Rgb8)
            .map_err(|e| RemoteError::new(RemoteErrorKind::Refused, "the picture", e.to_string()))?;
        let mut url = String::from("data:image/png;base64,");
        STANDARD.encode_string(png, &mut url);
        let url = Bytes::from(url);
        self.0.insert(hash, url.clone(), url.len());
        Ok(url)
    }
}
