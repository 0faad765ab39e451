//! Standard normal numbers of a seed. Only `rand` is used here, so that other plugins take this file as it is and draw
//! from the same noise.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// Noise that depends on nothing but seed and picture index: ChaCha20 keyed by the seed, the index as its stream,
/// turned normal by the Box-Muller transform. Picture 3 of a seed is the same whether or not pictures 0 to 2 are
/// drawn, and on every device, since the numbers are drawn on the CPU.
#[derive(Debug, Clone)]
pub struct SeededNoise {
    rng: ChaCha20Rng,
}

impl SeededNoise {
    /// The noise of one picture.
    pub fn new(seed: u64, index: u32) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(index));
        Self { rng }
    }

    /// The next `count` numbers. Numbers come in pairs: the second of an odd `count`'s last pair is lost.
    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let (a, b) = self.pair();
            values.extend([a, b]);
        }
        values.truncate(count);
        values
    }

    /// Two independent standard normal numbers.
    fn pair(&mut self) -> (f32, f32) {
        /// Half the distance between neighbours of a uniform number with 53 random bits.
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        // In (0, 1], so that the logarithm is finite.
        let radius = ((self.rng.next_u64() >> 11) + 1) as f64 * UNIT;
        let angle = (self.rng.next_u64() >> 11) as f64 * UNIT * std::f64::consts::TAU;
        let radius = (-2.0 * radius.ln()).sqrt();
        ((radius * angle.cos()) as f32, (radius * angle.sin()) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, index: u32, count: usize) -> Vec<f32> {
        SeededNoise::new(seed, index).numbers(count)
    }

    #[test]
    fn seed_and_index_decide_alone() {
        assert_eq!(draw(7, 3, 101), draw(7, 3, 101));
        assert_ne!(draw(7, 3, 8), draw(7, 4, 8));
        assert_ne!(draw(7, 3, 8), draw(8, 3, 8));
    }

    #[test]
    fn numbers_never_change_between_releases() {
        let expected = draw(42, 0, 4);
        assert_eq!(expected, KNOWN, "a seed must draw the same picture for ever");
    }

    /// First numbers of seed 42, picture 0.
    const KNOWN: [f32; 4] = [-0.974_817_1, 0.616_931, 1.069_309_6, 1.872_419_5];

    #[test]
    fn noise_is_standard_normal() {
        let values = draw(1, 0, 200_000);
        let n = values.len() as f64;
        let moment = |p: i32| values.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02);
        assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1);
    }
}
