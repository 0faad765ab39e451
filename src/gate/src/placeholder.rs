//! What stands in for a withheld picture: a calm pattern with a sign, of the same size, without a pixel of the
//! original.

use image::{Rgb, RgbImage};

use crate::{GateError, Reason};

const GROUND: [u8; 3] = [226, 229, 234];
const STRIPE: [u8; 3] = [216, 220, 227];
const SIGN: [u8; 3] = [120, 130, 145];
/// Width of a stripe as a fraction of the shorter side.
const STRIPE_SHARE: f32 = 0.06;

/// A neutral picture that says only that there is none. It is not a [`crate::ReleasedPicture`]: nothing was released.
#[derive(Debug, Clone)]
pub struct Placeholder {
    pixels: RgbImage,
}

impl Placeholder {
    /// Draws a placeholder of `width` x `height` pixels. A crossed-out circle stands for a picture that was kept back
    /// on purpose, an exclamation mark for one that could not be judged or drawn.
    pub(crate) fn draw(width: u32, height: u32, reason: Reason) -> Self {
        let (w, h) = (width as f32, height as f32);
        let short = w.min(h);
        let stripe = (short * STRIPE_SHARE).max(1.0);
        let on_purpose = reason.is_violation();
        let pixels = RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
            // Coordinates of the sign: its centre at 0, the circle's outer edge at 1.
            let (u, v) = ((x - w / 2.0) / (short * 0.22), (y - h / 2.0) / (short * 0.22));
            let sign = if on_purpose { crossed_circle(u, v) } else { exclamation_mark(u, v) };
            if sign {
                Rgb(SIGN)
            } else if ((x + y) / stripe).floor() as i64 % 2 == 0 {
                Rgb(GROUND)
            } else {
                Rgb(STRIPE)
            }
        });
        Self { pixels }
    }

    /// The pixels.
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// If the encoder fails.
    pub fn encode_png(&self) -> Result<Vec<u8>, GateError> {
        cluegate_perception::encode_png(&self.pixels).map_err(|source| GateError::Encode(source.to_string()))
    }
}

fn crossed_circle(u: f32, v: f32) -> bool {
    let radius = u.hypot(v);
    let ring = (0.8..=1.0).contains(&radius);
    let bar = radius <= 0.9 && (u - v).abs() <= 0.14;
    ring || bar
}

fn exclamation_mark(u: f32, v: f32) -> bool {
    let stem = u.abs() <= 0.12 + 0.06 * (-v).max(0.0) && (-0.9..=0.35).contains(&v);
    let dot = u.hypot(v - 0.72) <= 0.18;
    stem || dot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_size_and_a_sign_that_tells_the_two_cases_apart() {
        let kept_back = Placeholder::draw(64, 48, Reason::Violation);
        let failed = Placeholder::draw(64, 48, Reason::JudgeError);
        assert_eq!(kept_back.pixels().dimensions(), (64, 48));
        assert_ne!(kept_back.pixels(), failed.pixels());
        assert!(kept_back.pixels().pixels().any(|p| p.0 == SIGN));
        assert!(Placeholder::draw(1, 1, Reason::Violation).encode_png().is_ok());
    }
}
