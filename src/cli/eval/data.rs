//! Data sets by their names on the command line.

use cluegate_eval::data::{DataSet, FileSet, export};
use cluegate_eval::scenes::{SceneOptions, SceneSet};
use cluegate_mini::World;

use super::args::{DataName, MiniPairsArgs, RunArgs, SceneArgs};
use crate::cli::{Exit, progress, say};

impl From<SceneArgs> for SceneOptions {
    fn from(SceneArgs { per_rule, seed, style }: SceneArgs) -> Self {
        Self { seed, per_rule, style: style.into() }
    }
}

/// Opens the set that the arguments name.
pub(super) fn open(arguments: &RunArgs) -> anyhow::Result<Box<dyn DataSet>> {
    Ok(match &arguments.data {
        DataName::Osbench => Box::new(SceneSet::osbench(World::load()?, arguments.scenes.into())),
        DataName::Pairs => Box::new(SceneSet::pairs(World::load()?, arguments.scenes.into())),
        DataName::Files(format, path) => {
            Box::new(FileSet::open(*format, path, arguments.pictures.as_deref())?)
        }
    })
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
