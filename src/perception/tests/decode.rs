//! Every kind of bad file has a message of its own, and none panics.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use cluegate_perception::{DecodeError, DecodeOptions, Picture, decode};
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Frame, ImageEncoder, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

fn gradient() -> RgbImage {
    RgbImage::from_fn(24, 16, |x, y| Rgb([(x * 10) as u8, (y * 15) as u8, 90]))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.into().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn strict(bytes: &[u8]) -> Result<Picture, DecodeError> {
    decode(bytes, &DecodeOptions::default())
}

fn converting(bytes: &[u8]) -> Result<Picture, DecodeError> {
    decode(bytes, &DecodeOptions { convert: true, ..DecodeOptions::default() })
}

#[test]
fn plain_pictures_are_read_exactly() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        assert_eq!(strict(&encoded(gradient(), format)).unwrap().pixels(), &gradient(), "{format:?}");
    }
    let opaque = DynamicImage::from(gradient()).to_rgba8();
    assert_eq!(strict(&encoded(opaque, ImageFormat::Png)).unwrap().pixels(), &gradient());
}

#[test]
fn empty_foreign_and_truncated_files_are_told_apart() {
    assert!(matches!(strict(b""), Err(DecodeError::Empty)));
    let error = strict(b"<html>no</html>").unwrap_err();
    assert!(error.to_string().contains("<html>no"), "{error}");
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp]
    {
        let whole = encoded(gradient(), format);
        let error = strict(&whole[..whole.len() / 2]).unwrap_err();
        assert!(
            matches!(error, DecodeError::Truncated { .. } | DecodeError::Malformed { .. }),
            "{format:?}: {error}"
        );
    }
    let png = encoded(gradient(), ImageFormat::Png);
    assert!(matches!(strict(&png[..png.len() / 2]), Err(DecodeError::Truncated { format: "PNG" })));
}

#[test]
fn limits_hold_before_decoding() {
    let options = DecodeOptions { max_bytes: 100, ..DecodeOptions::default() };
    assert!(matches!(decode(&[0; 101], &options), Err(DecodeError::TooManyBytes { bytes: 101, limit: 100 })));
    // A PNG whose header claims 60,000 x 60,000 pixels; its checksum is right, its data are missing.
    let mut bomb = encoded(gradient(), ImageFormat::Png);
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let checksum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    let error = strict(&bomb).unwrap_err();
    assert!(matches!(error, DecodeError::TooManyPixels { width: 60_000, .. }), "{error}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
    })
}

#[test]
fn animations_are_refused_even_when_converting() {
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new(&mut gif);
    for shade in [0, 200] {
        encoder.encode_frame(Frame::new(RgbaImage::from_pixel(8, 8, Rgba([shade, 0, 0, 255])))).unwrap();
    }
    drop(encoder);
    assert!(matches!(strict(&gif), Err(DecodeError::Animated { format: "GIF" })));
    assert!(matches!(converting(&gif), Err(DecodeError::Animated { format: "GIF" })));
    assert!(strict(&encoded(gradient(), ImageFormat::Gif)).is_ok());
}

#[test]
fn sixteen_bits_are_refused_or_converted() {
    let deep = encoded(DynamicImage::from(gradient()).to_rgb16(), ImageFormat::Png);
    assert!(matches!(strict(&deep), Err(DecodeError::Depth { bits: 16 })));
    assert_eq!(converting(&deep).unwrap().pixels(), &gradient());
}

#[test]
fn transparency_is_refused_or_laid_over_white() {
    let glass = encoded(RgbaImage::from_pixel(4, 4, Rgba([10, 20, 30, 0])), ImageFormat::Png);
    assert!(matches!(strict(&glass), Err(DecodeError::Transparent)));
    assert_eq!(converting(&glass).unwrap().pixels().get_pixel(0, 0), &Rgb([255, 255, 255]));
}

#[test]
fn orientation_tags_are_refused_or_applied() {
    // A TIFF header with the one tag Orientation = 6: turn by 90 degrees clockwise.
    let exif =
        [&b"MM\0*\0\0\0\x08\0\x01"[..], &[0x01, 0x12, 0x00, 0x03, 0, 0, 0, 1, 0, 6, 0, 0], &[0, 0, 0, 0]]
            .concat();
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 90);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.encode_image(&gradient()).unwrap();
    assert!(matches!(strict(&jpeg), Err(DecodeError::Rotated { tag: 6 })));
    let upright = converting(&jpeg).unwrap();
    assert_eq!((upright.width(), upright.height()), (16, 24));
}

#[test]
fn cmyk_is_refused_or_converted() {
    let cmyk = include_bytes!("cmyk.jpg");
    assert!(matches!(strict(cmyk), Err(DecodeError::Cmyk)));
    assert_eq!(converting(cmyk).unwrap().width(), 16);
}

/// A GIF of one frame, by hand: the encoder writes no frame that leaves its picture.
fn gif(frame_side: u16) -> Vec<u8> {
    let [low, high] = frame_side.to_le_bytes();
    let screen = [b'G', b'I', b'F', b'8', b'9', b'a', 1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 9, 9, 9];
    let frame = [0x2C, 0, 0, 0, 0, low, high, low, high, 0, 2, 2, 0x4C, 0x01, 0, 0x3B];
    [&screen[..], &frame].concat()
}

#[test]
fn a_gif_frame_that_claims_more_than_the_limit_takes_no_memory() {
    assert_eq!(strict(&gif(1)).unwrap().width(), 1);
    for read in [strict, converting] {
        let error = read(&gif(u16::MAX)).unwrap_err();
        assert!(error.to_string().contains("more memory than the pixel limit allows"), "{error}");
    }
}

#[test]
fn a_jpeg_with_fill_bytes_is_read_and_one_with_further_pictures_is_refused_or_the_first_taken() {
    let jpeg = encoded(gradient(), ImageFormat::Jpeg);
    let (start, rest) = jpeg.split_at(2);
    let plain = strict(&jpeg).unwrap();
    let filled = strict(&[start, &[0xFF, 0xFF], rest].concat()).unwrap();
    assert_eq!(filled.hash(), plain.hash());
    let index = [0xFF, 0xE2, 0, 8, b'M', b'P', b'F', 0, 0, 0];
    let other = encoded(RgbImage::new(24, 16), ImageFormat::Jpeg);
    let several = [start, &index, rest, &other].concat();
    assert!(matches!(strict(&several), Err(DecodeError::SeveralPictures)));
    assert_eq!(converting(&several).unwrap().hash(), plain.hash());
}

/// `png` with a chunk after its header.
fn with_chunk(png: &[u8], kind: [u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [&kind[..], content].concat();
    let chunk = [&(content.len() as u32).to_be_bytes()[..], &named, &crc32(&named).to_be_bytes()].concat();
    [&png[..33], &chunk, &png[33..]].concat()
}

#[test]
fn a_gamma_that_only_some_viewers_heed_is_refused() {
    let png = encoded(gradient(), ImageFormat::Png);
    assert!(strict(&with_chunk(&png, *b"gAMA", &45_455_u32.to_be_bytes())).is_ok());
    let dark = with_chunk(&png, *b"gAMA", &2_000_u32.to_be_bytes());
    for read in [strict, converting] {
        let error = read(&dark).unwrap_err();
        assert!(matches!(error, DecodeError::Gamma { gamma: 2_000 }), "{error}");
        assert!(error.to_string().contains("0.02"), "{error}");
    }
}

#[test]
fn transparent_colours_count_in_every_kind_of_png_and_what_follows_the_picture_does_not() {
    let png = encoded(gradient(), ImageFormat::Png);
    // The upper left colour of the gradient, as a transparent colour of 16 bits a channel.
    assert!(matches!(
        strict(&with_chunk(&png, *b"tRNS", &[0, 0, 0, 0, 0, 90])),
        Err(DecodeError::Transparent)
    ));
    assert_eq!(strict(&with_chunk(&png, *b"tRNS", &[0, 1, 0, 1, 0, 1])).unwrap().pixels(), &gradient());
    let grey = DynamicImage::from(gradient()).to_luma8();
    let expected = DynamicImage::from(grey.clone()).to_rgb8();
    assert_eq!(strict(&encoded(grey, ImageFormat::Png)).unwrap().pixels(), &expected);
    // A picture behind the end of the first is no part of it for any viewer.
    let trailing = [png.as_slice(), &encoded(RgbImage::new(24, 16), ImageFormat::Png)].concat();
    assert_eq!(strict(&trailing).unwrap().pixels(), &gradient());
}

#[test]
fn transparency_counts_in_webp_and_bmp_too() {
    let glass = RgbaImage::from_pixel(4, 4, Rgba([10, 20, 30, 100]));
    for format in [ImageFormat::WebP, ImageFormat::Bmp] {
        assert!(
            matches!(strict(&encoded(glass.clone(), format)), Err(DecodeError::Transparent)),
            "{format:?}"
        );
        assert!(converting(&encoded(glass.clone(), format)).is_ok(), "{format:?}");
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(at in 0_usize..400, byte: u8, cut in 0_usize..400, format in 0_usize..5) {
        let format = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp][format];
        let mut bytes = encoded(gradient(), format);
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len().max(cut + 1) - cut);
        let _ = strict(&bytes);
        let _ = converting(&bytes);
    }
}
