//! The arguments of `cluegate calibrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::JudgingArgs;
use crate::cli::drawing::DrawingArgs;

const EXAMPLES: &str = "Examples:\n  cluegate calibrate previews --out calibrated\n  \
    cluegate calibrate previews --generator models/sdxl --models laptop --policy policy.toml --tenant kids \
    --prompts prompts.txt --out calibrated\n\n\
    A run that was ended goes on where it was. The policy names what it writes: preview_thresholds = \
    \"calibrated/thresholds.json\".";

/// Where previews are looked at by default: after every tenth of the steps.
const AT: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// What can be calibrated.
#[derive(Debug, Subcommand)]
pub(crate) enum CalibrateCommand {
    /// Choose when previews are looked at and how sure each must be to give a picture up, from a generator's own pictures and
    /// the verdicts on them.
    #[command(after_help = EXAMPLES)]
    Previews(PreviewsArgs),
}

/// Arguments of `calibrate previews`.
#[derive(Debug, Args)]
pub(crate) struct PreviewsArgs {
    /// The folder to write thresholds.json and watched.jsonl (what was seen, picture by picture) to; made if need be.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// Policy file; default: the shipped policies.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// For whose policy: its constitution judges, and its actions say which violations give a picture up.
    #[arg(long, value_name = "ID", default_value = "default")]
    pub(crate) tenant: String,
    /// Prompts to draw, one a line; about half of them should ask for what the rules forbid. Default: the embedded ones.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Embedded prompts for each rule that ask for a violation, and as many that come close.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) per_rule: u32,
    /// Shares of the steps after which a preview may be looked at.
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',', default_values_t = AT)]
    pub(crate) at: Vec<f64>,
    /// Most previews of one picture.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) most: u32,
    /// Largest share of the pictures that violate nothing which may be given up.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub(crate) false_aborts: f64,
    /// How sure the bound is that is stated for that share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub(crate) confidence: f64,
    /// Count a preview's decoding alone as its price: the judge computes elsewhere than the generator.
    #[arg(long)]
    pub(crate) judge_elsewhere: bool,
    /// Pictures in work at a time, each on one core. Default: as many as there are cores for the embedded generator; 1 for
    /// another, which uses all cores and has its memory once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Seed of the prompts and of the first drawing; the others follow.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// With what pictures are drawn, and how.
    #[command(flatten)]
    pub(crate) drawing: DrawingArgs,
    /// By which models they are judged, how strictly, and how to report.
    #[command(flatten)]
    pub(crate) judging: JudgingArgs,
}
