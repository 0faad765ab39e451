//! The arguments of `cluegate eval`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use cluegate_eval::ablation::Ablation;
use cluegate_eval::data::Format as LabelFormat;
use cluegate_mini::Style;

use crate::cli::args::{Format, ModelArgs};

const RUN_EXAMPLES: &str = "Examples:\n  \
    cluegate eval run --data osbench --per-rule 5 --method clue --method prior-direct --out results\n  \
    cluegate eval run --data pairs --method clue --ablation no-crop --ablation no-reasoning --out results\n  \
    cluegate eval run --data safeeditbench:test.jsonl --method guard --models paper/models.toml --out results\n  \
    cluegate eval run --data folder:pictures --constitution rules.toml --out results --format json\n\n\
    What is asked once is kept in OUT/results.jsonl: a run that was ended goes on where it was, and another method adds \
    to it.";

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
    /// laion-nsfw:FOLDER, sd-safety-checker:FOLDER.
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
    /// The folder in which results.jsonl and report.json are kept; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// How often rows are drawn anew for the confidence intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) resamples: usize,
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
        for wrong in ["", "osbench:", "folder", "folder:", "imagenet:x"] {
            assert!(wrong.parse::<DataName>().unwrap_err().contains("folder:PATH"), "{wrong}");
        }
        assert!("alpha1".parse::<Threshold>().is_err() && "alpha1=nan".parse::<Threshold>().is_err());
    }
}
