//! The engine under measurement. Everything that these programs ask of it goes through this module.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use cluegate::cache::Bound;
use cluegate::constitution::Constitution;
use cluegate::gate::{InspectionError, Inspector, JudgeProvider};
use cluegate::judge::{Judge, JudgeOptions, Report, Templates};
use cluegate::perception::{
    AnswerScore, Call, DecodeOptions, Picture, Prefix, Prompt, VisionLanguageModel, decode,
};
use cluegate::workers::AdmissionOptions;
use cluegate::{CandleGenerator, EngineOptions, EngineStatistics};

/// The judge over a set of models, as a gateway holds it.
pub(crate) struct Ours(cluegate::Engine);

impl Ours {
    /// Opens the models of `suite`, a models file or a folder with one, within the bounds that ship; nothing is
    /// remembered from earlier engines.
    pub(crate) fn open(suite: &Path) -> anyhow::Result<Self> {
        Self::open_with(suite, EngineOptions::default())
    }

    /// The same with places for so many pictures in work that none of `callers` is refused one.
    pub(crate) fn open_for(suite: &Path, callers: usize) -> anyhow::Result<Self> {
        let places = AdmissionOptions { limit: callers, per_tenant: callers };
        Self::open_with(suite, EngineOptions { pictures: places, ..EngineOptions::default() })
    }

    /// The same, keeping as many reports as `reports` says: the others keep none, so that a picture that is judged again
    /// costs what it costs. None of `callers` is refused a place.
    pub(crate) fn open_remembering(suite: &Path, reports: usize, callers: usize) -> anyhow::Result<Self> {
        let verdicts = Some(Bound { entries: reports, ..Judge::VERDICTS });
        let limit = callers.max(AdmissionOptions::default().limit);
        let pictures = AdmissionOptions { limit, per_tenant: limit };
        Self::open_within(suite, &EngineOptions { verdicts, pictures, ..EngineOptions::default() })
    }

    fn open_with(suite: &Path, options: EngineOptions) -> anyhow::Result<Self> {
        Self::open_within(suite, &EngineOptions { verdicts: None, ..options })
    }

    fn open_within(suite: &Path, options: &EngineOptions) -> anyhow::Result<Self> {
        let engine = cluegate::Engine::open_with(Some(suite), options);
        Ok(Self(engine.with_context(|| format!("opening the models at {}", suite.display()))?))
    }

    /// Computes what depends on the constitution only. Judges what the models do not know as well: a part of the
    /// gateway that the programs in Python lack.
    pub(crate) fn prepare(&self, constitution: &Constitution) -> anyhow::Result<Prepared> {
        Ok(Prepared(self.inspector(constitution)?))
    }

    /// A judge for one constitution, which judges what the models do not know as well.
    pub(crate) fn inspector(&self, constitution: &Constitution) -> anyhow::Result<Arc<dyn Inspector>> {
        Ok(self.0.judges(true).inspector(constitution.clone())?)
    }

    /// The judges as a gateway has them: what the models do not know is refused.
    pub(crate) fn judges(&self) -> Arc<dyn JudgeProvider> {
        Arc::new(self.0.judges(false))
    }

    /// The generator of the set.
    pub(crate) fn generator(&self) -> anyhow::Result<CandleGenerator> {
        Ok(self.0.generator()?)
    }

    /// What the models' threads have done so far.
    pub(crate) fn statistics(&self) -> EngineStatistics {
        self.0.statistics()
    }

    /// The cosine from which a rule is relevant to these models, where a constitution names none.
    pub(crate) fn relevance_threshold(&self) -> f32 {
        self.0.relevance().default_threshold()
    }

    /// The limits that the judge keeps to.
    pub(crate) fn options() -> JudgeOptions {
        JudgeOptions::default()
    }
}

/// An engine made ready for one constitution.
#[derive(Clone)]
pub(crate) struct Prepared(Arc<dyn Inspector>);

impl Prepared {
    /// The whole of CLUE for one picture, every stage on.
    pub(crate) fn inspect(&self, picture: &Picture, call: &Call) -> Result<Report, InspectionError> {
        self.0.inspect(picture, None, call)
    }
}

/// A judge over the models of `suite` whose questions to the judging model go through `wrap`, on the caller's thread.
pub(crate) fn judge_through<T: VisionLanguageModel + 'static>(
    suite: &Path,
    wrap: impl FnOnce(Arc<dyn VisionLanguageModel>) -> T,
) -> anyhow::Result<(Judge, Arc<T>)> {
    let suite = cluegate::engine::open_suite(Some(suite))?;
    let model = Arc::new(wrap(suite.judge()?));
    let judge = Judge::new(
        suite.relevance()?,
        suite.detector()?,
        Arc::clone(&model) as _,
        Templates::shipped()?,
        Ours::options(),
    );
    Ok((judge, model))
}

/// The judging model alone, asked yes/no questions about a picture.
pub(crate) struct Questions {
    model: Arc<dyn VisionLanguageModel>,
    templates: Templates,
}

impl Questions {
    /// Opens the judging model of `suite`.
    pub(crate) fn open(suite: &Path) -> anyhow::Result<Self> {
        let model: Arc<dyn VisionLanguageModel> = cluegate::engine::open_suite(Some(suite))?.judge()?;
        Ok(Self { model, templates: Templates::shipped()? })
    }

    /// The constant beginning of every question.
    pub(crate) fn beginning(&self) -> String {
        self.templates.statement_prefix(None).text.to_string()
    }

    /// What follows the beginning for `statement`.
    pub(crate) fn ending(&self, statement: &str) -> String {
        self.templates.statement_suffix(statement)
    }

    /// `M(x, c)` of each statement, asked at once.
    pub(crate) fn score(&self, picture: Picture, statements: &[String]) -> anyhow::Result<Vec<f64>> {
        let prefix: Prefix = self.templates.statement_prefix(Some(picture));
        let prompt =
            |statement: &String| Prompt::new(prefix.clone(), self.templates.statement_suffix(statement));
        let prompts: Vec<Prompt> = statements.iter().map(prompt).collect();
        let answers = self.model.score(&prompts, &Call::default())?;
        Ok(answers.iter().map(AnswerScore::ratio).collect())
    }
}

/// A picture from the bytes of its file, as a gateway receives it.
pub(crate) fn decode_picture(bytes: &[u8]) -> anyhow::Result<Picture> {
    Ok(decode(bytes, &DecodeOptions::default())?)
}
