//! The judge: three models, the prompts, and what it knows of constitutions.

use std::sync::Arc;

use cluegate_cache::{Bound, Cache};
use cluegate_constitution::Constitution;
use cluegate_perception::{
    Call, PerceptionError, PerceptionErrorKind, Picture, Prompt, RegionDetector, RelevanceEncoder,
    VisionLanguageModel,
};
use cluegate_student::Student;

use crate::error::JudgeError;
use crate::inspect::{Inspection, Session};
use crate::options::{InspectOptions, JudgeOptions, Stages};
use crate::pictures::MAX_VIEWS;
use crate::prepared::{Plan, Prepared};
use crate::priors::scores_without_image;
use crate::relevance;
use crate::report::{Models, Report, Stage};
use crate::templates::Templates;
use crate::verdicts::{VerdictKey, Verdicts};

/// The CLUE judge over three models. Shared by reference between threads; holds no state but its caches.
pub struct Judge {
    pub(crate) encoder: Arc<dyn RelevanceEncoder>,
    pub(crate) detector: Arc<dyn RegionDetector>,
    pub(crate) vlm: Arc<dyn VisionLanguageModel>,
    pub(crate) templates: Templates,
    pub(crate) options: JudgeOptions,
    models: Models,
    pub(crate) cache: Cache,
    pub(crate) verdicts: Option<Verdicts>,
    pub(crate) prefilter: Option<Arc<Student>>,
}

impl Judge {
    /// A judge over these models. It keeps `M(None, c)` as long as it lives, and no reports.
    pub fn new(
        encoder: Arc<dyn RelevanceEncoder>,
        detector: Arc<dyn RegionDetector>,
        vlm: Arc<dyn VisionLanguageModel>,
        templates: Templates,
        options: JudgeOptions,
    ) -> Self {
        let models = Models {
            relevance: encoder.fingerprint().clone(),
            detector: detector.fingerprint().clone(),
            judge: vlm.fingerprint().clone(),
        };
        let cache = Cache::in_memory();
        Self { encoder, detector, vlm, templates, options, models, cache, verdicts: None, prefilter: None }
    }

    /// The same judge with another cache for `M(None, c)`, such as one on disk that outlives it.
    #[must_use]
    pub fn with_cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// The same judge, keeping reports within `bound` (a report's size is about that of its JSON), so that
    /// [`Self::inspect`] judges the same picture once. The same means: every pixel, the revision of the constitution,
    /// the models, templates, stages, the rationale, and the prompt if a rule is shown it. Two inspections of the same at the same time are one, and a
    /// report that was found instead of computed says so ([`Report::from_cache`]). Errors are not kept, and nothing is
    /// on disk: a file could forge the permission to release a picture.
    #[must_use]
    pub fn with_verdicts(mut self, bound: Bound) -> Self {
        self.verdicts = Some(Verdicts::new(bound));
        self
    }

    /// The same judge with a pre-filter, which looks at the embeddings of the relevance scan before anything else is asked,
    /// and may clear a picture: the report says so ([`Report::prefilter`]). It never calls a picture unsafe. The judge then
    /// prepares no constitution but the one that the pre-filter was distilled under.
    ///
    /// # Errors
    /// `Prefilter` if it was distilled for another relevance encoder.
    pub fn with_prefilter(mut self, student: Arc<Student>) -> Result<Self, JudgeError> {
        student.check_encoder(&self.models.relevance)?;
        self.prefilter = Some(student);
        Ok(self)
    }

    /// The pre-filter.
    pub fn prefilter(&self) -> Option<&Arc<Student>> {
        self.prefilter.as_ref()
    }

    /// What [`Self::with_verdicts`] is meant to be given: 4,096 reports and 64 MiB.
    pub const VERDICTS: Bound = Bound { entries: 4096, bytes: 64 << 20 };

    /// A judge over the same models with other prompts, for comparisons. It shares the cache, in which entries are told
    /// apart by their prompts, and keeps no reports.
    #[must_use]
    pub fn with_templates(&self, templates: Templates) -> Self {
        Self {
            encoder: Arc::clone(&self.encoder),
            detector: Arc::clone(&self.detector),
            vlm: Arc::clone(&self.vlm),
            templates,
            options: self.options,
            models: self.models.clone(),
            cache: self.cache.clone(),
            verdicts: None,
            // What it learned were verdicts by the other prompts.
            prefilter: None,
        }
    }

    /// The vision-language model, to be asked something else.
    pub fn language_model(&self) -> &Arc<dyn VisionLanguageModel> {
        &self.vlm
    }

    /// The relevance encoder, to be asked something else.
    pub fn relevance_encoder(&self) -> &Arc<dyn RelevanceEncoder> {
        &self.encoder
    }

    /// Fingerprints of the models.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The prompts.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Computes what depends on the constitution only: the embeddings of the rule texts and `M(None, c)` of every
    /// statement, the latter once for all constitutions that share it. No deadline applies: it is done once, at start.
    ///
    /// # Errors
    /// A model failed or gave an answer that is none; `Prefilter` if there is one, and it was distilled under another revision.
    pub fn prepare(&self, constitution: &Constitution) -> Result<Prepared, JudgeError> {
        if let Some(student) = &self.prefilter {
            student.check_constitution(constitution.name(), &constitution.revision().to_string())?;
        }
        let mut session = Session::new(Call::default());
        let plan = Plan::new(constitution);
        let relevance_threshold =
            relevance::threshold(constitution.thresholds().relevance, self.encoder.default_threshold())?;
        let texts: Vec<&str> = constitution.rules().iter().map(|rule| rule.text.as_str()).collect();
        let rule_embeddings =
            session.call(Stage::Relevance, |call| self.encoder.embed_texts(&texts, call))?;
        relevance::check_embeddings(&rule_embeddings, texts.len())?;
        let priors = self.priors(&mut session, &plan)?;
        tracing::debug!(
            constitution = constitution.name(),
            revision = %constitution.revision(),
            statements = plan.statements.len(),
            "prepared"
        );
        Ok(Prepared {
            constitution: Arc::new(constitution.clone()),
            models: self.models.clone(),
            templates: self.templates.hash(),
            rule_embeddings,
            relevance_threshold,
            plan,
            priors,
        })
    }

    /// `M(None, c)` of every statement of the plan; those not yet known are asked in one batch, and in another those of
    /// consequence rules.
    fn priors(&self, session: &mut Session, plan: &Plan) -> Result<Vec<f64>, JudgeError> {
        let mut priors = vec![0.0; plan.statements.len()];
        for consequence in [false, true] {
            let of_kind = |index: &usize| plan.statements[*index].consequence == consequence;
            let indices: Vec<usize> = (0..priors.len()).filter(of_kind).collect();
            let statements: Vec<&str> =
                indices.iter().map(|index| plan.statements[*index].text.as_str()).collect();
            let template = self.templates.prior_hash(consequence);
            let scores =
                scores_without_image(&self.cache, &self.models.judge, &template, &statements, |unknown| {
                    let projection = consequence.then(|| self.templates.neutral_projection());
                    let prompt = |text: &&str| self.templates.question(None, text, projection.as_ref());
                    let prompts: Vec<Prompt> = unknown.iter().map(prompt).collect();
                    session.score(self.vlm.as_ref(), Stage::Statements, &prompts)
                })?;
            for (index, score) in indices.into_iter().zip(scores) {
                priors[index] = score;
            }
        }
        Ok(priors)
    }

    /// Refuses what another judge prepared.
    pub(crate) fn check_preparation(&self, prepared: &Prepared) -> Result<(), JudgeError> {
        if prepared.models != self.models {
            return Err(JudgeError::StalePreparation { what: "models" });
        }
        if prepared.templates != self.templates.hash() {
            return Err(JudgeError::StalePreparation { what: "templates" });
        }
        Ok(())
    }

    /// Refuses what cannot be judged, and what another judge prepared.
    pub(crate) fn check(
        &self,
        picture: &Picture,
        prepared: &Prepared,
        stages: Stages,
    ) -> Result<(), JudgeError> {
        self.check_preparation(prepared)?;
        if picture.width() == 0 || picture.height() == 0 {
            return Err(JudgeError::InvalidPicture { width: picture.width(), height: picture.height() });
        }
        let (long, short) = (picture.width().max(picture.height()), picture.width().min(picture.height()));
        if stages.relevance_scan && stages.views && long.div_ceil(short) > MAX_VIEWS {
            let message = format!(
                "the picture is {} x {} pixels; expected at most {MAX_VIEWS} to 1: cut or pad it",
                picture.width(),
                picture.height()
            );
            let source = PerceptionError::new(PerceptionErrorKind::Request, message);
            return Err(JudgeError::Perception { stage: Stage::Relevance, source });
        }
        Ok(())
    }

    /// Judges one picture under every rule of a prepared constitution.
    ///
    /// # Errors
    /// Whatever keeps the verdict from being complete: a model failed, an answer is no answer, the deadline passed.
    /// An error is never to be read as safe.
    pub fn inspect(
        &self,
        picture: &Picture,
        prepared: &Prepared,
        options: &InspectOptions,
    ) -> Result<Report, JudgeError> {
        self.check(picture, prepared, options.stages)?;
        let judge = || Inspection::new(self, picture, prepared, options).run();
        let Some(verdicts) = &self.verdicts else { return judge() };
        let key = VerdictKey {
            picture: picture.hash(),
            revision: prepared.constitution.revision(),
            models: prepared.models.clone(),
            templates: prepared.templates.clone(),
            relevance_threshold: prepared.relevance_threshold.to_bits(),
            stages: options.stages,
            without_prefilter: options.without_prefilter,
            rationale: options.rationale,
            // Whether a consequence rule is relevant is known only when the picture has been looked at.
            prompt: options.prompt.clone().filter(|_| prepared.plan.projects()),
        };
        verdicts.get_or_judge(key, &options.call, judge)
    }
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge")
            .field("models", &self.models)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
