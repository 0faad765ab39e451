//! Outside bytes to a [`Picture`], within limits, and only if what is judged is what everybody will see.
//!
//! A file whose look depends on the viewer (transparency, orientation tags, several frames or pictures, more than 8
//! bits a channel, CMYK, an unusual gamma) is refused unless the caller asks for a conversion: a judge must never look at something else than
//! the people who will see the file.

use std::io::Cursor;

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{
    AnimationDecoder, DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits, Rgb, RgbImage,
};
use thiserror::Error;

use crate::Picture;
use crate::containers::{JpegFrame, unusual_png_gamma};
use crate::plain::PlainPng;

/// Formats that are read, for messages.
const FORMATS: &str = "PNG, JPEG, WebP, GIF or BMP";

/// What a decoded picture may cost, and whether viewer-dependent files are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most bytes of the encoded file.
    pub max_bytes: usize,
    /// Most pixels (width times height), checked before anything is decoded.
    pub max_pixels: u64,
    /// Convert viewer-dependent files to what most viewers show (orientation applied, 8 bits, transparency over
    /// white, the first of several pictures) instead of refusing them. Animations and unusual gammas are refused all
    /// the same.
    pub convert: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_pixels: 40_000_000, convert: false }
    }
}

/// Why bytes are no picture that can be judged.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the file is empty; expected a {FORMATS} picture")]
    Empty,
    /// More bytes than allowed.
    #[error(
        "the file has {bytes} bytes, more than the {limit} allowed; raise the byte limit or send a smaller file"
    )]
    TooManyBytes {
        /// Bytes that came.
        bytes: usize,
        /// Most allowed.
        limit: usize,
    },
    /// More pixels than allowed: perhaps a decompression bomb. Nothing was decoded.
    #[error(
        "the picture claims {width} x {height} pixels, more than the {limit} allowed; raise the pixel limit or send a \
         smaller picture"
    )]
    TooManyPixels {
        /// Claimed width.
        width: u32,
        /// Claimed height.
        height: u32,
        /// Most pixels allowed.
        limit: u64,
    },
    /// No known signature.
    #[error("not an image: expected a {FORMATS} file, but it begins with {start}")]
    NotAnImage {
        /// The first bytes, escaped.
        start: String,
    },
    /// The file ends early.
    #[error("the {format} file is truncated: it ends before the picture does; fetch or write it again")]
    Truncated {
        /// Name of the format.
        format: &'static str,
    },
    /// The file breaks its format's rules.
    #[error("the {format} file is damaged: {reason}")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Several frames.
    #[error("the {format} file is animated; expected a single picture: send each frame as a file of its own")]
    Animated {
        /// Name of the format.
        format: &'static str,
    },
    /// A JPEG with further pictures behind the first.
    #[error(
        "the JPEG file holds further pictures (MPF), which some viewers show; save the one that is meant alone, or ask \
         for conversion (--convert), which takes the first"
    )]
    SeveralPictures,
    /// A PNG that some viewers show lighter or darker than others.
    #[error(
        "the PNG file states a gamma of {}, which some viewers heed and others do not; expected about 0.45 or none: \
         save it again as sRGB", f64::from(*gamma) / 1e5
    )]
    Gamma {
        /// The stated gamma, times 100,000.
        gamma: u32,
    },
    /// More than 8 bits a channel.
    #[error(
        "the picture has {bits} bits a channel; expected 8: save it with 8 bits, or ask for conversion (--convert)"
    )]
    Depth {
        /// Bits a channel.
        bits: u16,
    },
    /// CMYK colours.
    #[error(
        "the picture has CMYK colours; expected RGB or grey: save it as RGB, or ask for conversion (--convert)"
    )]
    Cmyk,
    /// An EXIF tag turns or mirrors the picture in some viewers.
    #[error(
        "an EXIF orientation tag ({tag}) turns the picture in some viewers only; save it upright, or ask for \
         conversion (--convert)"
    )]
    Rotated {
        /// The tag's value, 2 to 8.
        tag: u8,
    },
    /// Some pixels are transparent.
    #[error(
        "the picture has transparent pixels, so its look depends on what lies behind it; flatten it, or ask for \
         conversion (--convert)"
    )]
    Transparent,
}

/// Decodes one picture.
///
/// # Errors
/// See [`DecodeError`]. Never panics, and decodes nothing before the limits are checked.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Picture, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > options.max_bytes {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len(), limit: options.max_bytes });
    }
    if let Some(plain) = PlainPng::read(bytes, options.max_pixels) {
        return Ok(Picture::of_plain(plain));
    }
    let format = image::guess_format(bytes).ok().filter(ImageFormat::reading_enabled).ok_or_else(|| {
        DecodeError::NotAnImage { start: format!("\"{}\"", bytes[..bytes.len().min(12)].escape_ascii()) }
    })?;
    let name = name_of(format);
    let failed = |error| failure(name, error);
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > options.max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, limit: options.max_pixels });
    }
    // 16 bits and four channels are the most that a pixel can take; the same again for the decoder's own buffers.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(options.max_pixels.saturating_mul(16).max(1 << 20));
    decoder.set_limits(limits.clone()).map_err(failed)?;
    if is_animated(bytes, format, limits).map_err(failed)? {
        return Err(DecodeError::Animated { format: name });
    }
    let jpeg = if format == ImageFormat::Jpeg { Some(jpeg_frame(bytes)?) } else { None };
    if let Some(gamma) = (format == ImageFormat::Png).then(|| unusual_png_gamma(bytes)).flatten() {
        return Err(DecodeError::Gamma { gamma });
    }
    let orientation = decoder.orientation().map_err(failed)?;
    if !options.convert {
        match jpeg {
            Some(frame) if frame.is_cmyk() => return Err(DecodeError::Cmyk),
            Some(frame) if frame.several_pictures => return Err(DecodeError::SeveralPictures),
            _ => refuse_viewer_dependent(decoder.original_color_type(), orientation)?,
        }
    }
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(failed)?;
    decoded.apply_orientation(orientation);
    flatten(decoded, options.convert).map(Picture::new)
}

fn refuse_viewer_dependent(colour: ExtendedColorType, orientation: Orientation) -> Result<(), DecodeError> {
    let bits = colour.bits_per_pixel() / u16::from(colour.channel_count());
    if bits > 8 {
        return Err(DecodeError::Depth { bits });
    }
    match orientation {
        Orientation::NoTransforms => Ok(()),
        turned => Err(DecodeError::Rotated { tag: turned.to_exif() }),
    }
}

/// Drops the alpha channel of an opaque picture; lays a transparent one over white if conversion is wanted.
fn flatten(decoded: DynamicImage, convert: bool) -> Result<RgbImage, DecodeError> {
    if !decoded.color().has_alpha() {
        return Ok(decoded.into_rgb8());
    }
    let rgba = decoded.into_rgba8();
    if !convert && rgba.pixels().any(|p| p.0[3] != 255) {
        return Err(DecodeError::Transparent);
    }
    Ok(RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([red, green, blue].map(|c| ((c * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    }))
}

/// The frame of a JPEG that is all there.
fn jpeg_frame(bytes: &[u8]) -> Result<JpegFrame<'_>, DecodeError> {
    let format = "JPEG";
    let frame = JpegFrame::find(bytes).ok_or_else(|| {
        let reason = "its segments do not lead to a frame header".to_owned();
        DecodeError::Malformed { format, reason }
    })?;
    // The decoder paints what is missing grey instead of reporting it.
    if frame.is_ended() { Ok(frame) } else { Err(DecodeError::Truncated { format }) }
}

fn is_animated(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<bool, ImageError> {
    let cursor = Cursor::new(bytes);
    match format {
        ImageFormat::Png => PngDecoder::new(cursor)?.is_apng(),
        ImageFormat::WebP => Ok(WebPDecoder::new(cursor)?.has_animation()),
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(cursor)?;
            // A frame may claim more pixels than the picture that it is part of.
            decoder.set_limits(limits)?;
            // A first frame that fails ends the search: asking on after it would answer for the next one.
            let mut frames = decoder.into_frames();
            frames.next().transpose()?;
            frames.next().transpose().map(|second| second.is_some())
        }
        _ => Ok(false),
    }
}

fn failure(format: &'static str, error: ImageError) -> DecodeError {
    let truncated = match &error {
        ImageError::IoError(e) => e.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    };
    if matches!(error, ImageError::Limits(_)) {
        let reason = "a part of it claims more memory than the pixel limit allows".to_owned();
        return DecodeError::Malformed { format, reason };
    }
    let reason = error.to_string();
    let lower = reason.to_lowercase();
    if truncated
        || ["unexpected end", "unexpected eof", "exhausted", "early eof"].iter().any(|s| lower.contains(s))
    {
        DecodeError::Truncated { format }
    } else {
        DecodeError::Malformed { format, reason }
    }
}

fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        _ => "image",
    }
}
