//! The multipart body of `/images/edits`.

use std::io::Cursor;

use bytes::Bytes;
use cluegate_perception::DecodeOptions;
use image::{ImageFormat, Rgba, RgbaImage};
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value};

use crate::request::Source;

/// The form of a request with these words and pictures. One picture is `image` and several are `image[]`, as
/// openai-python writes them (`_utils/_utils.py`, `extract_files`).
pub(super) async fn edits(words: &Map<String, Value>, source: &Source) -> Result<Form, String> {
    let mut form = Form::new();
    for (name, value) in words {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        form = form.text(name.clone(), text);
    }
    let name = if source.pictures.len() == 1 { "image" } else { "image[]" };
    for picture in &source.pictures {
        form = form.part(name, part(picture.clone())?);
    }
    if let Some(mask) = source.mask.clone() {
        let written = tokio::task::spawn_blocking(move || transparent_where_white(&mask)).await;
        let mask = written.map_err(|_| "the mask could not be converted".to_owned())??;
        form = form.part("mask", part(mask)?);
    }
    Ok(form)
}

fn part(picture: Bytes) -> Result<Part, String> {
    let format = image::guess_format(&picture).ok();
    let (name, media_type) = match format {
        Some(ImageFormat::Png) => ("image.png", "image/png"),
        Some(ImageFormat::Jpeg) => ("image.jpg", "image/jpeg"),
        Some(ImageFormat::WebP) => ("image.webp", "image/webp"),
        _ => {
            return Err(
                "it takes PNG, JPEG and WebP to start from, and the picture is none of them".to_owned()
            );
        }
    };
    let bytes = picture.len() as u64;
    let part = Part::stream_with_length(Body::from(picture), bytes).file_name(name);
    part.mime_str(media_type).map_err(|error| error.to_string())
}

/// The mask as this API wants it: transparent where the picture may change. The colour stays white there, for servers
/// that read brightness instead (stable-diffusion.cpp).
fn transparent_where_white(mask: &[u8]) -> Result<Bytes, String> {
    let options = DecodeOptions { convert: true, ..DecodeOptions::default() };
    let mask =
        cluegate_perception::decode(mask, &options).map_err(|e| format!("the mask cannot be read: {e}"))?;
    let light = image::imageops::grayscale(mask.pixels());
    let written = RgbaImage::from_fn(mask.width(), mask.height(), |x, y| {
        let [value] = light.get_pixel(x, y).0;
        Rgba([value, value, value, 255 - value])
    });
    let mut bytes = Cursor::new(Vec::new());
    written.write_to(&mut bytes, ImageFormat::Png).map_err(|e| format!("the mask cannot be written: {e}"))?;
    Ok(bytes.into_inner().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_mask_is_transparent_where_it_was_white() {
        let mut mask = image::GrayImage::new(3, 1);
        mask.put_pixel(1, 0, image::Luma([255]));
        mask.put_pixel(2, 0, image::Luma([100]));
        let mut bytes = Cursor::new(Vec::new());
        mask.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let written = transparent_where_white(bytes.get_ref()).unwrap();
        let read = image::load_from_memory(&written).unwrap().into_rgba8();
        let pixels: Vec<[u8; 4]> = read.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(pixels, [[0, 0, 0, 255], [255, 255, 255, 0], [100, 100, 100, 155]]);
        assert!(transparent_where_white(b"no picture").unwrap_err().contains("not an image"));
    }
}
