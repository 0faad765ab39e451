//! What the gate asks of a judge.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_judge::{
    Glance, InspectOptions, Judge, JudgeError, JudgeErrorKind, Prepared, PromptReport, Report,
};
use cluegate_perception::{
    Call, Detection, DetectionRequest, Embedding, PerceptionError, PerceptionErrorKind, Picture,
    RegionDetector,
};
use thiserror::Error;

/// Kind of an [`InspectionError`] that says that time ran out.
const TIMEOUT: &str = "timeout";

/// Why a picture could not be judged: a stable kind in kebab-case and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct InspectionError {
    kind: &'static str,
    message: String,
}

impl InspectionError {
    /// An error of a kind of the caller's own, such as `out-of-domain`.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether time ran out, which the gate tells apart from a failure.
    pub fn is_timeout(&self) -> bool {
        self.kind == TIMEOUT
    }
}

impl From<JudgeError> for InspectionError {
    fn from(error: JudgeError) -> Self {
        let kind = if error.kind() == JudgeErrorKind::Timeout { TIMEOUT } else { error.kind().as_str() };
        Self::new(kind, error.to_string())
    }
}

impl From<PerceptionError> for InspectionError {
    fn from(error: PerceptionError) -> Self {
        let kind = if error.kind() == PerceptionErrorKind::Timeout { TIMEOUT } else { error.kind().as_str() };
        Self::new(kind, error.to_string())
    }
}

/// A picture to be judged that is not as the generator finished it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// What the picture might become, decoded while it is drawn.
    Preview,
    /// A finished and judged picture with regions hidden.
    Redacted,
}

/// A judge made ready for one constitution. A [`Report`] can only come from [`Judge::inspect`], so that whatever
/// stands behind this trait can refuse a picture, but not invent a verdict.
pub trait Inspector: Send + Sync {
    /// The constitution.
    fn constitution(&self) -> &Constitution;

    /// Fingerprints of the models by role, for the log.
    fn models(&self) -> BTreeMap<String, String>;

    /// Judges a picture. `prompt` is what it was made from, if that is known: consequence rules are shown it. May panic or
    /// hang: the gate runs it on a thread of its own.
    ///
    /// # Errors
    /// If there is no verdict.
    fn inspect(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError>;

    /// Judges a picture as [`Inspector::inspect`] does, by the whole method alone: no pre-filter may clear it. The default is
    /// for judges that have none; a verdict of a pre-filter is refused all the same.
    ///
    /// # Errors
    /// If there is no verdict.
    fn inspect_whole(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.inspect(picture, prompt, call)
    }

    /// What the relevance encoder makes of `texts`, and behind them of `picture`, in their order: to see how well a picture fits
    /// a prompt, and which words of a prompt stand near a statement. None for a judge without an encoder, the default.
    ///
    /// # Errors
    /// If they cannot be embedded.
    fn embed(
        &self,
        texts: &[&str],
        picture: Option<&Picture>,
        call: &Call,
    ) -> Result<Option<Vec<Embedding>>, InspectionError> {
        let _ = (texts, picture, call);
        Ok(None)
    }

    /// Asks the rules of the words that a picture is to be drawn from. The default is for judges that read no prompts.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_prompt(&self, prompt: &str, call: &Call) -> Result<PromptReport, InspectionError> {
        let _ = (prompt, call);
        Err(InspectionError::new("unreadable-prompt", "this judge reads no prompts"))
    }

    /// Judges a picture that is no finished one of the generator. The same question as [`Inspector::inspect`], and the
    /// default asks just that; but whether a picture lies in the models' domain can only be told of a finished one, so
    /// an implementation that tests this may leave the test out here. A preview's verdict releases nothing, and a
    /// redacted picture's original has passed the test.
    ///
    /// # Errors
    /// If there is no verdict.
    fn inspect_unfinished(
        &self,
        picture: &Picture,
        kind: Unfinished,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        let _ = kind;
        self.inspect(picture, prompt, call)
    }

    /// Takes a cheap look at a preview ([`Judge::glance`]), whose report releases nothing. The default is for judges that know
    /// no cheaper way, and asks the whole method.
    ///
    /// # Errors
    /// If the judge says nothing.
    fn glance(
        &self,
        preview: &Picture,
        glance: &Glance,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        let _ = glance;
        self.inspect_unfinished(preview, Unfinished::Preview, prompt, call)
    }

    /// All places in `picture` of each of `words`, with a confidence of at least `min_confidence`; a detection's query
    /// is the index of its word.
    ///
    /// # Errors
    /// If the detector fails.
    fn locate(
        &self,
        picture: &Picture,
        words: &[&str],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Detection>, InspectionError>;
}

/// Makes a judge ready for a tenant's constitution.
pub trait JudgeProvider: Send + Sync {
    /// A judge for `constitution`. Called when the first picture needs it or ahead of that, on a thread of the gate's own,
    /// and never twice at a time for one revision. May panic; one that hangs keeps others from being prepared.
    ///
    /// # Errors
    /// If the judge cannot be made ready.
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError>;
}

/// The provider over one [`Judge`], shared by all tenants.
pub struct SharedJudge {
    judge: Arc<Judge>,
    detector: Arc<dyn RegionDetector>,
    options: InspectOptions,
}

impl SharedJudge {
    /// Judges with `judge`, all stages on; `detector` finds what a redaction is to hide.
    pub fn new(judge: Arc<Judge>, detector: Arc<dyn RegionDetector>) -> Self {
        Self { judge, detector, options: InspectOptions::default() }
    }

    /// Asks for a rationale with every reasoning, for reports that people read.
    #[must_use]
    pub fn with_rationale(mut self, rationale: bool) -> Self {
        self.options.rationale = rationale;
        self
    }
}

impl JudgeProvider for SharedJudge {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        let prepared = self.judge.prepare(&constitution)?;
        let (judge, detector) = (Arc::clone(&self.judge), Arc::clone(&self.detector));
        Ok(Arc::new(PreparedJudge { judge, detector, prepared, options: self.options.clone() }))
    }
}

struct PreparedJudge {
    judge: Arc<Judge>,
    detector: Arc<dyn RegionDetector>,
    prepared: Prepared,
    options: InspectOptions,
}

impl Inspector for PreparedJudge {
    fn constitution(&self) -> &Constitution {
        self.prepared.constitution()
    }

    fn models(&self) -> BTreeMap<String, String> {
        let models = self.judge.models();
        let named =
            [("relevance", &models.relevance), ("detector", &models.detector), ("judge", &models.judge)];
        named.into_iter().map(|(role, fingerprint)| (role.to_owned(), fingerprint.clone())).collect()
    }

    fn inspect(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        let prompt = prompt.map(Arc::from);
        let options = InspectOptions { prompt, call: call.clone(), ..self.options.clone() };
        Ok(self.judge.inspect(picture, &self.prepared, &options)?)
    }

    fn inspect_whole(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        let prompt = prompt.map(Arc::from);
        let options =
            InspectOptions { prompt, without_prefilter: true, call: call.clone(), ..self.options.clone() };
        Ok(self.judge.inspect(picture, &self.prepared, &options)?)
    }

    fn embed(
        &self,
        texts: &[&str],
        picture: Option<&Picture>,
        call: &Call,
    ) -> Result<Option<Vec<Embedding>>, InspectionError> {
        let encoder = self.judge.relevance_encoder();
        let mut embedded = encoder.embed_texts(texts, call)?;
        if let Some(picture) = picture {
            embedded.extend(encoder.embed_pictures(std::slice::from_ref(picture), call)?);
        }
        Ok(Some(embedded))
    }

    fn read_prompt(&self, prompt: &str, call: &Call) -> Result<PromptReport, InspectionError> {
        Ok(self.judge.read_prompt(prompt, &self.prepared, call)?)
    }

    /// A pre-filter learned from finished pictures and knows no others.
    fn inspect_unfinished(
        &self,
        picture: &Picture,
        _: Unfinished,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.inspect_whole(picture, prompt, call)
    }

    fn glance(
        &self,
        preview: &Picture,
        glance: &Glance,
        _: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        Ok(self.judge.glance(preview, &self.prepared, glance, call)?)
    }

    fn locate(
        &self,
        picture: &Picture,
        words: &[&str],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Detection>, InspectionError> {
        let request = DetectionRequest { picture, queries: words };
        let found = self.detector.detect(&[request], min_confidence, call)?;
        Ok(found.into_iter().flatten().filter(|detection| detection.query < words.len()).collect())
    }
}
