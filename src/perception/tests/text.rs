//! A text beside the pixels: any reader finds it, and the pixels are what they were.

#![allow(clippy::unwrap_used)]

use cluegate_perception::{encode_png, jpeg_with_comment, png_with_text};
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

const TEXT: &str = "decision=0190-a";

fn pixels() -> RgbImage {
    RgbImage::from_fn(9, 5, |x, y| Rgb([20 * x as u8, 40 * y as u8, 7]))
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&pixels()).unwrap();
    bytes
}

fn decoded(file: &[u8]) -> RgbImage {
    image::load_from_memory(file).unwrap().into_rgb8()
}

#[test]
fn a_png_has_the_text_after_its_header() {
    let bare = encode_png(&pixels()).unwrap();
    let file = png_with_text(&bare, "cluegate", TEXT).unwrap();
    assert_eq!(decoded(&file), pixels());
    // Length, kind, keyword, a null, the text, and the checksum of all but the length.
    let content = [&b"tEXtcluegate\0"[..], TEXT.as_bytes()].concat();
    let chunk =
        [&(content.len() as u32 - 4).to_be_bytes()[..], &content, &crc32fast::hash(&content).to_be_bytes()]
            .concat();
    assert_eq!(file, [&bare[..33], &chunk, &bare[33..]].concat());
}

#[test]
fn a_jpeg_has_it_after_the_segment_of_jfif() {
    let bare = jpeg();
    let file = jpeg_with_comment(&bare, TEXT).unwrap();
    assert_eq!(decoded(&file), decoded(&bare));
    assert_eq!((&file[2..4], &file[6..10]), (&[0xFF, 0xE0][..], &b"JFIF"[..]));
    let comment = [&[0xFF, 0xFE, 0, TEXT.len() as u8 + 2][..], TEXT.as_bytes()].concat();
    assert_eq!(file, [&bare[..20], &comment, &bare[20..]].concat());
    // One without that segment.
    let bare = [&bare[..2], &bare[20..]].concat();
    assert_eq!(jpeg_with_comment(&bare, TEXT).unwrap(), [&bare[..2], &comment, &bare[2..]].concat());
}

#[test]
fn what_cannot_hold_it_is_refused() {
    let (png, jpeg, long) = (encode_png(&pixels()).unwrap(), jpeg(), "a".repeat(65_534));
    for (keyword, text) in
        [("", TEXT), ("a b", TEXT), (&long[..80], TEXT), ("a", ""), ("a", "é"), ("a", "a\nb")]
    {
        assert_eq!(png_with_text(&png, keyword, text), None, "{keyword:?} {text:?}");
    }
    for text in ["", "é", "\0", &long] {
        assert_eq!(jpeg_with_comment(&jpeg, text), None, "{text:?}");
    }
    assert!(jpeg_with_comment(&jpeg, &long[..65_533]).is_some());
    for broken in [&[][..], &png[..32], &jpeg, b"GIF89a"] {
        assert_eq!(png_with_text(broken, "a", TEXT), None);
    }
    for broken in [&[][..], &jpeg[..1], &jpeg[..5], &jpeg[..19], &png] {
        assert_eq!(jpeg_with_comment(broken, TEXT), None, "{} bytes", broken.len());
    }
}
