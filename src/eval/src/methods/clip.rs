//! Zero-shot classification by a dual encoder (Radford et al., arXiv 2103.00020, s 3.1): which text is nearest to the
//! picture.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_perception::{Call, Embedding, Picture, RelevanceEncoder};

use super::error::only;
use super::{Method, MethodError, Subject, revision};
use crate::outcome::{Judgment, Outcome};

/// What a picture is compared with: unsafe first, then safe.
const TEXTS: [&str; 2] =
    ["an image that is not appropriate for the public", "an image that is appropriate for the public"];

/// CLIP's learned scale of cosines, which its training capped here.
const SCALE: f64 = 100.0;

/// Says which of two texts is nearer: one of an unsafe, one of a safe picture.
pub struct ClipPair {
    revision: String,
    encoder: Arc<dyn RelevanceEncoder>,
    texts: [Embedding; 2],
}

impl ClipPair {
    /// By this encoder.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn new(encoder: Arc<dyn RelevanceEncoder>) -> Result<Self, MethodError> {
        let texts = encoder.embed_texts(&TEXTS, &Call::default())?;
        let came = texts.len();
        let texts = texts.try_into().map_err(|_| MethodError::AnswerCount { expected: TEXTS.len(), came })?;
        let revision = revision(&["clip-pair", encoder.fingerprint(), TEXTS[0], TEXTS[1]]);
        Ok(Self { revision, encoder, texts })
    }
}

impl Method for ClipPair {
    fn name(&self) -> &str {
        "clip-pair"
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let picture = embed(self.encoder.as_ref(), subject.picture, call)?;
        let [unsafe_cosine, safe_cosine] =
            [cosine(&picture, &self.texts[0])?, cosine(&picture, &self.texts[1])?];
        let score = 1.0 / (1.0 + (SCALE * (safe_cosine - unsafe_cosine)).exp());
        Ok(Outcome::Judged(Judgment {
            flagged: score >= 0.5,
            violated: None,
            score: Some(score),
            passes: 1,
            words: None,
            evidence: Vec::new(),
        }))
    }
}

/// Calls every rule violated whose text is near enough: the relevance scan taken for a verdict.
pub struct ClipRules {
    revision: String,
    encoder: Arc<dyn RelevanceEncoder>,
    rules: Vec<(String, Embedding)>,
    threshold: f64,
}

impl ClipRules {
    /// By this encoder; a rule is violated from its default threshold on, or from the constitution's.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn new(encoder: Arc<dyn RelevanceEncoder>, constitution: &Constitution) -> Result<Self, MethodError> {
        let texts: Vec<&str> = constitution.rules().iter().map(|rule| rule.text.as_str()).collect();
        let embeddings = encoder.embed_texts(&texts, &Call::default())?;
        if embeddings.len() != texts.len() {
            return Err(MethodError::AnswerCount { expected: texts.len(), came: embeddings.len() });
        }
        let threshold = constitution.thresholds().relevance.unwrap_or(encoder.default_threshold());
        let revision = revision(&[
            "clip-rules",
            encoder.fingerprint(),
            &constitution.revision().to_string(),
            &threshold.to_bits().to_string(),
        ]);
        let rules = constitution.rules().iter().map(|rule| rule.id.clone()).zip(embeddings).collect();
        Ok(Self { revision, encoder, rules, threshold: f64::from(threshold) })
    }
}

impl Method for ClipRules {
    fn name(&self) -> &str {
        "clip-rules"
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let picture = embed(self.encoder.as_ref(), subject.picture, call)?;
        let mut violated = Vec::new();
        let mut nearest = -1.0_f64;
        for (id, rule) in &self.rules {
            let cosine = cosine(&picture, rule)?;
            nearest = nearest.max(cosine);
            if cosine >= self.threshold {
                violated.push(id.clone());
            }
        }
        Ok(Outcome::Judged(Judgment {
            flagged: !violated.is_empty(),
            violated: Some(violated),
            score: Some(f64::midpoint(nearest, 1.0)),
            passes: 1,
            words: None,
            evidence: Vec::new(),
        }))
    }
}

fn embed(encoder: &dyn RelevanceEncoder, picture: &Picture, call: &Call) -> Result<Embedding, MethodError> {
    only(encoder.embed_pictures(std::slice::from_ref(picture), call)?)
}

fn cosine(picture: &Embedding, text: &Embedding) -> Result<f64, MethodError> {
    let same = picture.values().len() == text.values().len();
    let cosine = if same { f64::from(picture.cosine(text)) } else { f64::NAN };
    if cosine.is_finite() {
        Ok(cosine.clamp(-1.0, 1.0))
    } else {
        let came = format!("{cosine} of {} and {} components", picture.values().len(), text.values().len());
        Err(MethodError::Answer { expected: "a cosine of two embeddings of one width", came })
    }
}
