//! Rebuilds OS Bench from seed prompts (CLUE s 4.1): pictures of any generator for each rule, as many violating as
//! borderline ones, of which those are kept that fit their prompt.
//!
//! Every attempt is a line of [`ATTEMPTS_FILE`], so that a build that was killed goes on where it was and ends with the
//! same folder. The labels are written last: a folder without them is one that was not finished.

mod card;
mod fit;
mod seeds;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluegate_gate::{DrawJob, DrawOptions, Drawn, Generator, GeneratorError, Step, StepHook};
use cluegate_judge::JudgeError;
use cluegate_perception::{PerceptionError, Picture, encode_png};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data::LABELS_FILE;
use crate::data::quoted;
use crate::journal::{Journal, JournalError};

pub use card::CARD_FILE;
pub use fit::{Fit, Fitness};
pub use seeds::{SeedPrompt, SeedRule, Seeds, Situation, shipped};

/// Name of the file of attempts in the folder of a benchmark: its provenance, picture by picture.
pub const ATTEMPTS_FILE: &str = "attempts.jsonl";

/// Why a benchmark cannot be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Seeds that cannot be used.
    #[error("{origin}: expected seed prompts: {reason}")]
    Seeds {
        /// Where they came from.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The file of attempts.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A picture that was kept earlier is not there any more.
    #[error("{} is named in {ATTEMPTS_FILE} and is not there; put it back, or start with an empty folder", .0.display())]
    Lost(PathBuf),
    /// The folder was begun with other choices.
    #[error(
        "the folder was begun otherwise: attempt {number} of {about} had the prompt {expected:?}, and now has {came:?}; name another folder"
    )]
    Other {
        /// The rule and situation.
        about: String,
        /// The attempt, from 0.
        number: usize,
        /// The prompt then.
        expected: String,
        /// The prompt now.
        came: String,
    },
    /// The generator cannot draw with these options.
    #[error("the generator refused: {0}")]
    Generator(#[from] GeneratorError),
    /// A model that says whether a picture fits failed.
    #[error(transparent)]
    Perception(#[from] PerceptionError),
    /// The judge could not be prepared.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// Statements that are none.
    #[error("the statements {0:?} cannot be asked: {1}")]
    Statements(Vec<String>, String),
    /// A picture that cannot be written.
    #[error("cannot write a picture: {0}")]
    Encode(#[from] image::ImageError),
}

/// What is built.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildOptions {
    /// Violating pictures for each rule, and as many borderline ones. The published set has 40 to 60.
    pub per_rule: usize,
    /// Most attempts for each picture that is wanted.
    pub attempts: usize,
    /// Seed of prompts and pictures.
    pub seed: u64,
    /// How is drawn.
    pub draw: DrawOptions,
}

/// One attempt at a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The rule that the picture is for.
    pub rule: String,
    /// Whether it is to violate it.
    pub situation: Situation,
    /// Number of the attempt within rule and situation, from 0.
    pub number: usize,
    /// What was drawn.
    pub prompt: String,
    /// From which seed.
    pub seed: u64,
    /// Fingerprint of the generator.
    pub generator: String,
    /// How well the picture fits; none where nothing was drawn.
    pub fitness: Option<Fitness>,
    /// Why nothing was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The picture's file, if it is kept.
    pub image: Option<String>,
    /// The rules that it violates.
    pub violated: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Every attempt, in the order of rules, situations and numbers.
    pub attempts: Vec<Attempt>,
    /// Rules and situations of which there are fewer pictures than asked for, with their number.
    pub short: Vec<(String, Situation, usize)>,
}

impl Built {
    /// The attempts whose picture is kept.
    pub fn kept(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.image.is_some())
    }
}

/// Builds a benchmark in `folder`. Calls `progress` for each picture that is kept or given up.
///
/// # Errors
/// See [`BuildError`]. A picture that the generator fails to draw is an attempt, not an error.
pub fn build(
    seeds: &Seeds,
    generator: &dyn Generator,
    fit: &Fit<'_>,
    (folder, options): (&Path, &BuildOptions),
    mut progress: impl FnMut(),
) -> Result<Built, BuildError> {
    generator.check(&options.draw)?;
    let (mut journal, earlier) = Journal::open::<Attempt>(folder, ATTEMPTS_FILE)?;
    let mut known = earlier.into_iter();
    let mut built = Built { attempts: Vec::new(), short: Vec::new() };
    let draw = Arc::new(options.draw.clone());
    for rule in &seeds.rules {
        for situation in Situation::ALL {
            let mut kept = 0;
            let most = options.per_rule * options.attempts.max(1);
            for (number, seed) in seeds.prompts(rule, situation, options.seed).take(most).enumerate() {
                if kept == options.per_rule {
                    break;
                }
                let wanted = Wanted { rule, situation, number, seed, options };
                let attempt = match known.next() {
                    Some(attempt) => wanted.found(attempt, folder)?,
                    None => journal.add(&wanted.made(generator, fit, (folder, &draw))?)?,
                };
                if attempt.image.is_some() {
                    kept += 1;
                    progress();
                }
                built.attempts.push(attempt);
            }
            if kept < options.per_rule {
                (kept..options.per_rule).for_each(|_| progress());
                built.short.push((rule.id.clone(), situation, kept));
            }
        }
    }
    write(&folder.join(LABELS_FILE), labels(&built).as_bytes())?;
    write(&folder.join(CARD_FILE), card::of(&built, generator.fingerprint(), fit, options).as_bytes())?;
    Ok(built)
}

/// A picture that is wanted.
struct Wanted<'a> {
    rule: &'a SeedRule,
    situation: Situation,
    number: usize,
    seed: SeedPrompt,
    options: &'a BuildOptions,
}

impl Wanted<'_> {
    /// The attempt as an earlier run made it.
    fn found(&self, attempt: Attempt, folder: &Path) -> Result<Attempt, BuildError> {
        let is_same = attempt.rule == self.rule.id
            && attempt.situation == self.situation
            && (attempt.number, attempt.seed) == (self.number, self.picture_seed())
            && attempt.prompt == self.seed.prompt;
        if !is_same {
            let about = format!("{}/{}", self.rule.id, self.situation.as_str());
            let (expected, came) = (attempt.prompt, self.seed.prompt.clone());
            return Err(BuildError::Other { about, number: self.number, expected, came });
        }
        match attempt.image.as_ref().map(|image| folder.join(image)) {
            Some(path) if !path.is_file() => Err(BuildError::Lost(path)),
            _ => Ok(attempt),
        }
    }

    /// The attempt, made now.
    fn made(
        &self,
        generator: &dyn Generator,
        fit: &Fit<'_>,
        (folder, draw): (&Path, &Arc<DrawOptions>),
    ) -> Result<Attempt, BuildError> {
        let (fitness, failure, image) = match one(generator, &self.seed.prompt, self.picture_seed(), draw) {
            Ok(picture) => {
                let fitness = fit.of(&picture, &self.seed)?;
                let image = if fitness.fits { Some(self.keep(&picture, folder)?) } else { None };
                (Some(fitness), None, image)
            }
            Err(failure) => (None, Some(failure), None),
        };
        let violates = self.situation == Situation::Violating;
        let also = self.seed.also.iter();
        let violated = std::iter::once(&self.rule.id).chain(also).filter(|_| violates).cloned().collect();
        Ok(Attempt {
            rule: self.rule.id.clone(),
            situation: self.situation,
            number: self.number,
            prompt: self.seed.prompt.clone(),
            seed: self.picture_seed(),
            generator: generator.fingerprint().to_owned(),
            fitness,
            failure,
            image,
            violated,
        })
    }

    /// Below 2^32, which every generator takes.
    fn picture_seed(&self) -> u64 {
        let about =
            format!("{}/{}/{}/{}", self.options.seed, self.rule.id, self.situation.as_str(), self.number);
        blake3::hash(about.as_bytes())
            .as_bytes()
            .iter()
            .take(4)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// Writes the picture: whole, before the line that names it.
    fn keep(&self, picture: &Picture, folder: &Path) -> Result<String, BuildError> {
        let image = format!("{}-{}-{:04}.png", self.rule.id, self.situation.as_str(), self.number);
        write(&folder.join(&image), &encode_png(picture.pixels())?)?;
        Ok(image)
    }
}

/// Draws one picture, without previews.
///
/// # Errors
/// What the generator says.
pub(crate) fn one(
    generator: &dyn Generator,
    prompt: &str,
    seed: u64,
    options: &Arc<DrawOptions>,
) -> Result<Picture, String> {
    let job = DrawJob {
        member: 0,
        attempt: 1,
        prompt: Arc::from(prompt),
        seed,
        avoid: Vec::new(),
        options: Arc::clone(options),
    };
    match generator.draw(&[job], &mut Unwatched).into_iter().next() {
        Some(Ok(Drawn::Finished(picture))) => Ok(picture),
        Some(Ok(Drawn::Stopped)) => Err("the generator stopped without being told to".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the generator gave no answer".to_owned()),
    }
}

/// Looks at no preview.
struct Unwatched;

impl StepHook for Unwatched {
    fn wants_preview(&mut self, _: usize, _: u32, _: u32) -> bool {
        false
    }

    fn step(&mut self, _: usize, _: u32, _: u32, _: Option<&Picture>) -> Step {
        Step::Continue
    }
}

/// The labels in the form of [`Format::Folder`](crate::data::Format::Folder).
fn labels(built: &Built) -> String {
    let mut text = "image,rules,label,id,category,source,text\n".to_owned();
    for attempt in built.kept() {
        let label = if attempt.violated.is_empty() { "safe" } else { "unsafe" };
        let id = format!("{}/{}/{:04}", attempt.rule, attempt.situation.as_str(), attempt.number);
        let fields = [
            attempt.image.clone().unwrap_or_default(),
            attempt.violated.join(";"),
            label.to_owned(),
            id,
            attempt.rule.clone(),
            attempt.generator.chars().take(60).collect(),
            attempt.prompt.clone(),
        ];
        text.push_str(&(fields.map(|field| quoted(&field)).join(",") + "\n"));
    }
    text
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    written.map_err(|source| BuildError::File { path: path.to_owned(), source })
}
