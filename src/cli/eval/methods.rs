//! Methods by their names on the command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use cluegate::Engine;
use cluegate_constitution::Constitution;
use cluegate_eval::ablation::{Ablation, ConstitutionFile, rule_templates};
use cluegate_eval::methods::{
    AnswerForm, Classifier, ClipPair, ClipRules, Clue, Constant, Guard, Knowledge, Method, Questions,
    StudentAlone, ZeroShot,
};
use cluegate_judge::{Judge, Stages};
use cluegate_models::heads::{LaionNsfw, Q16, SafetyChecker};
use cluegate_models::{FileTree, LoadOptions};
use cluegate_onnx_classifier::OnnxClassifier;
use cluegate_perception::PictureClassifier;
use cluegate_student::Student;

use super::args::RunArgs;
use super::names::{ClassifierKind, MethodChoice, MethodName};

/// Every method that the arguments ask for: those named, then ablations, then thresholds.
pub(super) fn asked(
    arguments: &RunArgs,
    engine: &Engine,
    file: ConstitutionFile<'_>,
) -> anyhow::Result<Vec<Box<dyn Method>>> {
    let judge = engine.judge();
    let constitution = file.parse()?;
    let mut methods: Vec<Box<dyn Method>> = Vec::new();
    let nothing_else = arguments.ablation.is_empty() && arguments.threshold.is_empty();
    let clue = [MethodChoice::Named(MethodName::Clue)];
    let default = if arguments.method.is_empty() && nothing_else { &clue[..] } else { &[] };
    let questions = match &arguments.questions {
        Some(folder) => Questions::load(folder)?,
        None => Questions::shipped()?,
    };
    for choice in default.iter().chain(&arguments.method) {
        methods.push(match choice {
            MethodChoice::Named(name) => named(*name, judge, &constitution, &questions)?,
            MethodChoice::Classifier(ClassifierKind::Student, path) => {
                Box::new(StudentAlone::new(Arc::clone(judge.relevance_encoder()), Student::load(path)?)?)
            }
            MethodChoice::Classifier(kind, path) => Box::new(classifier(*kind, path, arguments)?),
        });
    }
    for name in &arguments.ablation {
        methods.push(Box::new(without((*name).into(), judge, file, arguments)?));
    }
    for threshold in &arguments.threshold {
        let constitution = file.with_threshold(&threshold.name, threshold.value)?;
        let name = format!("clue {}={}", threshold.name, threshold.value);
        methods.push(Box::new(Clue::new(
            name,
            Arc::clone(judge),
            judge.prepare(&constitution)?,
            Stages::ALL,
        )));
    }
    Ok(methods)
}

fn named(
    name: MethodName,
    judge: &Arc<Judge>,
    constitution: &Constitution,
    questions: &Questions,
) -> anyhow::Result<Box<dyn Method>> {
    let model = || Arc::clone(judge.language_model());
    let zero_shot = |knowledge, thought| {
        Box::new(ZeroShot::new(model(), questions, judge.templates(), knowledge, thought))
    };
    let guard = |form| Box::new(Guard::new(model(), questions, form, Some(constitution)));
    let encoder = || Arc::clone(judge.relevance_encoder());
    Ok(match name {
        MethodName::Clue => {
            Box::new(Clue::new("clue", Arc::clone(judge), judge.prepare(constitution)?, Stages::ALL))
        }
        MethodName::PriorDirect => zero_shot(Knowledge::Prior, false),
        MethodName::PriorThought => zero_shot(Knowledge::Prior, true),
        MethodName::WholeDirect => zero_shot(Knowledge::Whole(constitution), false),
        MethodName::WholeThought => zero_shot(Knowledge::Whole(constitution), true),
        MethodName::Guard => guard(AnswerForm::Json),
        MethodName::PolicyWord => guard(AnswerForm::Word),
        MethodName::ClipPair => Box::new(ClipPair::new(encoder())?),
        MethodName::ClipRules => Box::new(ClipRules::new(encoder(), constitution)?),
        MethodName::AlwaysSafe => Box::new(Constant::new(false)),
        MethodName::AlwaysUnsafe => Box::new(Constant::new(true)),
    })
}

/// Loads a classifier onto the device that the arguments name.
fn classifier(kind: ClassifierKind, path: &Path, arguments: &RunArgs) -> anyhow::Result<Classifier> {
    let LoadOptions { device, dtype, .. } = arguments.judging.models.compute.load_options()?;
    let tree = |path: &Path| FileTree::open(path);
    let model: Arc<dyn PictureClassifier> = match kind {
        ClassifierKind::Q16 => Arc::new(Q16::load(&tree(path)?, &device, dtype)?),
        ClassifierKind::LaionNsfw => Arc::new(LaionNsfw::load(&tree(path)?, &device, dtype)?),
        ClassifierKind::SdSafetyChecker => Arc::new(SafetyChecker::load(&tree(path)?, &device)?),
        ClassifierKind::Onnx => Arc::new(OnnxClassifier::load(path)?),
        // Over the encoder of the models that judge, and no classifier of its own.
        ClassifierKind::Student => bail!("a student is opened with the models"),
    };
    let mut name = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    if kind == ClassifierKind::Onnx {
        // There may be several in one table.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        name = format!("{name} {stem}");
    }
    Ok(Classifier::new(name, model))
}

fn without(
    ablation: Ablation,
    judge: &Arc<Judge>,
    file: ConstitutionFile<'_>,
    arguments: &RunArgs,
) -> anyhow::Result<Clue> {
    let (judge, constitution) = if ablation.asks_whole_rules() {
        let originals = (ablation == Ablation::ObjectiveRules).then(|| originals(arguments)).transpose()?;
        let judge = judge.with_templates(rule_templates(judge.templates())?);
        (Arc::new(judge), file.whole_rules(originals.as_ref())?)
    } else {
        (Arc::clone(judge), file.parse()?)
    };
    let prepared = judge.prepare(&constitution)?;
    Ok(Clue::new(ablation.as_str(), judge, prepared, ablation.stages()))
}

fn originals(arguments: &RunArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let path = arguments.originals.as_ref().context(
        "--ablation original-rules: expected --originals FILE, with the words of each rule before it was made objective",
    )?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the original rules {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("{}: expected `id = \"words\"` for each rule", path.display()))
}
