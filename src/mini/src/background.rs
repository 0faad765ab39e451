//! What lies behind the sprites.

use image::{Rgb, RgbImage};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::world::Place;

/// The two-tone background of a place: its colours above and below a soft horizon, jittered, with low noise.
pub(crate) fn of_place(place: &Place, size: u32, random: &mut ChaCha8Rng) -> RgbImage {
    let horizon = random.random_range(0.35..0.75_f32);
    let mut jitter = |colour: [u8; 3]| colour.map(|c| f32::from(c) + random.random_range(-19.0..19.0));
    let (top, bottom) = (jitter(place.top), jitter(place.bottom));
    let noise = Noise::new(14, 8.0, random);
    paint(size, |x, y| {
        let below = 1.0 / (1.0 + (-(y - horizon) * 40.0).exp());
        mix(top, bottom, below).map(|c| c + noise.at(x, y))
    })
}

/// A background that no place of the world has: another renderer's taste.
pub(crate) fn foreign(size: u32, random: &mut ChaCha8Rng) -> RgbImage {
    let mut colour = || -> [f32; 3] { std::array::from_fn(|_| random.random_range(10.0..245.0)) };
    let (a, b) = (colour(), colour());
    let direction = random.random_range(0.0..std::f32::consts::TAU);
    let (sin, cos) = direction.sin_cos();
    let along = move |x: f32, y: f32| (x - 0.5) * cos + (y - 0.5) * sin + 0.5;
    let period = random.random_range(6.0..16.0_f32);
    let cells = random.random_range(3..24);
    let strength = random.random_range(0.1..0.5_f32);
    let noise = Noise::new(cells, 1.0, random);
    match random.random_range(0..6) {
        0 => paint(size, |_, _| a),
        1 => paint(size, |x, y| mix(a, b, along(x, y).clamp(0.0, 1.0))),
        2 => paint(size, |x, y| {
            mix(a, b, strength * f32::from(u8::from((along(x, y) * period).fract() > 0.5)))
        }),
        3 => paint(size, |x, y| {
            let odd = ((x * period) as i32 + (y * period) as i32) % 2 == 1;
            mix(a, b, if odd { strength } else { 0.0 })
        }),
        4 => paint(size, |x, y| mix(a, b, (0.5 + noise.at(x, y) * strength).clamp(0.0, 1.0))),
        _ => paint(size, |x, y| {
            let far = (x - 0.5).hypot(y - 0.5) * 1.4;
            mix(a, b, far.clamp(0.0, 1.0)).map(|c| c + 18.0 * noise.at(x, y))
        }),
    }
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|i| a[i] * (1.0 - share) + b[i] * share)
}

/// Paints a square; the closure gets coordinates of 0 to 1 and gives components of 0 to 255.
fn paint(size: u32, colour: impl Fn(f32, f32) -> [f32; 3]) -> RgbImage {
    let edge = size as f32;
    RgbImage::from_fn(size, size, |x, y| {
        Rgb(colour((x as f32 + 0.5) / edge, (y as f32 + 0.5) / edge)
            .map(|c| c.round().clamp(0.0, 255.0) as u8))
    })
}

/// Random values on a coarse grid, interpolated between.
struct Noise {
    cells: usize,
    values: Vec<f32>,
}

impl Noise {
    fn new(cells: usize, strength: f32, random: &mut ChaCha8Rng) -> Self {
        let side = cells + 1;
        Self { cells, values: (0..side * side).map(|_| random.random_range(-strength..strength)).collect() }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x * self.cells as f32, y * self.cells as f32);
        let (column, row) = ((x as usize).min(self.cells - 1), (y as usize).min(self.cells - 1));
        let (fx, fy) = (x - column as f32, y - row as f32);
        let value = |dx: usize, dy: usize| self.values[(row + dy) * (self.cells + 1) + column + dx];
        let upper = value(0, 0) * (1.0 - fx) + value(1, 0) * fx;
        let lower = value(0, 1) * (1.0 - fx) + value(1, 1) * fx;
        upper * (1.0 - fy) + lower * fy
    }
}
