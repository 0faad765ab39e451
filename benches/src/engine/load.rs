//! More than can be served, and many pictures: what waits too long, and what memory does.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluegate::constitution::Constitution;
use cluegate::perception::Picture;

use super::Setting;
use crate::machine::{peak_mb, resident_mb};
use crate::ours::Ours;
use crate::page::Page;
use crate::plot::{Line, Plot};
use crate::stats::{Times, slope};
use crate::streams::{Request, Run, serve};
use crate::table::{Table, ms};

/// Threads that make requests: more than are ever let in, so that a request is made when it arrives.
const CALLERS: usize = 128;
const REQUESTS: usize = 384;
const TENANTS: usize = 8;

/// How many requests arrive in the time of a single judgment.
const OVERLOAD: f64 = 4.0;

/// How long each waits, in times of a single judgment.
const PATIENCE: f64 = 6.0;

/// Pictures between two looks at the memory.
const STEPS: usize = 10;

/// Requests arrive faster than they can be served, each with a deadline: each gets exactly one answer, and in time.
pub(super) fn overload(setting: &Setting<'_>, page: &mut Page, ms_single: f64) -> anyhow::Result<()> {
    let ours = Ours::open(&setting.arguments.common.suite)?;
    let prepared = ours.prepare(&Constitution::shipped("scene")?)?;
    let patience = Duration::from_secs_f64(PATIENCE * ms_single / 1e3);
    let between = Duration::from_secs_f64(ms_single / OVERLOAD / 1e3);
    let mut requests = Vec::with_capacity(REQUESTS);
    for (index, picture) in (0u32..).zip(setting.scenes.osbench(REQUESTS)?) {
        let request = Request::new(Picture::new(picture), &prepared, index as usize % TENANTS);
        requests.push(Request { arrival: between * index, patience: Some(patience), ..request });
    }
    let run = serve(&requests, CALLERS)?;
    check_answers(&requests, &run)?;
    let mut by_outcome: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for served in &run.served {
        let outcome = match &served.outcome {
            Ok(_) => "verdict",
            Err(error) => error.kind(),
        };
        by_outcome.entry(outcome).or_default().push(served.ms);
    }
    let verdicts = by_outcome.get("verdict").map_or(0, Vec::len);
    page.heading("More requests than can be served")?;
    page.text(&format!(
        "{REQUESTS} requests of {TENANTS} tenants, {OVERLOAD} arriving in the time of a single judgment, each with a \
         deadline of {} ms ({PATIENCE} times a single judgment). Every request got one answer, and every verdict is about \
         the picture that was sent. {:.2} verdicts a second; one caller gets {:.2}.",
        ms(patience.as_secs_f64() * 1e3),
        1e3 * verdicts as f64 / run.wall_ms,
        1e3 / ms_single
    ))?;
    let mut table = Table::new(&["answer", "requests", "p50 ms", "p99 ms", "longest ms"]);
    let mut row = |name: &str, times: &Times| {
        let cells = [times.median(), times.percentile(0.99), times.max()].map(ms);
        table.row(name, [times.len().to_string()].into_iter().chain(cells));
    };
    for (outcome, times) in by_outcome {
        row(outcome, &Times::new(times));
    }
    let all = run.times();
    row("all", &all);
    page.table(table)?;
    let over = 100.0 * (all.percentile(0.99) / (patience.as_secs_f64() * 1e3) - 1.0);
    page.text(&format!(
        "The 99th percentile lies {:.1} % {} the deadline.",
        over.abs(),
        if over > 0.0 { "over" } else { "under" }
    ))
}

/// Nothing lost, nothing doubled, nothing mixed up.
fn check_answers(requests: &[Request], run: &Run) -> anyhow::Result<()> {
    let answered: Vec<usize> = run.served.iter().map(|served| served.index).collect();
    let expected: Vec<usize> = (0..requests.len()).collect();
    ensure!(answered == expected, "expected one answer to each of {} requests", requests.len());
    for served in &run.served {
        if let Ok(report) = &served.outcome {
            let asked = requests[served.index].picture.hash();
            ensure!(report.picture() == asked, "request {} got the verdict of another", served.index);
        }
    }
    Ok(())
}

/// Reports that are kept meanwhile; fewer than by default, so that the store is soon full and stays so.
const REPORTS: usize = 128;

/// Judges many pictures, each seen once, from four callers, and looks at the memory between.
pub(super) fn soak(setting: &Setting<'_>, page: &mut Page) -> anyhow::Result<()> {
    let ours = Ours::open_remembering(&setting.arguments.common.suite, REPORTS, 1)?;
    let prepared = ours.prepare(&Constitution::shipped("scene")?)?;
    let each = setting.arguments.soak.div_ceil(STEPS);
    let mut points = Vec::with_capacity(STEPS);
    let mut table = Table::new(&["pictures", "resident MiB", "peak MiB"]);
    for step in 0..STEPS {
        let seed = 1_000 + step as u64;
        let pictures = setting.scenes.random(seed, each)?;
        let requests: Vec<Request> =
            pictures.into_iter().map(|picture| Request::new(Picture::new(picture), &prepared, 0)).collect();
        let run = serve(&requests, 4)?;
        run.reports()?;
        drop((run, requests));
        let judged = (each * (step + 1)) as f64;
        let resident = resident_mb()?;
        points.push((judged, resident));
        table.row(format!("{judged}"), [format!("{resident:.1}"), format!("{:.1}", peak_mb()?)]);
    }
    page.heading("Memory over many pictures")?;
    page.text(&format!(
        "Pictures never seen before, four callers, one engine that keeps {REPORTS} reports and what its models remember of \
         the last pictures; what this program itself holds is included."
    ))?;
    page.table(table)?;
    let last = points.last().context("there was no step")?.1;
    // Before, the models' stores fill, which are bounded by their bytes.
    let settled = &points[STEPS / 2..];
    let growth = 1e3 * slope(settled);
    page.text(&format!(
        "In the second half the resident memory changes by {growth:+.2} MiB a thousand pictures ({:+.2} % of {last:.0} \
         MiB).",
        100.0 * growth / last
    ))?;
    let plot = Plot {
        x_label: "pictures".to_owned(),
        y_label: "MiB".to_owned(),
        log_x: false,
        lines: vec![Line { name: "resident".to_owned(), points }],
    };
    page.plot("Resident memory while pictures are judged.", plot.svg());
    Ok(())
}
