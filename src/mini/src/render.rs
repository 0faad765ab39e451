//! Draws scenes on the CPU, independently of the renderer that made the training pictures.

use image::{Rgb, RgbImage, RgbaImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::background;
use crate::scene::{Object, Scene};
use crate::world::World;

/// How a scene is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As the world is defined: two-tone backgrounds, clean sprites.
    World,
    /// As somebody else would draw it: other backgrounds, shifted colours and contrast, JPEG compression.
    Foreign,
}

/// Samples along each edge of a pixel, against aliasing when sprites are drawn smaller than they are stored.
const SAMPLES: u32 = 3;

/// Draws `scene` as a square of `size` pixels. The seed decides background and style; labels do not depend on it.
///
/// # Errors
/// An [`image::ImageError`] if JPEG compression fails ([`Style::Foreign`] only).
pub fn render(
    world: &World,
    scene: &Scene,
    size: u32,
    style: Style,
    seed: u64,
) -> Result<RgbImage, image::ImageError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut picture = match (style, world.places.get(scene.place)) {
        (Style::World, Some(place)) => background::of_place(place, size, &mut random),
        _ => background::foreign(size, &mut random),
    };
    let scale = size as f32 / world.picture_size as f32;
    for object in &scene.objects {
        draw(&mut picture, world.sprite(object.class, object.variant), object, scale);
    }
    match style {
        Style::World => Ok(picture),
        Style::Foreign => degrade(picture, &mut random),
    }
}

fn draw(picture: &mut RgbImage, sprite: &RgbaImage, object: &Object, scale: f32) {
    let half = object.size * scale * 0.72;
    let (cx, cy) = (object.x * scale, object.y * scale);
    let range = |centre: f32, edge: u32| {
        let first = (centre - half).floor().max(0.0) as u32;
        first..((centre + half).ceil().max(0.0) as u32).min(edge)
    };
    let (sin, cos) = object.angle.sin_cos();
    let texels = sprite.width() as f32 / (object.size * scale);
    let mirror = if object.flipped { -1.0 } else { 1.0 };
    for y in range(cy, picture.height()) {
        for x in range(cx, picture.width()) {
            let mut sum = [0.0_f32; 4];
            for sample in 0..SAMPLES * SAMPLES {
                let offset = |i: u32| (i as f32 + 0.5) / SAMPLES as f32;
                let dx = x as f32 + offset(sample % SAMPLES) - cx;
                let dy = y as f32 + offset(sample / SAMPLES) - cy;
                let u = (dx * cos + dy * sin) * mirror * texels + sprite.width() as f32 / 2.0;
                let v = (dy * cos - dx * sin) * texels + sprite.height() as f32 / 2.0;
                let texel = bilinear(sprite, u - 0.5, v - 0.5);
                sum.iter_mut().zip(texel).for_each(|(s, t)| *s += t);
            }
            let [red, green, blue, alpha] = sum.map(|s| s / (SAMPLES * SAMPLES) as f32);
            if alpha > 0.0 {
                let Rgb(under) = *picture.get_pixel(x, y);
                let over = [red, green, blue];
                let blended = std::array::from_fn(|i| {
                    (f32::from(under[i]) * (1.0 - alpha) + over[i]).round().clamp(0.0, 255.0) as u8
                });
                picture.put_pixel(x, y, Rgb(blended));
            }
        }
    }
}

/// Interpolated texel with colours multiplied by alpha; alpha 0 to 1, outside the sprite nothing.
fn bilinear(sprite: &RgbaImage, u: f32, v: f32) -> [f32; 4] {
    let (left, top) = (u.floor(), v.floor());
    let (fu, fv) = (u - left, v - top);
    let mut sum = [0.0; 4];
    for (dx, dy, weight) in
        [(0, 0, (1.0 - fu) * (1.0 - fv)), (1, 0, fu * (1.0 - fv)), (0, 1, (1.0 - fu) * fv), (1, 1, fu * fv)]
    {
        let (x, y) = (left as i32 + dx, top as i32 + dy);
        if x >= 0 && y >= 0 && (x as u32) < sprite.width() && (y as u32) < sprite.height() {
            let texel = sprite.get_pixel(x as u32, y as u32).0;
            let alpha = f32::from(texel[3]) / 255.0 * weight;
            for i in 0..3 {
                sum[i] += f32::from(texel[i]) * alpha;
            }
            sum[3] += alpha;
        }
    }
    sum
}

/// Another contrast, brightness and tint, then a trip through JPEG.
fn degrade(mut picture: RgbImage, random: &mut ChaCha8Rng) -> Result<RgbImage, image::ImageError> {
    let contrast = random.random_range(0.75..1.2_f32);
    let tint: [f32; 3] = std::array::from_fn(|_| random.random_range(-14.0..14.0_f32));
    for pixel in picture.pixels_mut() {
        for (component, shift) in pixel.0.iter_mut().zip(tint) {
            *component = ((f32::from(*component) - 128.0) * contrast + 128.0 + shift).clamp(0.0, 255.0) as u8;
        }
    }
    let mut bytes = Vec::new();
    let quality = random.random_range(45..95);
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&picture)?;
    Ok(image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg)?.to_rgb8())
}
