//! Data sets by their names on the command line.

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum as _;
use cluegate_eval::data::{DataSet, FileSet, Format as LabelFormat, ParquetSet, export};
use cluegate_eval::record::{DataRecord, ScenesRecord};
use cluegate_eval::scenes::{SceneOptions, SceneSet};
use cluegate_mini::World;

use super::args::{DrawnArgs, MiniNaturalArgs, MiniPairsArgs, RunArgs, SceneArgs};
use super::names::{DataName, SceneStyle};
use crate::cli::{Exit, progress, say};

impl From<SceneArgs> for SceneOptions {
    fn from(SceneArgs { per_rule, seed, drawn: DrawnArgs { style } }: SceneArgs) -> Self {
        Self { seed, per_rule, style: style.into() }
    }
}

/// Opens the set that the arguments name.
pub(super) fn open(arguments: &RunArgs) -> anyhow::Result<Box<dyn DataSet>> {
    open_named(&arguments.data, arguments.pictures.as_deref(), arguments.scenes)
}

/// Opens a set by its name.
fn open_named(
    name: &DataName,
    pictures: Option<&Path>,
    scenes: SceneArgs,
) -> anyhow::Result<Box<dyn DataSet>> {
    Ok(match name {
        DataName::Osbench => Box::new(SceneSet::osbench(World::load()?, scenes.into())),
        DataName::Pairs => Box::new(SceneSet::pairs(World::load()?, scenes.into())),
        DataName::Files(LabelFormat::UnsafeBench, path) if ParquetSet::is_at(path) => {
            Box::new(ParquetSet::open(path)?)
        }
        DataName::Files(format, path) => Box::new(FileSet::open(*format, path, pictures)?),
    })
}

/// How the set that the arguments name can be opened again.
pub(super) fn record(arguments: &RunArgs, set: &dyn DataSet, looked_at: usize) -> DataRecord {
    let SceneArgs { per_rule, seed, drawn: DrawnArgs { style } } = arguments.scenes;
    let is_drawn = matches!(arguments.data, DataName::Osbench | DataName::Pairs);
    let style = match style {
        SceneStyle::World => "world",
        SceneStyle::Foreign => "foreign",
    };
    DataRecord {
        name: set.name().to_owned(),
        revision: set.revision(),
        rows: set.rows().len(),
        looked_at,
        set: arguments.data.to_string(),
        pictures: arguments.pictures.clone(),
        scenes: is_drawn.then(|| ScenesRecord { seed, per_rule, style: style.to_owned() }),
    }
}

/// Opens the set of an earlier run.
///
/// # Errors
/// It is not there any more, or holds other rows than then.
pub(super) fn reopen(record: &DataRecord) -> anyhow::Result<Box<dyn DataSet>> {
    let name: DataName = record.set.parse().map_err(anyhow::Error::msg)?;
    let scenes = match &record.scenes {
        Some(ScenesRecord { seed, per_rule, style }) => {
            let style = SceneStyle::from_str(style, false).map_err(anyhow::Error::msg)?;
            SceneArgs { seed: *seed, per_rule: *per_rule, drawn: DrawnArgs { style } }
        }
        None => SceneArgs { seed: 0, per_rule: 0, drawn: DrawnArgs { style: SceneStyle::World } },
    };
    let set = open_named(&name, record.pictures.as_deref(), scenes)?;
    ensure!(
        set.revision() == record.revision,
        "{} has other rows than when it was measured; measure again",
        record.set
    );
    Ok(set)
}

/// Writes mini paired edits.
pub(super) fn write_pairs(arguments: &MiniPairsArgs) -> anyhow::Result<Exit> {
    let set = SceneSet::pairs(World::load()?, arguments.scenes.into());
    let bar = progress::bar(set.rows().len() as u64, "drawing");
    export(&set, &arguments.out, || bar.inc(1))?;
    bar.finish_and_clear();
    let (pairs, folder) = (set.rows().len() / 2, arguments.out.display());
    say(format_args!("{pairs} pairs in {folder}: cluegate eval run --data folder:{folder} --out results"))?;
    Ok(Exit::Clean)
}

/// Writes scenes of natural frequencies.
pub(super) fn write_natural(arguments: &MiniNaturalArgs) -> anyhow::Result<Exit> {
    let set =
        SceneSet::natural(World::load()?, arguments.count, arguments.seed, arguments.drawn.style.into());
    let bar = progress::bar(set.rows().len() as u64, "drawing");
    export(&set, &arguments.out, || bar.inc(1))?;
    bar.finish_and_clear();
    let (count, folder) = (set.rows().len(), arguments.out.display());
    say(format_args!(
        "{count} scenes in {folder}: cluegate label {folder} --constitution scene --out labels"
    ))?;
    Ok(Exit::Clean)
}
