//! Preprocessing against Pillow and torchvision; `goldens/make_pixels.py` made the expected pictures.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod clip_support;

use cluegate_models::pixels::{
    Filter, Normalisation, Target, centre_crop, pad, resize, resize_window, shortest_edge_size,
};
use image::{Rgb, RgbImage, imageops};
use proptest::prelude::*;

use clip_support::{NAMES, golden, rgb, tensors};

const FILTERS: [(&str, Filter); 4] = [
    ("nearest", Filter::Nearest),
    ("lanczos", Filter::Lanczos),
    ("bilinear", Filter::Bilinear),
    ("bicubic", Filter::Bicubic),
];

#[test]
fn resizing_equals_pillow_and_is_within_one_level_of_torchvision() {
    let expected = tensors(golden("pixels/resized.safetensors"));
    let mut compared = 0;
    for name in NAMES {
        let picture = rgb(name);
        for (width, height) in [(24, 24), (50, 30)] {
            for (label, filter) in FILTERS {
                let got = resize(&picture, width, height, filter);
                for (library, most) in [("pillow", 0), ("torchvision", u8::from(filter != Filter::Nearest))] {
                    let key = format!("{name}/{width}x{height}/{label}/{library}");
                    let Some(expected) = expected.get(&key) else { continue };
                    let expected = expected.flatten_all().unwrap().to_vec1::<u8>().unwrap();
                    assert_eq!(got.as_raw().len(), expected.len(), "{key}");
                    let worst = got.as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
                    assert!(worst <= Some(most), "{key}: off by {worst:?} levels");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, expected.len());
    assert_eq!(compared, 6 * 2 * (3 + 3));
}

#[test]
fn filters_count_as_pillow_does() {
    let expected = [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];
    for (code, filter) in expected.into_iter().enumerate() {
        assert_eq!(Filter::from_pillow(code as u64), Some(filter));
    }
    assert_eq!(Filter::from_pillow(4), None);
}

#[test]
fn the_shortest_edge_is_exact_and_the_other_rounds_down() {
    assert_eq!(shortest_edge_size(640, 480, 224), (298, 224));
    assert_eq!(shortest_edge_size(480, 640, 224), (224, 298));
    assert_eq!(shortest_edge_size(7, 7, 224), (224, 224));
}

#[test]
fn a_crop_beyond_the_picture_pads_the_odd_pixel_at_the_end() {
    let picture = RgbImage::from_fn(3, 6, |x, y| Rgb([10 + x as u8, 20 + y as u8, 1]));
    let crop = centre_crop(&picture, 6, 3);
    assert_eq!(crop.dimensions(), (6, 3));
    // One column of padding at the left, two at the right; rows 1 to 3 of six.
    assert_eq!(crop.get_pixel(0, 0), &Rgb([0, 0, 0]));
    assert_eq!(crop.get_pixel(1, 0), &Rgb([10, 21, 1]));
    assert_eq!(crop.get_pixel(3, 2), &Rgb([12, 23, 1]));
    assert_eq!(crop.get_pixel(4, 2), &Rgb([0, 0, 0]));
}

#[test]
fn padding_keeps_the_picture_in_the_upper_left() {
    let picture = RgbImage::from_pixel(2, 3, Rgb([9, 8, 7]));
    let padded = pad(&picture, 4, 2, [1, 2, 3]);
    assert_eq!(padded.dimensions(), (4, 3));
    assert_eq!(padded.get_pixel(1, 2), &Rgb([9, 8, 7]));
    assert_eq!(padded.get_pixel(2, 0), &Rgb([1, 2, 3]));
}

#[test]
fn normalisation_is_planar_and_exact() {
    let picture = RgbImage::from_fn(2, 1, |x, _| Rgb([255 * x as u8, 51, 0]));
    let normalisation = Normalisation::new(1.0 / 255.0, [0.5, 0.2, 0.0], [0.5, 1.0, 0.25]);
    let batch = normalisation.batch(&[picture.clone(), picture], &candle_core::Device::Cpu).unwrap();
    assert_eq!(batch.dims(), [2, 3, 1, 2]);
    let one = [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let got = batch.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (got, expected) in got.iter().zip([one, one].concat()) {
        assert!((got - expected).abs() < 1e-6, "{got} instead of {expected}");
    }
    let mixed = [RgbImage::new(2, 1), RgbImage::new(1, 2)];
    assert!(normalisation.batch(&mixed, &candle_core::Device::Cpu).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_window_is_cut_out_of_the_whole(
        width in 1u32..80, height in 1u32..80, left in 0u32..40, top in 0u32..40,
        kept_width in 1u32..40, kept_height in 1u32..40, filter in 0usize..4,
    ) {
        let filter = FILTERS[filter].1;
        let picture = rgb("wide");
        let columns = left.min(width - 1)..(left + kept_width).min(width).max(left.min(width - 1) + 1);
        let rows = top.min(height - 1)..(top + kept_height).min(height).max(top.min(height - 1) + 1);
        let whole = resize(&picture, width, height, filter);
        let expected = imageops::crop_imm(
            &whole, columns.start, rows.start, columns.len() as u32, rows.len() as u32,
        ).to_image();
        let got = resize_window(&picture, Target { width, height, columns, rows }, filter);
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn a_plain_picture_stays_plain(
        level in any::<u8>(), from in (1u32..50, 1u32..50), to in (1u32..50, 1u32..50), filter in 0usize..4,
    ) {
        let picture = RgbImage::from_pixel(from.0, from.1, Rgb([level, 255 - level, 7]));
        let got = resize(&picture, to.0, to.1, FILTERS[filter].1);
        prop_assert_eq!(got, RgbImage::from_pixel(to.0, to.1, Rgb([level, 255 - level, 7])));
    }
}
