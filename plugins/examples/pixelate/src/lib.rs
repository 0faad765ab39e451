//! Actions: hides regions under coarse cells, paints them over with their surroundings, makes a prompt milder, and writes
//! decisions to a file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use cluegate_abi::{
    Call, Edit, Host, Inpaint, PictureBuf, Plugin, PluginError, Publish, Redact, Rewrite, Rewriting, Setup,
};

/// Side of a cell in pixels.
const CELL: usize = 16;

struct Pixelate {
    decisions: PathBuf,
}

/// A region in whole pixels, clipped to its picture.
struct Cut {
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
}

fn cuts(edit: &Edit<'_>) -> Vec<Cut> {
    let (width, height) = (edit.picture.width() as f32, edit.picture.height() as f32);
    let within = |edge: f32, most: f32| edge.clamp(0.0, most) as usize;
    let cut = |region: &cluegate_abi::Region| Cut {
        columns: within(region.left.floor(), width)..within(region.right.ceil(), width),
        rows: within(region.top.floor(), height)..within(region.bottom.ceil(), height),
    };
    edit.regions.iter().map(cut).collect()
}

/// The mean colour of some pixels; grey for none.
fn mean<'a>(pixels: impl Iterator<Item = &'a [u8]>) -> [u8; 3] {
    let (mut sum, mut count) = ([0_u64; 3], 0);
    for pixel in pixels {
        sum.iter_mut().zip(pixel).for_each(|(sum, level)| *sum += u64::from(*level));
        count += 1;
    }
    if count == 0 { [128; 3] } else { sum.map(|sum| (sum / count) as u8) }
}

fn paint(
    picture: &mut PictureBuf,
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    colour: [u8; 3],
) {
    let width = picture.width() as usize;
    for row in rows {
        for column in columns.clone() {
            picture.pixels_mut()[3 * (row * width + column)..][..3].copy_from_slice(&colour);
        }
    }
}

impl Plugin for Pixelate {
    const NAME: &'static str = "pixelate";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "Hides regions under coarse cells, makes prompts milder, and writes decisions to a file.";
    const SCHEMA: &'static str = r#"{ "type": "object", "additionalProperties": false }"#;

    fn create(setup: &Setup<'_>, _: Host) -> Result<Self, PluginError> {
        Ok(Self { decisions: PathBuf::from(setup.folder).join("published.jsonl") })
    }
}

impl Redact for Pixelate {
    fn redact(&self, edit: &Edit<'_>, call: &Call<'_>) -> Result<PictureBuf, PluginError> {
        let mut hidden = edit.picture.to_buf();
        let width = hidden.width() as usize;
        for cut in cuts(edit) {
            call.check()?;
            for top in cut.rows.clone().step_by(CELL) {
                for left in cut.columns.clone().step_by(CELL) {
                    let rows = top..(top + CELL).min(cut.rows.end);
                    let columns = left..(left + CELL).min(cut.columns.end);
                    let inside = rows.clone().flat_map(|row| {
                        hidden.pixels()[3 * (row * width + columns.start)..3 * (row * width + columns.end)]
                            .chunks_exact(3)
                    });
                    let colour = mean(inside);
                    paint(&mut hidden, columns, rows, colour);
                }
            }
        }
        Ok(hidden)
    }
}

impl Inpaint for Pixelate {
    fn inpaint(&self, edit: &Edit<'_>, _: &Call<'_>) -> Result<PictureBuf, PluginError> {
        let mut painted = edit.picture.to_buf();
        let all = cuts(edit);
        let width = edit.picture.width() as usize;
        let outside = edit.picture.pixels().enumerate().filter(|(place, _)| {
            let (column, row) = (place % width, place / width);
            !all.iter().any(|cut| cut.columns.contains(&column) && cut.rows.contains(&row))
        });
        let colour = mean(outside.map(|(_, pixel)| pixel));
        for cut in all {
            paint(&mut painted, cut.columns, cut.rows, colour);
        }
        Ok(painted)
    }
}

impl Rewrite for Pixelate {
    fn rewrite(&self, rewriting: &Rewriting<'_>, _: &Call<'_>) -> Result<String, PluginError> {
        let without = rewriting.avoid.join(" and without: ");
        Ok(match without.is_empty() {
            true => format!("{}, seen from afar", rewriting.prompt),
            false => format!("{}, without: {without}", rewriting.prompt),
        })
    }
}

impl Publish for Pixelate {
    fn publish(&self, decision: &str, _: &Call<'_>) -> Result<(), PluginError> {
        let file = OpenOptions::new().create(true).append(true).open(&self.decisions);
        let written = file.and_then(|mut file| writeln!(file, "{decision}"));
        written.map_err(|error| PluginError::failed(format!("{}: {error}", self.decisions.display())))
    }
}

cluegate_abi::export_plugin!(Pixelate: redact, inpaint, rewrite, publish);
