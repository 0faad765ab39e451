//! Many callers, and many tenants, over one engine.

use std::collections::BTreeMap;
use std::time::Instant;

use cluegate::constitution::Constitution;

use super::{Figures, Setting};
use crate::constitutions;
use crate::machine::resident_mb;
use crate::ours::Ours;
use crate::page::Page;
use crate::plot::{Line, Plot};
use crate::stats::Times;
use crate::streams::{Request, millis, serve};
use crate::table::{Table, ms, times};

const CALLERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const TENANTS: [usize; 5] = [1, 5, 20, 50, 100];

/// Callers at once while the number of tenants grows.
const TENANTS_CALLERS: usize = 16;

/// Throughput and waiting against the number of callers.
pub(super) fn callers(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    let most = CALLERS.into_iter().max().unwrap_or(1);
    let ours = Ours::open_for(&setting.arguments.common.suite, most)?;
    let prepared = ours.prepare(&Constitution::shipped("scene")?)?;
    let warm_up: Vec<Request> =
        setting.pictures(3, 4)?.into_iter().map(|picture| Request::new(picture, &prepared, 0)).collect();
    serve(&warm_up, 2)?.reports()?;
    let head = [
        "callers",
        "pictures",
        "pictures a second",
        "over one caller",
        "p50 ms",
        "p99 ms",
        "cores busy",
        "resident MiB",
    ];
    let mut table = Table::new(&head);
    for (run, callers) in CALLERS.into_iter().enumerate() {
        let count = (2 * callers).max(6 * setting.arguments.repeat);
        let pictures = setting.pictures(600 + run, count)?;
        let requests: Vec<Request> =
            pictures.into_iter().map(|picture| Request::new(picture, &prepared, 0)).collect();
        let run = serve(&requests, callers)?;
        run.reports()?;
        let (rate, waiting) = (1e3 / run.ms_per_picture(), run.times());
        figures.callers_per_second.push((callers as f64, rate));
        figures.callers_p99_ms.push((callers as f64, waiting.percentile(0.99)));
        let cells = [
            count.to_string(),
            format!("{rate:.2}"),
            times(rate / figures.callers_per_second[0].1),
            ms(waiting.median()),
            ms(waiting.percentile(0.99)),
            format!("{:.2}", run.cores_busy()),
            format!("{:.0}", resident_mb()?),
        ];
        table.row(callers.to_string(), cells);
    }
    page.heading("Callers at once")?;
    page.text("The whole method under the scene constitution; each caller begins the next picture when it has an answer.")?;
    page.table(table)?;
    let plot = |label: &str, points: &super::Series| Plot {
        x_label: "callers".to_owned(),
        y_label: label.to_owned(),
        log_x: true,
        lines: vec![Line { name: label.to_owned(), points: points.clone() }],
    };
    page.plot("Throughput against callers.", plot("pictures a second", &figures.callers_per_second).svg());
    page.plot("99th percentile of waiting against callers.", plot("p99 ms", &figures.callers_p99_ms).svg());
    Ok(())
}

/// Throughput, waiting and fairness against the number of tenants, each with a constitution of its own.
pub(super) fn tenants(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    let world = setting.scenes.world();
    let head = [
        "tenants",
        "pictures",
        "pictures a second",
        "p99 ms",
        "slowest tenant over mean",
        "preparing ms",
        "resident MiB",
    ];
    let mut table = Table::new(&head);
    for (run, tenants) in TENANTS.into_iter().enumerate() {
        let ours = Ours::open(&setting.arguments.common.suite)?;
        let begin = Instant::now();
        let prepared = (0..tenants)
            .map(|tenant| ours.prepare(&constitutions::of_tenant(world, tenant)?))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let preparing = millis(begin.elapsed());
        let count = (2 * tenants).max(8 * setting.arguments.repeat);
        let pictures = setting.pictures(700 + run, count)?;
        let requests: Vec<Request> = pictures
            .into_iter()
            .enumerate()
            .map(|(index, picture)| Request::new(picture, &prepared[index % tenants], index % tenants))
            .collect();
        let run = serve(&requests, TENANTS_CALLERS)?;
        run.reports()?;
        let mut by_tenant: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for served in &run.served {
            by_tenant.entry(served.index % tenants).or_default().push(served.ms);
        }
        let means: Times = by_tenant.into_values().map(|waited| Times::new(waited).mean()).collect();
        let rate = 1e3 / run.ms_per_picture();
        figures.tenants_per_second.push((tenants as f64, rate));
        let cells = [
            count.to_string(),
            format!("{rate:.2}"),
            ms(run.times().percentile(0.99)),
            times(means.max() / means.mean()),
            ms(preparing),
            format!("{:.0}", resident_mb()?),
        ];
        table.row(tenants.to_string(), cells);
    }
    page.heading("Tenants with constitutions of their own")?;
    page.text(&format!(
        "One engine, {TENANTS_CALLERS} callers, each tenant with the rules of the scene constitution and one of its own. Preparing is the time for all constitutions together, done once."
    ))?;
    page.table(table)?;
    let points = figures.tenants_per_second.clone();
    let plot = Plot {
        x_label: "tenants".to_owned(),
        y_label: "pictures a second".to_owned(),
        log_x: true,
        lines: vec![Line { name: "throughput".to_owned(), points }],
    };
    page.plot("Throughput against tenants.", plot.svg());
    Ok(())
}
