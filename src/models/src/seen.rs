//! What a model saw in the pictures that it looked at last.

use std::collections::HashMap;

use cluegate_cache::{Bound, Recent};
use cluegate_perception::{ContentHash, Picture};

use crate::error::Result;

/// What a model computes from a picture alone, of the pictures that it looked at last. The key is the hash of a
/// picture's very pixels: whoever asks about the same picture again, for another tenant or another stage, finds it.
#[derive(Debug)]
pub(crate) struct Seen<V>(Recent<ContentHash, V>);

impl<V: Clone> Seen<V> {
    pub(crate) fn new(bound: Bound) -> Self {
        Self(Recent::new(bound))
    }

    /// The value of each of `pictures`. Those not seen lately are given to `look`, each once and at most `batch` at a
    /// time; it answers with a value and its size in bytes for each of them, in their order.
    pub(crate) fn get_or_look(
        &self,
        pictures: &[&Picture],
        batch: usize,
        look: impl Fn(&[&Picture]) -> Result<Vec<(V, usize)>>,
    ) -> Result<HashMap<ContentHash, V>> {
        let mut known = HashMap::new();
        let mut missing: Vec<&Picture> = Vec::new();
        for picture in pictures {
            if let Some(value) = self.0.get(&picture.hash()) {
                known.insert(picture.hash(), value);
            } else if missing.iter().all(|other| other.hash() != picture.hash()) {
                missing.push(picture);
            }
        }
        for part in missing.chunks(batch.max(1)) {
            for (picture, (value, bytes)) in part.iter().zip(look(part)?) {
                self.0.insert(picture.hash(), value.clone(), bytes);
                known.insert(picture.hash(), value);
            }
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use image::{Rgb, RgbImage};

    use super::*;

    fn picture(shade: u8) -> Picture {
        Picture::new(RgbImage::from_pixel(2, 2, Rgb([shade; 3])))
    }

    #[test]
    fn each_picture_is_looked_at_once_within_the_bound() {
        let seen = Seen::new(Bound { entries: 100, bytes: 30 });
        let looks = RefCell::new(Vec::new());
        let ask = |shades: &[u8]| {
            let pictures: Vec<Picture> = shades.iter().map(|shade| picture(*shade)).collect();
            let answers = seen.get_or_look(&pictures.iter().collect::<Vec<_>>(), 2, |part| {
                looks.borrow_mut().push(part.len());
                Ok(part.iter().map(|picture| (picture.pixels().get_pixel(0, 0)[0], 10)).collect())
            });
            let answers = answers.unwrap();
            assert!(pictures.iter().zip(shades).all(|(picture, shade)| answers[&picture.hash()] == *shade));
            std::mem::take(&mut *looks.borrow_mut())
        };
        assert_eq!(ask(&[1, 2, 1, 3, 2]), [2, 1]);
        assert_eq!(ask(&[3, 1, 2]), [0; 0]);
        // A fourth pushes out the one that was asked for longest ago.
        assert_eq!(ask(&[4]), [1]);
        assert_eq!(ask(&[1, 2, 4]), [0; 0]);
        assert_eq!(ask(&[3]), [1]);
        // More at once than are kept are answered all the same.
        assert_eq!(ask(&[11, 12, 13, 14, 15, 16]), [2, 2, 2]);
    }
}
