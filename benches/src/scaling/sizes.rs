//! Pictures of other sizes and shapes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cluegate::constitution::Constitution;
use cluegate::perception::Picture;

use super::{Figures, Setting, asking, judging};
use crate::constitutions;
use crate::ours::{Ours, Questions};
use crate::page::Page;
use crate::pictures::variant;
use crate::plot::{Line, Plot};
use crate::table::{Table, ms};

/// Width and height: squares up to more than 1024 pixels, then shapes of about the same area.
const SHAPES: [(u32, u32); 12] = [
    (64, 64),
    (112, 112),
    (224, 224),
    (512, 512),
    (1024, 1024),
    (1536, 1536),
    (448, 224),
    (896, 224),
    (1792, 224),
    (224, 896),
    (1024, 768),
    (1920, 1080),
];

/// Sides of squares that the judge looks at pixel by pixel, its limit lifted.
const SIDES: [u32; 5] = [112, 224, 448, 784, 1036];

const STATEMENTS: usize = 24;

/// Time by size: with the models as they are, and with the judge's limit of pixels lifted.
pub(super) fn measure(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    shapes(setting, page, figures)?;
    tokens(setting, page, figures)
}

fn shapes(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    let ours = Ours::open(&setting.arguments.common.suite)?;
    let scene = Constitution::shipped("scene")?;
    judging(&ours, &scene, &setting.pictures(4, 2)?)?;
    let mut table = Table::new(&["pixels", "median ms", "fastest ms"]);
    for shape in SHAPES {
        let drawn = setting.scenes.shaped(setting.arguments.repeat, shape)?;
        let pictures: Vec<Picture> = drawn.into_iter().map(Picture::new).collect();
        let (times, ..) = judging(&ours, &scene, &pictures)?;
        let (width, height) = shape;
        table.row(format!("{width} x {height}"), [ms(times.median()), ms(times.min())]);
        if width == height {
            let megapixels = f64::from(width) * f64::from(height) / 1e6;
            figures.megapixels_ms.push((megapixels, times.median()));
        }
    }
    page.heading("Sizes and shapes of pictures")?;
    page.text(
        "The whole method under the scene constitution; the same scenes in every size, and side by side. The embedded judge sees \
         every picture at 224 x 224 pixels; a picture that is not square has more parts for the relevance scan and \
         shows more objects.",
    )?;
    page.table(table)?;
    let plot = Plot {
        x_label: "megapixels".to_owned(),
        y_label: "ms".to_owned(),
        log_x: false,
        lines: vec![Line { name: "squares".to_owned(), points: figures.megapixels_ms.clone() }],
    };
    page.plot("Time a square picture against its pixels.", plot.svg());
    Ok(())
}

fn tokens(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let suite = lifted(&setting.arguments.common.suite, folder.path())?;
    let questions = Questions::open(&suite)?;
    let statements = constitutions::statements(setting.scenes.world(), STATEMENTS)?;
    let mut table =
        Table::new(&["pixels", "picture tokens", "one statement, ms", "24 statements, ms", "one more, ms"]);
    let mut single_points = Vec::new();
    for side in SIDES {
        let drawn = setting.scenes.shaped(setting.arguments.repeat, (side, side))?;
        let pictures = |run: usize| drawn.iter().map(|picture| Picture::new(variant(picture, run))).collect();
        let all = asking(&questions, pictures(0), &statements)?.median();
        let single = asking(&questions, pictures(1), &statements[..1])?.median();
        let count = f64::from((side / 28).pow(2));
        let more = (all - single) / (STATEMENTS - 1) as f64;
        table.row(format!("{side} x {side}"), [format!("{count}"), ms(single), ms(all), ms(more)]);
        figures.image_tokens_ms.push((count, all));
        single_points.push((count, single));
    }
    page.heading("Tokens of a picture")?;
    page.text(
        "The judging model alone, its limit of pixels lifted, so that it looks at every pixel. It was not trained for \
         that: the times count, not the answers.",
    )?;
    page.table(table)?;
    let plot = Plot {
        x_label: "picture tokens".to_owned(),
        y_label: "ms".to_owned(),
        log_x: false,
        lines: vec![
            Line { name: "24 statements".to_owned(), points: figures.image_tokens_ms.clone() },
            Line { name: "one statement".to_owned(), points: single_points },
        ],
    };
    page.plot("Time against the tokens of the picture.", plot.svg());
    Ok(())
}

/// A models file in `folder` whose judge is that of `suite`, allowed to look at any number of pixels.
fn lifted(suite: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let judge = crate::engine::model_folder(suite, "judge")?;
    let copy = folder.join("judge");
    std::fs::create_dir(&copy)?;
    for entry in std::fs::read_dir(&judge).with_context(|| format!("reading {}", judge.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    let path = copy.join("preprocessor_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let (least, most) = (28 * 28, 4096 * 28 * 28);
    config["min_pixels"] = least.into();
    config["max_pixels"] = most.into();
    if let Some(size) = config.get_mut("size") {
        *size = serde_json::json!({ "shortest_edge": least, "longest_edge": most });
    }
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    let models = folder.join(cluegate::models::MODELS_FILE);
    std::fs::write(&models, "[judge]\nfolder = \"judge\"\n")?;
    Ok(models)
}
