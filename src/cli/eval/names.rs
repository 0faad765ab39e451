//! What is named on the command line of `cluegate eval`: data sets, methods, parts, thresholds, generators and lists.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use cluegate_eval::ablation::Ablation;
use cluegate_eval::data::{Format as LabelFormat, PromptFormat};
use cluegate_mini::Style;

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

/// A cosine.
pub(super) fn cosine(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (-1.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a cosine from -1 to 1".to_owned())
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
    use crate::cli::drawing::size;

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
