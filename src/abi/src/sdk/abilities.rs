//! From traits to tables: one C function for each trait's function, with the panic barrier around it.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::error::{ErrorCode, PluginError};
use super::traits::{
    Answer, Call, Classify, Drawn, Edit, Generate, Host, Inpaint, Plugin, Publish, Redact, Rewrite,
    Rewriting, Setup, Steps,
};
use super::values::{Draw, DrawSource, PictureBuf, PictureView, Region};
use crate::table::{self, Growing};

/// Most texts or regions of one call.
const MAX_ITEMS: usize = 1 << 16;

/// The host of this library: there is one in a process, or it gave the same table again.
static HOST: OnceLock<SharedHost> = OnceLock::new();

struct SharedHost(table::Host);

// SAFETY: the host's table lives as long as the process and may be used from any thread.
unsafe impl Send for SharedHost {}
// SAFETY: the same.
unsafe impl Sync for SharedHost {}

/// The tables of a plugin, filled by [`crate::export_plugin!`].
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Abilities {
    pub pipeline: table::Pipeline,
    pub judge: table::Judge,
    pub action: table::Action,
    pub flags: u64,
}

// SAFETY: functions, which never change.
unsafe impl Sync for Abilities {}

#[allow(missing_docs)]
impl Abilities {
    pub const fn none() -> Self {
        Self {
            pipeline: table::Pipeline { size: size_of::<table::Pipeline>(), generate: None, check: None },
            judge: table::Judge { size: size_of::<table::Judge>(), classify: None, answer: None },
            action: table::Action {
                size: size_of::<table::Action>(),
                redact: None,
                inpaint: None,
                rewrite: None,
                publish: None,
            },
            flags: 0,
        }
    }

    pub const fn generate<P: Generate>(mut self) -> Self {
        self.pipeline.generate = Some(generate::<P>);
        self.pipeline.check = Some(check::<P>);
        if P::FROM_PICTURES {
            self.flags |= table::FLAG_SOURCE;
        }
        self
    }

    pub const fn classify<P: Classify>(mut self) -> Self {
        self.judge.classify = Some(classify::<P>);
        self
    }

    pub const fn answer<P: Answer>(mut self) -> Self {
        self.judge.answer = Some(answer::<P>);
        self
    }

    pub const fn redact<P: Redact>(mut self) -> Self {
        self.action.redact = Some(redact::<P>);
        self
    }

    pub const fn inpaint<P: Inpaint>(mut self) -> Self {
        self.action.inpaint = Some(inpaint::<P>);
        self
    }

    pub const fn rewrite<P: Rewrite>(mut self) -> Self {
        self.action.rewrite = Some(rewrite::<P>);
        self
    }

    pub const fn publish<P: Publish>(mut self) -> Self {
        self.action.publish = Some(publish::<P>);
        self
    }

    pub const fn plugin<P: Plugin>(
        &self,
        pipeline: *const table::Pipeline,
        judge: *const table::Judge,
        action: *const table::Action,
    ) -> table::Plugin {
        let (judges, acts) = (&self.judge, &self.action);
        let judges = judges.classify.is_some() || judges.answer.is_some();
        let acts = acts.redact.is_some()
            || acts.inpaint.is_some()
            || acts.rewrite.is_some()
            || acts.publish.is_some();
        table::Plugin {
            size: size_of::<table::Plugin>(),
            major: crate::MAJOR,
            minor: crate::MINOR,
            flags: self.flags | if P::CONCURRENT { table::FLAG_CONCURRENT } else { 0 },
            name: table::Text::new(P::NAME),
            version: table::Text::new(P::VERSION),
            about: table::Text::new(P::ABOUT),
            schema: table::Text::new(P::SCHEMA),
            create: Some(create::<P>),
            destroy: Some(destroy::<P>),
            fingerprint: Some(fingerprint::<P>),
            pipeline: if self.pipeline.generate.is_some() { pipeline } else { std::ptr::null() },
            judge: if judges { judge } else { std::ptr::null() },
            action: if acts { action } else { std::ptr::null() },
        }
    }

    /// # Safety
    /// As [`table::Entry`].
    pub unsafe fn enter(
        own: &'static table::Plugin,
        host: *const table::Host,
        plugin: *mut *const table::Plugin,
        error: *mut table::Error,
    ) -> i32 {
        let entering = || {
            // SAFETY: says the caller.
            let host = unsafe { table::Host::read(host) }
                .filter(|host| host.major == crate::MAJOR)
                .ok_or_else(|| PluginError::contract("expected a host of the major version 1"))?;
            if plugin.is_null() {
                return Err(PluginError::contract(
                    "expected a place for the plugin's table, got a null pointer",
                ));
            }
            HOST.get_or_init(|| SharedHost(host));
            // SAFETY: not null, and the caller says that it may be written.
            unsafe { plugin.write(own) };
            Ok(table::OK)
        };
        // SAFETY: says the caller.
        unsafe { guarded(error, entering) }
    }
}

/// Runs `work` behind the panic barrier and writes what goes wrong to `error`.
///
/// # Safety
/// `error` is null or as the ABI says.
unsafe fn guarded(error: *mut table::Error, work: impl FnOnce() -> Result<i32, PluginError>) -> i32 {
    // What `work` touched is the plugin's own; the host is told that it panicked and may give the instance up.
    let problem = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(code)) => return code,
        Ok(Err(problem)) => problem,
        Err(payload) => {
            let problem = PluginError::new(ErrorCode::Panic, panic_message(payload.as_ref()));
            // What was thrown may panic itself when it is dropped; then it is left where it is.
            if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
                std::mem::forget(again);
            }
            problem
        }
    };
    // SAFETY: says the caller.
    unsafe { report(error, problem.message()) };
    problem.code().number()
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("without a word"))
}

/// Writes as much of `message` as there is room for.
///
/// # Safety
/// `error` is null or as the ABI says.
unsafe fn report(error: *mut table::Error, message: &str) {
    // SAFETY: says the caller.
    let Some(buffer) = (unsafe { table::Error::read(error) }) else { return };
    if buffer.message.is_null() {
        return;
    }
    let len = message.floor_char_boundary(buffer.capacity);
    // SAFETY: `capacity` bytes may be written, says the ABI, and `len` is no more than that.
    unsafe {
        std::ptr::copy_nonoverlapping(message.as_ptr(), buffer.message, len);
        (*error).len = len;
    }
}

/// # Safety
/// `instance` came from [`create`] of the same type and was not destroyed.
unsafe fn of<'a, P: Plugin>(instance: *mut c_void) -> Result<&'a P, PluginError> {
    // SAFETY: says the caller; shared references are all that is ever made of it, and the type is `Sync`.
    unsafe { instance.cast::<P>().as_ref() }
        .ok_or_else(|| PluginError::contract("expected an instance, got a null pointer"))
}

/// # Safety
/// `text` is as the ABI says.
unsafe fn text<'a>(text: table::Text, what: &str) -> Result<&'a str, PluginError> {
    // SAFETY: says the caller.
    unsafe { text.text() }.ok_or_else(|| PluginError::contract(format!("expected UTF-8 for {what}")))
}

/// # Safety
/// `len` readable items are at `first`.
unsafe fn items<'a, T>(first: *const T, len: usize, what: &str) -> Result<&'a [T], PluginError> {
    match len {
        0 => Ok(&[]),
        1..=MAX_ITEMS if !first.is_null() => {
            // SAFETY: says the caller.
            Ok(unsafe { std::slice::from_raw_parts(first, len) })
        }
        _ => {
            Err(PluginError::contract(format!("expected at most {MAX_ITEMS} {what}, got {len} at {first:?}")))
        }
    }
}

/// # Safety
/// `len` readable texts are at `first`.
unsafe fn texts<'a>(first: *const table::Text, len: usize) -> Result<Vec<&'a str>, PluginError> {
    // SAFETY: says the caller.
    let all = unsafe { items(first, len, "texts") }?;
    // SAFETY: the same.
    all.iter().map(|one| unsafe { text(*one, "a statement") }).collect()
}

fn short(what: &str) -> PluginError {
    PluginError::contract(format!(
        "expected {what}, got a null pointer or a table shorter than version 1.0 has it"
    ))
}

fn missing(what: &str) -> PluginError {
    PluginError::contract(format!("the host's table lacks the function {what}"))
}

unsafe extern "C" fn create<P: Plugin>(
    setup: *const table::Setup,
    instance: *mut *mut c_void,
    error: *mut table::Error,
) -> i32 {
    let creating = || {
        // SAFETY: the host keeps to the ABI.
        let setup = unsafe { table::Setup::read(setup) }.ok_or_else(|| short("a set-up"))?;
        // SAFETY: the same.
        let (config, folder) =
            unsafe { (text(setup.config, "the configuration")?, text(setup.folder, "the folder")?) };
        let host = HOST.get().ok_or_else(|| PluginError::contract("no host has entered this library"))?;
        if instance.is_null() {
            return Err(PluginError::contract("expected a place for the instance, got a null pointer"));
        }
        let made = P::create(&Setup { config, folder }, Host::new(host.0, P::NAME))?;
        // SAFETY: not null, and may be written.
        unsafe { instance.write(Box::into_raw(Box::new(made)).cast()) };
        Ok(table::OK)
    };
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, creating) }
}

unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) {
    if instance.is_null() {
        return;
    }
    let destroying = || {
        // SAFETY: from `create`, and destroyed once.
        drop(unsafe { Box::from_raw(instance.cast::<P>()) });
        Ok(table::OK)
    };
    // SAFETY: there is nowhere to write to.
    unsafe { guarded(std::ptr::null_mut(), destroying) };
}

unsafe extern "C" fn fingerprint<P: Plugin>(
    instance: *mut c_void,
    sink: *const table::TextSink,
    error: *mut table::Error,
) -> i32 {
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, || put_text(sink, &of::<P>(instance)?.fingerprint()?)) }
}

/// # Safety
/// `sink` is as the ABI says.
unsafe fn put_text(sink: *const table::TextSink, given: &str) -> Result<i32, PluginError> {
    // SAFETY: says the caller.
    let sink = unsafe { table::TextSink::read(sink) }.ok_or_else(|| short("a sink"))?;
    let put = sink.put.ok_or_else(|| missing("put"))?;
    // SAFETY: the text outlives the call.
    Ok(unsafe { put(sink.context, table::Text::new(given)) })
}

/// # Safety
/// `sink` is as the ABI says.
unsafe fn put_picture(sink: *const table::PictureSink, given: &PictureBuf) -> Result<i32, PluginError> {
    // SAFETY: says the caller.
    let sink = unsafe { table::PictureSink::read(sink) }.ok_or_else(|| short("a sink"))?;
    let put = sink.put.ok_or_else(|| missing("put"))?;
    let picture = given.view().table();
    // SAFETY: the picture outlives the call.
    Ok(unsafe { put(sink.context, &raw const picture) })
}

/// # Safety
/// `draw` is as the ABI says, for `'a`.
unsafe fn read_draw<'a>(draw: *const table::Draw) -> Result<Draw<'a>, PluginError> {
    // SAFETY: says the caller.
    let draw = unsafe { table::Draw::read(draw) }.ok_or_else(|| short("a drawing"))?;
    let chosen = |number: u32| (number != 0).then_some(number);
    // SAFETY: the same.
    let (prompt, negative_prompt, sampler, avoid) = unsafe {
        (
            text(draw.prompt, "the prompt")?,
            text(draw.negative_prompt, "the negative prompt")?,
            text(draw.sampler, "the sampler")?,
            texts(draw.avoid, draw.avoid_len)?,
        )
    };
    Ok(Draw {
        prompt,
        negative_prompt,
        sampler: (!sampler.is_empty()).then_some(sampler),
        seed: draw.seed,
        guidance: (!draw.guidance.is_nan()).then_some(draw.guidance),
        steps: chosen(draw.steps),
        width: chosen(draw.width),
        height: chosen(draw.height),
        avoid,
        // SAFETY: the same.
        source: unsafe { read_source(&draw) }?,
    })
}

/// # Safety
/// `draw` is as the ABI says, for `'a`.
unsafe fn read_source<'a>(draw: &table::Draw) -> Result<Option<DrawSource<'a>>, PluginError> {
    if draw.source.is_null() {
        return Ok(None);
    }
    // SAFETY: says the caller.
    let picture = unsafe { PictureView::read(draw.source) }?;
    // SAFETY: the same.
    let mask = if draw.mask.is_null() { None } else { Some(unsafe { PictureView::read(draw.mask) }?) };
    if let Some(mask) =
        mask.filter(|mask| (mask.width(), mask.height()) != (picture.width(), picture.height()))
    {
        return Err(PluginError::contract(format!(
            "expected a mask of {} x {} pixels like the picture, got {} x {}",
            picture.width(),
            picture.height(),
            mask.width(),
            mask.height()
        )));
    }
    Ok(Some(DrawSource { picture, mask, strength: (!draw.strength.is_nan()).then_some(draw.strength) }))
}

unsafe extern "C" fn generate<P: Generate>(
    instance: *mut c_void,
    draw: *const table::Draw,
    call: *const table::Call,
    hooks: *const table::Hooks,
    error: *mut table::Error,
) -> i32 {
    let generating = || {
        // SAFETY: the host keeps to the ABI.
        let (plugin, draw, call, hooks) =
            unsafe { (of::<P>(instance)?, read_draw(draw)?, Call::read(call)?, table::Hooks::read(hooks)) };
        let hooks = hooks.ok_or_else(|| short("hooks"))?;
        let finished = hooks.finished.ok_or_else(|| missing("finished"))?;
        match plugin.generate(&draw, &call, &mut Steps::new(hooks))? {
            Drawn::Aborted => Ok(table::ABORTED),
            Drawn::Finished(picture) => {
                let picture = picture.view().table();
                // SAFETY: the host gave both for this call, and the picture outlives it.
                Ok(unsafe { finished(hooks.context, &raw const picture) })
            }
        }
    };
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, generating) }
}

unsafe extern "C" fn check<P: Generate>(
    instance: *mut c_void,
    draw: *const table::Draw,
    error: *mut table::Error,
) -> i32 {
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, || of::<P>(instance)?.check(&read_draw(draw)?).map(|()| table::OK)) }
}

unsafe extern "C" fn classify<P: Classify>(
    instance: *mut c_void,
    picture: *const table::Picture,
    call: *const table::Call,
    findings: *const table::Findings,
    error: *mut table::Error,
) -> i32 {
    let classifying = || {
        // SAFETY: the host keeps to the ABI.
        let (plugin, picture, call, findings) = unsafe {
            (
                of::<P>(instance)?,
                PictureView::read(picture)?,
                Call::read(call)?,
                table::Findings::read(findings),
            )
        };
        let findings = findings.ok_or_else(|| short("findings"))?;
        let (put, decide) = (
            findings.label.ok_or_else(|| missing("label"))?,
            findings.verdict.ok_or_else(|| missing("verdict"))?,
        );
        let said = plugin.classify(&picture, &call)?;
        for label in &said.labels {
            let region = label.region.unwrap_or(Region { left: 0.0, top: 0.0, right: 0.0, bottom: 0.0 });
            let label = table::Label {
                size: size_of::<table::Label>(),
                name: table::Text::new(&label.name),
                score: label.score,
                has_region: i32::from(label.region.is_some()),
                region: region.table(),
            };
            // SAFETY: the host gave both for this call, and the label outlives it.
            let taken = unsafe { put(findings.context, &raw const label) };
            if taken != table::OK {
                return Ok(taken);
            }
        }
        // SAFETY: the host gave both for this call.
        Ok(unsafe { decide(findings.context, i32::from(said.flagged), said.score) })
    };
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, classifying) }
}

unsafe extern "C" fn answer<P: Answer>(
    instance: *mut c_void,
    picture: *const table::Picture,
    statement: table::Text,
    call: *const table::Call,
    yes: *mut f64,
    no: *mut f64,
    error: *mut table::Error,
) -> i32 {
    let answering = || {
        // SAFETY: the host keeps to the ABI.
        let (plugin, statement, call) =
            unsafe { (of::<P>(instance)?, text(statement, "the statement")?, Call::read(call)?) };
        // SAFETY: the same.
        let picture = if picture.is_null() { None } else { Some(unsafe { PictureView::read(picture) }?) };
        if yes.is_null() || no.is_null() {
            return Err(PluginError::contract("expected places for the answer, got null pointers"));
        }
        let score = plugin.answer(picture.as_ref(), statement, &call)?;
        // SAFETY: neither is null, and both may be written.
        unsafe {
            yes.write(score.yes);
            no.write(score.no);
        }
        Ok(table::OK)
    };
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, answering) }
}

/// # Safety
/// `edit` is as the ABI says, for `'a`.
unsafe fn read_edit<'a>(edit: *const table::Edit) -> Result<Edit<'a>, PluginError> {
    // SAFETY: says the caller.
    let edit = unsafe { table::Edit::read(edit) }.ok_or_else(|| short("an edit"))?;
    // SAFETY: the same.
    let (picture, regions, prompt) = unsafe {
        (
            PictureView::read(edit.picture)?,
            items(edit.regions, edit.regions_len, "regions")?,
            text(edit.prompt, "the prompt")?,
        )
    };
    Ok(Edit { picture, regions: regions.iter().map(Region::of).collect(), prompt, seed: edit.seed })
}

unsafe extern "C" fn redact<P: Redact>(
    instance: *mut c_void,
    edit: *const table::Edit,
    call: *const table::Call,
    sink: *const table::PictureSink,
    error: *mut table::Error,
) -> i32 {
    // SAFETY: the host keeps to the ABI.
    unsafe {
        guarded(error, || {
            put_picture(sink, &of::<P>(instance)?.redact(&read_edit(edit)?, &Call::read(call)?)?)
        })
    }
}

unsafe extern "C" fn inpaint<P: Inpaint>(
    instance: *mut c_void,
    edit: *const table::Edit,
    call: *const table::Call,
    sink: *const table::PictureSink,
    error: *mut table::Error,
) -> i32 {
    // SAFETY: the host keeps to the ABI.
    unsafe {
        guarded(error, || {
            put_picture(sink, &of::<P>(instance)?.inpaint(&read_edit(edit)?, &Call::read(call)?)?)
        })
    }
}

unsafe extern "C" fn rewrite<P: Rewrite>(
    instance: *mut c_void,
    rewriting: *const table::Rewriting,
    call: *const table::Call,
    sink: *const table::TextSink,
    error: *mut table::Error,
) -> i32 {
    let rewriting = || {
        // SAFETY: the host keeps to the ABI.
        let asked = unsafe { table::Rewriting::read(rewriting) }.ok_or_else(|| short("a prompt"))?;
        // SAFETY: the same.
        let (prompt, avoid, call) = unsafe {
            (text(asked.prompt, "the prompt")?, texts(asked.avoid, asked.avoid_len)?, Call::read(call)?)
        };
        // SAFETY: the same.
        let plugin = unsafe { of::<P>(instance) }?;
        let written = plugin.rewrite(&Rewriting { prompt, avoid, attempt: asked.attempt }, &call)?;
        // SAFETY: the same.
        unsafe { put_text(sink, &written) }
    };
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, rewriting) }
}

unsafe extern "C" fn publish<P: Publish>(
    instance: *mut c_void,
    decision: table::Text,
    call: *const table::Call,
    error: *mut table::Error,
) -> i32 {
    let publishing = || {
        // SAFETY: the host keeps to the ABI.
        let (plugin, decision, call) =
            unsafe { (of::<P>(instance)?, text(decision, "the decision")?, Call::read(call)?) };
        plugin.publish(decision, &call).map(|()| table::OK)
    };
    // SAFETY: the host keeps to the ABI.
    unsafe { guarded(error, publishing) }
}

impl Region {
    /// The same as C sees it.
    pub fn table(self) -> table::Region {
        table::Region { left: self.left, top: self.top, right: self.right, bottom: self.bottom }
    }

    /// From what C gave.
    pub fn of(region: &table::Region) -> Self {
        Self { left: region.left, top: region.top, right: region.right, bottom: region.bottom }
    }
}
