//! `cluegate constitution compile`: prose in, a reviewed constitution and its record out.

use std::io::{IsTerminal, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use cluegate::TextModel;
use cluegate_cache::Cache;
use cluegate_compiler::review::Colours;
use cluegate_compiler::{
    Compilation, Compiler, Decision, Earlier, Exchange, MAX_PROSE_BYTES, MAX_RECORD_BYTES,
    MAX_RECORDING_BYTES, ModelName, Options, Record, Recording, RecordingFile, Review, Reviews, Templates,
    constitution, review,
};
use cluegate_constitution::{Constitution, Setting, Severity};
use cluegate_perception::VisionLanguageModel;

use super::super::args::{Format, ModelArgs};
use super::super::{Exit, progress, say, say_json, write_file};
use super::reviewing;

/// Examples of `constitution compile`.
pub(crate) const EXAMPLES: &str = "Examples:\n  \
    cluegate constitution compile rules.md --models text.toml -o rules.toml\n  \
    cluegate constitution compile rules.md --models text.toml -o rules.toml --accept --set spread-legs.angle=60\n  \
    cluegate constitution compile rules.md --replay answers.json --missing open.json\n\n\
    Exit codes: 0 every rule was compiled; 1 some were not, each is listed with the reason; 2 an error.";

/// Arguments of `constitution compile`.
#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    /// The prose: a text or Markdown file whose list items and sentences are the rules.
    #[arg(value_name = "PROSE")]
    pub(crate) prose: PathBuf,
    /// Where the constitution goes once every rule is reviewed; its record goes beside it, as NAME.record.json. Without it
    /// nothing is written.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Accept every rule that was not reviewed before.
    #[arg(long, requires = "out")]
    pub(crate) accept: bool,
    /// Name of the constitution; default: that of the file.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Severity of every rule: low, medium, high or critical. A reviewer may change each.
    #[arg(long, value_name = "SEVERITY", default_value = "medium", value_parser = severity)]
    pub(crate) severity: Severity,
    /// Rating from which a rule is objective enough, 1 to 10.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(crate) target: u8,
    /// Revisions of a rule at most.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=20))]
    pub(crate) rounds: u8,
    /// Another value for a number inside a rule; may be given several times.
    #[arg(long = "set", value_name = "RULE.PARAMETER=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// Compile this rule though it seems to speak to the model; may be given several times.
    #[arg(long = "allow", value_name = "RULE")]
    pub(crate) allowed: Vec<String>,
    /// Folder of prompts; those that it lacks come from the program. Stands above the `templates` of the models file.
    #[arg(long, value_name = "DIR")]
    pub(crate) templates: Option<PathBuf>,
    /// Answer from a recording instead of a model; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Vec<PathBuf>,
    /// Where to write the prompts that the recordings do not answer, as a recording whose answers are to be filled in.
    #[arg(long, value_name = "FILE", requires = "replay")]
    pub(crate) missing: Option<PathBuf>,
    /// Where to write all prompts and answers as a recording.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Seconds to wait for one answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Rules in work at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: u16,
    /// Say on standard error what took how long, and where answers came from.
    #[arg(long)]
    pub(crate) timings: bool,
    /// The models, of which only the text model is used.
    #[command(flatten)]
    pub(crate) models: ModelArgs,
    /// How to report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

fn severity(name: &str) -> Result<Severity, String> {
    let found = Severity::ALL.into_iter().find(|severity| severity.as_str() == name);
    found.ok_or_else(|| "expected low, medium, high or critical".to_owned())
}

/// Who answers.
enum Answering {
    Model(TextModel, String),
    Recording(Box<Recording>, Templates),
}

impl Answering {
    fn open(arguments: &CompileArgs) -> anyhow::Result<Self> {
        let own = arguments.templates.as_deref().map(Templates::load).transpose()?;
        if arguments.replay.is_empty() {
            let path = arguments.models.models.as_deref();
            let model = TextModel::open(path, arguments.models.compute.load_options()?)?;
            // Where the file lies differs from machine to machine.
            let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = path.map_or_else(|| "the embedded suite".to_owned(), file);
            let TextModel { model, templates } = model;
            return Ok(Self::Model(TextModel { model, templates: own.unwrap_or(templates) }, name));
        }
        let files = arguments.replay.iter().map(|path| {
            Ok((path.display().to_string(), read_text(path, MAX_RECORDING_BYTES as u64, "a recording")?))
        });
        let files = files.collect::<anyhow::Result<Vec<(String, String)>>>()?;
        let recording = Recording::parse(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))?;
        let templates = own.map_or_else(Templates::shipped, Ok)?;
        Ok(Self::Recording(Box::new(recording), templates))
    }

    fn model(&self) -> &dyn VisionLanguageModel {
        match self {
            Self::Model(model, _) => Arc::as_ref(&model.model),
            Self::Recording(recording, _) => recording.as_ref(),
        }
    }

    fn templates(&self) -> &Templates {
        match self {
            Self::Model(model, _) => &model.templates,
            Self::Recording(_, templates) => templates,
        }
    }

    fn name(&self) -> ModelName {
        let name = match self {
            Self::Model(_, name) => name.clone(),
            Self::Recording(recording, _) => format!("{} (recorded)", recording.model()),
        };
        ModelName { name, fingerprint: self.model().fingerprint().clone() }
    }
}

/// Reads a text file of at most `most` bytes.
fn read_text(path: &Path, most: u64, what: &str) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {what} from {}", path.display());
    let file = std::fs::File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).with_context(cannot)?;
    ensure!(
        bytes.len() as u64 <= most,
        "{}: expected {what} of at most {most} bytes, got more",
        path.display()
    );
    String::from_utf8(bytes).with_context(|| {
        format!("{}: expected {what} in UTF-8; save the file in that encoding", path.display())
    })
}

pub(super) fn run(arguments: &CompileArgs) -> anyhow::Result<Exit> {
    let prose = read_text(&arguments.prose, MAX_PROSE_BYTES as u64, "prose")?;
    let options = options(arguments)?;
    let start = Instant::now();
    let answering = Answering::open(arguments)?;
    let opened = start.elapsed();
    // A recording is its own cache.
    let folder = cluegate_cache::default_folder().filter(|_| arguments.replay.is_empty());
    let cache = folder.map_or_else(Cache::in_memory, Cache::open);
    let earlier = earlier(arguments)?;
    let name = answering.name();
    let templates_hash = answering.templates().hash();
    let start = Instant::now();
    let bar = progress::bar(cluegate_compiler::split(&prose)?.rules.len() as u64, "compiling");
    let compilation = Compiler::new(answering.model(), answering.templates(), &cache, options.clone())
        .with_known(earlier.answers(&name.fingerprint, &templates_hash))
        .compile(&prose, &|| bar.inc(1))?;
    bar.finish_and_clear();
    if arguments.timings {
        timings(opened, start.elapsed(), &compilation, &cache);
    }
    write_recordings(arguments, &answering, &compilation)?;
    let mut reviews = earlier.reviews(&compilation);
    review_rules(arguments, &compilation, &mut reviews)?;
    let file = arguments.prose.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let notes = notes(&file, &name, &compilation, &reviews);
    let record = Record::new((&file, &prose), name, templates_hash, &options, (&compilation, &reviews));
    if arguments.format == Format::Json {
        say_json(&record)?;
    }
    if let Some(out) = &arguments.out {
        write_out(out, &options, notes, &compilation, &reviews)?;
        write_file(&beside(out, "record.json"), (serde_json::to_string_pretty(&record)? + "\n").as_bytes())?;
    }
    Ok(if compilation.failed.is_empty() { Exit::Clean } else { Exit::Violation })
}

fn options(arguments: &CompileArgs) -> anyhow::Result<Options> {
    let named = arguments.out.as_deref().unwrap_or(&arguments.prose);
    let stem = named.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let slug = stem.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let slug: String = slug.trim_matches('-').chars().take(64).collect();
    let slug = if slug.is_empty() { Options::default().name } else { slug };
    let name = arguments.name.clone().unwrap_or(slug);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    ensure!(
        name.len() <= 64 && name.starts_with(plain) && name.chars().all(|c| plain(c) || c == '-'),
        "--name: expected 1 to 64 characters out of a-z, 0-9 and -, starting with a letter or digit, got {name:?}"
    );
    Ok(Options {
        name,
        rounds: arguments.rounds.into(),
        target: arguments.target,
        severity: arguments.severity,
        settings: arguments.settings.clone(),
        allowed: arguments.allowed.iter().cloned().collect(),
        timeout: Duration::from_secs(arguments.timeout),
        parallel: arguments.parallel.into(),
    })
}

/// The record beside the constitution, if there is one.
fn earlier(arguments: &CompileArgs) -> anyhow::Result<Earlier> {
    let path = arguments.out.as_deref().map(|out| beside(out, "record.json")).filter(|path| path.exists());
    let Some(path) = path else { return Ok(Earlier::default()) };
    let text = read_text(&path, MAX_RECORD_BYTES, "the record of an earlier compilation")?;
    Ok(Earlier::parse(&text, &path.display().to_string())?)
}

/// `rules.toml` -> `rules.record.json`.
fn beside(out: &Path, extension: &str) -> PathBuf {
    out.with_extension(extension)
}

/// A line to standard error.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn timings(opened: Duration, compiled: Duration, compilation: &Compilation, cache: &Cache) {
    let (open, compile) = (opened.as_secs_f64() * 1e3, compiled.as_secs_f64() * 1e3);
    let counts = cache.counts();
    let (cached, used) = (counts.memory + counts.disk, compilation.asked().count() as u64);
    let recorded = used.saturating_sub(cached + counts.missed);
    tell(&format!(
        "opened in {open:.1} ms; {} rules compiled in {compile:.1} ms; answers: {recorded} from the record, {cached} from the \
         cache, {} anew",
        compilation.rules(),
        used - recorded - cached.min(used - recorded),
    ));
}

fn write_recordings(
    arguments: &CompileArgs,
    answering: &Answering,
    compilation: &Compilation,
) -> anyhow::Result<()> {
    let write = |path: &Path, file: &RecordingFile| {
        write_file(path, (serde_json::to_string_pretty(file)? + "\n").as_bytes())
    };
    if let Some(path) = &arguments.record {
        let mut exchanges: Vec<Exchange> = Vec::new();
        for asked in compilation.asked() {
            let exchange = Exchange { prompt: asked.prompt.clone(), answer: asked.answer.clone() };
            if !exchanges.contains(&exchange) {
                exchanges.push(exchange);
            }
        }
        let model = match answering {
            Answering::Model(_, name) => name.clone(),
            Answering::Recording(recording, _) => recording.model().to_owned(),
        };
        write(path, &RecordingFile { model, exchanges })?;
    }
    if let (Some(path), Answering::Recording(recording, _)) = (&arguments.missing, answering) {
        let missing = recording.missing();
        write(path, &missing)?;
        tell(&format!("{} open prompts: {}", missing.exchanges.len(), path.display()));
    }
    Ok(())
}

/// Shows every rule, and asks a person about those that nobody decided on, if one is there.
fn review_rules(
    arguments: &CompileArgs,
    compilation: &Compilation,
    reviews: &mut Reviews,
) -> anyhow::Result<()> {
    if arguments.accept {
        for rule in &compilation.compiled {
            let accepted = || Review { decision: Decision::Accepted, proposal: rule.digest(), edited: None };
            reviews.entry(rule.id.clone()).or_insert_with(accepted);
        }
    }
    if arguments.format == Format::Json {
        return Ok(());
    }
    let terminal = std::io::stdout().is_terminal();
    let colours = Colours(terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    for failed in &compilation.failed {
        say(review::failed(failed, colours))?;
    }
    let open = compilation.compiled.iter().any(|rule| !reviews.contains_key(&rule.id));
    if open && terminal && arguments.out.is_some() && std::io::stdin().is_terminal() {
        let folder = arguments.out.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        let editor = reviewing::Editor::from_env(folder);
        let mut input = std::io::stdin().lock();
        reviewing::review(compilation, reviews, colours, &editor, (&mut input, &mut std::io::stdout()))?;
    } else {
        for rule in &compilation.compiled {
            say(review::rule(rule, reviews.get(&rule.id), colours))?;
        }
    }
    say(review::summary(compilation).trim_end())?;
    Ok(())
}

/// Comments for the head of the constitution.
fn notes(file: &str, model: &ModelName, compilation: &Compilation, reviews: &Reviews) -> Vec<String> {
    let fingerprint: String = model.fingerprint.chars().take(16).collect();
    let mut notes = vec![format!(
        "Compiled from {file} by cluegate {} with {} ({fingerprint}).",
        env!("CARGO_PKG_VERSION"),
        model.name
    )];
    for failed in &compilation.failed {
        notes.push(format!("Not compiled: {}, line {}: {}", failed.id, failed.source.line, failed.failure));
    }
    let rejected = reviews.iter().filter(|(_, review)| review.decision == Decision::Rejected);
    for (id, _) in rejected {
        notes.push(format!("Rejected in review: {id}"));
    }
    notes
}

/// Writes the constitution where every rule was reviewed, and a proposal beside it where not.
fn write_out(
    out: &Path,
    options: &Options,
    mut notes: Vec<String>,
    compilation: &Compilation,
    reviews: &Reviews,
) -> anyhow::Result<()> {
    let open = compilation.compiled.iter().filter(|rule| !reviews.contains_key(&rule.id)).count();
    let proposal = beside(out, "proposal.toml");
    let path = if open == 0 { out } else { &proposal };
    if open > 0 {
        notes.insert(0, format!("PROPOSAL: {open} rules were not reviewed."));
    }
    let Some(text) = constitution(options, &notes, compilation, reviews, open > 0) else {
        tell("no rule is left: no constitution was written");
        return Ok(());
    };
    let text = cluegate_constitution::format(&text, &path.display().to_string())?;
    Constitution::parse(&text, &path.display().to_string())?;
    write_file(path, text.as_bytes())?;
    if open == 0 {
        // It says less than what was written now.
        let _ = std::fs::remove_file(&proposal);
        tell(&format!("written: {}", out.display()));
    } else {
        tell(&format!(
            "{open} rules were not reviewed: the proposal is in {}, and {} is as it was; review them on a terminal, or \
             accept all with --accept",
            proposal.display(),
            out.display()
        ));
    }
    Ok(())
}
