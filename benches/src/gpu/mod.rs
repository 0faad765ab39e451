//! A judge in the shape of Qwen2-VL-7B on one GPU, in bf16 with random weights: against what the hardware allows, and
//! against one query a forward pass of Hugging Face transformers.

mod floor;
mod judge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use candle_core::{DType, Device};
use clap::Args;
use cluegate::perception::{Picture, Prompt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::floor::{Ceilings, Floor};
use self::judge::Judge;
use crate::Common;
use crate::engine::model_folder;
use crate::page::{Page, doing, say};
use crate::reference;
use crate::table::{Table, ms, times};

/// Statements about one picture, as CLUE asks them of fourteen rules.
const STATEMENTS: usize = 36;
/// Of these, how many are left once the relevance scan has dropped rules.
const SCANNED: usize = 12;
/// Pictures with a region removed, with one statement each, before and after the scan.
const REMOVED: usize = 3;
const SCANNED_REMOVED: usize = 1;
/// Reasonings a picture (CLUE, ablations) and tokens of one.
const CASCADES: f64 = 1.16;
const ANSWER: usize = 210;
/// Statements whose scores are compared with float32 too.
const EXACT: usize = 6;

/// Options of `gpu`.
#[derive(Debug, Args)]
pub(crate) struct GpuArgs {
    #[command(flatten)]
    common: Common,
    /// Python with torch for CUDA and transformers.
    #[arg(long, value_name = "PYTHON")]
    reference_python: PathBuf,
    /// Folder of the programs in Python.
    #[arg(long, value_name = "DIR", default_value = "benches/reference")]
    reference: PathBuf,
    /// Checkpoint with random weights; made if it is not there, 16 GB.
    #[arg(long, value_name = "DIR", default_value = "target/benchmarks/qwen2-vl-7b-random")]
    checkpoint: PathBuf,
    /// Which GPU.
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
    /// Runs of each row; the median counts.
    #[arg(long, value_name = "N", default_value_t = 7)]
    repeat: usize,
    /// Pictures whose reasonings are decoded at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pictures: usize,
}

/// The last line of the output.
#[derive(Debug, Serialize)]
struct Figures {
    /// The GPU.
    device: String,
    /// Milliseconds a picture: prefix shared, no reasoning; the same with reasoning; both after the relevance scan.
    b_ms: f64,
    c_ms: f64,
    scanned_b_ms: f64,
    scanned_c_ms: f64,
    /// The same over what the hardware allows.
    ratio_b: f64,
    ratio_c: f64,
    ratio_scanned_b: f64,
    ratio_scanned_c: f64,
    /// One query a forward pass of transformers, over ours: without and with reasoning.
    hf_loop_ms: f64,
    hf_ratio_b: f64,
    hf_ratio_c: f64,
    /// Largest difference of a score: ours in bf16 from transformers in bf16, and either from float32.
    bf16_gap: f64,
    bf16_gap_exact: f64,
    hf_gap_exact: f64,
    /// Largest difference of a score of the embedded judge, GPU from CPU, in float32 and in bf16.
    cpu_gap_f32: f64,
    cpu_gap_bf16: f64,
}

/// What the program in Python is given.
#[derive(Serialize)]
struct LoopInput {
    judge: PathBuf,
    beginning: String,
    statements: Vec<String>,
    reasoning: String,
    tokens: usize,
    picture: PathBuf,
    exact: usize,
}

/// What it answers.
#[derive(Deserialize)]
struct LoopOutput {
    device: String,
    tflops: f64,
    tbytes: f64,
    query_ms: Vec<f64>,
    token_ms: f64,
    scores: Vec<f64>,
    exact: Vec<f64>,
    versions: BTreeMap<String, Value>,
}

/// Milliseconds of the engine.
#[derive(Debug)]
struct Ours {
    preprocessing: f64,
    vision: f64,
    prefill: f64,
    statement: f64,
    query: f64,
    token_alone: f64,
    /// One token of an answer, its share of a batch.
    token_batched: f64,
    /// One reasoning, its share of a batch.
    cascade: f64,
    b: f64,
    scanned_b: f64,
    scores: Vec<f64>,
}

/// Runs the benchmark.
///
/// # Errors
/// Without a GPU, or if any part of it cannot be run.
pub(crate) fn run(arguments: &GpuArgs) -> anyhow::Result<()> {
    let device = gpu(arguments.device)?;
    let mut page = Page::begin("A judge of 7 thousand million parameters on one GPU")?;
    doing("the embedded judge on CPU and GPU");
    let (cpu_gap_f32, cpu_gap_bf16) = agreement(&arguments.common.suite, &device)?;
    page.text(&format!(
        "Largest difference of a score of the embedded judge from the CPU's: {cpu_gap_f32:.1e} in f32, \
         {cpu_gap_bf16:.1e} in bf16."
    ))?;
    doing("the checkpoint");
    checkpoint(arguments)?;
    doing("the engine");
    let judge = Judge::open(&arguments.checkpoint, &device, DType::BF16, STATEMENTS)?;
    let ours = measure(&judge, arguments)?;
    let lengths = judge.lengths(ANSWER)?;
    let config = judge.config.clone();
    let input = LoopInput {
        judge: arguments.checkpoint.clone(),
        beginning: judge.templates.statement_prefix(None).text.to_string(),
        statements: judge.statements.iter().map(|s| judge.templates.statement_suffix(s)).collect(),
        reasoning: judge.reasoning(&[judge.same()], 1)[0].prompt.prefix.text.to_string()
            + &judge.templates.reasoning_suffix(&judge.statements[0]),
        tokens: 64,
        picture: arguments.checkpoint.join("picture.png"),
        exact: EXACT,
    };
    judge::picture().save(&input.picture)?;
    drop(judge);
    // Said at once: the other program may fail.
    doing(&format!("{ours:?}"));
    doing("transformers");
    let program = arguments.reference.join("gpu_loop.py");
    let theirs: LoopOutput =
        reference::run(&arguments.reference_python, &program, None, &input, &arguments.checkpoint)?;
    let ceilings = Ceilings { operations: theirs.tflops * 1e12, bytes: theirs.tbytes * 1e12 };
    let floor = Floor::new(&config, lengths, arguments.pictures, ceilings);
    page.text(&format!(
        "{}: {:.0} TFLOP/s of a bf16 product of 8192 x 8192, {:.2} TB/s of a copy. A picture of {} patches; {} tokens \
         before the statements, {:.1} for each. {}.",
        theirs.device,
        theirs.tflops,
        theirs.tbytes,
        lengths.patches,
        lengths.prefix,
        lengths.statement,
        reference::versions(&theirs.versions)
    ))?;
    let figures = report(&mut page, &ours, &theirs, &floor, (cpu_gap_f32, cpu_gap_bf16))?;
    page.write(&arguments.common.out, "gpu")?;
    say(&serde_json::to_string(&figures)?)
}

#[cfg(feature = "cuda")]
fn gpu(number: usize) -> anyhow::Result<Device> {
    cluegate::models::cuda::device(number).with_context(|| format!("opening GPU {number}"))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> anyhow::Result<Device> {
    anyhow::bail!("this program was built without the feature `cuda`: see docs/gpu.md")
}

/// Largest difference of a score of the embedded judge, GPU from CPU: in f32, and in bf16.
fn agreement(suite: &Path, device: &Device) -> anyhow::Result<(f64, f64)> {
    let folder = model_folder(suite, "judge")?;
    let scores = |device: &Device, dtype: DType| {
        let judge = Judge::open(&folder, device, dtype, 24)?;
        judge.score(&judge.questions(&judge.same(), 24))
    };
    let exact = scores(&Device::Cpu, DType::F32)?;
    Ok((gap(&exact, &scores(device, DType::F32)?)?, gap(&exact, &scores(device, DType::BF16)?)?))
}

/// The largest difference; one that is no number is as large as can be.
fn gap(a: &[f64], b: &[f64]) -> anyhow::Result<f64> {
    ensure!(a.len() == b.len(), "expected {} scores, got {}", a.len(), b.len());
    Ok(a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .map(|d| if d.is_nan() { 1.0 } else { d })
        .fold(0.0, f64::max))
}

/// Makes the checkpoint with random weights, unless it is there.
fn checkpoint(arguments: &GpuArgs) -> anyhow::Result<()> {
    if arguments.checkpoint.join("generation_config.json").exists() {
        return Ok(());
    }
    let mut command = Command::new(&arguments.reference_python);
    command.arg(arguments.reference.join("gpu_checkpoint.py"));
    command.arg(model_folder(&arguments.common.suite, "judge")?).arg(&arguments.checkpoint);
    let status = command.status().context("starting Python")?;
    ensure!(status.success(), "gpu_checkpoint.py ended with {status}");
    Ok(())
}

fn measure(judge: &Judge, arguments: &GpuArgs) -> anyhow::Result<Ours> {
    let repeat = arguments.repeat;
    let fresh = || Ok(judge.fresh());
    let ask = |prompts: &[Prompt]| judge.score(prompts).map(drop);
    let about = |picture: &Picture, count: usize| judge.questions(picture, count);
    // Whatever is compiled or allocated once.
    judge.timed(2, fresh, |picture| ask(&about(&picture, STATEMENTS)))?;
    let preprocessing = judge.timed(repeat, fresh, |picture| {
        judge.processor.patches(picture.pixels())?;
        Ok(())
    })?;
    let vision = judge.timed(repeat, fresh, |picture| {
        judge.model.image_features(&picture)?;
        Ok(())
    })?;
    let query = judge.timed(repeat, fresh, |picture| ask(&about(&picture, 1)))?;
    let seen = || {
        let picture = judge.fresh();
        ask(&about(&picture, 1))?;
        Ok(picture)
    };
    let again = judge.timed(repeat, seen, |picture| ask(&about(&picture, 1)))?;
    let many = judge.timed(repeat, seen, |picture| ask(&about(&picture, STATEMENTS)))?;
    let whole = |statements: usize, removed: usize| {
        let pictures = move || Ok((0..=removed).map(|_| judge.fresh()).collect::<Vec<_>>());
        judge.timed(repeat, pictures, |pictures| {
            ask(&about(&pictures[0], statements))?;
            let rest: Vec<Prompt> = pictures[1..].iter().flat_map(|picture| about(picture, 1)).collect();
            ask(&rest)
        })
    };
    let (b, scanned_b) = (whole(STATEMENTS, REMOVED)?, whole(SCANNED, SCANNED_REMOVED)?);
    let alone = |tokens: usize| {
        judge.timed(3, seen, |picture| judge.complete(&judge.reasoning(&[picture], tokens)).map(drop))
    };
    let (few, more) = (alone(4)?, alone(36)?);
    let all_seen = || (0..arguments.pictures).map(|_| seen()).collect::<anyhow::Result<Vec<_>>>();
    let begun =
        judge.timed(1, all_seen, |pictures| judge.complete(&judge.reasoning(&pictures, 10)).map(drop))?;
    let all_read =
        judge.timed(1, all_seen, |pictures| judge.complete(&judge.reasoning(&pictures, 74)).map(drop))?;
    let cascades = judge.timed(2, all_seen, |pictures| {
        let requests = judge.reasoning(&pictures, ANSWER);
        let answers = judge.complete(&requests)?;
        let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        ensure!(tokens == ANSWER * pictures.len(), "answers of {tokens} tokens, expected {ANSWER} each");
        ask(&judge.ratings(&requests, &answers))
    })?;
    let vision_ms = vision.median() - preprocessing.median();
    Ok(Ours {
        preprocessing: preprocessing.median(),
        vision: vision_ms,
        prefill: query.median() - vision.median() - again.median(),
        statement: many.median() / STATEMENTS as f64,
        query: query.median(),
        token_alone: (more.median() - few.median()) / 32.0,
        token_batched: (all_read.median() - begun.median()) / 64.0 / arguments.pictures as f64,
        cascade: cascades.median() / arguments.pictures as f64,
        b: b.median(),
        scanned_b: scanned_b.median(),
        scores: judge.score(&judge.questions(&judge.same(), STATEMENTS))?,
    })
}

fn report(
    page: &mut Page,
    ours: &Ours,
    theirs: &LoopOutput,
    floor: &Floor,
    (cpu_gap_f32, cpu_gap_bf16): (f64, f64),
) -> anyhow::Result<Figures> {
    let answer = ANSWER as f64;
    let queries = (STATEMENTS + REMOVED) as f64;
    let hf_query = theirs.query_ms.iter().sum::<f64>() / theirs.query_ms.len() as f64;
    // Each reasoning reads its two questions anew.
    let hf_b = queries * hf_query;
    let hf_c = hf_b + CASCADES * (2.0 * hf_query + answer * theirs.token_ms);
    let ours_a = queries * ours.query + CASCADES * (2.0 * ours.query + answer * ours.token_alone);
    let pictures = |statements: usize, removed: usize| {
        (1 + removed) as f64 * (floor.vision + floor.prefill)
            + (statements + removed) as f64 * floor.statement
    };
    let (floor_b, floor_scanned) = (pictures(STATEMENTS, REMOVED), pictures(SCANNED, SCANNED_REMOVED));
    let floor_query = floor.vision + floor.prefill + floor.statement;
    let floor_a = queries * floor_query + CASCADES * (2.0 * floor_query + answer * floor.token_alone);
    // Both questions of a reasoning are read behind the picture.
    let floor_reasoning = CASCADES * (2.0 * floor.statement + answer * floor.token_batched);
    let reasoning = CASCADES * ours.cascade;
    let mut table =
        Table::new(&["a picture, 1024 x 1024", "ms", "floor", "ratio", "transformers", "over ours"]);
    let mut row = |name: &str, value: f64, least: f64, other: f64| {
        table.row(name, [ms(value), ms(least), times(value / least), ms(other), times(other / value)]);
    };
    let none = f64::NAN;
    row("preprocessing, on the CPU", ours.preprocessing, none, none);
    row("vision tower", ours.vision, floor.vision, none);
    row("prefix prefill", ours.prefill, floor.prefill, none);
    row("statement, one of 36", ours.statement, floor.statement, none);
    row("one query alone", ours.query, floor_query, hf_query);
    row("one token alone", ours.token_alone, floor.token_alone, theirs.token_ms);
    row("one token, its share of 64 pictures' answers", ours.token_batched, floor.token_batched, none);
    row("one reasoning, its share of 64", ours.cascade, floor_reasoning / CASCADES, none);
    row("(a) one query at a time, with reasoning", ours_a, floor_a, hf_c);
    row("(b) prefix shared, no reasoning", ours.b, floor_b, hf_b);
    row("(c) b and reasoning, 64 pictures at a time", ours.b + reasoning, floor_b + floor_reasoning, hf_c);
    row("(b) after the relevance scan", ours.scanned_b, floor_scanned, none);
    row("(c) after the relevance scan", ours.scanned_b + reasoning, floor_scanned + floor_reasoning, none);
    page.table(table)?;
    let bf16_gap = gap(&ours.scores, &theirs.scores)?;
    let bf16_gap_exact = gap(&ours.scores[..EXACT], &theirs.exact)?;
    let hf_gap_exact = gap(&theirs.scores[..EXACT], &theirs.exact)?;
    page.text(&format!(
        "Largest difference of a score: {bf16_gap:.1e} between ours and transformers, both in bf16; from float32 \
         {bf16_gap_exact:.1e} ours, {hf_gap_exact:.1e} transformers."
    ))?;
    Ok(Figures {
        device: theirs.device.clone(),
        b_ms: ours.b,
        c_ms: ours.b + reasoning,
        scanned_b_ms: ours.scanned_b,
        scanned_c_ms: ours.scanned_b + reasoning,
        ratio_b: ours.b / floor_b,
        ratio_c: (ours.b + reasoning) / (floor_b + floor_reasoning),
        ratio_scanned_b: ours.scanned_b / floor_scanned,
        ratio_scanned_c: (ours.scanned_b + reasoning) / (floor_scanned + floor_reasoning),
        hf_loop_ms: hf_b,
        hf_ratio_b: hf_b / ours.b,
        hf_ratio_c: hf_c / (ours.b + reasoning),
        bf16_gap,
        bf16_gap_exact,
        hf_gap_exact,
        cpu_gap_f32,
        cpu_gap_bf16,
    })
}
