//! Writes Mini OS Bench as files, for judges that are not this program: a PNG a picture, and `labels.jsonl` with the
//! rules that each violates.
//!
//! `cargo run --release -p cluegate-mini --example write_osbench -- FOLDER [world|foreign]`

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use cluegate_mini::osbench::{PER_RULE, SEED, samples};
use cluegate_mini::{Style, World};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("expected the folder to write to")?);
    let style = match arguments.next().as_deref() {
        None | Some("world") => Style::World,
        Some("foreign") => Style::Foreign,
        Some(other) => return Err(format!("expected world or foreign, found {other:?}").into()),
    };
    let world = World::load()?;
    fs::create_dir_all(&folder)?;
    let mut labels = fs::File::create(folder.join("labels.jsonl"))?;
    for sample in samples(&world, SEED, PER_RULE) {
        let name = format!("{}.png", sample.id.replace('/', "-"));
        sample.picture(&world, style)?.save(folder.join(&name))?;
        let label = serde_json::json!({ "image": name, "rule": sample.rule, "violated": sample.violated });
        writeln!(labels, "{label}")?;
    }
    Ok(())
}
