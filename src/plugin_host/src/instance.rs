//! An instance of a plugin: from a question to the call of a C function, and from what it gives to an answer.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use cluegate_abi::table::{self, Growing as _, Text};
use cluegate_abi::{ErrorCode, LatentView, PictureBuf, PictureView, PluginError};

use crate::library::{ErrorRoom, Library};
use crate::message::{Ask, Change, Drawing, Found, FoundLabel, Said, edges, table_region};

/// Most labels of one picture.
const MAX_LABELS: usize = 10_000;
/// Longest name of a label in bytes.
const MAX_NAME: usize = 1024;
/// Longest text that a plugin gives, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// Most pixels of a picture that a plugin gives.
pub(crate) const MAX_PIXELS: u64 = 100_000_000;

/// What a plugin gave: words, and perhaps a picture.
pub(crate) type Given = (Said, Option<PictureBuf>);

/// Told of a drawing's steps.
pub(crate) trait Observer {
    /// Whether a preview is wanted after `step` of `total`.
    fn wants(&mut self, step: u32, total: u32) -> bool;

    /// A step is done. False gives the drawing up.
    fn step(&mut self, step: u32, total: u32, preview: Option<PictureBuf>) -> bool;
}

/// On what terms a question is asked.
pub(crate) struct Terms<'a> {
    /// Not 0 once nobody waits.
    pub(crate) cancelled: &'a AtomicU32,
    /// How long the answer may take.
    pub(crate) deadline: Duration,
}

/// What `create` made; destroyed when the last call has ended.
pub(crate) struct Instance {
    dylib: &'static Library,
    handle: *mut c_void,
}

// SAFETY: an instance may be called from any thread, one at a time or at once, as the plugin's flags say and `local` keeps.
unsafe impl Send for Instance {}
// SAFETY: the same.
unsafe impl Sync for Instance {}

type Result<T> = std::result::Result<T, PluginError>;

fn contract(problem: impl Into<String>) -> PluginError {
    PluginError::new(ErrorCode::Contract, problem)
}

fn finite(value: f64, what: &str) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(contract(format!("expected {what} from 0 to 1, it gave {value}")))
    }
}

impl Instance {
    /// Makes an instance of a configuration.
    pub(crate) fn create(library: &'static Library, config: &str, folder: &str) -> Result<Self> {
        let setup = table::Setup {
            size: size_of::<table::Setup>(),
            config: Text::new(config),
            folder: Text::new(folder),
        };
        let (mut handle, mut room) = (null_mut(), ErrorRoom::new());
        let create = library.plugin.create.ok_or_else(|| contract("its table lacks `create`"))?;
        // SAFETY: the ABI's contract; all that is pointed to outlives the call.
        match unsafe { create(&raw const setup, &raw mut handle, room.table()) } {
            table::OK => Ok(Self { dylib: library, handle }),
            code => Err(room.error(code)),
        }
    }

    pub(crate) fn dylib(&self) -> &'static Library {
        self.dylib
    }

    /// What tells its models from others; empty if the plugin does not say.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let Some(fingerprint) = self.dylib.plugin.fingerprint else { return Ok(String::new()) };
        let (mut taken, mut room) = (Taken::default(), ErrorRoom::new());
        let sink = taken.text_sink();
        // SAFETY: the ABI's contract; all that is pointed to outlives the call.
        let code = unsafe { fingerprint(self.handle, &raw const sink, room.table()) };
        taken.text(code, &room)
    }

    /// Asks on this thread, for as long as it takes.
    pub(crate) fn ask(
        &self,
        ask: &Ask,
        pictures: &[PictureView<'_>],
        terms: &Terms<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Given> {
        let call = table::Call {
            size: size_of::<table::Call>(),
            cancelled: std::ptr::from_ref(terms.cancelled).cast(),
            deadline_ms: u64::try_from(terms.deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let pictures: Vec<table::Picture> = pictures.iter().map(PictureView::table).collect();
        let picture = pictures.first();
        let whole = picture.ok_or_else(|| contract("there is no picture"));
        match ask {
            Ask::Check(drawing) => self.check(drawing, &pictures),
            Ask::Generate(drawing) => self.generate((drawing, &pictures), &call, observer),
            Ask::Classify => self.classify(whole?, &call),
            Ask::Answer { statement } => self.answer(picture, statement, &call),
            Ask::Redact(change) => self.edit(self.dylib.action.and_then(|a| a.redact), change, whole?, &call),
            Ask::Inpaint(change) => {
                self.edit(self.dylib.action.and_then(|a| a.inpaint), change, whole?, &call)
            }
            Ask::Rewrite { prompt, avoid, attempt } => self.rewrite(prompt, avoid, *attempt, &call),
            Ask::Publish { decision } => {
                let publish = self.function(self.dylib.action.and_then(|action| action.publish))?;
                // SAFETY: the ABI's contract; all that is pointed to outlives the call.
                self.done(|room| unsafe { publish(self.handle, Text::new(decision), &raw const call, room) })
            }
        }
    }

    fn function<F>(&self, function: Option<F>) -> Result<F> {
        function.ok_or_else(|| PluginError::new(ErrorCode::Unsupported, "it does not do this"))
    }

    fn done(&self, work: impl FnOnce(*mut table::Error) -> i32) -> Result<Given> {
        let mut room = ErrorRoom::new();
        match work(room.table()) {
            table::OK => Ok((Said::Done, None)),
            code => Err(room.error(code)),
        }
    }

    fn check(&self, drawing: &Drawing, from: &[table::Picture]) -> Result<Given> {
        // A plugin of version 1.0 has nothing to say before it draws.
        let Some(check) = self.dylib.pipeline.and_then(|pipeline| pipeline.check) else {
            return Ok((Said::Done, None));
        };
        with_draw(drawing, from, |draw| {
            // SAFETY: the ABI's contract; all that is pointed to outlives the call.
            self.done(|room| unsafe { check(self.handle, draw, room) })
        })
    }

    /// `from` is the picture to begin from, if there is one, and its mask, if that has one.
    fn generate(
        &self,
        (drawing, from): (&Drawing, &[table::Picture]),
        call: &table::Call,
        observer: &mut dyn Observer,
    ) -> Result<Given> {
        let generate = self.function(self.dylib.pipeline.and_then(|pipeline| pipeline.generate))?;
        let mut watched = Watched { observer, aborted: false, taken: Taken::default() };
        let hooks = table::Hooks {
            size: size_of::<table::Hooks>(),
            context: (&raw mut watched).cast(),
            wants_preview: Some(wants_preview),
            on_step: Some(on_step),
            finished: Some(finished),
        };
        let mut room = ErrorRoom::new();
        let code = with_draw(drawing, from, |draw| {
            // SAFETY: the ABI's contract; all that is pointed to outlives the call.
            unsafe { generate(self.handle, draw, call, &raw const hooks, room.table()) }
        });
        match code {
            table::ABORTED if watched.aborted => Ok((Said::Aborted, None)),
            table::ABORTED => Err(contract("it gave a drawing up that nobody told it to")),
            // Whoever was told to stop has no picture to give.
            table::OK if watched.aborted => Ok((Said::Aborted, None)),
            code => watched.taken.picture(code, &room).map(|picture| (Said::Picture, Some(picture))),
        }
    }

    fn classify(&self, picture: &table::Picture, call: &table::Call) -> Result<Given> {
        let classify = self.function(self.dylib.judge.and_then(|judge| judge.classify))?;
        let mut taken = Taken::default();
        let findings = table::Findings {
            size: size_of::<table::Findings>(),
            context: (&raw mut taken).cast(),
            label: Some(label),
            verdict: Some(verdict),
        };
        let mut room = ErrorRoom::new();
        // SAFETY: the ABI's contract; all that is pointed to outlives the call.
        let code = unsafe { classify(self.handle, picture, call, &raw const findings, room.table()) };
        taken.check(code, &room)?;
        let (flagged, score) = taken.verdict.ok_or_else(|| contract("it gave labels and no verdict"))?;
        finite(score.into(), "a score")?;
        Ok((Said::Found(Found { flagged, score, labels: taken.labels }), None))
    }

    fn answer(&self, picture: Option<&table::Picture>, statement: &str, call: &table::Call) -> Result<Given> {
        let answer = self.function(self.dylib.judge.and_then(|judge| judge.answer))?;
        let (mut yes, mut no) = (f64::NAN, f64::NAN);
        let picture = picture.map_or(null(), std::ptr::from_ref);
        self.done(|room| {
            // SAFETY: the ABI's contract; all that is pointed to outlives the call.
            unsafe {
                answer(self.handle, picture, Text::new(statement), call, &raw mut yes, &raw mut no, room)
            }
        })?;
        finite(yes, "the probability of Yes")?;
        finite(no, "the probability of No")?;
        if yes + no <= 0.0 {
            return Err(contract("neither Yes nor No has any probability"));
        }
        Ok((Said::Answer { yes, no }, None))
    }

    fn edit(
        &self,
        edit: Option<EditFunction>,
        change: &Change,
        picture: &table::Picture,
        call: &table::Call,
    ) -> Result<Given> {
        let edit = self.function(edit)?;
        let regions: Vec<table::Region> = change.regions.iter().copied().map(table_region).collect();
        let asked = table::Edit {
            size: size_of::<table::Edit>(),
            picture,
            regions: regions.as_ptr(),
            regions_len: regions.len(),
            prompt: Text::new(&change.prompt),
            seed: change.seed,
        };
        let (mut taken, mut room) = (Taken::default(), ErrorRoom::new());
        let sink = table::PictureSink {
            size: size_of::<table::PictureSink>(),
            context: (&raw mut taken).cast(),
            put: Some(put_picture),
        };
        // SAFETY: the ABI's contract; all that is pointed to outlives the call.
        let code = unsafe { edit(self.handle, &raw const asked, call, &raw const sink, room.table()) };
        let given = taken.picture(code, &room)?;
        if (given.width(), given.height()) != (picture.width, picture.height) {
            return Err(contract(format!(
                "expected a picture of {} x {} pixels like the one that was given, it gave {} x {}",
                picture.width,
                picture.height,
                given.width(),
                given.height()
            )));
        }
        Ok((Said::Picture, Some(given)))
    }

    fn rewrite(&self, prompt: &str, avoid: &[String], attempt: u32, call: &table::Call) -> Result<Given> {
        let rewrite = self.function(self.dylib.action.and_then(|action| action.rewrite))?;
        let avoid: Vec<Text> = avoid.iter().map(|text| Text::new(text)).collect();
        let asked = table::Rewriting {
            size: size_of::<table::Rewriting>(),
            prompt: Text::new(prompt),
            avoid: avoid.as_ptr(),
            avoid_len: avoid.len(),
            attempt,
            reserved: 0,
        };
        let (mut taken, mut room) = (Taken::default(), ErrorRoom::new());
        let sink = taken.text_sink();
        // SAFETY: the ABI's contract; all that is pointed to outlives the call.
        let code = unsafe { rewrite(self.handle, &raw const asked, call, &raw const sink, room.table()) };
        taken.text(code, &room).map(|text| (Said::Text(text), None))
    }
}

type EditFunction = unsafe extern "C" fn(
    *mut c_void,
    *const table::Edit,
    *const table::Call,
    *const table::PictureSink,
    *mut table::Error,
) -> i32;

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(destroy) = self.dylib.plugin.destroy {
            // SAFETY: made by `create`, and nobody else has it any more.
            unsafe { destroy(self.handle) };
        }
    }
}

/// `drawing` as C sees it, for the length of `work`.
fn with_draw<T>(drawing: &Drawing, from: &[table::Picture], work: impl FnOnce(*const table::Draw) -> T) -> T {
    let avoid: Vec<Text> = drawing.avoid.iter().map(|text| Text::new(text)).collect();
    let draw = table::Draw {
        size: size_of::<table::Draw>(),
        prompt: Text::new(&drawing.prompt),
        negative_prompt: Text::new(&drawing.negative_prompt),
        sampler: Text::new(drawing.sampler.as_deref().unwrap_or_default()),
        seed: drawing.seed,
        guidance: drawing.guidance.unwrap_or(f64::NAN),
        steps: drawing.steps.unwrap_or(0),
        width: drawing.width.unwrap_or(0),
        height: drawing.height.unwrap_or(0),
        reserved: 0,
        avoid: avoid.as_ptr(),
        avoid_len: avoid.len(),
        source: from.first().map_or(null(), std::ptr::from_ref),
        mask: from.get(1).map_or(null(), std::ptr::from_ref),
        strength: drawing.strength.unwrap_or(f64::NAN),
    };
    work(&raw const draw)
}

/// What a plugin handed over during a call. The functions that it calls write here; they copy, and never panic outwards.
#[derive(Default)]
struct Taken {
    labels: Vec<FoundLabel>,
    verdict: Option<(bool, f32)>,
    picture: Option<PictureBuf>,
    text: Option<String>,
    /// What was wrong with it: the call has failed then, whatever the plugin makes of it.
    problem: Option<String>,
}

impl Taken {
    fn text_sink(&mut self) -> table::TextSink {
        table::TextSink {
            size: size_of::<table::TextSink>(),
            context: std::ptr::from_mut(self).cast(),
            put: Some(put_text),
        }
    }

    fn check(&mut self, code: i32, room: &ErrorRoom) -> Result<()> {
        match (self.problem.take(), code) {
            (Some(problem), _) => Err(contract(problem)),
            (None, table::OK) => Ok(()),
            (None, code) => Err(room.error(code)),
        }
    }

    fn picture(&mut self, code: i32, room: &ErrorRoom) -> Result<PictureBuf> {
        self.check(code, room)?;
        self.picture.take().ok_or_else(|| contract("it said that all went well, and gave no picture"))
    }

    fn text(&mut self, code: i32, room: &ErrorRoom) -> Result<String> {
        self.check(code, room)?;
        self.text.take().ok_or_else(|| contract("it said that all went well, and gave no text"))
    }

    fn keep_picture(&mut self, picture: *const table::Picture) -> Result<()> {
        if self.picture.is_some() {
            return Err(contract("it gave more than one picture"));
        }
        self.picture = Some(copy(picture)?);
        Ok(())
    }
}

/// A copy of a picture that a plugin shows.
fn copy(picture: *const table::Picture) -> Result<PictureBuf> {
    // SAFETY: the plugin keeps to the ABI: null, or readable through the call.
    let view = unsafe { PictureView::read(picture) }?;
    within(view.width(), view.height())?;
    Ok(view.to_buf())
}

fn within(width: u32, height: u32) -> Result<()> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(contract(format!("expected at most {MAX_PIXELS} pixels, it gave {width} x {height}")));
    }
    Ok(())
}

/// Runs what a plugin called. What goes wrong is kept, and told to the plugin as a breach of the contract.
///
/// # Safety
/// `context` points to what the host passed, of which there is no other reference now.
unsafe fn taking<T>(
    context: *mut c_void,
    problem: impl FnOnce(&mut T) -> &mut Option<String>,
    work: impl FnOnce(&mut T) -> Result<i32>,
) -> i32 {
    // SAFETY: says the caller.
    let Some(taken) = (unsafe { context.cast::<T>().as_mut() }) else { return ErrorCode::Contract.number() };
    let said = match catch_unwind(AssertUnwindSafe(|| work(taken))) {
        Ok(Ok(code)) => return code,
        Ok(Err(error)) => error.message().to_owned(),
        Err(_) => "the host panicked while it took what the plugin gave".to_owned(),
    };
    problem(taken).get_or_insert(said);
    ErrorCode::Contract.number()
}

unsafe extern "C" fn label(context: *mut c_void, given: *const table::Label) -> i32 {
    let work = |taken: &mut Taken| {
        // SAFETY: the plugin keeps to the ABI.
        let given =
            unsafe { table::Label::read(given) }.ok_or_else(|| contract("a label is null or too short"))?;
        // SAFETY: the same.
        let name =
            unsafe { given.name.text() }.ok_or_else(|| contract("the name of a label is not UTF-8"))?;
        if name.len() > MAX_NAME || taken.labels.len() >= MAX_LABELS {
            return Err(contract(format!(
                "expected at most {MAX_LABELS} labels of at most {MAX_NAME} bytes"
            )));
        }
        finite(given.score.into(), "a label's score")?;
        let region = (given.has_region != 0).then(|| edges(&given.region));
        if region.is_some_and(|edges| edges.iter().any(|edge| !edge.is_finite())) {
            return Err(contract(format!("the box of the label {name:?} has an edge that is no number")));
        }
        taken.labels.push(FoundLabel { name: name.to_owned(), score: given.score, region });
        Ok(table::OK)
    };
    // SAFETY: the plugin passes back what it was given.
    unsafe { taking(context, |taken: &mut Taken| &mut taken.problem, work) }
}

unsafe extern "C" fn verdict(context: *mut c_void, flagged: i32, score: f32) -> i32 {
    let work = |taken: &mut Taken| {
        if taken.verdict.replace((flagged != 0, score)).is_some() {
            return Err(contract("it gave more than one verdict"));
        }
        Ok(table::OK)
    };
    // SAFETY: the plugin passes back what it was given.
    unsafe { taking(context, |taken: &mut Taken| &mut taken.problem, work) }
}

unsafe extern "C" fn put_picture(context: *mut c_void, picture: *const table::Picture) -> i32 {
    // SAFETY: the plugin passes back what it was given.
    unsafe {
        taking(
            context,
            |taken: &mut Taken| &mut taken.problem,
            |taken| taken.keep_picture(picture).map(|()| table::OK),
        )
    }
}

unsafe extern "C" fn put_text(context: *mut c_void, text: Text) -> i32 {
    let work = |taken: &mut Taken| {
        if text.len > MAX_TEXT {
            return Err(contract(format!(
                "it gave a text of {} bytes, expected at most {MAX_TEXT}",
                text.len
            )));
        }
        // SAFETY: the plugin keeps to the ABI.
        let given = unsafe { text.text() }.ok_or_else(|| contract("it gave a text that is not UTF-8"))?;
        if taken.text.replace(given.to_owned()).is_some() {
            return Err(contract("it gave more than one text"));
        }
        Ok(table::OK)
    };
    // SAFETY: the plugin passes back what it was given.
    unsafe { taking(context, |taken: &mut Taken| &mut taken.problem, work) }
}

/// A drawing that is watched.
struct Watched<'a> {
    observer: &'a mut dyn Observer,
    aborted: bool,
    taken: Taken,
}

unsafe extern "C" fn wants_preview(context: *mut c_void, step: u32, total: u32) -> i32 {
    let work =
        |watched: &mut Watched<'_>| Ok(i32::from(!watched.aborted && watched.observer.wants(step, total)));
    // SAFETY: the plugin passes back what it was given.
    unsafe { taking(context, |watched: &mut Watched<'_>| &mut watched.taken.problem, work) }
}

unsafe extern "C" fn on_step(context: *mut c_void, step: *const table::Step) -> i32 {
    let work = |watched: &mut Watched<'_>| {
        // SAFETY: the plugin keeps to the ABI.
        let done =
            unsafe { table::Step::read(step) }.ok_or_else(|| contract("a step is null or too short"))?;
        let preview = if !done.picture.is_null() {
            Some(copy(done.picture)?)
        } else if !done.latent.is_null() {
            // SAFETY: the same.
            let latent = unsafe { LatentView::read(done.latent) }?;
            within(latent.width(), latent.height())?;
            Some(latent.picture())
        } else {
            None
        };
        watched.aborted = watched.aborted || !watched.observer.step(done.step, done.total, preview);
        Ok(if watched.aborted { table::ABORT } else { table::CONTINUE })
    };
    // SAFETY: the plugin passes back what it was given.
    unsafe { taking(context, |watched: &mut Watched<'_>| &mut watched.taken.problem, work) }
}

unsafe extern "C" fn finished(context: *mut c_void, picture: *const table::Picture) -> i32 {
    let work = |watched: &mut Watched<'_>| watched.taken.keep_picture(picture).map(|()| table::OK);
    // SAFETY: the plugin passes back what it was given.
    unsafe { taking(context, |watched: &mut Watched<'_>| &mut watched.taken.problem, work) }
}
