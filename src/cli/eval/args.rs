//! The arguments of `cluegate eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::names::{
    AblationName, DataName, GeneratorName, ListName, MethodChoice, SceneStyle, Threshold, cosine,
};
use crate::cli::args::{Format, JudgingArgs, ModelArgs};
use crate::cli::drawing::size;

const RUN_EXAMPLES: &str = "Examples:\n  \
    cluegate eval run --data osbench --per-rule 5 --method clue --method prior-direct --out results\n  \
    cluegate eval run --data pairs --method clue --ablation no-crop --ablation no-reasoning --out results\n  \
    cluegate eval run --data safeeditbench:test.jsonl --method guard --models paper/models.toml --out results\n  \
    cluegate eval run --data folder:pictures --constitution rules.toml --out results --format json\n\n\
    What is asked once is kept in OUT/results.jsonl: a run that was ended goes on where it was, and another method adds \
    to it. OUT/report.html has the figures as plots, beside the worst errors with their evidence.";

const BUILD_EXAMPLES: &str = "Examples:\n  \
    cluegate eval build-osbench --out bench --per-rule 40 --judge-fit\n  \
    cluegate eval build-osbench --seeds seeds.toml --constitution rules.toml --generator gate.toml --out bench\n  \
    cluegate eval build-osbench --expand 10 --text-models text.toml --generator gate.toml --out bench\n\n\
    A build that was ended goes on where it was. Exit codes: 0 every rule has its pictures; 2 some have fewer, or an error.";

const PROMPTS_EXAMPLES: &str = "Examples:\n  \
    cluegate eval prompts --list i2p:i2p.csv --generator gate.toml --policy policy.toml --out prompts\n  \
    cluegate eval prompts --list i2p:i2p.csv --list ring-a-bell:list.csv --limit 100 --referee paper/models.toml --out p\n\n\
    Each prompt is drawn from the same seeds with the gate and without; what was answered is kept in OUT/prompts.jsonl.";

/// Measurements.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Mini OS Bench: scenes with exact labels for each rule of the scene constitution.
    #[command(
        after_help = "Examples:\n  cluegate eval osbench\n  cluegate eval osbench --style foreign --per-rule 10 --format json"
    )]
    Osbench(OsbenchArgs),
    /// Judge a labelled data set by one or more methods, and compare what they say with the labels.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Write paired edits as a folder with labels: scenes that violate a rule, and the same without what violates it.
    #[command(after_help = "Example:\n  cluegate eval mini-pairs --per-rule 5 --out pairs")]
    MiniPairs(MiniPairsArgs),
    /// Write scenes of natural frequencies as a folder with labels: about a third violate something.
    #[command(after_help = "Example:\n  cluegate eval mini-natural --count 2000 --out natural")]
    MiniNatural(MiniNaturalArgs),
    /// Count the answers of an earlier run again and rebuild its report and page, without asking a model.
    #[command(after_help = "Example:\n  cluegate eval report results --errors 40")]
    Report(ReportArgs),
    /// Compare two runs on the rows that both looked at: differences with intervals by the paired bootstrap.
    #[command(
        after_help = "Examples:\n  cluegate eval compare before after\n  cluegate eval compare results results --method clue --with whole-direct"
    )]
    Compare(CompareArgs),
    /// Draw a benchmark from seed prompts: for each rule as many violating as borderline pictures that fit their prompt.
    #[command(name = "build-osbench", after_help = BUILD_EXAMPLES)]
    BuildOsbench(Box<BuildArgs>),
    /// Draw lists of prompts that tempt a generator, and count the violations that are released with the gate and without.
    #[command(after_help = PROMPTS_EXAMPLES)]
    Prompts(Box<PromptsArgs>),
}

/// Arguments of `eval osbench`.
#[derive(Debug, Args)]
pub(crate) struct OsbenchArgs {
    /// Which scenes.
    #[command(flatten)]
    pub(crate) scenes: SceneArgs,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}

/// Which scenes are drawn.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SceneArgs {
    /// Violating, and as many borderline or edited, scenes for each rule.
    #[arg(long, value_name = "N", default_value_t = cluegate_mini::osbench::PER_RULE)]
    pub(crate) per_rule: usize,
    /// Seed of the scenes.
    #[arg(long, default_value_t = cluegate_mini::osbench::SEED)]
    pub(crate) seed: u64,
    /// How they are drawn.
    #[command(flatten)]
    pub(crate) drawn: DrawnArgs,
}

/// How scenes are drawn.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DrawnArgs {
    /// How the scenes are drawn.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) style: SceneStyle,
}

/// Arguments of `eval mini-pairs`.
#[derive(Debug, Args)]
pub(crate) struct MiniPairsArgs {
    /// Which scenes.
    #[command(flatten)]
    pub(crate) scenes: SceneArgs,
    /// The folder to write to; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

/// Arguments of `eval mini-natural`.
#[derive(Debug, Args)]
pub(crate) struct MiniNaturalArgs {
    /// How many.
    #[arg(long, value_name = "N")]
    pub(crate) count: usize,
    /// Seed of the scenes.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How they are drawn.
    #[command(flatten)]
    pub(crate) drawn: DrawnArgs,
    /// The folder to write to; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

/// Worst errors on a page, unless another number is named.
const ERRORS: u16 = 16;

/// Arguments of `eval report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The folder that `eval run --out` wrote.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// How many of the worst errors the page shows of the first method; of each other one a quarter of them.
    #[arg(long, value_name = "N", default_value_t = ERRORS, value_parser = clap::value_parser!(u16).range(0..=200))]
    pub(crate) errors: u16,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `eval compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The folder whose figures are compared.
    #[arg(value_name = "OUT1")]
    pub(crate) first: PathBuf,
    /// The folder that they are compared with.
    #[arg(value_name = "OUT2")]
    pub(crate) second: PathBuf,
    /// Compare this method of the first folder; default: every method that both have, by name.
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// With this method of the second folder; default: the one of the same name.
    #[arg(long, value_name = "METHOD", requires = "method")]
    pub(crate) with: Option<String>,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `eval run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The data set: osbench or pairs, which are drawn, or a format and where it lies: folder:PATH, llavaguard:FILE,
    /// unsafebench:FILE, safeeditbench:FILE.
    #[arg(long, value_name = "SET")]
    pub(crate) data: DataName,
    /// The folder below which the pictures lie; default: that of the labels.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) pictures: Option<PathBuf>,
    /// Look at this many rows, spread evenly over the set.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Which scenes, for sets that are drawn.
    #[command(flatten)]
    pub(crate) scenes: SceneArgs,
    /// A method; may be repeated: clue (the default), prior-direct, prior-thought, whole-direct, whole-thought, guard,
    /// policy-word, clip-pair, clip-rules, always-safe, always-unsafe; or a classifier and where it lies: q16:FOLDER,
    /// laion-nsfw:FOLDER, sd-safety-checker:FOLDER, onnx:CONFIG, student:FOLDER.
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Vec<MethodChoice>,
    /// CLUE without one of its parts, as a method of its own; may be repeated.
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) ablation: Vec<AblationName>,
    /// CLUE with another threshold, as a method of its own, such as alpha1=0.2; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) threshold: Vec<Threshold>,
    /// The rules: a shipped name, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "scene")]
    pub(crate) constitution: String,
    /// For --ablation original-rules: a TOML file with the words of each rule before it was made objective, by its id.
    #[arg(long, value_name = "FILE")]
    pub(crate) originals: Option<PathBuf>,
    /// A folder with other questions for the baselines: prior-direct.txt, prior-thought.txt, whole-direct.txt,
    /// whole-thought.txt, guard.txt, policy-word.txt.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) questions: Option<PathBuf>,
    /// The folder in which results.jsonl, report.json and report.html are kept; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// How often rows are drawn anew for the confidence intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) resamples: usize,
    /// How many of the worst errors the page shows of the first method; of each other one a quarter of them.
    #[arg(long, value_name = "N", default_value_t = ERRORS, value_parser = clap::value_parser!(u16).range(0..=200))]
    pub(crate) errors: u16,
    /// By which models, how strictly, and how to report.
    #[command(flatten)]
    pub(crate) judging: JudgingArgs,
}

/// Arguments of `eval build-osbench`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Seed prompts in TOML; default: those that ship for the constitution, if any do.
    #[arg(long, value_name = "FILE")]
    pub(crate) seeds: Option<PathBuf>,
    /// The rules that the seeds are for: a shipped name, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "scene")]
    pub(crate) constitution: String,
    /// Who draws.
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    /// The generator: builtin for that of the models, or a configuration of the gateway, whose [upstream] draws.
    #[arg(long, value_name = "builtin|FILE", default_value = "builtin")]
    pub(crate) generator: GeneratorName,
    /// Violating pictures for each rule, and as many borderline ones; the paper has 40 to 60.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) per_rule: usize,
    /// Most attempts for each picture that is wanted.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) attempts: usize,
    /// Least cosine between picture and prompt; default: the relevance encoder's own threshold.
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true, value_parser = cosine)]
    pub(crate) min_fit: Option<f64>,
    /// Keep only pictures of which the judge says what the seeds say. Do not measure the same judge on them.
    #[arg(long)]
    pub(crate) judge_fit: bool,
    /// Have a text model write this many further prompts for each seed prompt.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=100))]
    pub(crate) expand: usize,
    /// The models whose text model writes them; default: --models.
    #[arg(long, value_name = "PRESET|FILE", requires = "expand")]
    pub(crate) text_models: Option<PathBuf>,
    /// Seed of prompts and pictures.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The folder to write to; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}

/// How pictures are drawn.
#[derive(Debug, Clone, Args)]
pub(crate) struct DrawArgs {
    /// Denoising steps; default: the generator's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: Option<u32>,
    /// Strength of the prompt (classifier-free guidance); default: the generator's, or the list's.
    #[arg(long)]
    pub(crate) guidance: Option<f64>,
    /// Width and height in pixels, such as 512x512; default: the generator's.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub(crate) size: Option<(u32, u32)>,
}

/// Arguments of `eval prompts`.
#[derive(Debug, Args)]
pub(crate) struct PromptsArgs {
    /// A list, by its form and file: i2p:FILE, ring-a-bell:FILE, t2i-riskyprompt:FILE; may be repeated.
    #[arg(long, value_name = "LIST", required = true)]
    pub(crate) list: Vec<ListName>,
    /// Ask this many prompts of each list, spread evenly.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// How is drawn.
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    /// The generator: builtin for that of the models, or a configuration of the gateway, whose [upstream] draws.
    #[arg(long, value_name = "builtin|FILE", default_value = "builtin")]
    pub(crate) generator: GeneratorName,
    /// Policy file of the gate; default: the shipped policies (tenants default, kids and newsroom).
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Whose policy decides.
    #[arg(long, value_name = "ID", default_value = "default")]
    pub(crate) tenant: String,
    /// The rules that count: a shipped name, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "scene")]
    pub(crate) constitution: String,
    /// The models that judge what is released; default: those of the gate, which find nothing that the gate overlooks.
    #[arg(long, value_name = "PRESET|FILE")]
    pub(crate) referee: Option<PathBuf>,
    /// Pictures of each prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pictures: u32,
    /// Seed of prompts for which the list names none.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How often prompts are drawn anew for the confidence intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) resamples: usize,
    /// The folder in which answers and figures are kept; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// By which models, how strictly, and how to report.
    #[command(flatten)]
    pub(crate) judging: JudgingArgs,
}
