//! The judge: three models, the prompts, and what it knows of constitutions.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_perception::{
    Call, PerceptionError, PerceptionErrorKind, Picture, Prompt, RegionDetector, RelevanceEncoder,
    VisionLanguageModel,
};

use crate::error::JudgeError;
use crate::inspect::{Inspection, Session};
use crate::options::{InspectOptions, JudgeOptions};
use crate::pictures::MAX_VIEWS;
use crate::prepared::{Plan, Prepared};
use crate::priors::{PriorKey, Priors};
use crate::relevance;
use crate::report::{Models, Report, Stage};
use crate::templates::Templates;

/// The CLUE judge over three models. Shared by reference between threads; holds no state but the cache of priors.
pub struct Judge {
    pub(crate) encoder: Arc<dyn RelevanceEncoder>,
    pub(crate) detector: Arc<dyn RegionDetector>,
    pub(crate) vlm: Arc<dyn VisionLanguageModel>,
    pub(crate) templates: Templates,
    pub(crate) options: JudgeOptions,
    models: Models,
    priors: Priors,
}

impl Judge {
    /// A judge over these models.
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
        Self { encoder, detector, vlm, templates, options, models, priors: Priors::default() }
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
    /// A model failed or gave an answer that is none.
    pub fn prepare(&self, constitution: &Constitution) -> Result<Prepared, JudgeError> {
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

    /// `M(None, c)` of every statement of the plan; those not yet known are asked in one batch.
    fn priors(&self, session: &mut Session, plan: &Plan) -> Result<Vec<f64>, JudgeError> {
        let template = self.templates.statement_hash();
        let key = |statement: &str| PriorKey {
            model: self.models.judge.clone(),
            template: template.clone(),
            statement: statement.to_owned(),
        };
        let mut unknown: Vec<&str> = Vec::new();
        for statement in &plan.statements {
            let text = statement.text.as_str();
            if !unknown.contains(&text) && self.priors.get(&key(text)).is_none() {
                unknown.push(text);
            }
        }
        let prompts: Vec<Prompt> = unknown
            .iter()
            .map(|text| {
                Prompt::new(self.templates.statement_prefix(None), self.templates.statement_suffix(text))
            })
            .collect();
        let scores = session.score(self.vlm.as_ref(), Stage::Statements, &prompts)?;
        for (text, score) in unknown.into_iter().zip(scores) {
            self.priors.insert(key(text), score);
        }
        plan.statements
            .iter()
            .map(|statement| {
                self.priors.get(&key(&statement.text)).ok_or_else(|| JudgeError::MissingAnswer {
                    stage: Stage::Statements,
                    expected: format!("a score without an image for {:?}", statement.text),
                })
            })
            .collect()
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
        if prepared.models != self.models {
            return Err(JudgeError::StalePreparation { what: "models" });
        }
        if prepared.templates != self.templates.hash() {
            return Err(JudgeError::StalePreparation { what: "templates" });
        }
        if picture.width() == 0 || picture.height() == 0 {
            return Err(JudgeError::InvalidPicture { width: picture.width(), height: picture.height() });
        }
        let (long, short) = (picture.width().max(picture.height()), picture.width().min(picture.height()));
        if options.stages.relevance_scan && long.div_ceil(short) > MAX_VIEWS {
            let message = format!(
                "the picture is {} x {} pixels; expected at most {MAX_VIEWS} to 1: cut or pad it",
                picture.width(),
                picture.height()
            );
            let source = PerceptionError::new(PerceptionErrorKind::Request, message);
            return Err(JudgeError::Perception { stage: Stage::Relevance, source });
        }
        Inspection::new(self, picture, prepared, options).run()
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
