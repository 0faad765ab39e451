//! A plugin that is open, wherever it lives, and what can be asked of it.

use std::path::PathBuf;
use std::time::Duration;

use cluegate_abi::PictureBuf;
use cluegate_gate::DrawSource;
use cluegate_perception::{Call, Picture};
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::{HostError, Result};
use crate::instance::{Given, Observer};
use crate::isolated::{Isolated, Isolation};
use crate::library::Library;
use crate::local::{Local, Origin};
use crate::message::{Ask, Change, Description, Drawing, Found, Said};
use crate::search::{FoundLibrary, Search};

/// One plugin of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name in the configuration, for messages.
    pub name: String,
    /// The library: see [`Search::find`].
    pub dylib: String,
    /// Its configuration.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What relative paths of the configuration mean.
    pub folder: PathBuf,
    /// How long it may take to open, from 1 ms.
    pub open_deadline: Duration,
    /// How long one call may take, from 1 ms. A plugin that takes longer is not used any more; one in a process of its own
    /// is ended and started again.
    pub deadline: Duration,
    /// Whether it gets a process of its own, and how.
    pub isolation: Option<Isolation>,
}

impl Spec {
    /// A plugin in this process with an empty configuration: a minute to open, 30 seconds for a call.
    pub fn new(name: impl Into<String>, library: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            dylib: library.into(),
            config: serde_json::Map::new(),
            folder: PathBuf::new(),
            open_deadline: Duration::from_secs(60),
            deadline: Duration::from_secs(30),
            isolation: None,
        }
    }
}

/// Loads the library `name` and says what it is, without an instance of it.
///
/// # Errors
/// See [`HostError`].
pub fn inspect(name: &str, search: &Search) -> Result<(FoundLibrary, Description)> {
    let path = search.find(name)?;
    let sha256 = search.allowed(&path)?;
    let description = Library::open(&path)?.description;
    Ok((FoundLibrary { path, sha256, allowed: true }, description))
}

/// How much of an answer is Yes and how much No, 0 to 1 each, not both 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Answered {
    /// Yes.
    pub yes: f64,
    /// No.
    pub no: f64,
}

impl Answered {
    /// `yes / (yes + no)`, 0 to 1.
    pub fn ratio(&self) -> f64 {
        self.yes / (self.yes + self.no)
    }
}

/// What a plugin that draws tells of a step, and what it is told.
pub trait Watch {
    /// Whether a preview is wanted after `step` of `total`.
    fn wants(&mut self, step: u32, total: u32) -> bool;

    /// A step is done. False gives the drawing up.
    fn step(&mut self, step: u32, total: u32, preview: Option<Picture>) -> bool;
}

/// Lets everything pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn wants(&mut self, _: u32, _: u32) -> bool {
        false
    }

    fn step(&mut self, _: u32, _: u32, _: Option<Picture>) -> bool {
        true
    }
}

/// A plugin that is open. Shared by all threads.
pub struct Plugin {
    spec: Spec,
    sha256: String,
    fingerprint: String,
    place: Place,
}

enum Place {
    Here(Box<Local>),
    Apart(Box<Isolated>),
}

struct Watching<'a>(&'a mut dyn Watch);

impl Observer for Watching<'_> {
    fn wants(&mut self, step: u32, total: u32) -> bool {
        self.0.wants(step, total)
    }

    fn step(&mut self, step: u32, total: u32, preview: Option<PictureBuf>) -> bool {
        // A preview of which nothing can be made is none.
        self.0.step(step, total, preview.and_then(picture))
    }
}

fn picture(given: PictureBuf) -> Option<Picture> {
    let (width, height) = (given.width(), given.height());
    RgbImage::from_raw(width, height, given.into_pixels()).map(Picture::new)
}

impl Plugin {
    /// Finds, checks and opens a plugin.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn open(spec: Spec, search: &Search) -> Result<Self> {
        let path = search.find(&spec.dylib)?;
        let sha256 = search.allowed(&path)?;
        let config = serde_json::Value::Object(spec.config.clone()).to_string();
        let folder = spec.folder.display().to_string();
        let origin = Origin { path, config: config.clone(), folder };
        let place = match &spec.isolation {
            None => {
                Place::Here(Box::new(Local::open(&spec.name, origin, spec.open_deadline, spec.deadline)?))
            }
            Some(isolation) => {
                let times = (spec.open_deadline, spec.deadline);
                let origin = (origin, sha256.clone());
                Place::Apart(Box::new(Isolated::open(&spec.name, origin, isolation.clone(), times)?))
            }
        };
        let own = match &place {
            Place::Here(local) => local.fingerprint(),
            Place::Apart(isolated) => isolated.fingerprint(),
        };
        let mut hasher = Sha256::new();
        for part in [&*sha256, &*config, own] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let fingerprint = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { sha256, fingerprint, place, spec })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it was opened from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The library's SHA-256 in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Identity for logs and caches: its library, its configuration and what it says of its models, hashed.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How it describes itself.
    pub fn description(&self) -> &Description {
        match &self.place {
            Place::Here(local) => local.description(),
            Place::Apart(isolated) => isolated.description(),
        }
    }

    /// Why it is not used any more, if it is not.
    pub fn broken(&self) -> Option<&str> {
        match &self.place {
            Place::Here(local) => local.broken(),
            Place::Apart(_) => None,
        }
    }

    /// Whether it can do this, by the name of the kit's function.
    pub fn can(&self, ability: &str) -> bool {
        self.description().abilities.iter().any(|has| has == ability)
    }

    /// Refuses a plugin that cannot do this.
    ///
    /// # Errors
    /// [`HostError::Unsupported`].
    pub fn must(&self, ability: &'static str) -> Result<()> {
        if self.can(ability) {
            return Ok(());
        }
        let has = self.description().abilities.clone();
        Err(HostError::Unsupported { plugin: self.spec.name.clone(), what: ability, has })
    }

    fn ask<'a>(
        &self,
        ask: Ask,
        pictures: impl IntoIterator<Item = &'a Picture>,
        call: &Call,
        watch: &mut dyn Watch,
    ) -> Result<Given> {
        self.must(ask.ability())?;
        let _span = tracing::info_span!(target: "cluegate::trace", "plugin", plugin = self.spec.name, ability = ask.ability())
            .entered();
        let (pictures, mut watching) = (pictures.into_iter().cloned().collect(), Watching(watch));
        match &self.place {
            Place::Here(local) => local.ask(ask, pictures, call, &mut watching),
            Place::Apart(isolated) => isolated.ask(ask, pictures, call, &mut watching),
        }
    }

    fn unexpected(&self, said: &Said) -> HostError {
        let problem = format!("it answered another question: {said:?}");
        HostError::System { plugin: self.spec.name.clone(), problem }
    }

    /// Refuses what it cannot draw; the prompt does not matter.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn check(&self, drawing: Drawing, call: &Call) -> Result<()> {
        self.ask(Ask::Check(drawing), None, call, &mut Unwatched).map(drop)
    }

    /// Draws a picture; `None` if `watch` gave it up.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn generate(&self, drawing: Drawing, call: &Call, watch: &mut dyn Watch) -> Result<Option<Picture>> {
        self.drawn(self.ask(Ask::Generate(drawing), None, call, watch)?)
    }

    /// Draws a picture from another one; `None` if `watch` gave it up. A mask of another size than the picture is scaled.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] for a plugin that begins from noise alone; else see [`HostError`].
    pub fn generate_from(
        &self,
        drawing: Drawing,
        source: &DrawSource,
        call: &Call,
        watch: &mut dyn Watch,
    ) -> Result<Option<Picture>> {
        let (drawing, pictures) = self.begun_from(drawing, source)?;
        self.drawn(self.ask(Ask::Generate(drawing), &pictures, call, watch)?)
    }

    /// Refuses what it cannot draw from a picture. The prompt does not matter, nor what the picture shows.
    ///
    /// # Errors
    /// As [`Plugin::generate_from`].
    pub fn check_from(&self, drawing: Drawing, source: &DrawSource, call: &Call) -> Result<()> {
        let (drawing, pictures) = self.begun_from(drawing, source)?;
        self.ask(Ask::Check(drawing), &pictures, call, &mut Unwatched).map(drop)
    }

    /// A drawing with the picture that it begins from, and the mask if there is one.
    fn begun_from(&self, drawing: Drawing, source: &DrawSource) -> Result<(Drawing, Vec<Picture>)> {
        if !self.description().from_pictures {
            let (plugin, has) = (self.spec.name.clone(), self.description().abilities.clone());
            return Err(HostError::Unsupported { plugin, what: "draw from a picture", has });
        }
        let (width, height) = (source.picture.width(), source.picture.height());
        let mask = source.mask.as_ref().map(|mask| match (mask.width(), mask.height()) == (width, height) {
            true => mask.clone(),
            false => Picture::new(imageops::resize(mask.pixels(), width, height, FilterType::Triangle)),
        });
        let pictures = [source.picture.clone()].into_iter().chain(mask).collect();
        Ok((Drawing { strength: source.strength, ..drawing }, pictures))
    }

    fn drawn(&self, given: Given) -> Result<Option<Picture>> {
        match given {
            (Said::Aborted, _) => Ok(None),
            given => self.picture(given).map(Some),
        }
    }

    fn picture(&self, given: Given) -> Result<Picture> {
        match given {
            (Said::Picture, Some(given)) => picture(given).ok_or_else(|| self.unexpected(&Said::Picture)),
            (said, _) => Err(self.unexpected(&said)),
        }
    }

    /// What is in a picture.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn classify(&self, picture: &Picture, call: &Call) -> Result<Found> {
        match self.ask(Ask::Classify, Some(picture), call, &mut Unwatched)? {
            (Said::Found(found), _) => Ok(found),
            (said, _) => Err(self.unexpected(&said)),
        }
    }

    /// Whether a statement holds, of a picture or of any.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn answer(&self, picture: Option<&Picture>, statement: &str, call: &Call) -> Result<Answered> {
        let ask = Ask::Answer { statement: statement.to_owned() };
        match self.ask(ask, picture, call, &mut Unwatched)? {
            (Said::Answer { yes, no }, _) => Ok(Answered { yes, no }),
            (said, _) => Err(self.unexpected(&said)),
        }
    }

    /// Hides regions of a picture.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn redact(&self, picture: &Picture, change: Change, call: &Call) -> Result<Picture> {
        self.picture(self.ask(Ask::Redact(change), Some(picture), call, &mut Unwatched)?)
    }

    /// Paints something else into regions of a picture.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn inpaint(&self, picture: &Picture, change: Change, call: &Call) -> Result<Picture> {
        self.picture(self.ask(Ask::Inpaint(change), Some(picture), call, &mut Unwatched)?)
    }

    /// Another prompt.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn rewrite(&self, prompt: &str, avoid: &[String], attempt: u32, call: &Call) -> Result<String> {
        let ask = Ask::Rewrite { prompt: prompt.to_owned(), avoid: avoid.to_vec(), attempt };
        match self.ask(ask, None, call, &mut Unwatched)? {
            (Said::Text(text), _) => Ok(text),
            (said, _) => Err(self.unexpected(&said)),
        }
    }

    /// Tells somebody of a decision, a JSON object.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn publish(&self, decision: String, call: &Call) -> Result<()> {
        self.ask(Ask::Publish { decision }, None, call, &mut Unwatched).map(drop)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("spec", &self.spec)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}
