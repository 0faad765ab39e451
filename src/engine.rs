//! From a set of models to a judge that refuses what its models do not know.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use cluegate_cache::{Bound, Cache, Counts};
use cluegate_candle_diffusion::{DiffusionError, Pipeline};
use cluegate_gate::SharedJudge;
use cluegate_hub::{HubCache, HubError, Preset, Settings, models_file, presets};
use cluegate_judge::{Judge, JudgeError, JudgeOptions, TemplateError, Templates};
use cluegate_models::{Domain, FileTree, LoadOptions, MODELS_FILE, ModelError, Suite};
use cluegate_perception::{PerceptionError, RelevanceEncoder, VisionLanguageModel};
use cluegate_remote::{RemoteError, RemoteJudge, RemoteOptions, RemoteRelevance};
use cluegate_student::{Student, StudentError};
use cluegate_workers::{
    Admission, AdmissionOptions, DetectorWorker, LanguageOptions, LanguageStatistics, LanguageWorker,
    RelevanceWorker, Statistics, WorkerOptions,
};
use thiserror::Error;

use crate::CandleGenerator;

mod inspector;

pub use inspector::{EngineJudges, OUT_OF_DOMAIN};

/// Why a set of models cannot be used.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A model, or the models file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The presets, or where checkpoints lie.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A section of the models file that names engines on other machines.
    #[error("the models file: {0}")]
    Section(String),
    /// A model on another machine.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The prompt templates.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The prompts of the text model.
    #[error(transparent)]
    Prompts(#[from] cluegate_compiler::TemplateError),
    /// A set without a text model, asked for one.
    #[error(
        "{set} has no text model: name a models file with a section [text], with `folder = \"...\"`, `repo = \"org/name\"` \
         (a checkpoint of the families llama, mistral, qwen2, qwen3, or a judge's), or `urls = [\"http://...\"]` and \
         `model = \"...\"`"
    )]
    NoText {
        /// The set.
        set: String,
    },
    /// The generator.
    #[error("the generator: {0}")]
    Generator(#[from] DiffusionError),
    /// The pre-filter's files.
    #[error("the pre-filter: {0}")]
    Student(#[from] StudentError),
    /// The pre-filter does not belong to these models.
    #[error(transparent)]
    Prefilter(#[from] JudgeError),
    /// A model's thread could not be started.
    #[error(transparent)]
    Worker(#[from] PerceptionError),
    /// No models were named, and none are compiled in.
    #[error(
        "this program was built without the embedded suite (feature `mini`): name a models file with --models"
    )]
    NoSuite,
}

/// The bounds of an engine and what it remembers. Every default of a bound is stated where its type is.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where the models that judge compute, and in what precision. Default the CPU in f32; with the feature `cuda` the
    /// device is what `models::cuda::device` gives.
    pub models: LoadOptions,
    /// Where the models keep what they compute from texts alone: rule embeddings, detector queries, scores without a
    /// picture. Default in memory; see [`default_folder`](cluegate_cache::default_folder) for the place on disk that
    /// the commands use.
    pub cache: Cache,
    /// How many reports are kept, so that the same picture is judged once under one constitution; `None` for none.
    /// Default [`Judge::VERDICTS`].
    pub verdicts: Option<Bound>,
    /// How many pictures may be in work at a time, over all tenants; the next one is refused at once, as `overloaded`.
    pub pictures: AdmissionOptions,
    /// The relevance encoder's queue and batches.
    pub relevance: WorkerOptions,
    /// The detector's queue and batches.
    pub detector: WorkerOptions,
    /// The judging model's queues and batches.
    pub judge: LanguageOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            models: LoadOptions::default(),
            cache: Cache::in_memory(),
            verdicts: Some(Judge::VERDICTS),
            pictures: AdmissionOptions::default(),
            relevance: WorkerOptions::default(),
            detector: WorkerOptions::default(),
            judge: LanguageOptions::default(),
        }
    }
}

/// Models that were opened, each on a thread of its own, and the judge over them. Whoever shares an engine shares its
/// models: requests that come at the same time are computed together.
pub struct Engine {
    suite: Suite,
    judge: Arc<Judge>,
    relevance: Arc<RelevanceWorker>,
    detector: Arc<DetectorWorker>,
    /// The judging model's thread; an engine on another machine has none here.
    language: Option<Arc<LanguageWorker>>,
    pictures: Admission,
    cache: Cache,
    domain: Option<Arc<Domain>>,
}

/// The set of models that `models` names: a preset, a models file, or a folder with a `models.toml`; the embedded suite if
/// there is none. What a set names by repository is looked for in the cache of Hugging Face and never fetched here.
///
/// # Errors
/// If there is nothing of that name, the models file cannot be used, a checkpoint is not in the cache (the message has the
/// command that fetches it), or no name and no embedded suite.
pub fn open_suite(models: Option<&Path>) -> Result<Suite, EngineError> {
    let Some(path) = models else { return embedded_suite() };
    if let Some(preset) = path.to_str().map(presets::find).transpose()?.flatten() {
        return open_preset(preset);
    }
    let (folder, name) = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(folder), Some(name)) if path.is_file() => {
            (if folder.as_os_str().is_empty() { Path::new(".") } else { folder }, name)
        }
        _ => (path, MODELS_FILE),
    };
    let tree = FileTree::open(folder)?;
    let find = |repo: &str, revision: &str| {
        let (repo, revision) = (repo.parse()?, revision.parse()?);
        HubCache::from_settings(&Settings::from_env()?).snapshot(&repo, &revision)
    };
    Ok(Suite::from_text(&tree, name, &tree.read_text(name)?, &|repo, revision| {
        find(repo, revision).map_err(|error: HubError| error.to_string())
    })?)
}

fn embedded_suite() -> Result<Suite, EngineError> {
    if cluegate_mini::SUITE_FILES.is_empty() {
        return Err(EngineError::NoSuite);
    }
    Ok(Suite::open(&FileTree::embedded("the embedded suite", cluegate_mini::SUITE_FILES))?)
}

/// A preset is a models file that is compiled in.
fn open_preset(preset: &Preset) -> Result<Suite, EngineError> {
    if preset.parts.is_empty() {
        return embedded_suite();
    }
    let cache = HubCache::from_settings(&Settings::from_env()?);
    let find =
        |repo: &str, revision: &str| cache.snapshot_of(&repo.parse()?, &revision.parse()?, &preset.name);
    let tree = FileTree::embedded("the preset", &[]);
    Ok(Suite::from_text(
        &tree,
        &preset.name,
        &models_file(&preset.about, &preset.pins()),
        &|repo, revision| find(repo, revision).map_err(|error: HubError| error.to_string()),
    )?)
}

impl Engine {
    /// Opens the models at `models` (see [`open_suite`]) and loads those that judge.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn open(models: Option<&Path>) -> Result<Self, EngineError> {
        Self::open_with(models, &EngineOptions::default())
    }

    /// The same within other bounds.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn open_with(models: Option<&Path>, options: &EngineOptions) -> Result<Self, EngineError> {
        let suite =
            open_suite(models)?.with_options(options.models.clone()).with_cache(options.cache.clone());
        let relevance = Arc::new(RelevanceWorker::start(open_relevance(&suite)?, options.relevance)?);
        let detector = Arc::new(DetectorWorker::start(suite.detector()?, options.detector)?);
        let (model, language): (Arc<dyn VisionLanguageModel>, _) = match suite.elsewhere("judge") {
            // It batches by itself what comes at the same time.
            Some(section) => (Arc::new(RemoteJudge::open(&remote(section)?)?), None),
            None => {
                let worker = Arc::new(LanguageWorker::start(suite.judge()?, options.judge)?);
                (Arc::clone(&worker) as _, Some(worker))
            }
        };
        if let Some(section) = suite.elsewhere("text") {
            // An engine asks no text model; whoever opens that one shall not be the first to find a mistake.
            remote(section)?;
        }
        let judge = Judge::new(
            Arc::clone(&relevance) as _,
            Arc::clone(&detector) as _,
            model,
            Templates::shipped()?,
            JudgeOptions::default(),
        )
        .with_cache(options.cache.clone());
        let judge = match options.verdicts {
            Some(bound) => judge.with_verdicts(bound),
            None => judge,
        };
        let judge = match suite.prefilter_folder().and_then(FileTree::on_disk) {
            Some(folder) => judge.with_prefilter(Arc::new(Student::load(folder)?))?,
            None => judge,
        };
        let domain = suite.domain()?.map(Arc::new);
        let pictures = Admission::new("places for pictures in work", options.pictures);
        let cache = options.cache.clone();
        Ok(Self { suite, judge: Arc::new(judge), relevance, detector, language, pictures, cache, domain })
    }

    /// The judge, without the test of the models' domain and without a bound on the pictures in work.
    pub fn judge(&self) -> &Arc<Judge> {
        &self.judge
    }

    /// The relevance encoder, which the domain test sees with.
    pub fn relevance(&self) -> &dyn RelevanceEncoder {
        self.relevance.as_ref()
    }

    /// What the models' threads have done so far.
    pub fn statistics(&self) -> EngineStatistics {
        EngineStatistics {
            pictures_in_work: self.pictures.in_flight(),
            relevance: self.relevance.statistics(),
            detector: self.detector.statistics(),
            judge: self.language.as_ref().map(|worker| worker.statistics()).unwrap_or_default(),
            cache: self.cache.counts(),
        }
    }

    /// What the models know, if they say so.
    pub fn domain(&self) -> Option<&Domain> {
        self.domain.as_deref()
    }

    /// A provider of judges that refuse what the models do not know, unless `force` is set, and more pictures than may
    /// be in work.
    pub fn judges(&self, force: bool) -> EngineJudges {
        EngineJudges {
            judges: SharedJudge::new(Arc::clone(&self.judge), Arc::clone(&self.detector) as _),
            relevance: Arc::clone(&self.relevance),
            pictures: self.pictures.clone(),
            domain: self.domain.clone().filter(|_| !force),
        }
    }

    /// Whether the set names a generator. One that only judges needs none.
    pub fn has_generator(&self) -> bool {
        self.suite.has_generator()
    }

    /// Loads the generator of the set.
    ///
    /// # Errors
    /// If the set has none, or it cannot be loaded.
    pub fn generator(&self) -> Result<CandleGenerator, EngineError> {
        load_generator(&self.suite.generator_folder()?)
    }
}

/// Loads the generator in a diffusers folder of any family that is implemented, instead of that of a set.
///
/// # Errors
/// If it is no folder, or it cannot be loaded.
pub fn open_generator(folder: &Path) -> Result<CandleGenerator, EngineError> {
    load_generator(&FileTree::open(folder)?)
}

fn load_generator(folder: &FileTree) -> Result<CandleGenerator, EngineError> {
    let pipeline = Pipeline::load(folder, &Device::Cpu, DType::F32)?;
    Ok(CandleGenerator::new(pipeline, Pipeline::fingerprint(folder)?))
}

/// The relevance encoder, wherever it is.
fn open_relevance(suite: &Suite) -> Result<Arc<dyn RelevanceEncoder>, EngineError> {
    let Some(section) = suite.elsewhere("relevance") else { return Ok(suite.relevance()?) };
    let mut section = section.clone();
    let named = section.remove("threshold");
    let threshold = named.as_ref().and_then(|value| value.as_float()).filter(|value| value.abs() <= 1.0);
    let threshold = threshold.ok_or_else(|| {
        EngineError::Section(format!(
            "[relevance] with urls: expected `threshold`, the cosine from which a rule is relevant with that model \
             (0.22 for CLIP ViT-B/16), got {}",
            named.map_or_else(|| "none".to_owned(), |value| value.to_string())
        ))
    })?;
    Ok(Arc::new(RemoteRelevance::open(&remote(&section)?, threshold as f32)?))
}

/// What a section says of engines on other machines.
pub(crate) fn remote(section: &toml::Table) -> Result<RemoteOptions, EngineError> {
    section.clone().try_into().map_err(|e| EngineError::Section(e.to_string()))
}

/// Snapshots of an engine's threads, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStatistics {
    /// Pictures under judgment now.
    pub pictures_in_work: usize,
    /// The relevance encoder.
    pub relevance: Statistics,
    /// The detector.
    pub detector: Statistics,
    /// The judging model.
    pub judge: LanguageStatistics,
    /// Look-ups of what the models compute from texts alone.
    pub cache: Counts,
}
