//! Picture preprocessing as the Hugging Face image processors do it.
//!
//! Every step is held within 1/255 of transformers 5.17 (`image_processing_backends.py`): resizing with antialiasing
//! as the default, torchvision-backed processors have it, centre crop, padding,
//! rescaling, and normalisation to planar (CHW) floats.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use image::{Rgb, RgbImage, imageops};
use multiversion::multiversion;
use rayon::prelude::*;

/// Bits after the binary point of a filter weight; as many as in Pillow's 8-bit resampling, so that results agree to the
/// last bit.
const WEIGHT_BITS: u32 = 22;

/// A resampling filter. When a picture is made smaller the filter is widened by the scale (antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The source pixel under the centre of the target pixel.
    Nearest,
    /// Triangle, 2 source pixels wide.
    Bilinear,
    /// Cubic convolution with a = -0.5, 4 source pixels wide.
    Bicubic,
    /// Windowed sinc, 6 source pixels wide.
    Lanczos,
}

impl Filter {
    /// The filter of a `resample` code in `preprocessor_config.json`, which counts as `PIL.Image.Resampling` does:
    /// 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic. `None` for any other code.
    pub fn from_pillow(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Nearest),
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    /// Distance in source pixels, at scale 1, beyond which the filter is zero.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The filter's value at distance `x` from its centre, in source pixels at scale 1.
    fn value(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Nearest => f64::from(x <= 0.5),
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * std::f64::consts::PI;
    angle.sin() / angle
}

/// How each target position of one axis is made: a run of neighbouring source positions and their weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AxisWeights<W> {
    /// First source position and range in `weights`, one for each target position.
    spans: Vec<(usize, Range<usize>)>,
    weights: Vec<W>,
}

impl<W> AxisWeights<W> {
    fn with_capacity(targets: usize) -> Self {
        Self { spans: Vec::with_capacity(targets), weights: Vec::new() }
    }

    fn push(&mut self, start: usize, weights: impl IntoIterator<Item = W>) {
        let begin = self.weights.len();
        self.weights.extend(weights);
        self.spans.push((start, begin..self.weights.len()));
    }

    fn targets(&self) -> usize {
        self.spans.len()
    }

    fn at(&self, target: usize) -> (usize, &[W]) {
        let (start, range) = &self.spans[target];
        (*start, &self.weights[range.clone()])
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[W])> {
        (0..self.targets()).map(|target| self.at(target))
    }
}

/// Fixed-point weights of an antialiased `filter` from `source` to `target` positions, both at least 1, for those
/// target positions that lie in `window`.
fn filter_weights(source: u32, target: u32, window: Range<u32>, filter: Filter) -> AxisWeights<i32> {
    let (source, target) = (source as usize, target as usize);
    let scale = source as f64 / target as f64;
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    let mut axis = AxisWeights::with_capacity(window.len());
    for position in window {
        let centre = (f64::from(position) + 0.5) * scale;
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(source);
        let values: Vec<f64> =
            (start..end).map(|x| filter.value((x as f64 - centre + 0.5) / widening)).collect();
        let total: f64 = values.iter().sum();
        let unit = f64::from(1u32 << WEIGHT_BITS) / if total == 0.0 { 1.0 } else { total };
        axis.push(start, values.into_iter().map(|value| (value * unit).round() as i32));
    }
    axis
}

/// Source position nearest to the centre of each target position in `window`. Where a centre falls between two source
/// positions the arithmetic decides: here it is that of torchvision's `nearest-exact` (a scale in f32), the default
/// backend, and Pillow's sum over all positions before can choose the other.
fn nearest_positions(source: u32, target: u32, window: Range<u32>) -> Vec<u32> {
    let scale = f64::from(source as f32 / target as f32);
    window.map(|position| (((f64::from(position) + 0.5) * scale) as f32 as u32).min(source - 1)).collect()
}

/// Resizes to exactly `width` x `height` pixels, the width first, with rounding to 8 bits after each axis. The result is
/// within one grey level of torchvision's antialiased 8-bit resize, and equals Pillow's to the last bit where Pillow
/// takes the width first: always before version 13, mostly since. [`Filter::Nearest`] equals torchvision's
/// `nearest-exact`.
///
/// An axis that keeps its length is left untouched. A target or source without pixels gives a black picture.
pub fn resize(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    resize_window(picture, Target { width, height, columns: 0..width, rows: 0..height }, filter)
}

/// Like [`resize`], with the axes in the order that Pillow has chosen since version 13: the height first where it loses
/// more than twice as many pixels as the width. For processors that the reference runs on Pillow.
pub fn resize_in_pillows_order(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let (narrower, lower) = (picture.width().saturating_sub(width), picture.height().saturating_sub(height));
    if u64::from(lower) > 2 * u64::from(narrower) {
        resize(&resize(picture, picture.width(), height, filter), width, height, filter)
    } else {
        resize(picture, width, height, filter)
    }
}

/// A picture to be made by resizing, and the part of it that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Width of the whole resized picture, in pixels.
    pub width: u32,
    /// Height of the whole resized picture, in pixels.
    pub height: u32,
    /// The wanted columns, within `0..width`.
    pub columns: Range<u32>,
    /// The wanted rows, within `0..height`.
    pub rows: Range<u32>,
}

/// Like [`resize`], but computes only the wanted part: the same pixels as cutting it out of the whole, without the
/// memory of a whole that an extreme ratio of the sides makes huge.
pub fn resize_window(picture: &RgbImage, target: Target, filter: Filter) -> RgbImage {
    let columns = target.columns.start..target.columns.end.min(target.width);
    let rows = target.rows.start..target.rows.end.min(target.height);
    let (width, height) = (columns.len() as u32, rows.len() as u32);
    if picture.width() == 0 || picture.height() == 0 || width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    if filter == Filter::Nearest {
        let xs = nearest_positions(picture.width(), target.width, columns);
        let ys = nearest_positions(picture.height(), target.height, rows);
        return RgbImage::from_fn(width, height, |x, y| *picture.get_pixel(xs[x as usize], ys[y as usize]));
    }
    let across = if (picture.width(), &columns) == (target.width, &(0..target.width)) {
        Cow::Borrowed(picture)
    } else {
        Cow::Owned(resize_rows(picture, &filter_weights(picture.width(), target.width, columns, filter)))
    };
    if (picture.height(), &rows) == (target.height, &(0..target.height)) {
        across.into_owned()
    } else {
        resize_columns(&across, &filter_weights(picture.height(), target.height, rows, filter))
    }
}

fn to_level(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Half of one level, so that the shift in [`to_level`] rounds.
const HALF_LEVEL: i32 = 1 << (WEIGHT_BITS - 1);

/// Multiplications below which a second thread is not worth waking.
const SMALL: usize = 1 << 21;

/// Calls `work(index, row)` for each row of `width` values, on all threads of the pool if that pays.
fn each_row<T: Send>(
    rows: &mut [T],
    width: usize,
    work_of_row: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let count = rows.len() / width.max(1);
    let threads = rayon::current_num_threads();
    if threads < 2 || count * work_of_row < SMALL {
        rows.chunks_exact_mut(width.max(1)).enumerate().for_each(|(index, row)| work(index, row));
    } else {
        let rows = rows.par_chunks_exact_mut(width.max(1)).with_min_len(count.div_ceil(4 * threads));
        rows.enumerate().for_each(|(index, row)| work(index, row));
    }
}

fn resize_rows(picture: &RgbImage, axis: &AxisWeights<i32>) -> RgbImage {
    let width = axis.targets() as u32;
    let mut out = RgbImage::new(width, picture.height());
    let (source_row, target_row) = (picture.width() as usize * 3, width as usize * 3);
    let source = picture.as_raw();
    each_row(&mut out, target_row, 3 * axis.weights.len(), |y, target| {
        resize_row(&source[y * source_row..(y + 1) * source_row], axis, target);
    });
    out
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn resize_row(source: &[u8], axis: &AxisWeights<i32>, target: &mut [u8]) {
    for ((start, weights), pixel) in axis.iter().zip(target.as_chunks_mut::<3>().0) {
        let mut sums = [HALF_LEVEL; 3];
        let taps = source[start * 3..(start + weights.len()) * 3].as_chunks::<3>().0;
        for (weight, tap) in weights.iter().zip(taps) {
            for channel in 0..3 {
                sums[channel] += weight * i32::from(tap[channel]);
            }
        }
        *pixel = sums.map(to_level);
    }
}

fn resize_columns(picture: &RgbImage, axis: &AxisWeights<i32>) -> RgbImage {
    let row = picture.width() as usize * 3;
    let source = picture.as_raw();
    let mut out = RgbImage::new(picture.width(), axis.targets() as u32);
    let work = row * axis.weights.len().div_ceil(axis.targets().max(1));
    each_row(&mut out, row, work, |y, target| {
        let (start, weights) = axis.at(y);
        mix_levels(&source[start * row..(start + weights.len()) * row], weights, target);
    });
    out
}

/// The weighted sum of as many lines as there are weights.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn mix_levels(lines: &[u8], weights: &[i32], target: &mut [u8]) {
    let mut sums = vec![HALF_LEVEL; target.len()];
    for (line, weight) in lines.chunks_exact(target.len().max(1)).zip(weights) {
        for (sum, value) in sums.iter_mut().zip(line) {
            *sum += weight * i32::from(*value);
        }
    }
    for (level, sum) in target.iter_mut().zip(&sums) {
        *level = to_level(*sum);
    }
}

/// Cuts the middle `width` x `height` pixels out. Where the picture is smaller it is first padded with black, the odd
/// pixel at the right and bottom (`TorchvisionBackend.center_crop`).
pub fn centre_crop(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let place = |crop: u32, whole: u32| {
        // Where the crop starts in the picture, and where the picture starts in the result.
        if whole >= crop { ((whole - crop) / 2, 0) } else { (0, (crop - whole) / 2) }
    };
    let (left, pad_left) = place(width, picture.width());
    let (top, pad_top) = place(height, picture.height());
    let (kept_width, kept_height) = (width.min(picture.width()), height.min(picture.height()));
    let kept = imageops::crop_imm(picture, left, top, kept_width, kept_height).to_image();
    if (kept_width, kept_height) == (width, height) {
        return kept;
    }
    let mut out = RgbImage::new(width, height);
    imageops::replace(&mut out, &kept, i64::from(pad_left), i64::from(pad_top));
    out
}

/// Pads with `fill` at the right and bottom to at least `width` x `height`; never cuts.
pub fn pad(picture: &RgbImage, width: u32, height: u32, fill: [u8; 3]) -> RgbImage {
    let (width, height) = (width.max(picture.width()), height.max(picture.height()));
    let mut out = RgbImage::from_pixel(width, height, Rgb(fill));
    imageops::replace(&mut out, picture, 0, 0);
    out
}

/// Size with the shortest edge `edge` pixels long and the ratio of the sides kept, as `(width, height)`; the longer
/// edge is rounded down (`get_resize_output_image_size`). Sides of zero count as one.
pub fn shortest_edge_size(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let (short, long) = (width.min(height).max(1), width.max(height).max(1));
    let long = (u64::from(edge) * u64::from(long) / u64::from(short)).min(u64::from(u32::MAX)) as u32;
    if width <= height { (edge, long) } else { (long, edge) }
}

/// What turns an 8-bit level into a model's input: `(level * scale - mean) / std` for each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Normalisation {
    /// `scale` multiplies the level (1/255 as a rule, 1 for none), `mean` is subtracted and `std` divides.
    pub fn new(scale: f32, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self { scale, mean, std }
    }

    /// The input for a scaled value (0 to 1 as a rule) of a channel.
    pub fn apply(&self, scaled: f32, channel: usize) -> f32 {
        (scaled - self.mean[channel]) / self.std[channel]
    }

    /// The factor of an 8-bit level.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Appends a picture's `3 * height * width` values to `out`, channel by channel, each row by row.
    pub fn extend_planar(&self, picture: &RgbImage, out: &mut Vec<f32>) {
        let pixels = picture.as_raw().as_chunks::<3>().0;
        out.reserve(pixels.len() * 3);
        for channel in 0..3 {
            let table = self.levels(channel);
            out.extend(pixels.iter().map(|pixel| table[usize::from(pixel[channel])]));
        }
    }

    /// The input for each 8-bit level of a channel.
    pub(crate) fn levels(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|level| self.apply(level as f32 * self.scale, channel))
    }

    /// Pictures of one size as a tensor of shape `(pictures, 3, height, width)`, f32.
    ///
    /// # Errors
    /// Pictures of different sizes, or no picture at all.
    pub fn batch(&self, pictures: &[RgbImage], device: &Device) -> Result<Tensor> {
        let Some(first) = pictures.first() else {
            candle_core::bail!("a batch of pictures needs at least one picture");
        };
        let (width, height) = first.dimensions();
        let mut values = Vec::with_capacity(pictures.len() * 3 * width as usize * height as usize);
        for picture in pictures {
            if picture.dimensions() != (width, height) {
                candle_core::bail!(
                    "pictures of one batch need one size, got {width}x{height} and {}x{}",
                    picture.width(),
                    picture.height()
                );
            }
            self.extend_planar(picture, &mut values);
        }
        Tensor::from_vec(values, (pictures.len(), 3, height as usize, width as usize), device)
    }
}

/// Weights of "Gaussian blur, then bilinear sampling" along one axis of a square of `square` pixels, of which only the
/// first `kept` carry anything: the rest is padding, whose share is left out (see [`resample_planar`]).
///
/// The blur has a standard deviation of `(square / target - 1) / 2` and `2 * ceil(3 sigma) + 1` taps, reflects at the
/// borders without repeating the border pixel, and is only there when `blur` asks for it. The sampling takes the two
/// source pixels around each target pixel's centre (`align_corners = False`, no antialiasing).
pub(crate) fn blurred_bilinear_weights(
    square: usize,
    target: usize,
    kept: usize,
    blur: bool,
) -> AxisWeights<f32> {
    let factor = square as f32 / target as f32;
    let sigma = if blur { ((factor - 1.0) / 2.0).max(0.0) } else { 0.0 };
    let radius = (3.0 * sigma).ceil() as usize;
    let gauss = gaussian(radius, sigma);
    let mut axis = AxisWeights::with_capacity(target);
    for position in 0..target {
        let centre = ((position as f32 + 0.5) * factor - 0.5).max(0.0);
        let left = (centre as usize).min(square - 1);
        let right = (left + 1).min(square - 1);
        let share = (centre - left as f32).min(1.0);
        let start = left.saturating_sub(radius);
        let end = (right + radius + 1).min(square);
        let mut weights = vec![0f32; end - start];
        for (tap, share) in [(left, 1.0 - share), (right, share)] {
            for (index, weight) in gauss.iter().enumerate() {
                let at = reflect(tap as isize + index as isize - radius as isize, square);
                // A reflected position always lies inside the run, except for squares smaller than the blur.
                if let Some(slot) = at.checked_sub(start).and_then(|at| weights.get_mut(at)) {
                    *slot += weight * share;
                }
            }
        }
        let first = start.min(kept);
        let last = end.min(kept);
        axis.push(first, weights.into_iter().take(last - first));
    }
    axis
}

/// A normalised Gaussian of `2 * radius + 1` taps; a single 1 for a radius of zero.
fn gaussian(radius: usize, sigma: f32) -> Vec<f32> {
    if radius == 0 {
        return vec![1.0];
    }
    let values: Vec<f32> = (0..=2 * radius)
        .map(|index| {
            let distance = index as f32 - radius as f32;
            (-distance * distance / (2.0 * sigma * sigma)).exp()
        })
        .collect();
    let total: f32 = values.iter().sum();
    values.into_iter().map(|value| value / total).collect()
}

/// Mirrors a position into `0..length` without repeating the border.
fn reflect(position: isize, length: usize) -> usize {
    let last = length as isize - 1;
    if last == 0 {
        return 0;
    }
    let folded = position.rem_euclid(2 * last);
    (if folded > last { 2 * last - folded } else { folded }) as usize
}

/// Applies `columns` and `rows` to a picture, of which everything outside has the value `fill`, and appends the
/// `3 * rows * columns` normalised values to `out`, channel by channel.
///
/// The weights sum to one before padding is left out, so that subtracting `fill` first and adding it afterwards gives
/// the padded square's result without building the square.
pub(crate) fn resample_planar(
    picture: &RgbImage,
    columns: &AxisWeights<f32>,
    rows: &AxisWeights<f32>,
    fill: f32,
    normalisation: &Normalisation,
    out: &mut Vec<f32>,
) {
    let width = columns.targets();
    let scale = normalisation.scale();
    let table: [f32; 256] = std::array::from_fn(|level| level as f32 * scale - fill);
    // Each picture row squeezed to the target's width, the three channels one after the other.
    let mut squeezed = vec![0f32; picture.height() as usize * 3 * width];
    let source = picture.as_raw();
    let source_row = picture.width() as usize * 3;
    each_row(&mut squeezed, 3 * width, 3 * columns.weights.len(), |y, target| {
        squeeze(&source[y * source_row..(y + 1) * source_row], columns, &table, target);
    });
    let begin = out.len();
    let (plane, height) = (rows.targets() * width, rows.targets());
    out.resize(begin + 3 * plane, 0.0);
    let work = width * rows.weights.len().div_ceil(height.max(1));
    each_row(&mut out[begin..], width, work, |line, target| {
        let (channel, (start, weights)) = (line / height, rows.at(line % height));
        for (offset, weight) in weights.iter().enumerate() {
            let source = &squeezed[((start + offset) * 3 + channel) * width..][..width];
            for (value, other) in target.iter_mut().zip(source) {
                *value += weight * other;
            }
        }
        for value in target {
            *value = normalisation.apply(*value + fill, channel);
        }
    });
}

/// One picture row squeezed to the width of `columns`: the three channels, of values looked up in `table`, one after
/// the other.
fn squeeze(row: &[u8], columns: &AxisWeights<f32>, table: &[f32; 256], target: &mut [f32]) {
    let mut line = vec![0f32; row.len() / 3];
    for (channel, target) in target.chunks_exact_mut(columns.targets().max(1)).enumerate() {
        for (value, pixel) in line.iter_mut().zip(row.as_chunks::<3>().0) {
            *value = table[usize::from(pixel[channel])];
        }
        for ((start, weights), value) in columns.iter().zip(target) {
            *value = weights.iter().zip(&line[start..]).map(|(weight, value)| weight * value).sum();
        }
    }
}
