//! What a plugin in Rust implements, and what it is called with.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::error::{ErrorCode, PluginError};
use super::values::{Draw, LatentView, PictureBuf, PictureView, Region};
use crate::table;

/// A plugin: one instance of it for each table of a configuration that names it.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Its name: lower-case letters, digits and hyphens.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// A sentence on what it does.
    const ABOUT: &'static str;
    /// JSON Schema of its configuration. With `"additionalProperties": false` the host refuses keys that it does not name.
    const SCHEMA: &'static str;
    /// Whether an instance may be called from several threads at a time. Otherwise the host makes one call after the other;
    /// a plugin whose calls wait for each other must leave it so, because its waiting would count as being slow.
    const CONCURRENT: bool = false;

    /// Makes an instance. `host` may be kept.
    ///
    /// # Errors
    /// If the configuration, or what it names, cannot be used.
    fn create(setup: &Setup<'_>, host: Host) -> Result<Self, PluginError>;

    /// Whatever tells its models from others: two instances that give the same text answer alike. The host adds the library
    /// and the configuration by itself.
    ///
    /// # Errors
    /// If it cannot tell.
    fn fingerprint(&self) -> Result<String, PluginError> {
        Ok(String::new())
    }
}

/// A plugin that draws pictures.
pub trait Generate: Plugin {
    /// Whether it begins from pictures too. Without it [`Draw::source`] is always `None`.
    const FROM_PICTURES: bool = false;

    /// Draws one picture and tells `steps` of every step.
    ///
    /// # Errors
    /// If there is no picture: a model that failed, a request that cannot be served, a picture of numbers that are none.
    fn generate(&self, draw: &Draw<'_>, call: &Call<'_>, steps: &mut Steps<'_>)
    -> Result<Drawn, PluginError>;

    /// Refuses what cannot be drawn, before anything is. The prompt is empty, and a picture to begin from is
    /// perhaps another one of a single pixel.
    ///
    /// # Errors
    /// Of code `Request`: what may be asked for, and what was.
    fn check(&self, draw: &Draw<'_>) -> Result<(), PluginError> {
        let _ = draw;
        Ok(())
    }
}

/// A plugin that finds things in pictures.
pub trait Classify: Plugin {
    /// What it finds, and whether it calls the picture unsafe.
    ///
    /// # Errors
    /// If it cannot tell, which is never read as safe.
    fn classify(&self, picture: &PictureView<'_>, call: &Call<'_>) -> Result<Classification, PluginError>;
}

/// A plugin that says whether a statement holds of a picture.
pub trait Answer: Plugin {
    /// How much of its answer is Yes and how much No. Without a picture the question measures what the plugin believes of
    /// any.
    ///
    /// # Errors
    /// If it cannot tell.
    fn answer(
        &self,
        picture: Option<&PictureView<'_>>,
        statement: &str,
        call: &Call<'_>,
    ) -> Result<AnswerScore, PluginError>;
}

/// A plugin that hides regions of a picture.
pub trait Redact: Plugin {
    /// A picture of the same size in which nothing inside the regions can be made out, and nothing else is changed.
    ///
    /// # Errors
    /// If it cannot.
    fn redact(&self, edit: &Edit<'_>, call: &Call<'_>) -> Result<PictureBuf, PluginError>;
}

/// A plugin that paints something else into regions of a picture.
pub trait Inpaint: Plugin {
    /// A picture of the same size with something else inside the regions.
    ///
    /// # Errors
    /// If it cannot.
    fn inpaint(&self, edit: &Edit<'_>, call: &Call<'_>) -> Result<PictureBuf, PluginError>;
}

/// A plugin that writes prompts anew.
pub trait Rewrite: Plugin {
    /// Another prompt, from which a picture is more likely to pass.
    ///
    /// # Errors
    /// If it cannot.
    fn rewrite(&self, rewriting: &Rewriting<'_>, call: &Call<'_>) -> Result<String, PluginError>;
}

/// A plugin that tells others of decisions.
pub trait Publish: Plugin {
    /// Tells of a decision: the entry of the decision log, a JSON object.
    ///
    /// # Errors
    /// If it could not be told.
    fn publish(&self, decision: &str, call: &Call<'_>) -> Result<(), PluginError>;
}

/// What an instance is made from.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Its configuration: a JSON object.
    pub config: &'a str,
    /// The folder that relative paths of the configuration mean.
    pub folder: &'a str,
}

/// How grave a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warning,
    /// Worth a line.
    Information,
    /// For those who look closely.
    Detail,
}

/// The host's log. Lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    table: table::Host,
    plugin: &'static str,
}

// SAFETY: the host's table lives as long as the process, and its log may be written from any thread, says the ABI.
unsafe impl Send for Host {}
// SAFETY: the same.
unsafe impl Sync for Host {}

impl Host {
    pub(crate) fn new(table: table::Host, plugin: &'static str) -> Self {
        Self { table, plugin }
    }

    /// Writes a line to the host's log.
    pub fn log(&self, level: LogLevel, message: &str) {
        let Some(log) = self.table.log else { return };
        let level = match level {
            LogLevel::Error => 1,
            LogLevel::Warning => 2,
            LogLevel::Information => 3,
            LogLevel::Detail => 4,
        };
        // SAFETY: the host gave both, and both texts outlive the call.
        unsafe { log(self.table.context, table::Text::new(self.plugin), level, table::Text::new(message)) };
    }
}

/// On what terms a function is called.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    cancelled: Option<&'a AtomicU32>,
    deadline: Duration,
}

impl<'a> Call<'a> {
    /// # Safety
    /// The flag, if there is one, lives for `'a` and is written atomically.
    pub(crate) unsafe fn read(place: *const table::Call) -> Result<Self, PluginError> {
        // SAFETY: says the caller.
        let call = unsafe { <table::Call as table::Growing>::read(place) };
        let call =
            call.ok_or_else(|| PluginError::contract("expected a call, got a null pointer or a short one"))?;
        // SAFETY: a `u32` in memory that is only written atomically, says the caller.
        let cancelled = unsafe { call.cancelled.cast::<AtomicU32>().as_ref() };
        Ok(Self { cancelled, deadline: Duration::from_millis(call.deadline_ms) })
    }

    /// Whether nobody waits for the answer any more. Ask before each piece of work that takes long.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_some_and(|flag| flag.load(Ordering::Acquire) != 0)
    }

    /// The same as an error to return.
    ///
    /// # Errors
    /// Of code `Cancelled` if nobody waits.
    pub fn check(&self) -> Result<(), PluginError> {
        if self.is_cancelled() {
            return Err(PluginError::new(ErrorCode::Cancelled, "the call was called off"));
        }
        Ok(())
    }

    /// How long the host waits, from the call's beginning. A plugin that is slower counts as broken.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// Whether to draw on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Draw on.
    Continue,
    /// Give the drawing up, and return [`Drawn::Aborted`].
    Abort,
}

/// How a drawing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drawn {
    /// With a picture.
    Finished(PictureBuf),
    /// Given up because [`Steps::step`] said so.
    Aborted,
}

/// What a picture will become, as far as can be told while it is drawn.
#[derive(Debug, Clone, Copy)]
pub enum Preview<'a> {
    /// A decoded picture, of any size.
    Picture(PictureView<'a>),
    /// A latent picture, which the host shows by its linear map.
    Latent(LatentView<'a>),
}

/// The host's view into a drawing.
pub struct Steps<'a> {
    hooks: table::Hooks,
    call: PhantomData<&'a c_void>,
}

impl Steps<'_> {
    pub(crate) fn new(hooks: table::Hooks) -> Self {
        Self { hooks, call: PhantomData }
    }

    /// Whether the host wants a preview after step `step` (from 1) of `total`. May be asked before the step is computed.
    pub fn wants_preview(&mut self, step: u32, total: u32) -> bool {
        // SAFETY: the host gave both, for this call.
        self.hooks.wants_preview.is_some_and(|ask| unsafe { ask(self.hooks.context, step, total) } != 0)
    }

    /// Tells of a finished step, with a preview if one is wanted. Called after every step.
    pub fn step(&mut self, step: u32, total: u32, preview: Option<Preview<'_>>) -> Control {
        let picture = match &preview {
            Some(Preview::Picture(view)) => Some(view.table()),
            _ => None,
        };
        let latent = match &preview {
            Some(Preview::Latent(view)) => Some(view.table()),
            _ => None,
        };
        let done = table::Step {
            size: size_of::<table::Step>(),
            step,
            total,
            picture: picture.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            latent: latent.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
        };
        let Some(on_step) = self.hooks.on_step else { return Control::Continue };
        // SAFETY: the host gave both for this call, and all that `done` points to outlives it.
        match unsafe { on_step(self.hooks.context, &raw const done) } {
            table::CONTINUE => Control::Continue,
            // Whatever else a host may say, it does not say to draw on.
            _ => Control::Abort,
        }
    }
}

/// One thing that a judge found or looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// How sure the judge is of it, 0 to 1.
    pub score: f32,
    /// Where it is, for a judge that finds boxes.
    pub region: Option<Region>,
}

/// What a judge says of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Whether it calls the picture unsafe.
    pub flagged: bool,
    /// How sure it is that the picture is unsafe, 0 to 1.
    pub score: f32,
    /// What it found or looked for.
    pub labels: Vec<Label>,
}

/// How much of an answer is Yes and how much No, 0 to 1 each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerScore {
    /// Probability of Yes.
    pub yes: f64,
    /// Probability of No.
    pub no: f64,
}

/// A picture in which something is to be hidden or replaced.
#[derive(Debug, Clone)]
pub struct Edit<'a> {
    /// The picture.
    pub picture: PictureView<'a>,
    /// What is to be changed; they may reach beyond the picture.
    pub regions: Vec<Region>,
    /// What the picture was made from; empty if nobody knows.
    pub prompt: &'a str,
    /// The same seed gives the same picture.
    pub seed: u64,
}

/// A prompt that is to be written anew.
#[derive(Debug, Clone)]
pub struct Rewriting<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// Statements that made earlier attempts violate a rule.
    pub avoid: Vec<&'a str>,
    /// The attempt that it is for, from 1.
    pub attempt: u32,
}
