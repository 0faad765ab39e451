//! Pictures of the scene world: harmless emoji scenes of Mini OS Bench, as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use cluegate::mini::osbench::{SEED, Sample, samples};
use cluegate::mini::{RULE_IDS, Sampler, Style, World, render};
use image::codecs::png::PngEncoder;
use image::{ImageEncoder as _, Rgb, RgbImage};

/// Scenes by number; the same number is the same picture on every machine.
pub(crate) struct Scenes {
    world: World,
}

impl Scenes {
    /// The scene world.
    pub(crate) fn load() -> anyhow::Result<Self> {
        Ok(Self { world: World::load()? })
    }

    /// The world itself.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// The first `count` samples of Mini OS Bench, rule by rule in turn, violating and borderline ones alike.
    fn samples(&self, count: usize) -> Vec<Sample> {
        let per_rule = count.div_ceil(2 * RULE_IDS.len()).max(1);
        let all = samples(&self.world, SEED, per_rule);
        let in_turn = (0..per_rule).flat_map(|turn| all.iter().skip(turn).step_by(per_rule));
        in_turn.take(count).cloned().collect()
    }

    /// Their pictures.
    pub(crate) fn osbench(&self, count: usize) -> anyhow::Result<Vec<RgbImage>> {
        let draw = |sample: &Sample| Ok(sample.picture(&self.world, Style::World)?);
        self.samples(count).iter().map(draw).collect()
    }

    /// `count` pictures of any one shape, all from the same scenes whatever the shape: scenes of Mini OS Bench, drawn
    /// at the shorter side, one beside the other.
    pub(crate) fn shaped(&self, count: usize, (width, height): (u32, u32)) -> anyhow::Result<Vec<RgbImage>> {
        let side = width.min(height);
        let beside = width.max(height).div_ceil(side) as usize;
        let samples = self.samples(count + beside);
        let shaped = |index: usize| {
            let mut picture = RgbImage::new(width, height);
            for (place, sample) in samples[index..index + beside].iter().enumerate() {
                let scene = render(&self.world, &sample.scene, side, Style::World, index as u64)?;
                let at = i64::try_from(place)? * i64::from(side);
                let (left, top) = if width > height { (at, 0) } else { (0, at) };
                image::imageops::replace(&mut picture, &scene, left, top);
            }
            Ok(picture)
        };
        (0..count).map(shaped).collect()
    }

    /// `count` random scenes of natural frequencies from a seed.
    pub(crate) fn random(&self, seed: u64, count: usize) -> anyhow::Result<Vec<RgbImage>> {
        let (side, mut sampler) = (self.world.picture_size, Sampler::new(&self.world, seed));
        let mut draw = |index: usize| {
            Ok(render(&self.world, &sampler.random(), side, Style::World, seed ^ ((index as u64) << 32))?)
        };
        (0..count).map(&mut draw).collect()
    }
}

/// The picture with one pixel of its own, so that nothing remembered of another run fits it.
pub(crate) fn variant(picture: &RgbImage, run: usize) -> RgbImage {
    let mut picture = picture.clone();
    if run > 0 {
        let [low, high, ..] = (run as u64).to_le_bytes();
        picture.put_pixel(0, 0, Rgb([low, high, 7]));
    }
    picture
}

/// The bytes of a PNG file.
pub(crate) fn png(picture: &RgbImage) -> anyhow::Result<Arc<[u8]>> {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    PngEncoder::new(&mut bytes).write_image(
        picture.as_raw(),
        width,
        height,
        image::ExtendedColorType::Rgb8,
    )?;
    Ok(bytes.into())
}

/// The bytes of a PNG file for each picture.
pub(crate) fn pngs(pictures: &[RgbImage]) -> anyhow::Result<Vec<Arc<[u8]>>> {
    pictures.iter().map(png).collect()
}

/// Writes each file into `folder` under its number.
pub(crate) fn write(folder: &Path, files: &[Arc<[u8]>]) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let write = |(index, bytes): (usize, &Arc<[u8]>)| {
        let path = folder.join(format!("{index:05}.png"));
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    files.iter().enumerate().map(write).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ours::decode_picture;

    #[test]
    fn a_selection_of_the_benchmark_covers_every_rule_and_survives_its_file() {
        let scenes = Scenes::load().unwrap();
        let pictures = scenes.osbench(26).unwrap();
        let distinct: HashSet<&[u8]> = pictures.iter().map(|picture| picture.as_raw().as_slice()).collect();
        assert_eq!((pictures.len(), distinct.len()), (26, 26));
        let per_rule = samples(&scenes.world, SEED, 2);
        assert_eq!(pictures[0], per_rule[0].picture(&scenes.world, Style::World).unwrap());
        assert_eq!(pictures[1], per_rule[2].picture(&scenes.world, Style::World).unwrap());
        assert_eq!(decode_picture(&png(&pictures[3]).unwrap()).unwrap().pixels(), &pictures[3]);
    }

    #[test]
    fn shapes_and_variants_are_as_asked_for() {
        let scenes = Scenes::load().unwrap();
        let shape = |shape| -> Vec<RgbImage> { scenes.shaped(2, shape).unwrap() };
        let wide = shape((300, 100));
        assert_eq!((wide.len(), wide[1].dimensions()), (2, (300, 100)));
        // The same scene, whatever the shape.
        let square = shape((100, 100));
        let left = image::imageops::crop_imm(&wide[1], 0, 0, 100, 100).to_image();
        assert_eq!(left, square[1]);
        let high = shape((64, 130)).remove(0);
        assert_eq!(high.dimensions(), (64, 130));
        let runs: HashSet<Vec<u8>> = (0..600).map(|run| variant(&high, run).into_raw()).collect();
        assert_eq!(runs.len(), 600);
    }
}
