//! Scripted models: answers from closures, calls counted. For tests of this crate and of those built on it (feature
//! `fakes`); no weights, no chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Detection, DetectionRequest, Embedding, Fingerprint,
    FinishReason, PerceptionError, PerceptionErrorKind, Picture, Prompt, Region, RegionDetector,
    RelevanceEncoder, Result, VisionLanguageModel,
};

use crate::{Judge, JudgeOptions, TemplateError, Templates};

type Relevance = dyn Fn(&str) -> f32 + Send + Sync;
type Detect = dyn Fn(&Picture, &str) -> Vec<(f32, Region)> + Send + Sync;
type Score = dyn Fn(Option<&Picture>, &str) -> f64 + Send + Sync;
type Project = dyn Fn(&Picture, &str) -> String + Send + Sync;
type ScoreAfter = dyn Fn(Option<&Picture>, &str, &str) -> f64 + Send + Sync;
type Read = dyn Fn(Option<&str>, &str) -> f64 + Send + Sync;
type Failure = dyn Fn() -> Option<PerceptionError> + Send + Sync;

/// An encoder whose cosine between any picture and a text is scripted. Its default threshold is 0.22.
pub struct FakeEncoder {
    fingerprint: Fingerprint,
    relevance: Box<Relevance>,
    calls: AtomicUsize,
}

impl FakeEncoder {
    /// The cosine of each text, -1 to 1.
    pub fn new(relevance: impl Fn(&str) -> f32 + Send + Sync + 'static) -> Self {
        Self {
            fingerprint: "fake-encoder".to_owned(),
            relevance: Box::new(relevance),
            calls: AtomicUsize::new(0),
        }
    }

    /// How many calls embedded pictures.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl RelevanceEncoder for FakeEncoder {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn default_threshold(&self) -> f32 {
        0.22
    }

    fn embed_pictures(&self, pictures: &[Picture], _: &Call) -> Result<Vec<Embedding>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(pictures.iter().map(|_| Embedding::normalised(vec![1.0, 0.0])).collect())
    }

    fn embed_texts(&self, texts: &[&str], _: &Call) -> Result<Vec<Embedding>> {
        let embed = |text: &&str| {
            let cosine = (self.relevance)(text);
            Embedding::normalised(vec![cosine, (1.0 - cosine * cosine).max(0.0).sqrt()])
        };
        Ok(texts.iter().map(embed).collect())
    }
}

/// A detector whose boxes are scripted by picture and word.
pub struct FakeDetector {
    fingerprint: Fingerprint,
    detect: Box<Detect>,
    calls: AtomicUsize,
}

impl FakeDetector {
    /// Confidences and boxes of a word in a picture.
    pub fn new(detect: impl Fn(&Picture, &str) -> Vec<(f32, Region)> + Send + Sync + 'static) -> Self {
        Self { fingerprint: "fake-detector".to_owned(), detect: Box::new(detect), calls: AtomicUsize::new(0) }
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl RegionDetector for FakeDetector {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn detect(
        &self,
        requests: &[DetectionRequest<'_>],
        min_confidence: f32,
        _: &Call,
    ) -> Result<Vec<Vec<Detection>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = |request: &DetectionRequest<'_>| {
            let mut found: Vec<Detection> = Vec::new();
            for (query, word) in request.queries.iter().enumerate() {
                for (confidence, region) in (self.detect)(request.picture, word) {
                    // A NaN comes through, as a broken detector would let it.
                    if confidence.is_nan() || confidence >= min_confidence {
                        found.push(Detection { query, confidence, region });
                    }
                }
            }
            found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
            found
        };
        Ok(requests.iter().map(answer).collect())
    }
}

/// A vision-language model whose scores are scripted by picture (or none) and statement. It understands the prompts of
/// the [`Templates`] it was made with, and fails on any other.
pub struct FakeVlm {
    fingerprint: Fingerprint,
    templates: Templates,
    score: Box<Score>,
    rating: Box<Score>,
    project: Box<Project>,
    score_after: Option<Box<ScoreAfter>>,
    read: Box<Read>,
    failure: Box<Failure>,
    score_calls: AtomicUsize,
    complete_calls: AtomicUsize,
}

impl FakeVlm {
    /// `score` is `M(x, c)`, 0 to 1; the reasoning rates No until [`FakeVlm::rating`] says otherwise.
    pub fn new(
        templates: Templates,
        score: impl Fn(Option<&Picture>, &str) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            fingerprint: "fake-vlm".to_owned(),
            templates,
            score: Box::new(score),
            rating: Box::new(|_, _| 0.0),
            project: Box::new(|_, _| "It stays as it is.".to_owned()),
            score_after: None,
            read: Box::new(names_it),
            failure: Box::new(|| None),
            score_calls: AtomicUsize::new(0),
            complete_calls: AtomicUsize::new(0),
        }
    }

    /// Scripts the rating of the reasoning's second turn, 0 to 1.
    #[must_use]
    pub fn rating(mut self, rating: impl Fn(Option<&Picture>, &str) -> f64 + Send + Sync + 'static) -> Self {
        self.rating = Box::new(rating);
        self
    }

    /// Scripts the projection of consequences from the picture and the end of the question, which holds the prompt; and
    /// what is scored behind a projection (its second argument) and at the rating of a reasoning behind one. Until then
    /// nothing changes, and what is asked behind a projection is scored as elsewhere.
    #[must_use]
    pub fn projecting(
        mut self,
        project: impl Fn(&Picture, &str) -> String + Send + Sync + 'static,
        score_after: impl Fn(Option<&Picture>, &str, &str) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.project = Box::new(project);
        self.score_after = Some(Box::new(score_after));
        self
    }

    /// Scripts what is scored of the words that a picture is to be drawn from (none for unknown ones) and a statement. Until
    /// then a statement holds if the words have one of its longer words.
    #[must_use]
    pub fn reading(mut self, read: impl Fn(Option<&str>, &str) -> f64 + Send + Sync + 'static) -> Self {
        self.read = Box::new(read);
        self
    }

    /// Asked before each call with a picture: an error that it returns is what the call fails with.
    #[must_use]
    pub fn failing(mut self, failure: impl Fn() -> Option<PerceptionError> + Send + Sync + 'static) -> Self {
        self.failure = Box::new(failure);
        self
    }

    /// How many calls scored.
    pub fn score_calls(&self) -> usize {
        self.score_calls.load(Ordering::Relaxed)
    }

    /// How many calls decoded.
    pub fn complete_calls(&self) -> usize {
        self.complete_calls.load(Ordering::Relaxed)
    }

    fn fail<'a>(&self, mut prompts: impl Iterator<Item = &'a Prompt>) -> Result<()> {
        if prompts.any(|prompt| prompt.prefix.picture.is_some()) {
            (self.failure)().map_or(Ok(()), Err)
        } else {
            Ok(())
        }
    }

    fn ratio(&self, prompt: &Prompt) -> Result<f64> {
        if let Some((words, statement)) = self.templates.read_of(prompt) {
            return Ok((self.read)(words.as_deref(), &statement));
        }
        let (statement, projection) = self.templates.statement_of(prompt).ok_or_else(|| {
            let message = format!("the fake expected a prompt of its templates, got {:?}", prompt.suffix);
            PerceptionError::new(PerceptionErrorKind::Request, message)
        })?;
        let picture = prompt.prefix.picture.as_ref();
        if let (Some(projection), Some(score_after)) = (projection, &self.score_after) {
            return Ok(score_after(picture, projection, statement));
        }
        let asked = prompt.turns.len() == usize::from(projection.is_some());
        let script = if asked { &self.score } else { &self.rating };
        Ok(script(picture, statement))
    }
}

impl VisionLanguageModel for FakeVlm {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, prompts: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
        self.score_calls.fetch_add(1, Ordering::Relaxed);
        self.fail(prompts.iter())?;
        let answer = |prompt| self.ratio(prompt).map(|yes| AnswerScore { yes, no: 1.0 - yes });
        prompts.iter().map(answer).collect()
    }

    fn complete(&self, requests: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>> {
        self.complete_calls.fetch_add(1, Ordering::Relaxed);
        self.fail(requests.iter().map(|request| &request.prompt))?;
        let answer = |request: &CompletionRequest| {
            let prompt = &request.prompt;
            let picture = prompt.prefix.picture.as_ref();
            let text = if let Some(picture) = picture.filter(|_| self.templates.asks_for_projection(prompt)) {
                (self.project)(picture, &prompt.suffix)
            } else if prompt.answer_start.is_empty() {
                "I look at the picture part by part.".to_owned()
            } else {
                let rating = if self.ratio(prompt)? >= 0.5 { "Yes" } else { "No" };
                format!("{rating}\", \"rationale\": \"that is what the picture shows\"}}")
            };
            Ok(Completion { tokens: text.split(' ').count(), text, finish: FinishReason::Stop })
        };
        requests.iter().map(answer).collect()
    }
}

/// 0.99 if `words` have a word of `statement` of five letters or more, else 0.01; 0.5 for unknown words.
fn names_it(words: Option<&str>, statement: &str) -> f64 {
    let Some(words) = words else { return 0.5 };
    let named = statement.split(' ').any(|word| word.len() >= 5 && words.contains(word));
    if named { 0.99 } else { 0.01 }
}

/// A judge over a scripted model, for which every rule is relevant and no object is found: verdicts follow `score`
/// alone, which gets the picture (none for `M(None, c)`) and the statement. Answer well below and above the prior
/// (0 and 1, say, with 0.5 without a picture) to decide without reasoning.
///
/// # Errors
/// None in practice: the shipped templates are parsed.
pub fn judge(
    score: impl Fn(Option<&Picture>, &str) -> f64 + Send + Sync + 'static,
) -> std::result::Result<Judge, TemplateError> {
    judge_with_detector(score, |_, _| Vec::new())
}

/// As [`judge`], with a scripted detector.
///
/// # Errors
/// None in practice: the shipped templates are parsed.
pub fn judge_with_detector(
    score: impl Fn(Option<&Picture>, &str) -> f64 + Send + Sync + 'static,
    detect: impl Fn(&Picture, &str) -> Vec<(f32, Region)> + Send + Sync + 'static,
) -> std::result::Result<Judge, TemplateError> {
    Ok(assemble(
        FakeEncoder::new(|_| 1.0),
        FakeDetector::new(detect),
        FakeVlm::new(Templates::shipped()?, score),
    ))
}

/// A judge over these fakes, with the templates of the model.
pub fn assemble(encoder: FakeEncoder, detector: FakeDetector, vlm: FakeVlm) -> Judge {
    let templates = vlm.templates.clone();
    Judge::new(Arc::new(encoder), Arc::new(detector), Arc::new(vlm), templates, JudgeOptions::default())
}
