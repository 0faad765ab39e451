//! A student on disk: `student.safetensors` with its numbers, and `student.json` with what it is for and what it costs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::error::{Result, StudentError, StudentErrorKind};
use crate::looks::{Band, Look, Looks};
use crate::train::{Choice, Distilled, TrainOptions};
use crate::weights::{parse, weights};

/// Name of the card in a student's folder.
pub const CARD_FILE: &str = "student.json";

/// Name of the weights there.
pub const WEIGHTS_FILE: &str = "student.safetensors";

/// Version of the format.
const FORMAT: u32 = 3;

/// Most bytes of either file.
const MAX_BYTES: u64 = 256 << 20;

/// A constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstitutionName {
    /// Its name.
    pub name: String,
    /// Its revision, as its `Display` writes it.
    pub revision: String,
}

/// Pictures, and those of them that the judge calls unsafe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// All.
    pub pictures: u64,
    /// Unsafe ones.
    pub unsafe_pictures: u64,
}

/// What a student is for, what it was made from, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Version of the format, 3.
    pub format: u32,
    /// What pictures it learned from, in words.
    pub domain: String,
    /// Fingerprint of the relevance encoder whose features it reads.
    pub encoder: String,
    /// The constitution whose verdicts it learned.
    pub constitution: ConstitutionName,
    /// What judged the pictures: the revision of the method, with models, prompts and thresholds.
    pub labels: String,
    /// Its outputs: a rule each. The largest decides.
    pub outputs: Vec<String>,
    /// BLAKE3 of the weights.
    pub weights: String,
    /// How it was trained.
    pub training: TrainOptions,
    /// What it was trained on.
    pub trained_on: Counts,
    /// What cross-validation said.
    pub cross_validation: Vec<Choice>,
    /// Its threshold, and what that does to the pictures that were held out.
    pub held_out: Calibration,
    /// When it looks closer; none if it never does.
    pub closer: Option<CloserCard>,
}

/// When a student looks closer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloserCard {
    /// Scores of the first look that are looked at closer.
    pub band: Band,
    /// Share of the held-out pictures that were, 0 to 1.
    pub looked_closer: f64,
}

/// What a student says of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// A logit, of the look that decided.
    pub score: f64,
    /// The score from which a picture goes on to the judge, in that look.
    pub threshold: f64,
    /// Whether it took a closer look.
    pub closer: bool,
}

impl Said {
    /// Whether the picture need not go on to the judge.
    pub fn cleared(&self) -> bool {
        self.score < self.threshold
    }
}

/// Looks with their card.
#[derive(Debug, Clone)]
pub struct Student {
    card: Card,
    looks: Looks,
    fingerprint: String,
}

impl Student {
    /// From what distillation gave. `rules` are the ids of the outputs.
    ///
    /// # Errors
    /// `Malformed` if the looks cannot be written.
    pub fn new(
        distilled: &Distilled,
        options: &TrainOptions,
        rules: Vec<String>,
        about: (String, String, ConstitutionName, String),
    ) -> Result<Self> {
        let (domain, encoder, constitution, labels) = about;
        let (pictures, unsafe_pictures) = distilled.trained;
        let card = Card {
            format: FORMAT,
            domain,
            encoder,
            constitution,
            labels,
            outputs: rules,
            weights: blake3::hash(&weights(&distilled.looks)?).to_hex().to_string(),
            training: options.clone(),
            trained_on: Counts { pictures, unsafe_pictures },
            cross_validation: distilled.choices.clone(),
            held_out: distilled.calibration,
            closer: distilled
                .looks
                .closer
                .as_ref()
                .map(|closer| CloserCard { band: closer.band, looked_closer: distilled.looked_closer }),
        };
        Self::build(card, distilled.looks.clone())
    }

    fn build(card: Card, looks: Looks) -> Result<Self> {
        let json = serde_json::to_vec(&card).map_err(|error| {
            StudentError::new(StudentErrorKind::Malformed, format!("the card cannot be written: {error}"))
        })?;
        Ok(Self { fingerprint: blake3::hash(&json).to_hex().to_string(), card, looks })
    }

    /// Reads a student from its folder.
    ///
    /// # Errors
    /// `File` for a file that cannot be read; `Malformed` for one that is not what was written, of another version, or a card
    /// that belongs to other weights.
    pub fn load(folder: &Path) -> Result<Self> {
        let (card_path, weights_path) = (folder.join(CARD_FILE), folder.join(WEIGHTS_FILE));
        let malformed = |detail: String| StudentError::malformed(&card_path, detail);
        let card: Card =
            serde_json::from_slice(&read(&card_path)?).map_err(|error| malformed(error.to_string()))?;
        if card.format != FORMAT {
            return Err(malformed(format!("format {}, expected {FORMAT}: distill again", card.format)));
        }
        let band = card.closer.map(|closer| closer.band);
        let cuts = band.map(|band| [Some(band.send_from), band.clear_below]).into_iter().flatten().flatten();
        if let Some(cut) = cuts.chain([card.held_out.threshold]).find(|cut| !cut.is_finite()) {
            return Err(malformed(format!("a threshold of {cut}, expected a number")));
        }
        let bytes = read(&weights_path)?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        if hash != card.weights {
            return Err(malformed(format!(
                "belongs to weights with the hash {}, {} has {hash}: take both files of one folder",
                card.weights,
                weights_path.display()
            )));
        }
        let looks = parse(&weights_path, &bytes, band)?;
        let heads = looks.closer.iter().flat_map(|closer| [&closer.whole, &closer.parts]);
        if let Some(head) = heads.chain([&looks.first]).find(|head| head.outputs() != card.outputs.len()) {
            let detail = format!("{} outputs, the weights have {}", card.outputs.len(), head.outputs());
            return Err(malformed(detail));
        }
        Self::build(card, looks)
    }

    /// Writes the student into a folder, which is made if need be.
    ///
    /// # Errors
    /// `File`.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|error| StudentError::file("make", folder, &error))?;
        let card = serde_json::to_string_pretty(&self.card).map_err(|error| {
            StudentError::new(StudentErrorKind::Malformed, format!("the card cannot be written: {error}"))
        })?;
        for (name, bytes) in [(WEIGHTS_FILE, weights(&self.looks)?), (CARD_FILE, (card + "\n").into_bytes())]
        {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|error| StudentError::file("write", &path, &error))?;
        }
        Ok(())
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The looks.
    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    /// Hash over the card, and through it over the weights.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What it says of a picture, by the features of its views. `parts` is asked for those of its parts, if it looks closer.
    ///
    /// # Errors
    /// Features of another number; a score that is no number; no view or no part at all; what `parts` answers.
    pub fn say<V: AsRef<[f32]>, P: AsRef<[f32]>, E: From<StudentError>>(
        &self,
        views: &[V],
        parts: impl FnOnce() -> std::result::Result<Vec<P>, E>,
    ) -> std::result::Result<Said, E> {
        let said = |score, threshold, closer| Said { score, threshold, closer };
        let last = self.card.held_out.threshold;
        let band = self.looks.closer.as_ref().map(|closer| closer.band);
        Ok(match (self.looks.look(views, parts)?, band) {
            (Look::Clear(score), Some(Band { clear_below: Some(below), .. })) => said(score, below, false),
            (Look::Send(score), Some(Band { send_from, .. })) => said(score, send_from, false),
            (Look::Clear(score) | Look::Send(score) | Look::Score(score), band) => {
                said(score, last, band.is_some())
            }
        })
    }

    /// Refuses another encoder.
    ///
    /// # Errors
    /// `Mismatch`.
    pub fn check_encoder(&self, fingerprint: &str) -> Result<()> {
        if self.card.encoder == fingerprint {
            return Ok(());
        }
        let message = format!(
            "the pre-filter was distilled for the relevance encoder {}, these models have {fingerprint}: take it out of the \
             models file, or distill one for these models (cluegate label, cluegate distill)",
            self.card.encoder
        );
        Err(StudentError::new(StudentErrorKind::Mismatch, message))
    }

    /// Refuses another constitution, or another revision of it.
    ///
    /// # Errors
    /// `Mismatch`.
    pub fn check_constitution(&self, name: &str, revision: &str) -> Result<()> {
        let own = &self.card.constitution;
        if own.revision == revision {
            return Ok(());
        }
        let message = format!(
            "the pre-filter was distilled under the constitution {} at {}, this is {name} at {revision}: take it out of the \
             models file, or distill one under this constitution (cluegate label, cluegate distill)",
            own.name, own.revision
        );
        Err(StudentError::new(StudentErrorKind::Mismatch, message))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let refused = |error: std::io::Error| StudentError::file("read", path, &error);
    let bytes = std::fs::metadata(path).map_err(refused)?.len();
    if bytes > MAX_BYTES {
        return Err(StudentError::malformed(
            path,
            format!("{bytes} bytes long, expected {MAX_BYTES} at most"),
        ));
    }
    std::fs::read(path).map_err(refused)
}
