//! From a set of models to a judge that refuses what its models do not know.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use cluegate_cache::{Bound, Cache, Counts};
use cluegate_candle_diffusion::{DiffusionError, Pipeline};
use cluegate_constitution::Constitution;
use cluegate_gate::{InspectionError, Inspector, JudgeProvider, SharedJudge, Unfinished};
use cluegate_hub::{HubCache, HubError, Preset, Settings, models_file, presets};
use cluegate_judge::{Judge, JudgeError, JudgeOptions, Report, TemplateError, Templates};
use cluegate_models::{Domain, FileTree, LoadOptions, MODELS_FILE, ModelError, Suite};
use cluegate_perception::{
    Call, Detection, PerceptionError, PerceptionErrorKind, Picture, RelevanceEncoder, VisionLanguageModel,
};
use cluegate_remote::{RemoteError, RemoteJudge, RemoteOptions, RemoteRelevance};
use cluegate_student::{Student, StudentError};
use cluegate_workers::{
    Admission, AdmissionOptions, DetectorWorker, LanguageOptions, LanguageStatistics, LanguageWorker,
    RelevanceWorker, Statistics, WorkerOptions,
};
use thiserror::Error;

use crate::CandleGenerator;

/// Kind of the [`InspectionError`] for pictures and rules that the models do not know.
pub const OUT_OF_DOMAIN: &str = "out-of-domain";

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
        let folder = self.suite.generator_folder()?;
        let pipeline = Pipeline::load(&folder, &Device::Cpu, DType::F32)?;
        Ok(CandleGenerator::new(pipeline, pipeline_fingerprint(&folder)?))
    }
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

/// Hash over all that decides what a pipeline draws.
fn pipeline_fingerprint(folder: &FileTree) -> Result<String, ModelError> {
    const PARTS: [&str; 6] = ["model_index.json", "text_encoder", "unet", "vae", "tokenizer", "scheduler"];
    cluegate_models::fingerprint(folder, &PARTS)
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

/// Makes judges that know their limits. See [`Engine::judges`].
pub struct EngineJudges {
    judges: SharedJudge,
    relevance: Arc<RelevanceWorker>,
    pictures: Admission,
    domain: Option<Arc<Domain>>,
}

impl EngineJudges {
    /// Asks for a rationale with every reasoning, for reports that people read.
    #[must_use]
    pub fn with_rationale(mut self, rationale: bool) -> Self {
        self.judges = self.judges.with_rationale(rationale);
        self
    }
}

impl JudgeProvider for EngineJudges {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        if let Some(domain) = &self.domain {
            refuse_consequences(&constitution, domain)?;
            refuse_foreign_words(&constitution, domain)?;
        }
        Ok(Arc::new(EngineInspector {
            inspector: self.judges.inspector(constitution)?,
            relevance: Arc::clone(&self.relevance),
            pictures: self.pictures.clone(),
            domain: self.domain.clone(),
        }))
    }
}

/// Models with a domain were trained for it question by question: none of them has learned to say what is likely to follow.
fn refuse_consequences(constitution: &Constitution, domain: &Domain) -> Result<(), InspectionError> {
    match constitution.rules().iter().find(|rule| rule.consequence) {
        None => Ok(()),
        Some(rule) => Err(InspectionError::new(
            OUT_OF_DOMAIN,
            format!(
                "the rule {} of the constitution {} asks what is likely to follow from a picture, which these models \
                 never learned to tell. What they know: {} {}",
                rule.id,
                constitution.name(),
                domain.name(),
                domain.advice(),
            ),
        )),
    }
}

fn refuse_foreign_words(constitution: &Constitution, domain: &Domain) -> Result<(), InspectionError> {
    let statements = constitution
        .rules()
        .iter()
        .flat_map(|rule| rule.preconditions.iter().chain(&rule.unless))
        .flat_map(|precondition| precondition.any.iter().map(|statement| statement.text.as_str()));
    let unknown = domain.unknown_words(statements);
    if unknown.is_empty() {
        return Ok(());
    }
    let shown = unknown.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    Err(InspectionError::new(
        OUT_OF_DOMAIN,
        format!(
            "the constitution {} speaks of what these models do not know ({shown}{}). What they know: {} {}",
            constitution.name(),
            if unknown.len() > 5 { ", ..." } else { "" },
            domain.name(),
            domain.advice(),
        ),
    ))
}

struct EngineInspector {
    inspector: Arc<dyn Inspector>,
    relevance: Arc<RelevanceWorker>,
    pictures: Admission,
    domain: Option<Arc<Domain>>,
}

impl EngineInspector {
    fn refuse_foreign_pictures(
        &self,
        picture: &Picture,
        domain: &Domain,
        call: &Call,
    ) -> Result<(), InspectionError> {
        // The encoder cuts the middle out of a wide picture, and its edges are judged as well.
        let views = cluegate_judge::views(picture);
        let embeddings = self.relevance.embed_pictures(&views, call)?;
        if embeddings.len() != views.len() {
            let message =
                format!("expected {} embeddings of a picture, got {}", views.len(), embeddings.len());
            return Err(PerceptionError::new(PerceptionErrorKind::MissingAnswer, message).into());
        }
        for (index, embedding) in embeddings.iter().enumerate() {
            if let Some(outside) = domain.check_embedding(embedding, self.relevance.as_ref())? {
                let message = format!(
                    "{} is {outside}. What these models know: {} {}",
                    if index == 0 { "the picture" } else { "a part of the picture" },
                    domain.name(),
                    domain.advice()
                );
                return Err(InspectionError::new(OUT_OF_DOMAIN, message));
            }
        }
        Ok(())
    }

    /// Judges within the bound on the pictures in work, whose pace a picture that was judged before tells nothing about.
    fn within_bounds(
        &self,
        call: &Call,
        judge: impl FnOnce() -> Result<Report, InspectionError>,
    ) -> Result<Report, InspectionError> {
        let place = self.pictures.admit(call)?;
        let report = judge()?;
        if !report.from_cache() {
            place.done();
        }
        Ok(report)
    }
}

impl Inspector for EngineInspector {
    fn constitution(&self) -> &Constitution {
        self.inspector.constitution()
    }

    fn models(&self) -> BTreeMap<String, String> {
        self.inspector.models()
    }

    fn inspect(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.within_bounds(call, || {
            if let Some(domain) = &self.domain {
                self.refuse_foreign_pictures(picture, domain, call)?;
            }
            self.inspector.inspect(picture, prompt, call)
        })
    }

    fn inspect_whole(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.within_bounds(call, || {
            if let Some(domain) = &self.domain {
                self.refuse_foreign_pictures(picture, domain, call)?;
            }
            self.inspector.inspect_whole(picture, prompt, call)
        })
    }

    fn inspect_unfinished(
        &self,
        picture: &Picture,
        kind: Unfinished,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        // A blurred or covered picture lies outside the domain for that alone.
        self.within_bounds(call, || self.inspector.inspect_unfinished(picture, kind, prompt, call))
    }

    fn locate(
        &self,
        picture: &Picture,
        words: &[&str],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Detection>, InspectionError> {
        let _place = self.pictures.admit(call)?;
        self.inspector.locate(picture, words, min_confidence, call)
    }
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Every rule relevant and no statement settled by the first lines, so that every model sees every picture.
    fn thorough() -> Constitution {
        let rule = "[[rule]]\nid = \"a\"\ntext = \"No cat on fire.\"\nobjectiveness = 10\nseverity = \"low\"\n\
                    [[rule.precondition]]\nany = [{ statement = \"a cat is visible\", central = [\"cat\"] }]\n";
        let thresholds = "relevance = -1.0\nalpha1 = 1.0\nalpha2 = 1.0\ndetection_confidence = 0.0\n";
        let text = format!("name = \"thorough\"\n[thresholds]\n{thresholds}{rule}");
        Constitution::parse(&text, "thorough.toml").unwrap()
    }

    #[test]
    fn every_shape_of_picture_gets_a_verdict_or_an_error_that_names_it() {
        let engine = Engine::open(None).unwrap();
        let inspector = engine.judges(true).inspector(thorough()).unwrap();
        let judge = |width: u32, height: u32| {
            let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
            inspector.inspect(&Picture::new(pixels), None, &Call::default())
        };
        for (width, height) in [(1, 1), (2, 3), (1, 64), (64, 1), (27, 29), (640, 10), (3000, 2000)] {
            let report = judge(width, height).unwrap();
            assert!(report.complete().is_some(), "{width} x {height}");
            assert!(report.passes().stages.statements > 0, "{width} x {height}");
        }
        for (width, height) in [(1, 65), (5000, 1), (1, 5000), (10, 3000)] {
            let error = judge(width, height).unwrap_err();
            assert_eq!(error.kind(), "request", "{error}");
            let size = format!("{width} x {height} pixels");
            assert!(error.to_string().contains(&size) && error.to_string().contains("cut or pad"), "{error}");
        }
        assert_eq!(judge(0, 5).unwrap_err().kind(), "invalid-picture");
    }

    #[test]
    fn what_stands_at_the_edge_of_a_wide_picture_is_judged_too() {
        use cluegate_mini::{Situation, Style, World, osbench};
        let world = World::load().unwrap();
        let side = world.picture_size;
        let engine = Engine::open(None).unwrap();
        let scene = Constitution::shipped("scene").unwrap();
        let inspector = engine.judges(true).inspector(scene).unwrap();
        let violating = osbench::samples(&world, osbench::SEED, 1);
        let mut relevant = 0;
        for sample in violating.iter().filter(|sample| sample.situation == Situation::Violating) {
            let picture = sample.picture(&world, Style::World).unwrap();
            let alone = inspector.inspect(&Picture::new(picture.clone()), None, &Call::default()).unwrap();
            let mut wide = image::RgbImage::from_pixel(4 * side, side, image::Rgb([120, 160, 90]));
            image::imageops::replace(&mut wide, &picture, 0, 0);
            let wide = inspector.inspect(&Picture::new(wide), None, &Call::default()).unwrap();
            for (alone, wide) in alone.rules().iter().zip(wide.rules()) {
                let [wide, as_alone] = [wide, alone].map(|rule| rule.relevance.unwrap());
                assert!(wide > as_alone - 1e-3, "{}: {}", sample.id, alone.id);
            }
            relevant += alone.rules().iter().filter(|rule| !rule.preconditions.is_empty()).count();
        }
        assert!(relevant > 0);
    }

    #[test]
    fn what_is_likely_to_follow_is_no_question_for_the_embedded_models() {
        let scene = Constitution::shipped_text("scene").unwrap();
        // Every word is known to the models: the form of the question is not.
        let asking = scene.replacen("severity = \"high\"", "severity = \"high\"\nconsequence = true", 1);
        let asking = Constitution::parse(&asking, "asking.toml").unwrap();
        let engine = Engine::open(None).unwrap();
        let error = engine.judges(false).inspector(asking.clone()).err().unwrap();
        assert_eq!(error.kind(), OUT_OF_DOMAIN, "{error}");
        assert!(
            error.to_string().starts_with("the rule on-fire of the constitution scene asks what"),
            "{error}"
        );
        // Whoever insists is served.
        assert!(engine.judges(true).inspector(asking).is_ok());
    }

    #[test]
    fn a_picture_outside_the_domain_is_refused_whatever_its_shape() {
        let engine = Engine::open(None).unwrap();
        let inspector = engine.judges(false).inspector(Constitution::shipped("scene").unwrap()).unwrap();
        for (width, height) in [(1, 1), (1, 5000), (300, 200)] {
            let picture = Picture::new(image::RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([(x * 37) as u8, (y * 91) as u8, (x * y) as u8])
            }));
            let error = inspector.inspect(&picture, None, &Call::default()).unwrap_err();
            assert_eq!(error.kind(), OUT_OF_DOMAIN, "{width} x {height}: {error}");
        }
    }

    #[test]
    fn what_is_no_scene_is_refused_at_the_edge_of_one_too() {
        use cluegate_mini::{Style, World, osbench};
        let world = World::load().unwrap();
        let side = world.picture_size;
        let scene = osbench::samples(&world, osbench::SEED, 1)[0].picture(&world, Style::World).unwrap();
        let engine = Engine::open(None).unwrap();
        let inspector = engine.judges(false).inspector(Constitution::shipped("scene").unwrap()).unwrap();
        let inspect = |pixels| inspector.inspect(&Picture::new(pixels), None, &Call::default());
        assert!(inspect(scene.clone()).is_ok());
        let noise = |x: u32, y: u32| image::Rgb([(x * 37) as u8, (y * 91) as u8, (x * y) as u8]);
        for edge in [0, 2 * side] {
            let mut wide = image::RgbImage::new(3 * side, side);
            for place in [0, side, 2 * side] {
                image::imageops::replace(&mut wide, &scene, i64::from(place), 0);
            }
            assert!(inspect(wide.clone()).is_ok());
            let strange = image::RgbImage::from_fn(side, side, noise);
            image::imageops::replace(&mut wide, &strange, i64::from(edge), 0);
            let error = inspect(wide).unwrap_err();
            assert_eq!(error.kind(), OUT_OF_DOMAIN, "{error}");
            assert!(error.to_string().starts_with("a part of the picture is"), "{error}");
        }
    }
}
