//! Whether a picture shows what its prompt asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cluegate_constitution::Constitution;
use cluegate_judge::{InspectOptions, Judge, Outcome, Prepared, Stages};
use cluegate_perception::{Call, Picture, RelevanceEncoder};
use serde::{Deserialize, Serialize};

use super::{BuildError, SeedPrompt};

/// How well a picture fits its prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitness {
    /// Whether it is kept.
    pub fits: bool,
    /// Cosine between picture and prompt.
    pub cosine: f64,
    /// What the judge says of each statement that it was asked; empty where it was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<(String, bool)>,
}

/// What a picture has to pass.
pub struct Fit<'a> {
    encoder: &'a dyn RelevanceEncoder,
    /// The least cosine.
    pub(super) least: f64,
    judge: Option<&'a Arc<Judge>>,
    prepared: Mutex<HashMap<Vec<String>, Arc<Prepared>>>,
}

impl<'a> Fit<'a> {
    /// By the relevance encoder: a cosine of at least `least` between picture and prompt; by default the encoder's own
    /// threshold.
    pub fn new(encoder: &'a dyn RelevanceEncoder, least: Option<f64>) -> Self {
        let least = least.unwrap_or_else(|| f64::from(encoder.default_threshold()));
        Self { encoder, least, judge: None, prepared: Mutex::default() }
    }

    /// And by the judge: the prompt's statements have to come out as the seeds say. A benchmark that was filtered so holds
    /// no picture that this judge takes for another, and is none for it.
    #[must_use]
    pub fn with_judge(mut self, judge: &'a Arc<Judge>) -> Self {
        self.judge = Some(judge);
        self
    }

    /// Whether the judge is asked.
    pub(super) fn asks_judge(&self) -> bool {
        self.judge.is_some()
    }

    /// Whether `picture` fits.
    ///
    /// # Errors
    /// A model failed.
    pub(super) fn of(&self, picture: &Picture, seed: &SeedPrompt) -> Result<Fitness, BuildError> {
        let call = Call::default();
        let pictures = self.encoder.embed_pictures(std::slice::from_ref(picture), &call)?;
        let texts = self.encoder.embed_texts(&[seed.prompt.as_str()], &call)?;
        let cosine = match (pictures.first(), texts.first()) {
            (Some(picture), Some(text)) => f64::from(picture.cosine(text)),
            _ => f64::NAN,
        };
        let mut statements = Vec::new();
        // Not a number is no fit. The judge costs more than the encoder, and is not asked of what is left out anyway.
        let mut fits = cosine >= self.least;
        if let Some(judge) = self.judge.filter(|_| fits) {
            let asked: Vec<String> = seed.shows.iter().chain(&seed.lacks).cloned().collect();
            if !asked.is_empty() {
                let held = self.held(judge, picture, &asked)?;
                fits = held.iter().enumerate().all(|(at, held)| *held == (at < seed.shows.len()));
                statements = asked.into_iter().zip(held).collect();
            }
        }
        Ok(Fitness { fits, cosine, statements })
    }

    /// Which statements hold: each is a rule of its own, and every one is asked.
    fn held(&self, judge: &Judge, picture: &Picture, asked: &[String]) -> Result<Vec<bool>, BuildError> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(asked).cloned();
        let prepared = match known {
            Some(prepared) => prepared,
            None => {
                let prepared = Arc::new(judge.prepare(&constitution(asked)?)?);
                let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(known.entry(asked.to_vec()).or_insert(prepared))
            }
        };
        let stages = Stages { relevance_scan: false, region_comparison: false, crop: false, ..Stages::ALL };
        let options = InspectOptions { stages, ..InspectOptions::default() };
        let report = judge.inspect(picture, &prepared, &options)?;
        Ok(report.rules().iter().map(|rule| rule.outcome == Outcome::Violated).collect())
    }
}

/// A constitution with a rule for each statement.
fn constitution(asked: &[String]) -> Result<Constitution, BuildError> {
    let refuse = |reason: String| BuildError::Statements(asked.to_vec(), reason);
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = "name = \"prompt-fit\"\n".to_owned();
    for (index, statement) in asked.iter().enumerate() {
        // In a constitution braces stand for parameters.
        let statement = string(&statement.replace('{', "{{").replace('}', "}}"));
        text.push_str(&format!(
            "[[rule]]\nid = \"statement-{index}\"\ntext = {statement}\nobjectiveness = 10\nseverity = \"low\"\n\
             [[rule.precondition]]\nany = [{{ statement = {statement}, central = [] }}]\n"
        ));
    }
    Constitution::parse(&text, "the statements of a prompt").map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_judge::fakes::{self, FakeEncoder};
    use image::{Rgb, RgbImage};

    use super::*;

    fn red() -> Picture {
        Picture::new(RgbImage::from_pixel(8, 8, Rgb([200, 0, 0])))
    }

    #[test]
    fn a_picture_has_to_be_near_its_prompt_and_to_show_what_the_seeds_say() {
        let near = FakeEncoder::new(|text| if text == "a red field" { 0.4 } else { 0.1 });
        let judge = fakes::judge(|picture, statement| match picture {
            None => 0.5,
            Some(_) if statement.contains("red") => 0.99,
            Some(_) => 0.01,
        });
        let judge = Arc::new(judge.unwrap());
        let seed = |prompt: &str, shows: &[&str], lacks: &[&str]| SeedPrompt {
            prompt: prompt.to_owned(),
            shows: shows.iter().map(|text| (*text).to_owned()).collect(),
            lacks: lacks.iter().map(|text| (*text).to_owned()).collect(),
            also: Vec::new(),
        };
        let fit = Fit::new(&near, Some(0.3));
        assert!(fit.of(&red(), &seed("a red field", &[], &[])).unwrap().fits);
        let far = fit.of(&red(), &seed("a dog", &[], &[])).unwrap();
        assert!(!far.fits && far.statements.is_empty());
        let asking = Fit::new(&near, Some(0.3)).with_judge(&judge);
        let of =
            |shows: &[&str], lacks: &[&str]| asking.of(&red(), &seed("a red field", shows, lacks)).unwrap();
        assert!(of(&["something \"red\" {here} is visible"], &["a dog is visible"]).fits);
        assert!(!of(&["a dog is visible"], &[]).fits);
        let wrong = of(&["red is visible"], &["red is visible too"]);
        assert!(!wrong.fits);
        assert_eq!(wrong.statements.iter().map(|(_, held)| *held).collect::<Vec<_>>(), [true, true]);
        // Without a least cosine the encoder's own counts.
        assert!((Fit::new(&near, None).least - f64::from(near.default_threshold())).abs() < 1e-9);
    }
}
