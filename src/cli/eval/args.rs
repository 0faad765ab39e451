//! The arguments of `cluegate eval`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use cluegate_eval::ablation::Ablation;
use cluegate_eval::data::{Format as LabelFormat, PromptFormat};
use cluegate_mini::Style;

use crate::cli::args::{Format, ModelArgs};

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
    /// How the scenes are drawn.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) style: SceneStyle,
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
    /// Judge also what the models say that they do not know.
    #[arg(long)]
    pub(crate) force: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
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
    /// Judge also what the models say that they do not know.
    #[arg(long)]
    pub(crate) force: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}

/// Who draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GeneratorName {
    /// The generator of the models.
    BuiltIn,
    /// The upstream of a gateway's configuration.
    Upstream(PathBuf),
}

impl FromStr for GeneratorName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected builtin, or the configuration of a gateway".to_owned()),
            "builtin" => Ok(Self::BuiltIn),
            path => Ok(Self::Upstream(path.into())),
        }
    }
}

/// A list of prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListName {
    /// Its form.
    pub(crate) format: PromptFormat,
    /// The file.
    pub(crate) path: PathBuf,
}

impl FromStr for ListName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once(':').filter(|(_, path)| !path.is_empty());
        let format = |name: &str| PromptFormat::ALL.into_iter().find(|format| format.as_str() == name);
        named.and_then(|(name, path)| Some(Self { format: format(name)?, path: path.into() })).ok_or_else(
            || {
                let forms = PromptFormat::ALL.map(|format| format!("{}:FILE", format.as_str()));
                format!("expected {}", forms.join(", "))
            },
        )
    }
}

fn cosine(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (-1.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a cosine from -1 to 1".to_owned())
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (8..=8192).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "expected width and height, 8 to 8192 pixels each, such as 512x512".to_owned())
}

/// Renderers of the scene world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SceneStyle {
    /// As the world is defined.
    #[default]
    World,
    /// Other backgrounds and colours, JPEG compression.
    Foreign,
}

impl From<SceneStyle> for Style {
    fn from(style: SceneStyle) -> Self {
        match style {
            SceneStyle::World => Self::World,
            SceneStyle::Foreign => Self::Foreign,
        }
    }
}

/// A data set as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DataName {
    /// Mini OS Bench.
    Osbench,
    /// Mini paired edits.
    Pairs,
    /// Labels of a format, and where they lie.
    Files(LabelFormat, PathBuf),
}

impl FromStr for DataName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let formats = LabelFormat::ALL.map(LabelFormat::as_str);
        let expected = || {
            let files = formats.map(|format| format!("{format}:PATH")).join(", ");
            format!("expected osbench, pairs, {files}")
        };
        match text.split_once(':') {
            None if text == "osbench" => Ok(Self::Osbench),
            None if text == "pairs" => Ok(Self::Pairs),
            Some((name, path)) if !path.is_empty() => {
                let format = LabelFormat::ALL.into_iter().find(|format| format.as_str() == name);
                format.map(|format| Self::Files(format, path.into())).ok_or_else(expected)
            }
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Osbench => f.write_str("osbench"),
            Self::Pairs => f.write_str("pairs"),
            Self::Files(format, path) => write!(f, "{}:{}", format.as_str(), path.display()),
        }
    }
}

/// One threshold and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Threshold {
    /// Its name, as in a constitution's `[thresholds]`.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: f64,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(name, value)| {
            let value = value.trim().parse::<f64>().ok().filter(|value| value.is_finite())?;
            Some(Self { name: name.trim().to_owned(), value })
        });
        parsed.ok_or_else(|| "expected a threshold and its value, such as alpha1=0.2".to_owned())
    }
}

/// Methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodName {
    /// The whole method.
    Clue,
    /// One question: is it fit for the public?
    PriorDirect,
    /// The same after a chain of thought.
    PriorThought,
    /// One question with all rules.
    WholeDirect,
    /// The same after a chain of thought.
    WholeThought,
    /// One question with the policy, answered with LlavaGuard's JSON.
    Guard,
    /// One question with the policy, answered with one word.
    PolicyWord,
    /// The nearer of two texts, by the relevance encoder.
    ClipPair,
    /// Every rule whose text is near enough, by the relevance encoder.
    ClipRules,
    /// Nothing is unsafe.
    AlwaysSafe,
    /// Everything is unsafe.
    AlwaysUnsafe,
}

/// Classifiers of pictures, by the layout of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClassifierKind {
    /// Q16: learned prompts over CLIP.
    Q16,
    /// LAION's CLIP-based NSFW detector.
    LaionNsfw,
    /// The safety checker of Stable Diffusion.
    SdSafetyChecker,
    /// An ONNX model, by its configuration.
    Onnx,
    /// A student as `cluegate distill` writes it: unsafe is what it does not clear.
    Student,
}

/// A method as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MethodChoice {
    /// One that needs nothing but the models.
    Named(MethodName),
    /// A classifier, and where it lies.
    Classifier(ClassifierKind, PathBuf),
}

impl FromStr for MethodChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let chosen = match text.split_once(':') {
            None => MethodName::from_str(text, false).ok().map(Self::Named),
            Some((_, "")) => None,
            Some((kind, path)) => {
                let kind = ClassifierKind::from_str(kind, false).ok();
                kind.map(|kind| Self::Classifier(kind, path.into()))
            }
        };
        chosen.ok_or_else(|| {
            let methods = names::<MethodName>().join(", ");
            let classifiers = names::<ClassifierKind>().join(":PATH, ");
            format!("expected one of {methods}, {classifiers}:PATH")
        })
    }
}

/// The names of all values.
fn names<T: ValueEnum>() -> Vec<String> {
    let named = |value: &T| value.to_possible_value().map(|value| value.get_name().to_owned());
    T::value_variants().iter().filter_map(named).collect()
}

/// Parts of the method that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AblationName {
    /// Scores are taken as they are.
    NoDebiasing,
    /// Scores are not compared with those without a picture.
    NoNoImageComparison,
    /// Scores are not compared with those without the central objects.
    NoRegionComparison,
    /// A rule is asked as one question.
    NoPreconditions,
    /// Every rule is asked.
    NoRelevanceScan,
    /// What is undecided is decided by its score.
    NoReasoning,
    /// Small objects are looked at in the whole picture.
    NoCrop,
    /// Rules are asked as one question, in the words of --originals.
    OriginalRules,
}

impl From<AblationName> for Ablation {
    fn from(name: AblationName) -> Self {
        match name {
            AblationName::NoDebiasing => Self::Debiasing,
            AblationName::NoNoImageComparison => Self::NoImageComparison,
            AblationName::NoRegionComparison => Self::RegionComparison,
            AblationName::NoPreconditions => Self::Preconditions,
            AblationName::NoRelevanceScan => Self::RelevanceScan,
            AblationName::NoReasoning => Self::Reasoning,
            AblationName::NoCrop => Self::Crop,
            AblationName::OriginalRules => Self::ObjectiveRules,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_on_the_command_line_are_those_of_the_tables() {
        for name in AblationName::value_variants() {
            let written = name.to_possible_value().unwrap();
            assert_eq!(written.get_name(), Ablation::from(*name).as_str());
        }
        assert_eq!(AblationName::value_variants().len(), Ablation::ALL.len());
        let data: DataName = "llavaguard:a:b.json".parse().unwrap();
        assert_eq!(data, DataName::Files(LabelFormat::LlavaGuard, "a:b.json".into()));
        let method: MethodChoice = "q16:a:b".parse().unwrap();
        assert_eq!(method, MethodChoice::Classifier(ClassifierKind::Q16, "a:b".into()));
        assert_eq!("guard".parse(), Ok(MethodChoice::Named(MethodName::Guard)));
        for wrong in ["", "clues", "clue:", "clue:x", "q16", "q16:"] {
            let error = wrong.parse::<MethodChoice>().unwrap_err();
            assert!(error.contains("clip-rules") && error.contains("laion-nsfw:PATH"), "{error}");
        }
        let list: ListName = "ring-a-bell:a:b.csv".parse().unwrap();
        assert_eq!(list, ListName { format: PromptFormat::RingABell, path: "a:b.csv".into() });
        assert!("i2p:".parse::<ListName>().unwrap_err().contains("t2i-riskyprompt:FILE"));
        assert_eq!((size("512x320"), cosine("0.25")), (Ok((512, 320)), Ok(0.25)));
        assert!(
            size("512").is_err() && size("4x4").is_err() && cosine("1.5").is_err() && cosine("NaN").is_err()
        );
        for wrong in ["", "osbench:", "folder", "folder:", "imagenet:x"] {
            assert!(wrong.parse::<DataName>().unwrap_err().contains("folder:PATH"), "{wrong}");
        }
        assert!("alpha1".parse::<Threshold>().is_err() && "alpha1=nan".parse::<Threshold>().is_err());
    }
}
