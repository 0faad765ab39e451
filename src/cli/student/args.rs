//! The arguments of `cluegate label` and `cluegate distill`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::{Format, JudgingArgs, ModelArgs};

/// Arguments of `label`.
#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// The folder of pictures; folders in it are looked through too.
    pub(crate) folder: PathBuf,
    /// The rules: a shipped name, or a file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) constitution: String,
    /// The folder to write labels.csv, labels.json, results.jsonl (the evidence) and errors.jsonl to; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// By which models, how strictly, and how to report.
    #[command(flatten)]
    pub(crate) judging: JudgingArgs,
}

/// Arguments of `distill`.
#[derive(Debug, Args)]
pub(crate) struct DistillArgs {
    /// A folder that `cluegate label` wrote; may be given more than once, for pictures that were labelled apart.
    #[arg(long, value_name = "FOLDER", required = true)]
    pub(crate) labels: Vec<PathBuf>,
    /// The folder of the pictures, one for each --labels; default: those that were labelled.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) pictures: Vec<PathBuf>,
    /// The folder to write student.json and student.safetensors to; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// What pictures these are, in words, for the card.
    #[arg(long, value_name = "TEXT", default_value = "the pictures of the labels")]
    pub(crate) domain: String,
    /// Share of the unsafe pictures that has to go on to the judge.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99)]
    pub(crate) recall: f64,
    /// How sure that has to be.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub(crate) confidence: f64,
    /// Share of the pictures that are held out to find the threshold.
    #[arg(long, value_name = "SHARE", default_value_t = 0.35)]
    pub(crate) held_out: f64,
    /// Hidden units to try, 0 for a logistic regression.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [0, 128])]
    pub(crate) hidden: Vec<usize>,
    /// Passes over the pictures for the first look.
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) epochs: usize,
    /// Passes for the closer look, at nine parts of each picture; 0: it has none, and embeds no parts.
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) closer_epochs: usize,
    /// Seed of the split, the first weights and the order.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}
