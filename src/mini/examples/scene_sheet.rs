//! Writes a contact sheet of Mini OS Bench: one row a rule, violating pictures left, borderline ones right.
//!
//! `cargo run --release -p cluegate-mini --example scene_sheet -- sheet.png [foreign]`

use cluegate_mini::osbench::{SEED, samples};
use cluegate_mini::{RULE_IDS, Style, World};
use image::RgbImage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("expected the file to write, such as sheet.png")?;
    let style = if arguments.next().as_deref() == Some("foreign") { Style::Foreign } else { Style::World };
    let world = World::load()?;
    let edge = world.picture_size;
    let samples = samples(&world, SEED, 4);
    let mut sheet = RgbImage::new(8 * edge, RULE_IDS.len() as u32 * edge);
    for (i, sample) in samples.iter().enumerate() {
        let (column, row) = (i as u32 % 8, i as u32 / 8);
        let picture = sample.picture(&world, style)?;
        image::imageops::replace(&mut sheet, &picture, i64::from(column * edge), i64::from(row * edge));
    }
    sheet.save(file)?;
    Ok(())
}
