//! The judge in a vLLM on this machine against the same judge in this process: the same verdicts, and what the way over
//! HTTP costs beside a bare client in Python.

mod same;
mod vllm;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use cluegate::constitution::Constitution;
use cluegate::models::MODELS_FILE;
use cluegate::perception::{Call, Picture, Prefix, Prompt, VisionLanguageModel as _};
use cluegate::remote::{RemoteJudge, RemoteOptions};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::same::{differences, is_same, largest_gap};
use self::vllm::{MODEL, Role, Vllm};
use crate::Common;
use crate::engine::{model_folder, scene_statements};
use crate::ours::{Ours, Questions};
use crate::page::{Page, doing, say};
use crate::pictures::{self, Scenes, variant};
use crate::reference;
use crate::stats::Times;
use crate::streams::{Request, millis, serve};
use crate::table::{Table, ms, times};

/// Callers at once.
const STREAMS: usize = 16;
/// Pictures of each timed round, and rounds, the other client between them.
const TIMED: usize = 10;
const ROUNDS: usize = 3;
/// Rounds of 16 pictures at once, vLLM's own benchmark between them.
const FULL_ROUNDS: usize = 5;
/// Pictures that are judged while an engine is killed.
const KILLED: usize = 48;

/// `vllm bench serve`, whose own command looks for a distribution named vllm, which that for the CPU is not.
const OWN_BENCHMARK: &str = "\
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
";

/// Options of `remote`.
#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    #[command(flatten)]
    common: Common,
    /// Python with vLLM for the CPU.
    #[arg(long, value_name = "PYTHON")]
    vllm_python: PathBuf,
    /// Folder of the programs in Python.
    #[arg(long, value_name = "DIR", default_value = "benches/reference")]
    reference: PathBuf,
    /// Pictures of Mini OS Bench that both judge.
    #[arg(long, value_name = "N", default_value_t = 1200)]
    pictures: usize,
    /// Judges the pictures here and there and measures nothing else: a test.
    #[arg(long)]
    only_verdicts: bool,
}

/// The last line of the output.
#[derive(Debug, Serialize)]
struct Figures {
    /// Verdict and violated rules agree on every picture.
    same_verdicts: bool,
    /// Of all scores that both have.
    max_score_difference: f64,
    /// Time of a picture's statements over that of a bare client in Python.
    ratio_to_bare_client: Option<f64>,
    /// Requests a second of 16 pictures at once over those of the engine's own benchmark.
    saturation: Option<f64>,
}

/// How far scores here and there may be apart.
const APART: f64 = 1e-3;

/// What the parts share.
struct Setting<'a> {
    arguments: &'a RemoteArgs,
    scenes: Scenes,
    folder: &'a Path,
    statements: Vec<String>,
    questions: Questions,
}

/// Runs the benchmark.
///
/// # Errors
/// If anything of it cannot be run, a picture is left without a verdict when an engine is killed, or the judge there says
/// anything else than the one here.
pub(crate) fn run(arguments: &RemoteArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let judge = model_folder(&arguments.common.suite, "judge")?;
    let vllm = Vllm::start(&arguments.vllm_python, (Role::Judge, &judge), folder.path())?;
    let setting = Setting {
        arguments,
        scenes: Scenes::load()?,
        folder: folder.path(),
        statements: scene_statements()?,
        questions: Questions::open(&arguments.common.suite)?,
    };
    let mut page = Page::begin("A judge in vLLM on this machine")?;
    let vllm = vllm.ready()?;
    let measures = !arguments.only_verdicts;
    let ratio = measures.then(|| clients(&setting, &vllm, &mut page)).transpose()?;
    let saturation = measures.then(|| saturate(&setting, &vllm, &mut page)).transpose()?;
    let (same_verdicts, max_score_difference) = verdicts(&setting, &vllm, &mut page)?;
    if measures {
        kill(&setting, vllm, &mut page)?;
    }
    page.write(&arguments.common.out, "remote")?;
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    let figures = Figures {
        same_verdicts,
        max_score_difference,
        ratio_to_bare_client: ratio.map(rounded),
        saturation: saturation.map(rounded),
    };
    say(&serde_json::to_string(&figures)?)?;
    ensure!(same_verdicts, "the judge in vLLM gives other verdicts than the one here");
    ensure!(
        max_score_difference <= APART,
        "scores in vLLM and here are apart by {max_score_difference}, more than {APART}"
    );
    Ok(())
}

/// The suite's models file, but with a judge at these addresses, and a relevance encoder at that one.
fn models_file(setting: &Setting<'_>, judges: &[&str], relevance: Option<&str>) -> anyhow::Result<PathBuf> {
    let suite = &setting.arguments.common.suite;
    let file = if suite.is_file() { suite.clone() } else { suite.join(MODELS_FILE) };
    let folder = file.parent().context("a models file without a folder")?.canonicalize()?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut models: toml::Table = toml::from_str(&text)?;
    for (_, section) in &mut models {
        if let Some(toml::Value::String(place)) = section.get_mut("folder") {
            *place = folder.join(&place).display().to_string();
        }
    }
    models.insert("judge".to_owned(), toml::Value::try_from(json!({"urls": judges, "model": MODEL}))?);
    if let Some(url) = relevance {
        let threshold = models.get("relevance").and_then(|section| section.get("threshold"));
        let threshold = threshold.context("a suite without a threshold of relevance")?;
        let section = json!({"urls": [url], "model": MODEL, "threshold": threshold});
        models.insert("relevance".to_owned(), toml::Value::try_from(section)?);
    }
    let path = setting.folder.join(format!("models-{}.toml", judges.len()));
    std::fs::write(&path, toml::to_string(&models)?)?;
    Ok(path)
}

/// The statements of a picture by ours and by a bare client, which take turns.
fn clients(setting: &Setting<'_>, vllm: &Vllm, page: &mut Page) -> anyhow::Result<f64> {
    #[derive(Serialize)]
    struct Input<'a> {
        url: &'a str,
        model: &'a str,
        beginning: String,
        statements: Vec<String>,
        pictures: Vec<PathBuf>,
        yes: Vec<u32>,
        no: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Output {
        ms: Vec<f64>,
        scores: Vec<Vec<f64>>,
    }
    doing("ours and a bare client in turns");
    let judge = RemoteJudge::open(&RemoteOptions::new([&vllm.url], MODEL))?;
    let (yes, no) = judge.answers().context("vLLM takes no token ids")?;
    let pictures = setting.scenes.osbench(TIMED)?;
    let (mut ours, mut theirs, mut gap) = (Vec::new(), Vec::new(), 0f64);
    for round in 0..=ROUNDS {
        // A picture of its own for everyone: nothing is remembered of it.
        let fresh = |way: usize| -> Vec<RgbImage> {
            pictures.iter().map(|picture| variant(picture, 1 + 2 * round + way)).collect()
        };
        let mut times = Vec::new();
        for picture in fresh(0) {
            let prompts = prompts(setting, Picture::new(picture));
            let begin = Instant::now();
            judge.score(&prompts, &Call::default())?;
            times.push(millis(begin.elapsed()));
        }
        let files = pictures::pngs(&fresh(1))?;
        let folder = setting.folder.join(format!("round-{round}"));
        let input = Input {
            url: &vllm.url,
            model: MODEL,
            beginning: setting.questions.beginning(),
            statements: setting.statements.iter().map(|text| setting.questions.ending(text)).collect(),
            pictures: pictures::write(&folder, &files)?,
            yes: yes.to_vec(),
            no: no.to_vec(),
        };
        let program = setting.arguments.reference.join("remote_client.py");
        let output: Output = reference::run(&setting.arguments.vllm_python, &program, None, &input, &folder)?;
        for (picture, theirs) in fresh(1).into_iter().zip(&output.scores) {
            let ours = judge.score(&prompts(setting, Picture::new(picture)), &Call::default())?;
            gap = ours
                .iter()
                .zip(theirs)
                .fold(gap, |gap, (ours, theirs)| gap.max((ours.ratio() - theirs).abs()));
        }
        // The first round warms everything up.
        if round > 0 {
            ours.extend(times);
            theirs.extend(output.ms);
        }
    }
    let (ours, theirs) = (Times::new(ours), Times::new(theirs));
    page.heading("The statements of one picture over HTTP")?;
    let mut table = Table::new(&["", "median ms", "p90 ms", "times"]);
    for (name, measured) in [("cluegate", &ours), ("a bare asynchronous client (aiohttp)", &theirs)] {
        table.row(
            name,
            [ms(measured.median()), ms(measured.percentile(0.9)), times(measured.median() / theirs.median())],
        );
    }
    page.table(table)?;
    page.text(&format!(
        "{} statements, {} pictures each, in turns; largest difference of a score {gap:.1e}.",
        setting.statements.len(),
        ours.len()
    ))?;
    Ok(ours.median() / theirs.median())
}

/// The questions about a picture.
fn prompts(setting: &Setting<'_>, picture: Picture) -> Vec<Prompt> {
    let prefix = Prefix { picture: Some(picture), text: setting.questions.beginning().into() };
    let ending = |text: &String| Prompt::new(prefix.clone(), setting.questions.ending(text));
    setting.statements.iter().map(ending).collect()
}

/// Requests a second of pictures at once by ours, over those of vLLM's own benchmark on the same prompts.
fn saturate(setting: &Setting<'_>, vllm: &Vllm, page: &mut Page) -> anyhow::Result<f64> {
    doing("16 pictures at once, and vLLM's own benchmark");
    let judge = RemoteJudge::open(&RemoteOptions::new([&vllm.url], MODEL))?;
    let (yes, no) = judge.answers().context("vLLM takes no token ids")?;
    let ids = [yes, no].concat();
    let pictures = setting.scenes.osbench(STREAMS)?;
    let fresh = |run: usize| -> Vec<RgbImage> {
        pictures.iter().map(|picture| variant(picture, 100 + run)).collect()
    };
    let count = (STREAMS * setting.statements.len()) as f64;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..FULL_ROUNDS {
        let asked: Vec<Vec<Prompt>> =
            fresh(2 * round).into_iter().map(|picture| prompts(setting, Picture::new(picture))).collect();
        let begin = Instant::now();
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let threads: Vec<_> =
                asked.iter().map(|prompts| scope.spawn(|| judge.score(prompts, &Call::default()))).collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
            }
            Ok(())
        })?;
        ours.push(count / begin.elapsed().as_secs_f64());
        theirs.push(own_benchmark(setting, vllm, &fresh(2 * round + 1), &ids, round)?);
    }
    let (ours, theirs) = (Times::new(ours), Times::new(theirs));
    page.heading("16 pictures at once")?;
    let mut table = Table::new(&["requests a second", "median", "least", "most"]);
    for (name, measured) in
        [("cluegate, 16 callers", &ours), ("vllm bench serve, all requests at once", &theirs)]
    {
        let spread = [measured.median(), measured.percentile(0.0), measured.percentile(1.0)];
        table.row(name, spread.map(|rate| format!("{rate:.1}")));
    }
    page.table(table)?;
    page.text(&format!(
        "{count} requests each time, {} times, in turns. vLLM's benchmark states its own rate.",
        ours.len()
    ))?;
    Ok(ours.median() / theirs.median())
}

/// Requests a second of `vllm bench serve` over the statements about these pictures.
fn own_benchmark(
    setting: &Setting<'_>,
    vllm: &Vllm,
    pictures: &[RgbImage],
    ids: &[u32],
    round: usize,
) -> anyhow::Result<f64> {
    let folder = setting.folder.join(format!("bench-{round}"));
    std::fs::create_dir(&folder)?;
    let count = pictures.len() * setting.statements.len();
    let mut rows = String::new();
    for png in pictures::pngs(pictures)? {
        // Not by its path: the engine would be asked to read files of its machine, which it refuses.
        let url = format!("data:image/png;base64,{}", STANDARD.encode(png));
        for statement in &setting.statements {
            let text = format!("{}{}", setting.questions.beginning(), setting.questions.ending(statement));
            let content = json!([{"type": "image", "image": url}, {"type": "text", "text": text}]);
            rows += &format!("{}\n", json!({"content": content}));
        }
    }
    let data = folder.join("requests.jsonl");
    std::fs::write(&data, rows)?;
    let log = std::fs::File::create(folder.join("log"))?;
    let judge = model_folder(&setting.arguments.common.suite, "judge")?;
    let asked = json!({"logprobs": true, "logprob_token_ids": ids, "return_tokens_as_token_ids": true});
    let status = std::process::Command::new(&setting.arguments.vllm_python)
        .args(["-c", OWN_BENCHMARK])
        .args([
            "--backend",
            "openai-chat",
            "--endpoint",
            "/v1/chat/completions",
            "--dataset-name",
            "custom_image",
        ])
        .args(["--base-url", &vllm.url, "--model", MODEL, "--disable-shuffle", "--disable-tqdm"])
        .args([
            "--output-len",
            "1",
            "--temperature",
            "0",
            "--save-result",
            "--result-filename",
            "result.json",
        ])
        .args(["--num-prompts", &count.to_string()])
        .args(["--extra-body", &asked.to_string()])
        .arg("--tokenizer")
        .arg(&judge)
        .arg("--dataset-path")
        .arg(&data)
        .arg("--result-dir")
        .arg(&folder)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("RAYON_NUM_THREADS")
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    let words = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    ensure!(status.success(), "vllm bench serve ended with {status}:\n{}", words());
    #[derive(Deserialize)]
    struct Result {
        completed: usize,
        request_throughput: f64,
    }
    let result: Result = serde_json::from_slice(&std::fs::read(folder.join("result.json"))?)?;
    ensure!(result.completed == count, "vllm bench serve completed {}:\n{}", result.completed, words());
    Ok(result.request_throughput)
}

/// Mini OS Bench by the local judge and by the remote one: whether they say the same, and how far scores are apart.
fn verdicts(setting: &Setting<'_>, vllm: &Vllm, page: &mut Page) -> anyhow::Result<(bool, f64)> {
    let encoder = model_folder(&setting.arguments.common.suite, "relevance")?;
    let python = &setting.arguments.vllm_python;
    let relevance = Vllm::start(python, (Role::Relevance, &encoder), setting.folder)?.ready()?;
    doing("Mini OS Bench here and there");
    let scene = Constitution::shipped("scene")?;
    let models = models_file(setting, &[&vllm.url], Some(&relevance.url))?;
    let (here, there) =
        (Ours::open_for(&setting.arguments.common.suite, STREAMS)?, Ours::open_for(&models, STREAMS)?);
    let (here, there) = (here.prepare(&scene)?, there.prepare(&scene)?);
    let pictures: Vec<Picture> =
        setting.scenes.osbench(setting.arguments.pictures)?.into_iter().map(Picture::new).collect();
    let requests = |prepared| -> Vec<Request> {
        pictures.iter().map(|picture| Request::new(picture.clone(), prepared, 0)).collect()
    };
    let (local, remote) = (serve(&requests(&here), STREAMS)?, serve(&requests(&there), STREAMS)?);
    let (mut same, mut gap) = (0, 0f64);
    for (index, (local, remote)) in local.reports()?.into_iter().zip(remote.reports()?).enumerate() {
        gap = gap.max(largest_gap(local, remote));
        if is_same(local, remote) {
            same += 1;
        } else {
            doing(&format!("picture {index} is judged otherwise: {}", differences(local, remote)));
        }
    }
    page.heading("Mini OS Bench, the judge here and there")?;
    let mut table = Table::new(&["", "here", "in vLLM"]);
    table.row("ms a picture, 16 callers", [ms(local.ms_per_picture()), ms(remote.ms_per_picture())]);
    page.table(table)?;
    page.text(&format!(
        "Verdict and violated rules are the same on {same} of {} pictures; largest difference of a score {gap:.1e}.",
        pictures.len()
    ))?;
    Ok((same == pictures.len(), gap))
}

/// Two engines, one of which is killed under load: every picture has its verdict.
fn kill(setting: &Setting<'_>, mut first: Vllm, page: &mut Page) -> anyhow::Result<()> {
    doing("two engines, one of which is killed");
    let judge = model_folder(&setting.arguments.common.suite, "judge")?;
    let python = &setting.arguments.vllm_python;
    let second = Vllm::start(python, (Role::Judge, &judge), setting.folder)?.ready()?;
    let models = models_file(setting, &[&first.url, &second.url], None)?;
    let scene = Constitution::shipped("scene")?;
    let (here, there) = (Ours::open(&setting.arguments.common.suite)?, Ours::open_for(&models, STREAMS)?);
    let (here, there) = (here.prepare(&scene)?, there.prepare(&scene)?);
    let pictures: Vec<Picture> =
        setting.scenes.osbench(KILLED)?.iter().map(|picture| Picture::new(variant(picture, 400))).collect();
    let requests: Vec<Request> =
        pictures.iter().map(|picture| Request::new(picture.clone(), &there, 0)).collect();
    let begin = Instant::now();
    let run = std::thread::scope(|scope| -> anyhow::Result<_> {
        let judging = scope.spawn(|| serve(&requests, STREAMS));
        // About a fifth of the work later.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        ensure!(!judging.is_finished(), "all was judged before the engine was killed: take more pictures");
        first.kill()?;
        judging.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?
    })?;
    let reports = run.reports()?;
    ensure!(reports.len() == pictures.len(), "{} pictures, {} verdicts", pictures.len(), reports.len());
    let mut same = 0;
    for (picture, remote) in pictures.iter().zip(reports) {
        let local = here.inspect(picture, &Call::default()).context("the local judge")?;
        same += usize::from(is_same(&local, remote));
    }
    page.heading("Two engines, one of which is killed after 1.5 s")?;
    page.text(&format!(
        "{KILLED} pictures, 16 callers, {:.1} s: {KILLED} verdicts, {same} of them those of the local judge.",
        begin.elapsed().as_secs_f64()
    ))?;
    ensure!(same == KILLED, "{} verdicts differ from the local judge's", KILLED - same);
    Ok(())
}
