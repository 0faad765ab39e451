//! What a call of a plugin costs over the plugin's own work, in this process and in one of the plugin's: calls of a plugin
//! that does next to nothing, with a picture of 1024 x 1024 pixels. `benches/run plugins` builds the plugin and calls this.
//!
//! `overhead FOLDER [CALLS]`: the folder of `libunruly`, and how many calls of each form.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use cluegate_perception::{Call, Picture};
use cluegate_plugin_host::{HostError, Isolation, Plugin, Search, Spec, WORKER_COMMAND};
use image::{Rgb, RgbImage};
use serde_json::json;

/// Most microseconds of a call in this process.
const IN_PROCESS_US: f64 = 50.0;
/// Most milliseconds of a call in another process.
const ISOLATED_MS: f64 = 2.0;
const SIDE: u32 = 1024;
const WARM_UP: usize = 50;

/// Microseconds of each of so many calls, in order of size.
fn measure(plugin: &Plugin, picture: &Picture, calls: usize) -> Result<Vec<f64>, HostError> {
    let call = Call::default();
    let mut times = Vec::with_capacity(calls);
    for index in 0..calls + WARM_UP {
        let began = Instant::now();
        plugin.classify(picture, &call)?;
        if index >= WARM_UP {
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The time that `share` of all calls stay under.
fn percentile(times: &[f64], share: f64) -> f64 {
    let rank = (share * times.len() as f64).ceil() as usize;
    let time = times.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN);
    (time * 10.0).round() / 10.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected the folder of libunruly; benches/run plugins gives it")?;
    if folder == WORKER_COMMAND {
        return Ok(cluegate_plugin_host::run_worker()?);
    }
    let calls = arguments.next().map_or(Ok(2000), |calls| calls.parse())?;
    let search = Search::new(vec![PathBuf::from(folder)], []).allowing_all(true);
    let picture = Picture::new(RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8])));
    let here = Plugin::open(Spec::new("unruly", "unruly"), &search)?;
    let isolation = Some(Isolation::default());
    let apart = Plugin::open(Spec { isolation, ..Spec::new("unruly", "unruly") }, &search)?;
    let here = measure(&here, &picture, calls)?;
    let apart = measure(&apart, &picture, calls)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{calls} calls each, {SIDE} x {SIDE} pixels, microseconds over the plugin's own work\n")?;
    writeln!(out, "| form | p50 | p99 | target |\n|---|---|---|---|")?;
    let (isolated_us, shares) = (ISOLATED_MS * 1e3, [0.5, 0.99]);
    let [here, apart] = [&here, &apart].map(|times| shares.map(|share| percentile(times, share)));
    writeln!(out, "| in this process | {} | {} | {IN_PROCESS_US} |", here[0], here[1])?;
    writeln!(out, "| in one of its own | {} | {} | {isolated_us} |", apart[0], apart[1])?;
    let met = here[0] <= IN_PROCESS_US && apart[0] <= isolated_us;
    let figures = json!({
        "in_process_us": { "p50": here[0], "p99": here[1] },
        "isolated_us": { "p50": apart[0], "p99": apart[1] },
        "targets_met": met,
    });
    writeln!(out, "\n{figures}")?;
    if met { Ok(()) } else { Err("a median is over its target".into()) }
}
