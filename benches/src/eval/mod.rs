//! How well the embedded suite judges: CLUE beside every baseline and without each of its parts, on Mini OS Bench, on
//! paired edits, and under other rules. Runs the program itself, as anybody would; an ended run goes on where it was.

mod household;
mod report;
mod student;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use cluegate::eval::ablation::Ablation;
use cluegate::mini::Style;
use cluegate::mini::osbench::PER_RULE;
use serde::Serialize;

use self::report::{Report, rate};
use crate::Common;
use crate::page::{Page, doing, say};
use crate::table::Table;

/// The paper's zero-shot baselines (CLUE s 4.2).
const ZERO_SHOT: [&str; 4] = ["prior-direct", "prior-thought", "whole-direct", "whole-thought"];

/// What else is asked about the same pictures.
const OTHERS: [&str; 6] = ["guard", "policy-word", "clip-pair", "clip-rules", "always-safe", "always-unsafe"];

/// The whole method.
const CLUE: &str = "clue";

/// Scenes a rule with `--quick`.
const QUICK: usize = 3;

/// Scenes from whose verdicts a student is distilled: about as few as show a recall of 99 % with 95 % confidence.
const STUDENT: usize = 4000;

/// The words of the scene rules before they were made objective.
const ORIGINALS: &str = include_str!("scene-originals.toml");

/// Options of `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    common: Common,
    /// Violating, and as many borderline or edited, scenes for each rule.
    #[arg(long, value_name = "N", default_value_t = PER_RULE)]
    per_rule: usize,
    /// How scenes are drawn.
    #[arg(long, value_enum, default_value_t)]
    style: DrawnAs,
    /// Scenes from whose verdicts a student is distilled, 0 for none; 16,000 are those of docs/student.md. None with --quick.
    #[arg(long, value_name = "N", default_value_t = STUDENT)]
    student: usize,
    /// A few scenes a rule, for a first look; the figures are no measurement.
    #[arg(long)]
    quick: bool,
    /// The program that judges; default: the one beside this.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Renderers of the scene world.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum DrawnAs {
    /// As the world is defined.
    #[default]
    World,
    /// Other backgrounds and colours, JPEG compression.
    Foreign,
}

impl DrawnAs {
    fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Foreign => "foreign",
        }
    }
}

/// The last line of the output.
#[derive(Debug, Serialize)]
struct Figures {
    clue_f1: f64,
    clue_recall: f64,
    clue_accuracy: f64,
    baseline_f1: BTreeMap<String, f64>,
    scan_recall: f64,
    scan_filtered: f64,
    pair_accuracy: BTreeMap<String, f64>,
}

/// What the parts share.
struct Setting {
    program: PathBuf,
    suite: PathBuf,
    /// Where answers are kept: a folder for each part.
    folder: PathBuf,
    per_rule: usize,
    style: DrawnAs,
}

impl Setting {
    fn of(arguments: &EvalArgs) -> anyhow::Result<Self> {
        let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("cluegate"));
        let program = arguments.program.clone().map_or_else(beside, Ok)?;
        ensure!(
            program.exists(),
            "expected the program at {}, found none; build it (cargo build --release), or name it with --program",
            program.display()
        );
        let per_rule = if arguments.quick { QUICK } else { arguments.per_rule };
        let name = format!("eval-{}-{per_rule}", arguments.style.name());
        let folder = arguments.common.out.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { program, suite: arguments.common.suite.clone(), folder, per_rule, style: arguments.style })
    }

    /// Runs `cluegate eval run` on a set and reads its report. What was answered before is not asked again.
    fn judge(&self, part: &str, data: &str, options: &[String]) -> anyhow::Result<Report> {
        let out = self.folder.join(part);
        let mut command = Command::new(&self.program);
        command.args(["eval", "run", "--data", data, "--style", self.style.name()]);
        command.args(["--per-rule", &self.per_rule.to_string(), "--format", "json"]);
        command.arg("--models").arg(&self.suite).arg("--out").arg(&out).args(options);
        let status = command.stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("starting {}", self.program.display()))?;
        if !status.success() {
            bail!(
                "{} eval run --data {data} ended with {status}; its message stands above",
                self.program.display()
            );
        }
        Report::read(&out.join("report.json"))
    }
}

/// Runs the benchmark.
///
/// # Errors
/// If any part of it cannot be run.
pub(crate) fn run(arguments: &EvalArgs) -> anyhow::Result<()> {
    let setting = Setting::of(arguments)?;
    let mut page = Page::begin("How well the embedded suite judges")?;
    let osbench = methods(&setting, &mut page)?;
    ablations(&osbench, &mut page)?;
    scan(&osbench, &mut page)?;
    let pairs = pairs(&setting, &mut page)?;
    other_rules(&setting, &mut page)?;
    if arguments.student > 0 && !arguments.quick {
        student::page(&setting, arguments.student, &mut page)?;
    }
    page.write(&arguments.common.out, "eval")?;
    let clue = osbench.method(CLUE)?;
    let baseline = |name: &str| Ok((name.to_owned(), osbench.method(name)?.figure("f1")?));
    let figures = Figures {
        clue_f1: clue.figure("f1")?,
        clue_recall: clue.figure("recall")?,
        clue_accuracy: clue.figure("accuracy")?,
        baseline_f1: ZERO_SHOT.into_iter().map(baseline).collect::<anyhow::Result<_>>()?,
        scan_recall: clue.number("/scan/recall")?,
        scan_filtered: clue.number("/scan/filtered")?,
        pair_accuracy: pairs.method(CLUE)?.numbers("/pairs/by_policy")?,
    };
    say(&serde_json::to_string(&figures)?)
}

fn options(flag: &str, values: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    values.into_iter().flat_map(|value| [flag.to_owned(), value.to_owned()]).collect()
}

/// All methods, and CLUE without each of its parts, on Mini OS Bench.
fn methods(setting: &Setting, page: &mut Page) -> anyhow::Result<Report> {
    doing("Mini OS Bench: methods and ablations");
    let originals = setting.folder.join("scene-originals.toml");
    std::fs::write(&originals, ORIGINALS).with_context(|| format!("writing {}", originals.display()))?;
    let named = [&[CLUE], &ZERO_SHOT[..], &OTHERS[..]].concat();
    let mut arguments = options("--method", named.iter().copied());
    arguments.extend(options("--ablation", Ablation::ALL.map(Ablation::as_str)));
    arguments.extend(["--originals".to_owned(), path(&originals)?]);
    let report = setting.judge("osbench", "osbench", &arguments)?;
    page.heading("Methods on Mini OS Bench")?;
    let rows = report.rows();
    page.text(&format!(
        "{rows} pictures, half of them unsafe, drawn as {}; the same judge for all that ask one. The interval is that of \
         F1 (95 %, bootstrap over pictures). Answers that cannot be read count as wrong.",
        setting.style.name()
    ))?;
    page.table(compared(&report, &named)?)?;
    Ok(report)
}

fn compared(report: &Report, names: &[&str]) -> anyhow::Result<Table> {
    let head = [
        "method",
        "precision",
        "recall",
        "accuracy",
        "F1",
        "interval",
        "CLUE is over it by",
        "rule F1",
        "unreadable",
    ];
    let mut table = Table::new(&head);
    let clue = report.method(CLUE)?.figure("f1")?;
    for name in names {
        let method = report.method(name)?;
        let f1 = method.figure("f1")?;
        let over = if *name == CLUE { "-".to_owned() } else { format!("{:+.3}", clue - f1) };
        let figures = ["precision", "recall", "accuracy"].map(|figure| rate(method.figure(figure).ok()));
        let unreadable = format!("{:.0}", method.number("/unparseable")?);
        let rules = rate(method.number("/rule_level/f1").ok());
        table.row(
            *name,
            figures.into_iter().chain([rate(Some(f1)), method.interval("f1"), over, rules, unreadable]),
        );
    }
    Ok(table)
}

/// What each part is worth, beside what the paper reports of it.
fn ablations(report: &Report, page: &mut Page) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "without",
        "figure",
        "paper",
        "whole",
        "without it",
        "difference",
        "interval",
        "rule F1",
        "passes",
        "cascades",
        "the paper's way?",
    ]);
    let whole = report.method(CLUE)?;
    let costs = |method: &report::Method<'_>| {
        ["/passes", "/cascades"]
            .map(|at| method.number(at).map_or_else(|_| "-".to_owned(), |n| format!("{n:.2}")))
    };
    let [passes, cascades] = costs(&whole);
    let rules = rate(whole.number("/rule_level/f1").ok());
    let blank = || "-".to_owned();
    let first =
        ["".into(), "".into(), "".into(), "".into(), "".into(), "".into(), rules, passes, cascades, blank()];
    table.row("nothing", first);
    for ablation in Ablation::ALL {
        let name = ablation.as_str();
        let without = report.method(name)?;
        let reported = ablation.reported();
        let figure = reported.map_or("f1", |reported| reported.figure);
        let (with, left) = (whole.figure(figure)?, without.figure(figure)?);
        let paper = reported.map_or_else(blank, |paper| format!("{:.3} to {:.3}", paper.with, paper.without));
        let ours = report.ablation(name);
        let interval = ours.interval.map_or_else(blank, |[low, high]| format!("{low:+.3} to {high:+.3}"));
        let [passes, cascades] = costs(&without);
        table.row(
            name,
            [
                figure.to_owned(),
                paper,
                rate(Some(with)),
                rate(Some(left)),
                format!("{:+.3}", left - with),
                interval,
                rate(without.number("/rule_level/f1").ok()),
                passes,
                cascades,
                ours.agreement.unwrap_or_else(blank),
            ],
        );
    }
    page.heading("CLUE without one of its parts")?;
    page.text(
        "The figure is the one that the paper gives, F1 where it gives none (Tables 5 to 7; objectifying: s 3.1). The last \
         column says `unclear` where the interval of the difference holds 0.",
    )?;
    page.table(table)
}

fn scan(report: &Report, page: &mut Page) -> anyhow::Result<()> {
    let clue = report.method(CLUE)?;
    page.heading("Relevance scan")?;
    page.text(&format!(
        "At the threshold of the suite {:.1} % of the violated rules are kept and {:.1} % of all rules are filtered (the \
         paper: 96.6 and 67 %).",
        100.0 * clue.number("/scan/recall")?,
        100.0 * clue.number("/scan/filtered")?
    ))
}

/// Paired edits under the five policies.
fn pairs(setting: &Setting, page: &mut Page) -> anyhow::Result<Report> {
    doing("paired edits");
    let report = setting.judge("pairs", "pairs", &options("--method", [CLUE]))?;
    let clue = report.method(CLUE)?;
    page.heading("Paired edits")?;
    page.text(&format!(
        "{:.0} pairs of the same scene with and without what violates a rule. A pair counts if both pictures are judged \
         right; under a policy, if they are judged right by its rules, of which each policy has more than the one before. \
         No weight changes between them.",
        clue.number("/pairs/pairs")?
    ))?;
    let mut table = Table::new(&["policy", "pair accuracy"]);
    table.row("scene", [rate(clue.number("/pairs/accuracy").ok())]);
    for (policy, accuracy) in clue.numbers("/pairs/by_policy")? {
        table.row(policy, [rate(Some(accuracy))]);
    }
    page.table(table)?;
    Ok(report)
}

/// The same pictures by rules that the models have never been told of.
fn other_rules(setting: &Setting, page: &mut Page) -> anyhow::Result<()> {
    doing("other rules");
    let folder = setting.folder.join("household");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let style = match setting.style {
        DrawnAs::World => Style::World,
        DrawnAs::Foreign => Style::Foreign,
    };
    household::write(&folder, setting.per_rule, style)?;
    let rules = setting.folder.join("household.toml");
    std::fs::write(&rules, household::RULES).with_context(|| format!("writing {}", rules.display()))?;
    let named = [&[CLUE], &ZERO_SHOT[..]].concat();
    let mut arguments = options("--method", named.iter().copied());
    arguments.extend(["--constitution".to_owned(), path(&rules)?]);
    let report = setting.judge("household-run", &format!("folder:{}", path(&folder)?), &arguments)?;
    page.heading("Other rules, same weights, same pictures")?;
    page.text("Eight rules that were made up afterwards (`benches/src/eval/household.toml`).")?;
    page.table(compared(&report, &named)?)
}

fn path(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use cluegate::constitution::Constitution;
    use cluegate::eval::ablation::ConstitutionFile;

    use super::*;

    #[test]
    fn every_scene_rule_has_its_original_words() {
        let text = Constitution::shipped_text("scene").unwrap();
        let originals = toml::from_str(ORIGINALS).unwrap();
        let before = ConstitutionFile { file: "scene", text }.whole_rules(Some(&originals)).unwrap();
        assert_eq!(before.rules().len(), originals.len());
    }
}
