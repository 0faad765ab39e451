//! The command line of `cluegate constitution`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cluegate_constitution::Setting;

use crate::cli::args::{Format, ModelArgs};

/// Constitutions.
#[derive(Debug, Subcommand)]
pub(crate) enum ConstitutionCommand {
    /// Name the shipped constitutions.
    List,
    /// Print a shipped constitution as TOML, to start one's own from.
    Show {
        /// Its name.
        name: String,
        /// Its rules in everyday words, before they are made objective: a list for `compile`. Only `general` has one.
        #[arg(long)]
        prose: bool,
    },
    /// Parse a constitution and say what is wrong with it, or probably is.
    #[command(after_help = "Examples:\n  cluegate constitution check rules.toml\n  \
                            cluegate constitution check rules.toml --models laptop --pictures examples --strict\n  \
                            cluegate constitution check rules.toml --format sarif > rules.sarif\n\n\
                            Without --models what needs models is not examined.\n\
                            Exit codes: 0 nothing found; 1 a warning (with --strict: or a note); 2 an error.")]
    Check(CheckArgs),
    /// Make a constitution of prose with a text model, and review it rule by rule.
    #[command(after_help = super::compile::EXAMPLES)]
    Compile(Box<super::compile::CompileArgs>),
    /// Show or write the prompts that prose is compiled with.
    #[command(subcommand)]
    Templates(super::templates::TemplatesCommand),
    /// Say rule by rule what differs between two constitutions.
    #[command(after_help = "Examples:\n  cluegate constitution diff old.toml new.toml\n  \
                            cluegate constitution diff general my-general.toml --format json\n\n\
                            Exit codes: 0 they say the same; 1 they differ; 2 an error.")]
    Diff(DiffArgs),
    /// Explain a rule: its chain, what follows from each answer, its numbers. Or explain a lint.
    #[command(after_help = "Examples:\n  cluegate constitution explain armed\n  \
                            cluegate constitution explain spread-legs --constitution general --set spread-legs.angle=60\n  \
                            cluegate constitution explain C101\n  cluegate constitution explain lints")]
    Explain(ExplainArgs),
    /// Bring constitution files into the canonical form; comments stay.
    #[command(after_help = "Examples:\n  cluegate constitution fmt rules.toml\n  \
                            cluegate constitution fmt --check *.toml\n\n\
                            Exit codes: 0 done, or nothing to do; 1 with --check: a file is not in that form; 2 an error.")]
    Fmt(FmtArgs),
    /// Try one rule on a picture, step by step as the judge sees it, or on a folder.
    #[command(after_help = "Examples:\n  cluegate constitution try armed scene.png\n  \
                            cluegate constitution try spread-legs --constitution general --models laptop --set spread-legs.angle=60 photo.jpg\n  \
                            cluegate constitution try armed examples    (with examples/violating and examples/safe: precision and recall)\n\n\
                            Exit codes: 0 no picture violates the rule; 1 one does; 2 an error.")]
    Try(TryArgs),
    /// Print the JSON Schema of constitution files, for editors.
    Schema,
}

/// How `check` reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// SARIF 2.1.0, for editors and code review.
    Sarif,
}

/// Arguments of `constitution check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A shipped name or a file.
    pub(crate) constitution: String,
    /// Another value for a parameter of a rule; may be given several times.
    #[arg(long = "set", value_name = "RULE.PARAMETER=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// Folder of pictures that the rules are about: which rules does the relevance scan let through? Needs --models.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) pictures: Option<PathBuf>,
    /// Show notes too, and count them like warnings.
    #[arg(long)]
    pub(crate) strict: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: CheckFormat,
    /// The models; without any, what needs models is not examined.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}

/// Arguments of `constitution diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Before: a shipped name or a file.
    pub(crate) from: String,
    /// After: a shipped name or a file.
    pub(crate) to: String,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `constitution explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A rule's id; or a lint's code or name; or `lints` for all lints.
    #[arg(value_name = "RULE|LINT")]
    pub(crate) what: String,
    /// A shipped name or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "scene")]
    pub(crate) constitution: String,
    /// Another value for a parameter of a rule; may be given several times.
    #[arg(long = "set", value_name = "RULE.PARAMETER=VALUE")]
    pub(crate) settings: Vec<Setting>,
}

/// Arguments of `constitution fmt`.
#[derive(Debug, Args)]
pub(crate) struct FmtArgs {
    /// Change nothing; name the files that are not in the canonical form.
    #[arg(long)]
    pub(crate) check: bool,
    /// Constitution files.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Arguments of `constitution try`.
#[derive(Debug, Args)]
pub(crate) struct TryArgs {
    /// The rule's id.
    pub(crate) rule: String,
    /// A picture file, or a folder of them; its folders `violating` and `safe` hold pictures whose truth is known.
    #[arg(value_name = "PICTURE|FOLDER")]
    pub(crate) pictures: PathBuf,
    /// A shipped name or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "scene")]
    pub(crate) constitution: String,
    /// Another value for a parameter of a rule; may be given several times.
    #[arg(long = "set", value_name = "RULE.PARAMETER=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// What the pictures were made from, which rules on consequences look at.
    #[arg(long)]
    pub(crate) prompt: Option<String>,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
    /// Judge also what the models do not know: pictures and rules outside their domain. The verdict means little.
    #[arg(long)]
    pub(crate) force: bool,
    /// Convert files whose look depends on the viewer (orientation tag, transparency, 16 bits, CMYK).
    #[arg(long)]
    pub(crate) convert: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}
