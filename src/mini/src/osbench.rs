//! Mini OS Bench: scenes with exact labels for each rule of the `scene` constitution, after the manner of the paper's
//! OS Bench (CLUE s 4.1): as many violating as borderline-safe pictures a rule, from a fixed seed.

use image::RgbImage;

use crate::render::{Style, render};
use crate::sample::{Sampler, Situation};
use crate::scene::{RULE_IDS, Scene};
use crate::world::World;

/// The seed of the published benchmark.
pub const SEED: u64 = 250_100_192;

/// Violating and borderline pictures for each rule in the published benchmark.
pub const PER_RULE: usize = 50;

/// One labelled picture.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Unique within the benchmark, such as `armed/borderline/017`.
    pub id: String,
    /// The rule that the picture was drawn for.
    pub rule: &'static str,
    /// Whether it violates that rule.
    pub situation: Situation,
    /// What is in it.
    pub scene: Scene,
    /// Every rule that it violates.
    pub violated: Vec<&'static str>,
    seed: u64,
}

impl Sample {
    /// Draws the picture, 224 by 224 pixels.
    ///
    /// # Errors
    /// See [`render`].
    pub fn picture(&self, world: &World, style: Style) -> Result<RgbImage, image::ImageError> {
        render(world, &self.scene, world.picture_size, style, self.seed)
    }
}

/// The benchmark's samples: for each rule `per_rule` violating ones, then as many borderline ones.
pub fn samples(world: &World, seed: u64, per_rule: usize) -> Vec<Sample> {
    let mut all = Vec::with_capacity(RULE_IDS.len() * per_rule * 2);
    for (r, rule) in RULE_IDS.into_iter().enumerate() {
        for (s, situation) in [Situation::Violating, Situation::Borderline].into_iter().enumerate() {
            // A stream for each, so that another number of samples changes none of the others.
            let stream = seed.wrapping_add((r * 2 + s) as u64 * 1_000_003);
            let mut sampler = Sampler::new(world, stream);
            for i in 0..per_rule {
                let Some(scene) = sampler.of(rule, situation) else { continue };
                all.push(Sample {
                    id: format!("{rule}/{}/{i:03}", situation.as_str()),
                    rule,
                    situation,
                    violated: scene.violations(world),
                    scene,
                    seed: stream ^ ((i as u64 + 1) << 32),
                });
            }
        }
    }
    all
}

/// Scenes of natural frequencies: mostly people, hazards at times, about a third of them violating something. Nothing is
/// balanced, and none is borderline on purpose.
pub fn natural(world: &World, seed: u64, count: usize) -> Vec<Sample> {
    let mut sampler = Sampler::new(world, seed);
    let sample = |index: usize| {
        let scene = sampler.random();
        let violated = scene.violations(world);
        Sample {
            id: format!("natural/{index:05}"),
            rule: "natural",
            situation: if violated.is_empty() { Situation::Borderline } else { Situation::Violating },
            violated,
            scene,
            seed: seed ^ ((index as u64 + 1) << 32),
        }
    };
    (0..count).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_are_exact_and_balanced() {
        let world = World::load().unwrap();
        let samples = samples(&world, SEED, 20);
        assert_eq!(samples.len(), RULE_IDS.len() * 40);
        assert_eq!(samples.iter().map(|s| &s.id).collect::<HashSet<_>>().len(), samples.len());
        for sample in &samples {
            assert!(sample.scene.is_unambiguous(&world), "{}", sample.id);
            assert!((1..=6).contains(&sample.scene.objects.len()), "{}", sample.id);
            match sample.situation {
                Situation::Violating => assert!(sample.violated.contains(&sample.rule), "{}", sample.id),
                Situation::Borderline => {
                    assert!(sample.violated.is_empty(), "{}: {:?}", sample.id, sample.violated)
                }
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_pictures_whatever_their_number() {
        let world = World::load().unwrap();
        let (few, many) = (samples(&world, 5, 2), samples(&world, 5, 4));
        for sample in &few {
            let same = many.iter().find(|s| s.id == sample.id).unwrap();
            assert_eq!(sample.scene, same.scene);
            assert_eq!(
                sample.picture(&world, Style::Foreign).unwrap(),
                same.picture(&world, Style::Foreign).unwrap()
            );
        }
    }
}
