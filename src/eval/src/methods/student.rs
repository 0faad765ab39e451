//! A student of the method, alone: what it does not clear counts as unsafe.

use std::sync::Arc;

use cluegate_judge::{parts, views};
use cluegate_perception::{Call, Embedding, Picture, RelevanceEncoder};
use cluegate_student::Student;

use super::{Method, MethodError, Subject, revision};
use crate::outcome::{Judgment, Outcome};

/// A pre-filter taken for a verdict: its recall is what it keeps, and the pictures that it flags are what it sends on.
pub struct StudentAlone {
    revision: String,
    encoder: Arc<dyn RelevanceEncoder>,
    student: Student,
}

impl StudentAlone {
    /// Over this encoder.
    ///
    /// # Errors
    /// A student of another encoder.
    pub fn new(encoder: Arc<dyn RelevanceEncoder>, student: Student) -> Result<Self, MethodError> {
        student.check_encoder(encoder.fingerprint())?;
        let revision = revision(&["student", student.fingerprint()]);
        Ok(Self { revision, encoder, student })
    }
}

impl Method for StudentAlone {
    fn name(&self) -> &str {
        "student"
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let views = views(subject.picture);
        let mut passes = 0;
        let mut embed = |pictures: &[Picture]| -> Result<Vec<Embedding>, MethodError> {
            let embeddings = self.encoder.embed_pictures(pictures, call)?;
            passes += pictures.len() as u64;
            if embeddings.len() == pictures.len() {
                Ok(embeddings)
            } else {
                Err(MethodError::AnswerCount { expected: pictures.len(), came: embeddings.len() })
            }
        };
        let embeddings = embed(&views)?;
        let said = self.student.say(&embeddings, || embed(&parts(&views)))?;
        Ok(Outcome::Judged(Judgment {
            flagged: !said.cleared(),
            violated: None,
            score: Some(1.0 / (1.0 + (said.threshold - said.score).exp())),
            passes,
            words: None,
            evidence: Vec::new(),
        }))
    }
}
