//! From a picture to a model's input.

use cluegate_models::pixels::{Filter, centre_crop, resize, shortest_edge_size};
use image::{Rgb, RgbImage};

use crate::config::{Fit, InputConfig, Layout, Resampling};
use crate::error::{OnnxError, Result};

/// Largest ratio of a picture's sides: beyond, the shorter edge's length would make the longer one huge.
const MAX_RATIO: u32 = 64;

/// Shape and values.
pub(crate) fn tensor(config: &InputConfig, picture: &RgbImage) -> Result<(Vec<usize>, Vec<f32>)> {
    let (width, height) = picture.dimensions();
    let (long, short) = (width.max(height), width.min(height));
    if short == 0 || long.div_ceil(short) > MAX_RATIO {
        return Err(OnnxError::run(format!(
            "the picture is {width} x {height} pixels; expected at least one, and at most {MAX_RATIO} to 1"
        )));
    }
    let fitted = fit(config, picture);
    let (width, height) = (config.width as usize, config.height as usize);
    let order: [usize; 3] = if config.bgr { [2, 1, 0] } else { [0, 1, 2] };
    let value = |pixel: &Rgb<u8>, channel: usize| {
        (f32::from(pixel.0[order[channel]]) * config.scale - config.mean[channel]) / config.std[channel]
    };
    let (shape, values) = match config.layout {
        Layout::Nchw => {
            let channels = (0..3).flat_map(|channel| fitted.pixels().map(move |pixel| value(pixel, channel)));
            (vec![1, 3, height, width], channels.collect())
        }
        Layout::Nhwc => {
            let pixels = fitted.pixels().flat_map(|pixel| (0..3).map(move |channel| value(pixel, channel)));
            (vec![1, height, width, 3], pixels.collect())
        }
    };
    Ok((shape, values))
}

fn fit(config: &InputConfig, picture: &RgbImage) -> RgbImage {
    let (width, height) = (config.width, config.height);
    let scaled = |width: u32, height: u32| match filter(config.filter) {
        Some(filter) => resize(picture, width, height, filter),
        None => interpolate(picture, picture.dimensions(), (width, height)),
    };
    match config.fit {
        Fit::Stretch => scaled(width, height),
        Fit::Crop(edge) => {
            let (whole_width, whole_height) = shortest_edge_size(picture.width(), picture.height(), edge);
            centre_crop(&scaled(whole_width, whole_height), width, height)
        }
        Fit::StretchCrop(edge) => centre_crop(&scaled(edge, edge), width, height),
        Fit::Pad => {
            let side = picture.width().max(picture.height());
            match filter(config.filter) {
                // The square is never built: a strip would make it huge.
                None => interpolate(picture, (side, side), (width, height)),
                Some(filter) => {
                    let part = |own: u32, whole: u32| {
                        let part = (f64::from(own) * f64::from(whole) / f64::from(side)).round();
                        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // At most `whole`.
                        let part = part as u32;
                        part.max(1)
                    };
                    let (own_width, own_height) =
                        (part(picture.width(), width), part(picture.height(), height));
                    let mut padded = RgbImage::new(width, height);
                    let small = resize(picture, own_width, own_height, filter);
                    image::imageops::replace(&mut padded, &small, 0, 0);
                    padded
                }
            }
        }
    }
}

fn filter(resampling: Resampling) -> Option<Filter> {
    match resampling {
        Resampling::Nearest => Some(Filter::Nearest),
        Resampling::Bilinear => Some(Filter::Bilinear),
        Resampling::Bicubic => Some(Filter::Bicubic),
        Resampling::Lanczos => Some(Filter::Lanczos),
        Resampling::OpencvBilinear => None,
    }
}

/// OpenCV's `INTER_LINEAR` (`modules/imgproc/src/resize.cpp`): each pixel between the two nearest of a row and of a column
/// around its centre. `canvas` is as large as the picture or larger: what is beyond the picture is black. Within one level
/// of OpenCV, which computes with eleven bits.
fn interpolate(picture: &RgbImage, canvas: (u32, u32), target: (u32, u32)) -> RgbImage {
    let columns = taps(canvas.0, target.0);
    let rows = taps(canvas.1, target.1);
    let level = |x: u32, y: u32, channel: usize| {
        picture.get_pixel_checked(x, y).map_or(0.0, |pixel| f32::from(pixel.0[channel]))
    };
    RgbImage::from_fn(target.0, target.1, |x, y| {
        let ((left, right, across), (top, bottom, down)) = (columns[x as usize], rows[y as usize]);
        Rgb(std::array::from_fn(|channel| {
            let row = |y: u32| level(left, y, channel) * (1.0 - across) + level(right, y, channel) * across;
            let value = row(top) * (1.0 - down) + row(bottom) * down;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A mean of bytes.
            let value = value.round() as u8;
            value
        }))
    })
}

/// For each target pixel the two source pixels around its centre, and the share of the second.
fn taps(source: u32, target: u32) -> Vec<(u32, u32, f32)> {
    let scale = f64::from(source) / f64::from(target);
    let last = source - 1;
    let tap = |index: u32| {
        let centre = ((f64::from(index) + 0.5) * scale - 0.5).clamp(0.0, f64::from(last));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within the source.
        let (first, share) = (centre.floor() as u32, centre.fract() as f32);
        (first, (first + 1).min(last), share)
    };
    (0..target).map(tap).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(fit: Fit, filter: Resampling) -> InputConfig {
        InputConfig {
            tensor: None,
            layout: Layout::Nchw,
            bgr: false,
            width: 4,
            height: 4,
            fit,
            filter,
            scale: 1.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        }
    }

    #[test]
    fn channels_and_dimensions_are_where_they_are_expected() {
        let picture = RgbImage::from_fn(4, 4, |x, y| Rgb([x as u8, y as u8, 9]));
        let mut config = config(Fit::Stretch, Resampling::OpencvBilinear);
        let (shape, values) = tensor(&config, &picture).unwrap();
        assert_eq!(shape, [1, 3, 4, 4]);
        assert_eq!((values[3], values[16 + 3], values[32]), (3.0, 0.0, 9.0));
        config.layout = Layout::Nhwc;
        config.bgr = true;
        config.mean = [1.0, 2.0, 3.0];
        config.std = [2.0, 1.0, 1.0];
        let (shape, values) = tensor(&config, &picture).unwrap();
        assert_eq!(shape, [1, 4, 4, 3]);
        assert_eq!(values[..6], [4.0, -2.0, -3.0, 4.0, -2.0, -2.0]);
    }

    #[test]
    fn padding_is_black_at_the_right_and_the_bottom() {
        let wide = RgbImage::from_pixel(16, 8, Rgb([200; 3]));
        for filter in [Resampling::OpencvBilinear, Resampling::Bilinear, Resampling::Nearest] {
            let (_, values) = tensor(&config(Fit::Pad, filter), &wide).unwrap();
            assert_eq!(values[..8], [200.0; 8], "{filter:?}");
            assert_eq!(values[8..16], [0.0; 8], "{filter:?}");
        }
    }

    #[test]
    fn the_middle_is_cut_out() {
        let wide = RgbImage::from_fn(16, 8, |x, _| Rgb([x as u8; 3]));
        let (_, values) = tensor(&config(Fit::Crop(8), Resampling::Nearest), &wide).unwrap();
        assert_eq!(values[..4], [6.0, 7.0, 8.0, 9.0]);
        assert!(tensor(&config(Fit::Pad, Resampling::Nearest), &RgbImage::new(0, 3)).is_err());
        assert!(tensor(&config(Fit::Pad, Resampling::Nearest), &RgbImage::new(1000, 3)).is_err());
    }
}
