//! What the gate does with one picture, stage by stage, each alone on one thread.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::{Gate, Instruction, RequestInfo};
use cluegate_perception::{DecodeOptions, Picture, decode};
use serde::Deserialize;
use serde_json::json;

use super::{gate, upstream};
use crate::stats::Times;
use crate::streams::millis;
use crate::table::{Table, ms};

/// Pictures that each stage is timed with.
const PICTURES: usize = 128;

#[derive(Deserialize)]
struct Answer {
    images: Vec<String>,
}

const DECODE: &str = "decode the PNG, and hash the pixels";

/// The table of stages, and what decoding takes, in milliseconds.
pub(super) fn table(side: u32, folder: &Path) -> anyhow::Result<(Table, f64)> {
    let files: Vec<Vec<u8>> =
        (0..PICTURES).map(|salt| upstream::photo(side, salt as u64)).collect::<Result<_, _>>()?;
    let gate = gate::instant_gate(folder)?;
    let mut stages = Stages::default();
    let options = DecodeOptions { convert: true, ..DecodeOptions::default() };
    for file in &files {
        let body = serde_json::to_vec(&json!({ "images": [BASE64_STANDARD.encode(file)], "info": "{}" }))?;
        let answer = stages.time("read the answer's JSON", || serde_json::from_slice::<Answer>(&body))?;
        let text = answer.images.first().context("a picture")?;
        let bytes = stages.time("base64 to bytes", || base64_simd::STANDARD.decode_to_vec(text))?;
        let picture = stages.time(DECODE, || decode(&bytes, &options))?;
        stages.time("(of which the hash, and a copy)", || Picture::new(picture.pixels().clone()));
        let decided = stages.time("session: scripted judge on its thread, evidence, log line", || {
            let mut session = gate.session(RequestInfo::new("t", "a lake between mountains", 7, 1))?;
            session.finished(0, picture.clone())
        })?;
        let Instruction::Release(released) = decided else {
            anyhow::bail!("expected a release, got {decided:?}")
        };
        let written = stages.time("the file that goes out", || released.picture().png())?;
        let text = stages.time("bytes to base64", || base64_simd::STANDARD.encode_to_string(&written));
        // As the gate does it, which copies a text without a character to be escaped.
        stages.time("write the response's JSON", || {
            [br#"{"images":[""#, text.as_bytes(), br#""],"info":"{}"}"#].concat()
        });
        stages.written.push(written.len() as f64);
        stages.read.push(file.len() as f64);
    }
    Ok(stages.table())
}

/// Has one picture released.
pub(super) fn release_one(gate: &Gate) -> anyhow::Result<()> {
    let picture = decode(&upstream::photo(64, 1)?, &DecodeOptions::default())?;
    let mut session = gate.session(RequestInfo::new("t", "a lake between mountains", 7, 1))?;
    match session.finished(0, picture)? {
        Instruction::Release(_) => Ok(()),
        decided => anyhow::bail!("expected a release, got {decided:?}"),
    }
}

/// Times by stage, in the order of their first appearance.
#[derive(Default)]
struct Stages {
    times: Vec<(&'static str, Vec<f64>)>,
    read: Vec<f64>,
    written: Vec<f64>,
}

impl Stages {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = black_box(work());
        let took = millis(begin.elapsed());
        match self.times.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(took),
            None => self.times.push((name, vec![took])),
        }
        result
    }

    fn table(self) -> (Table, f64) {
        let mut table = Table::new(&["stage, one picture", "median ms"]);
        let (mut sum, mut decoding) = (0.0, 0.0);
        for (name, times) in self.times {
            let median = Times::new(times).median();
            if !name.starts_with('(') {
                sum += median;
            }
            if name == DECODE {
                decoding = median;
            }
            table.row(name, [format!("{median:.3}")]);
        }
        table.row("sum", [ms(sum)]);
        table.row("sum without decoding, which a judge needs in any case", [ms(sum - decoding)]);
        let kb = |bytes: Vec<f64>| format!("{:.0} kB", Times::new(bytes).mean() / 1e3);
        table.row("file that came", [kb(self.read)]);
        table.row("file that goes out", [kb(self.written)]);
        (table, decoding)
    }
}
