//! What a call of a plugin costs over the plugin's own work, in this process and in one of the plugin's: calls of a plugin
//! that does next to nothing, with a picture of 1024 x 1024 pixels; one call after the other, and each after a pause, in which
//! the plugin's thread has gone to sleep. `benches/run plugins` builds the plugin and calls this.
//!
//! `overhead FOLDER [CALLS]`: the folder of `libunruly`, and how many calls of each form.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
/// From one call to the next.
const PAUSE: Duration = Duration::from_millis(2);

/// Microseconds of each of so many calls, in order of size, each `pause` after the one before.
fn measure(plugin: &Plugin, picture: &Picture, calls: usize, pause: Duration) -> Result<Vec<f64>, HostError> {
    let call = Call::default();
    let mut times = Vec::with_capacity(calls);
    for index in 0..calls + WARM_UP {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
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
    let forms = [(&here, Duration::ZERO), (&here, PAUSE), (&apart, Duration::ZERO), (&apart, PAUSE)];
    let mut out = io::stdout().lock();
    writeln!(out, "{calls} calls each, {SIDE} x {SIDE} pixels, microseconds over the plugin's own work\n")?;
    writeln!(out, "| form | p50 | p99 | target |\n|---|---|---|---|")?;
    let isolated_us = ISOLATED_MS * 1e3;
    let after = format!("the same, each after a pause of {} ms", PAUSE.as_millis());
    let rows = [
        ("in this process", IN_PROCESS_US.to_string()),
        (&after, IN_PROCESS_US.to_string()),
        ("in one of its own", isolated_us.to_string()),
        (&after, isolated_us.to_string()),
    ];
    let mut found = Vec::new();
    for ((plugin, pause), (form, target)) in forms.into_iter().zip(rows) {
        let times = measure(plugin, &picture, calls, pause)?;
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&times, share));
        writeln!(out, "| {form} | {p50} | {p99} | {target} |")?;
        found.push(json!({ "p50": p50, "p99": p99 }));
    }
    let median = |form: usize| found.get(form).and_then(|form| form["p50"].as_f64()).unwrap_or(f64::NAN);
    let met =
        (0..2).all(|form| median(form) <= IN_PROCESS_US) && (2..4).all(|form| median(form) <= isolated_us);
    let figures = json!({
        "in_process_us": found.first(),
        "in_process_after_pause_us": found.get(1),
        "isolated_us": found.get(2),
        "isolated_after_pause_us": found.get(3),
        "targets_met": met,
    });
    writeln!(out, "\n{figures}")?;
    if met { Ok(()) } else { Err("a median is over its target".into()) }
}
