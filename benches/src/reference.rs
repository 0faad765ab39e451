//! The programs in Python that this one is compared with: what they are given, and what they answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use cluegate::constitution::{Constitution, Precondition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ours::Ours;

/// Questions about pictures: each is `beginning` followed by one of `statements`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatementsInput {
    /// Folder of the judging model.
    pub(crate) judge: PathBuf,
    pub(crate) beginning: String,
    pub(crate) statements: Vec<String>,
    pub(crate) pictures: Vec<PathBuf>,
    /// How often each picture is asked about.
    pub(crate) repeat: usize,
    /// For vLLM: tokens of a block of its cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block_size: Option<usize>,
}

/// The answers and their times.
#[derive(Debug, Deserialize)]
pub(crate) struct StatementsOutput {
    /// Milliseconds from a decoded picture to all its scores, by picture and repetition.
    pub(crate) ms: Vec<Vec<f64>>,
    /// `p(Yes) / (p(Yes) + p(No))`, by picture and statement.
    pub(crate) scores: Vec<Vec<f64>>,
    pub(crate) threads: usize,
    pub(crate) peak_rss_mb: f64,
    /// Names of libraries and their versions.
    pub(crate) versions: BTreeMap<String, Value>,
}

/// The whole method on pictures.
#[derive(Debug, Serialize)]
pub(crate) struct ClueInput {
    suite: PathBuf,
    relevance_threshold: f32,
    templates: BTreeMap<&'static str, &'static str>,
    rules: Vec<RuleInput>,
    thresholds: Value,
    options: Value,
    pictures: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct RuleInput {
    id: String,
    text: String,
    preconditions: Vec<Vec<StatementInput>>,
    unless: Vec<Vec<StatementInput>>,
}

#[derive(Debug, Serialize)]
struct StatementInput {
    statement: String,
    central: Vec<String>,
}

fn chain(chain: &[Precondition]) -> Vec<Vec<StatementInput>> {
    let link = |link: &Precondition| {
        link.any
            .iter()
            .map(|asked| StatementInput { statement: asked.text.clone(), central: asked.central.clone() })
            .collect()
    };
    chain.iter().map(link).collect()
}

impl ClueInput {
    /// All that the method depends on, so that the reference chooses nothing by itself.
    pub(crate) fn new(
        suite: &Path,
        ours: &Ours,
        constitution: &Constitution,
        pictures: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let thresholds = constitution.thresholds();
        let options = Ours::options();
        let rules = constitution.rules().iter().map(|rule| RuleInput {
            id: rule.id.clone(),
            text: rule.text.clone(),
            preconditions: chain(&rule.preconditions),
            unless: chain(&rule.unless),
        });
        Ok(Self {
            suite: suite.to_owned(),
            relevance_threshold: thresholds.relevance.unwrap_or_else(|| ours.relevance_threshold()),
            templates: BTreeMap::from([
                ("statement", include_str!("../../src/judge/templates/statement.txt")),
                ("reasoning", include_str!("../../src/judge/templates/reasoning.txt")),
                ("rating", include_str!("../../src/judge/templates/rating.txt")),
            ]),
            rules: rules.collect(),
            thresholds: serde_json::to_value(thresholds)?,
            options: serde_json::json!({
                "max_reasoning_tokens": options.max_reasoning_tokens,
                "min_crop_side": options.min_crop_side,
            }),
            pictures: pictures.to_vec(),
        })
    }
}

/// What the reference found.
#[derive(Debug, Deserialize)]
pub(crate) struct ClueOutput {
    pub(crate) pictures: Vec<PictureOutput>,
    /// What is computed before the first picture, in milliseconds.
    pub(crate) prepare_ms: f64,
    pub(crate) threads: usize,
    pub(crate) peak_rss_mb: f64,
    /// Names of libraries and their versions.
    pub(crate) versions: BTreeMap<String, Value>,
}

/// One picture.
#[derive(Debug, Deserialize)]
pub(crate) struct PictureOutput {
    pub(crate) verdict: String,
    pub(crate) violated: Vec<String>,
    pub(crate) rules: Vec<RuleOutput>,
    /// The whole method.
    pub(crate) ms: f64,
    /// By stage.
    pub(crate) stages_ms: BTreeMap<String, f64>,
    /// Forward passes, a number or one for each stage.
    pub(crate) forwards: Value,
}

/// One rule.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleOutput {
    pub(crate) id: String,
    pub(crate) outcome: String,
    pub(crate) relevance: Option<f64>,
    #[serde(default)]
    pub(crate) statements: Vec<StatementOutput>,
}

/// One statement.
#[derive(Debug, Deserialize)]
pub(crate) struct StatementOutput {
    pub(crate) statement: String,
    pub(crate) score: Option<f64>,
    pub(crate) prior: Option<f64>,
    pub(crate) line: Option<Value>,
}

/// Runs `python program [method] INPUT OUTPUT`, with both files in `folder`, and reads what it answers.
///
/// # Errors
/// If it cannot be started, fails (its last words are in the message), or answers in another form.
pub(crate) fn run<T: DeserializeOwned>(
    python: &Path,
    program: &Path,
    method: Option<&str>,
    input: &impl Serialize,
    folder: &Path,
) -> anyhow::Result<T> {
    let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{stem}-{}", method.unwrap_or("all"));
    let [given, answer, log] =
        ["input.json", "output.json", "log"].map(|end| folder.join(format!("{name}.{end}")));
    std::fs::write(&given, serde_json::to_vec(input)?)?;
    let log_file = std::fs::File::create(&log)?;
    let mut command = Command::new(python);
    command.arg(program).args(method).arg(&given).arg(&answer);
    command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
    // The number of threads that this process was given is candle's, and other programs choose their own.
    command.env_remove("RAYON_NUM_THREADS");
    let status = command.status().with_context(|| format!("starting {}", python.display()))?;
    if !status.success() {
        let log = std::fs::read(&log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let last: Vec<&str> = log.lines().rev().take(12).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!("{} ended with {status}:\n{last}", program.display());
    }
    let text = std::fs::read_to_string(&answer)
        .with_context(|| format!("{} wrote no {}", program.display(), answer.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("the answer of {} has another form", program.display()))
}

/// Libraries and versions in one line.
pub(crate) fn versions(versions: &BTreeMap<String, Value>) -> String {
    let said = |(name, version): (&String, &Value)| match version {
        Value::String(version) => format!("{name} {version}"),
        other => format!("{name} {other}"),
    };
    versions.iter().map(said).collect::<Vec<_>>().join(", ")
}
