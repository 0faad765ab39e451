//! A student on disk: `student.safetensors` with its numbers, and `student.json` with what it is for and what it costs.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::error::{Result, StudentError, StudentErrorKind};
use crate::head::{Head, Member};
use crate::train::{Choice, Distilled, TrainOptions};

/// Name of the card in a student's folder.
pub const CARD_FILE: &str = "student.json";

/// Name of the weights there.
pub const WEIGHTS_FILE: &str = "student.safetensors";

/// Version of the format.
const FORMAT: u32 = 2;

/// Most bytes of either file.
const MAX_BYTES: u64 = 256 << 20;

/// Most members of a head.
const MAX_MEMBERS: usize = 64;

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
    /// Version of the format, 2. In the first, a last output stood for any rule and decided alone.
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
}

/// A head with its card.
#[derive(Debug, Clone)]
pub struct Student {
    card: Card,
    head: Head,
    fingerprint: String,
}

impl Student {
    /// From what distillation gave. `rules` are the ids of the outputs.
    ///
    /// # Errors
    /// `Malformed` if the head cannot be written.
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
            weights: blake3::hash(&weights(&distilled.head)?).to_hex().to_string(),
            training: options.clone(),
            trained_on: Counts { pictures, unsafe_pictures },
            cross_validation: distilled.choices.clone(),
            held_out: distilled.calibration,
        };
        Self::build(card, distilled.head.clone())
    }

    fn build(card: Card, head: Head) -> Result<Self> {
        let json = serde_json::to_vec(&card).map_err(|error| {
            StudentError::new(StudentErrorKind::Malformed, format!("the card cannot be written: {error}"))
        })?;
        Ok(Self { fingerprint: blake3::hash(&json).to_hex().to_string(), card, head })
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
        let threshold = card.held_out.threshold;
        if !threshold.is_finite() {
            return Err(malformed(format!("a threshold of {threshold}, expected a number")));
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
        let head = parse(&weights_path, &bytes)?;
        if head.outputs() != card.outputs.len() {
            let detail = format!("{} outputs, the weights have {}", card.outputs.len(), head.outputs());
            return Err(malformed(detail));
        }
        Self::build(card, head)
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
        for (name, bytes) in [(WEIGHTS_FILE, weights(&self.head)?), (CARD_FILE, (card + "\n").into_bytes())] {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|error| StudentError::file("write", &path, &error))?;
        }
        Ok(())
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Hash over the card, and through it over the weights.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The score from which a picture goes on to the judge.
    pub fn threshold(&self) -> f64 {
        self.card.held_out.threshold
    }

    /// The score of a picture, by the features of its views: that of the most suspicious one.
    ///
    /// # Errors
    /// Features of another number; a score that is no number; no view at all.
    pub fn score<'a>(&self, views: impl IntoIterator<Item = &'a [f32]>) -> Result<f64> {
        let scores = views.into_iter().map(|view| self.head.score(view)).collect::<Result<Vec<f64>>>()?;
        scores.into_iter().reduce(f64::max).ok_or_else(|| {
            StudentError::new(StudentErrorKind::NotANumber, "expected features of a picture, got none")
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

/// The weights as safetensors.
fn weights(head: &Head) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, values: &[f32]| {
        tensors.push((name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()));
    };
    let (width, outputs) = (head.width(), head.outputs());
    add("mean".to_owned(), vec![width], &head.mean);
    add("deviation".to_owned(), vec![width], &head.deviation);
    for (index, member) in head.members.iter().enumerate() {
        let inner = if let Some((weight, bias)) = &member.hidden {
            add(format!("members.{index}.hidden.weight"), vec![bias.len(), width], weight);
            add(format!("members.{index}.hidden.bias"), vec![bias.len()], bias);
            bias.len()
        } else {
            width
        };
        add(format!("members.{index}.output.weight"), vec![outputs, inner], &member.output);
        add(format!("members.{index}.output.bias"), vec![outputs], &member.bias);
    }
    let failed = |error: String| {
        StudentError::new(StudentErrorKind::Malformed, format!("the weights cannot be written: {error}"))
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    let views = views.map_err(|error| failed(error.to_string()))?;
    safetensors::serialize(views, None::<HashMap<String, String>>).map_err(|error| failed(error.to_string()))
}

/// Reads weights strictly: every tensor there, of its shape, of finite numbers, and no other.
fn parse(path: &Path, bytes: &[u8]) -> Result<Head> {
    let malformed = |detail: String| StudentError::malformed(path, detail);
    let file = SafeTensors::deserialize(bytes).map_err(|error| malformed(error.to_string()))?;
    let mut left: std::collections::BTreeSet<String> = file.names().into_iter().map(str::to_owned).collect();
    let mut take = |name: &str, shape: &[Option<usize>]| -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = file.tensor(name).map_err(|_| malformed(format!("no tensor `{name}`")))?;
        left.remove(name);
        let fits = tensor.shape().len() == shape.len()
            && tensor
                .shape()
                .iter()
                .zip(shape)
                .all(|(own, wanted)| wanted.is_none_or(|wanted| wanted == *own));
        if !fits || tensor.dtype() != Dtype::F32 {
            let (dtype, own) = (tensor.dtype(), tensor.shape());
            return Err(malformed(format!(
                "tensor `{name}` is {dtype:?} of shape {own:?}, expected F32 of {shape:?}"
            )));
        }
        let values: Vec<f32> =
            tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(malformed(format!("tensor `{name}` holds what is no number")));
        }
        Ok((tensor.shape().to_vec(), values))
    };
    let (shape, mean) = take("mean", &[None])?;
    let width = shape[0];
    let (_, deviation) = take("deviation", &[Some(width)])?;
    let mut members: Vec<Member> = Vec::new();
    let mut outputs = None;
    while members.len() < MAX_MEMBERS {
        let index = members.len();
        let name = |part: &str| format!("members.{index}.{part}");
        if file.tensor(&name("output.weight")).is_err() {
            break;
        }
        let hidden = if file.tensor(&name("hidden.weight")).is_ok() {
            let (shape, weight) = take(&name("hidden.weight"), &[None, Some(width)])?;
            Some((weight, take(&name("hidden.bias"), &[Some(shape[0])])?.1))
        } else {
            None
        };
        let inner = hidden.as_ref().map_or(width, |(_, bias)| bias.len());
        let (shape, output) = take(&name("output.weight"), &[outputs, Some(inner)])?;
        outputs = Some(shape[0]);
        members.push(Member { hidden, output, bias: take(&name("output.bias"), &[outputs])?.1 });
    }
    let positive = deviation.iter().all(|value| *value > 0.0);
    if let Some(unknown) = left.first() {
        return Err(malformed(format!("a tensor `{unknown}` that a student has no place for")));
    }
    if members.is_empty() || width == 0 || outputs == Some(0) || !positive {
        return Err(malformed(
            "no member, no feature, no output, or a deviation that is not positive".to_owned(),
        ));
    }
    Ok(Head { mean, deviation, members })
}
