//! Checks on pictures, and their bytes.

use cluegate_perception::Picture;

use crate::GateError;

/// Largest difference between two values of one channel in a picture that counts as showing nothing: a decoder that
/// fails gives black with rounding noise.
const CONSTANT_SPREAD: u8 = 2;

/// What is wrong with a picture that shows nothing: no pixels, all black, or one colour throughout. `None` for a
/// picture that shows something.
pub(crate) fn shows_nothing(picture: &Picture) -> Option<String> {
    if picture.width() == 0 || picture.height() == 0 {
        return Some("the picture has no pixels".to_owned());
    }
    let (mut low, mut high) = ([u8::MAX; 3], [u8::MIN; 3]);
    for row in picture.pixels().rows() {
        for colour in row {
            for channel in 0..3 {
                low[channel] = low[channel].min(colour.0[channel]);
                high[channel] = high[channel].max(colour.0[channel]);
            }
        }
        if low.iter().zip(high).any(|(low, high)| high - low > CONSTANT_SPREAD) {
            return None;
        }
    }
    let [red, green, blue] = high;
    Some(if high.iter().all(|c| *c <= CONSTANT_SPREAD) {
        "the picture is all black".to_owned()
    } else {
        format!("the picture is one colour throughout (red {red}, green {green}, blue {blue})")
    })
}

/// A PNG file of the pixels and nothing else: no text, no profile, no time.
pub(crate) fn encode_png(picture: &Picture) -> Result<Vec<u8>, GateError> {
    picture.png().map(Vec::from).map_err(|source| GateError::Encode(source.to_string()))
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn tells_nothing_from_something() {
        let black = Picture::new(RgbImage::new(8, 8));
        assert!(shows_nothing(&black).is_some_and(|why| why.contains("black")));
        let grey = Picture::new(RgbImage::from_pixel(8, 8, Rgb([90, 91, 90])));
        assert!(shows_nothing(&grey).is_some_and(|why| why.contains("one colour")));
        assert!(shows_nothing(&Picture::new(RgbImage::new(0, 3))).is_some());
        let mut dot = RgbImage::new(8, 8);
        dot.put_pixel(3, 3, Rgb([0, 9, 0]));
        assert_eq!(shows_nothing(&Picture::new(dot)), None);
    }

    #[test]
    fn png_holds_pixels_and_no_metadata() {
        let pixels = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, 7]));
        let bytes = encode_png(&Picture::new(pixels.clone())).unwrap();
        let read = image::load_from_memory(&bytes).unwrap().into_rgb8();
        assert_eq!(read, pixels);
        for chunk in [b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME", b"iCCP"] {
            assert!(!bytes.windows(4).any(|w| w == chunk));
        }
    }
}
