//! The whole of CLUE on Mini OS Bench: ours with one caller and with many, against the independent implementation.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use cluegate::EngineStatistics;
use cluegate::constitution::Constitution;
use cluegate::judge::{InspectOptions, Outcome, PerStage, Report, Verdict};
use cluegate::perception::Picture;
use serde::Serialize;
use serde_json::Value;

use super::Setting;
use super::agreement::{Comparison, compare};
use super::tokens::{Counter, Counting, STAGES};
use crate::ours::{Ours, decode_picture, judge_through};
use crate::page::{Page, doing};
use crate::pictures;
use crate::plot;
use crate::reference::{self, ClueInput, ClueOutput};
use crate::stats::Times;
use crate::streams::{Request, Run, millis, serve};
use crate::table::{Table, ms, times};

/// Pictures that are judged once more with no statement decided by the first lines.
const UNDECIDED: usize = 8;

/// Pictures that are judged once more with every rule relevant.
const RELEVANT: usize = 24;

/// Callers at once in the second measurement.
const STREAMS: usize = 16;

/// Rounds of ours, the reference between them.
const ROUNDS: usize = 2;

/// Differences that are printed in full.
const SHOWN: usize = 20;

/// What the last line and the next parts need of this one.
pub(super) struct Measured {
    pub(super) ratio_single: f64,
    pub(super) ratio_16: f64,
    pub(super) same_verdicts: bool,
    /// Median time of a picture with one caller.
    pub(super) ms_single: f64,
}

/// Runs both, and tells.
pub(super) fn measure(setting: &Setting<'_>, page: &mut Page) -> anyhow::Result<Measured> {
    let scene = Constitution::shipped("scene")?;
    let pictures = setting.arguments.pictures;
    page.heading("The whole of CLUE, every stage on")?;
    let measured = judge_all(setting, page, &scene, pictures, "clue")?;
    page.heading("The same with every rule relevant")?;
    page.text(
        "Nothing is left out by the relevance scan, so that more statements are asked: what a constitution costs that \
         fits its pictures.",
    )?;
    let relevant = judge_all(setting, page, &relevant()?, pictures.min(RELEVANT), "relevant")?;
    page.heading("The same with no statement decided by the first lines")?;
    page.text(
        "With alpha1 = alpha2 = 1 the comparison with the prior decides nothing, so that every statement that is reached \
         goes through the region comparison and the reasoning: rare on these pictures, and compared all the same.",
    )?;
    let undecided = judge_all(setting, page, &undecided()?, pictures.min(UNDECIDED), "undecided")?;
    Ok(Measured {
        same_verdicts: measured.same_verdicts && relevant.same_verdicts && undecided.same_verdicts,
        ..measured
    })
}

/// The scene constitution with a threshold that every rule passes.
fn relevant() -> anyhow::Result<Constitution> {
    scene_with("relevance = -1.0")
}

/// The scene constitution with thresholds that the first lines never pass.
fn undecided() -> anyhow::Result<Constitution> {
    scene_with("alpha1 = 1.0\nalpha2 = 1.0")
}

fn scene_with(thresholds: &str) -> anyhow::Result<Constitution> {
    let scene = Constitution::shipped_text("scene").context("the scene constitution is missing")?;
    let text = format!("{scene}\n[thresholds]\n{thresholds}\n");
    Ok(Constitution::parse(&text, "scene, other thresholds")?)
}

/// Ours and the reference on the first `count` pictures of Mini OS Bench; `name` is that of the folder for them.
fn judge_all(
    setting: &Setting<'_>,
    page: &mut Page,
    constitution: &Constitution,
    count: usize,
    name: &str,
) -> anyhow::Result<Measured> {
    let arguments = setting.arguments;
    let files = pictures::pngs(&setting.scenes.osbench(count)?)?;
    let folder = setting.folder.join(name);
    let paths = pictures::write(&folder, &files)?;
    let begin = Instant::now();
    let decoded = files.iter().map(|file| decode_picture(file)).collect::<anyhow::Result<Vec<_>>>()?;
    let decode_ms = millis(begin.elapsed()) / decoded.len() as f64;

    let mut ours = Rounds::default();
    ours.serve(setting, constitution, &decoded)?;
    doing("the independent implementation");
    let suite = &arguments.common.suite;
    let input = ClueInput::new(suite, &Ours::open(suite)?, constitution, &paths)?;
    let program = arguments.reference.join("clue.py");
    let theirs: ClueOutput = reference::run(&arguments.reference_python, &program, None, &input, &folder)?;
    for _ in 1..ROUNDS {
        ours.serve(setting, constitution, &decoded)?;
    }
    let runs = ours.single.iter().map(|run| ("1 caller", run));
    let runs = runs.chain(ours.many.iter().map(|run| ("16 callers", run)));
    let comparison = compare(runs, &theirs, &paths)?;
    tell(page, &ours, &theirs, &comparison)?;
    tell_stages(page, &ours, &theirs, decode_ms)?;
    tell_tokens(setting, page, constitution, &decoded)?;
    let reference_ms = mean_ms(&theirs);
    Ok(Measured {
        ratio_single: reference_ms / ours.ms_single(),
        ratio_16: reference_ms / ours.ms_many(),
        same_verdicts: comparison.same(),
        ms_single: ours.single.first().map_or(f64::NAN, |run| run.times().median()),
    })
}

/// Ours, round by round.
#[derive(Default)]
struct Rounds {
    single: Vec<Run>,
    many: Vec<Run>,
    /// What the models' threads did in the last run with many callers.
    statistics: EngineStatistics,
}

impl Rounds {
    /// One caller, then many, each with an engine that remembers nothing.
    fn serve(
        &mut self,
        setting: &Setting<'_>,
        constitution: &Constitution,
        decoded: &[Picture],
    ) -> anyhow::Result<()> {
        for (streams, runs) in [(1, &mut self.single), (STREAMS, &mut self.many)] {
            doing(&format!("ours, {streams} at once"));
            let ours = Ours::open(&setting.arguments.common.suite)?;
            let prepared = ours.prepare(constitution)?;
            let requests: Vec<Request> =
                decoded.iter().map(|picture| Request::new(picture.clone(), &prepared, 0)).collect();
            runs.push(serve(&requests, streams)?);
            self.statistics = ours.statistics();
        }
        Ok(())
    }

    fn ms_single(&self) -> f64 {
        over_rounds(&self.single)
    }

    fn ms_many(&self) -> f64 {
        over_rounds(&self.many)
    }
}

/// The reports of all rounds.
fn reports(runs: &[Run]) -> anyhow::Result<Vec<&Report>> {
    Ok(runs.iter().map(Run::reports).collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// Milliseconds a picture, over all rounds.
fn over_rounds(runs: &[Run]) -> f64 {
    runs.iter().map(Run::ms_per_picture).collect::<Times>().mean()
}

fn mean_ms(theirs: &ClueOutput) -> f64 {
    theirs.pictures.iter().map(|picture| picture.ms).collect::<Times>().mean()
}

fn tell(page: &mut Page, ours: &Rounds, theirs: &ClueOutput, comparison: &Comparison) -> anyhow::Result<()> {
    let unsafe_ones = theirs.pictures.iter().filter(|picture| picture.verdict == "unsafe").count();
    page.text(&format!(
        "{} pictures of Mini OS Bench ({unsafe_ones} of them unsafe), from a decoded \
         picture to the verdict. Ours in {ROUNDS} rounds before and after the reference, each with an \
         engine that remembers nothing; their mean counts. The reference: {}, {} threads, {:.0} ms to prepare, {:.0} MiB at most.",
        comparison.pictures,
        reference::versions(&theirs.versions),
        theirs.threads,
        theirs.prepare_ms,
        theirs.peak_rss_mb
    ))?;
    let reference = mean_ms(theirs);
    let their_times: Times = theirs.pictures.iter().map(|picture| picture.ms).collect();
    let mut table = Table::new(&[
        "",
        "ms a picture",
        "pictures a second",
        "p50 ms",
        "p99 ms",
        "cores busy",
        "reference over ours",
    ]);
    let mut row = |name: &str, each: f64, times_of: &Times, busy: f64| {
        let rate = format!("{:.2}", 1e3 / each);
        let busy = if busy.is_finite() { format!("{busy:.2}") } else { String::new() };
        let [median, high] = [times_of.median(), times_of.percentile(0.99)].map(ms);
        table.row(name, [ms(each), rate, median, high, busy, times(reference / each)]);
    };
    row("reference, one after the other", reference, &their_times, f64::NAN);
    for (name, runs) in [("cluegate, 1 caller", &ours.single), ("cluegate, 16 callers", &ours.many)] {
        let latencies: Times = runs.iter().flat_map(|run| &run.served).map(|served| served.ms).collect();
        let busy = runs.iter().map(Run::cores_busy).collect::<Times>().mean();
        row(name, over_rounds(runs), &latencies, busy);
    }
    page.table(table)?;
    let bars = [
        ("cluegate, 16 callers".to_owned(), ours.ms_many()),
        ("cluegate, 1 caller".to_owned(), ours.ms_single()),
        ("reference".to_owned(), reference),
    ];
    page.plot("Time a picture; shorter is better.", plot::bars("ms", &bars));
    page.text(&format!(
        "Throughput with {STREAMS} callers over that with one: {}.",
        times(ours.ms_single() / ours.ms_many())
    ))?;
    let judge = &ours.statistics.judge;
    page.text(&format!(
        "With {STREAMS} callers, {} pictures and preparing the constitution took {} calls of the relevance encoder (at most {} pictures each), {} of the \
         detector (at most {}), {} of the judging model for scores (at most {} questions), and {} steps of decoding (at \
         most {} answers side by side).",
        comparison.pictures,
        ours.statistics.relevance.batches,
        ours.statistics.relevance.largest_batch,
        ours.statistics.detector.batches,
        ours.statistics.detector.largest_batch,
        judge.scores.batches,
        judge.scores.largest_batch,
        judge.answers.batches,
        judge.answers.largest_batch,
    ))?;
    let runs = ours.single.len() + ours.many.len();
    page.text(&format!(
        "{} of {} judgments of ours have the verdict and the violated rules of the reference; {} have another outcome \
         of a rule that changes neither. Largest differences: score {:.1e}, prior {:.1e}, cosine {:.1e}.",
        runs * comparison.pictures - comparison.differences.len(),
        runs * comparison.pictures,
        comparison.other_outcomes,
        comparison.score,
        comparison.prior,
        comparison.relevance
    ))?;
    for difference in comparison.differences.iter().take(SHOWN) {
        page.text(difference)?;
    }
    if comparison.differences.len() > SHOWN {
        page.text(&format!("... and {} more.", comparison.differences.len() - SHOWN))?;
    }
    Ok(())
}

/// The stages by their stable names, in order.
fn by_stage<T: Serialize>(stages: &PerStage<T>) -> anyhow::Result<Vec<(String, f64)>> {
    let value = serde_json::to_value(stages)?;
    let object = value.as_object().context("stages are an object")?;
    Ok(object.iter().map(|(name, value)| (name.clone(), value.as_f64().unwrap_or(f64::NAN))).collect())
}

/// The mean of a figure of the reports, by stage.
fn mean_by_stage<T: Serialize>(
    reports: &[&Report],
    figure: impl Fn(&Report) -> &PerStage<T>,
) -> anyhow::Result<Vec<(String, f64)>> {
    let mut means: Vec<(String, f64)> = Vec::new();
    for report in reports {
        for (index, (name, value)) in by_stage(figure(report))?.into_iter().enumerate() {
            match means.get_mut(index) {
                Some((_, mean)) => *mean += value / reports.len() as f64,
                None => means.push((name, value / reports.len() as f64)),
            }
        }
    }
    Ok(means)
}

fn tell_stages(page: &mut Page, ours: &Rounds, theirs: &ClueOutput, decode_ms: f64) -> anyhow::Result<()> {
    page.text(
        "Where the time goes, means over the pictures. Passes are counted as one at a time would need them (one for each picture embedded or \
         searched, for each question scored, for each token decoded); with 16 callers the time of a stage contains \
         waiting for the others.",
    )?;
    let single = reports(&ours.single)?;
    let many = reports(&ours.many)?;
    let times_single = mean_by_stage(&single, |report| &report.timings().stages)?;
    let times_many = mean_by_stage(&many, |report| &report.timings().stages)?;
    let passes = mean_by_stage(&single, |report| &report.passes().stages)?;
    let mut their_times: BTreeMap<String, f64> = BTreeMap::new();
    for (stage, value) in theirs.pictures.iter().flat_map(|picture| &picture.stages_ms) {
        *their_times.entry(stage.clone()).or_default() += value / theirs.pictures.len() as f64;
    }
    let head = ["stage", "passes", "ms, 1 caller", "ms, 16 callers", "reference ms"];
    let mut table = Table::new(&head);
    for (((stage, time), (_, time_many)), (_, count)) in times_single.iter().zip(&times_many).zip(&passes) {
        let theirs = their_times.remove(stage).unwrap_or(f64::NAN);
        table.row(stage.as_str(), [format!("{count:.2}"), ms(*time), ms(*time_many), ms(theirs)]);
    }
    for (stage, time) in &their_times {
        table.row(
            format!("{stage} (of the reference)"),
            [String::new(), String::new(), String::new(), ms(*time)],
        );
    }
    let total = |reports: &[&Report]| reports.iter().map(|r| r.timings().total).collect::<Times>().mean();
    let sum = |stages: &[(String, f64)]| stages.iter().map(|(_, time)| time).sum::<f64>();
    let (all, all_many) = (total(&single), total(&many));
    table.row(
        "outside the models",
        [String::new(), ms(all - sum(&times_single)), ms(all_many - sum(&times_many)), String::new()],
    );
    table.row("all", [String::new(), ms(all), ms(all_many), ms(mean_ms(theirs))]);
    table.row("decoding the PNG, before that", [String::new(), ms(decode_ms), String::new(), String::new()]);
    page.table(table)?;
    page.plot("Time by stage with one caller.", plot::bars("ms", &times_single));
    let count = single.len() as f64;
    let mean = |figure: &dyn Fn(&Report) -> f64| single.iter().map(|r| figure(r)).sum::<f64>() / count;
    page.text(&format!(
        "Reasoning cascades a picture: {:.2}. Rules kept by the relevance scan: {:.2} of {}. Unsafe: {:.0} %. Forward \
         passes of the reference a picture: {:.1}.",
        mean(&|report| report.passes().cascades as f64),
        mean(&|report| report.rules().iter().filter(|rule| rule.outcome != Outcome::Irrelevant).count() as f64),
        single.first().map_or(0, |report| report.rules().len()),
        100.0 * mean(&|report| f64::from(u8::from(report.verdict() == Verdict::Unsafe))),
        theirs.pictures.iter().map(|picture| sum_of(&picture.forwards)).sum::<f64>()
            / theirs.pictures.len() as f64
    ))
}

/// What the stages ask of the judging model, counted in a run of its own.
fn tell_tokens(
    setting: &Setting<'_>,
    page: &mut Page,
    constitution: &Constitution,
    decoded: &[Picture],
) -> anyhow::Result<()> {
    let suite = &setting.arguments.common.suite;
    let counter = Counter::open(&super::model_folder(suite, "judge")?)?;
    let (judge, counting) = judge_through(suite, |model| Counting::new(model, counter))?;
    let prepared = judge.prepare(constitution)?;
    for picture in decoded {
        counting.next();
        judge.inspect(picture, &prepared, &InspectOptions::default())?;
    }
    let mean = |count: usize| format!("{:.2}", count as f64 / decoded.len() as f64);
    let head = [
        "asked of the judging model",
        "calls",
        "questions",
        "tokens, one at a time",
        "tokens, shared",
        "decoded",
    ];
    let mut table = Table::new(&head);
    for (stage, asked) in STAGES.into_iter().zip(counting.stages()) {
        let figures = [asked.calls, asked.questions, asked.alone, asked.shared, asked.decoded];
        table.row(stage, figures.map(mean));
    }
    page.text(
        "Means over the same pictures. `Shared` counts what pictures and questions have in common once for a picture, \
         as the engine reads it; the tokens of a rating alone contain the thought that it is about.",
    )?;
    page.table(table)
}

/// A number, or the sum of the numbers in an object.
fn sum_of(value: &Value) -> f64 {
    match value {
        Value::Object(object) => object.values().map(sum_of).sum(),
        other => other.as_f64().unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_never_decide_where_they_are_not_to() {
        let constitution = undecided().unwrap();
        assert_eq!((constitution.thresholds().alpha1, constitution.thresholds().alpha2), (1.0, 1.0));
        assert_eq!(constitution.rules(), Constitution::shipped("scene").unwrap().rules());
    }

    #[test]
    fn forwards_are_summed_over_stages() {
        assert!((sum_of(&serde_json::json!({"a": 2, "b": 3.5})) - 5.5).abs() < 1e-12);
        assert!((sum_of(&serde_json::json!(7)) - 7.0).abs() < 1e-12);
    }

    #[test]
    fn stages_keep_their_names_and_order() {
        let stages = PerStage::<f64> { statements: 3.0, ..PerStage::default() };
        let named = by_stage(&stages).unwrap();
        assert_eq!(named.len(), 8);
        assert_eq!(named[0].0, "relevance");
        assert_eq!(named[3], ("statements".to_owned(), 3.0));
    }
}
