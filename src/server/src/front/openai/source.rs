//! Pictures that a client wants changed.

use std::io::Cursor;

use bytes::Bytes;
use cluegate_perception::DecodeOptions;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, Luma};

use super::answer::Refusal;
use crate::problem::{Problem, ProblemKind};
use crate::request::Source;

/// Checks that these are pictures within the limits, so that no bomb goes on to the upstream, and turns the mask into
/// one that is white where the picture may change.
pub(super) async fn check(
    pictures: Vec<Bytes>,
    mask: Option<Bytes>,
    limits: DecodeOptions,
) -> Result<Source, Refusal> {
    let checked = tokio::task::spawn_blocking(move || {
        for picture in &pictures {
            let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
            decoder("image", picture, &formats, &limits)?;
        }
        let mask = mask.map(|mask| white_where_transparent(&mask, &limits)).transpose()?;
        Ok(Source { pictures, mask, strength: None })
    });
    checked.await.map_err(|_| Problem::new(ProblemKind::Internal, "the pictures could not be read"))?
}

fn decoder<'a>(
    name: &str,
    bytes: &'a [u8],
    formats: &[ImageFormat],
    limits: &DecodeOptions,
) -> Result<impl ImageDecoder + 'a, Refusal> {
    let format = image::guess_format(bytes).ok().filter(|format| formats.contains(format));
    let format = format.ok_or_else(|| {
        let names: Vec<&str> = formats.iter().map(ImageFormat::to_mime_type).collect();
        Refusal::param(name, format!("expected a file of the type {}", names.join(", ")))
    })?;
    let damaged = |error| Refusal::param(name, format!("the picture cannot be read: {error}"));
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        let message =
            format!("it claims {width} x {height} pixels; at most {} are allowed", limits.max_pixels);
        return Err(Refusal::param(name, message));
    }
    let mut allowed = Limits::no_limits();
    allowed.max_alloc = Some(limits.max_pixels.saturating_mul(16).max(1 << 20));
    decoder.set_limits(allowed).map_err(damaged)?;
    Ok(decoder)
}

/// `types/image_edit_params.py`, `mask`: its transparent areas may change.
fn white_where_transparent(mask: &[u8], limits: &DecodeOptions) -> Result<Bytes, Refusal> {
    let damaged = |error: &dyn std::fmt::Display| {
        Refusal::param("mask", format!("the picture cannot be read or written: {error}"))
    };
    let decoder = decoder("mask", mask, &[ImageFormat::Png, ImageFormat::WebP], limits)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| damaged(&e))?;
    if !decoded.color().has_alpha() {
        let message = "expected a picture with an alpha channel, transparent where the picture may change";
        return Err(Refusal::param("mask", message));
    }
    let decoded = decoded.into_rgba8();
    let white = GrayImage::from_fn(decoded.width(), decoded.height(), |x, y| {
        Luma([255 - decoded.get_pixel(x, y).0[3]])
    });
    let mut bytes = Cursor::new(Vec::new());
    white.write_to(&mut bytes, ImageFormat::Png).map_err(|e| damaged(&e))?;
    Ok(bytes.into_inner().into())
}
