//! The tables themselves, as C sees them: `cg_text` in `include/cluegate_plugin.h` is [`Text`] here, and so on.
//!
//! Every pointer is borrowed for the length of the call that passes it, unless it says otherwise. A structure that may grow
//! begins with `size`: the bytes of it that its maker knew.

use std::ffi::c_void;
use std::mem::offset_of;

/// Everything went well.
pub const OK: i32 = 0;
/// A drawing was given up because a hook said so. Only `generate` answers this.
pub const ABORTED: i32 = 1;

/// A hook's answer: draw on.
pub const CONTINUE: i32 = 0;
/// A hook's answer: give the drawing up.
pub const ABORT: i32 = 1;

/// [`Plugin::flags`]: one instance may be called from several threads at a time. Without it the host makes its calls one
/// after the other, from whichever thread.
pub const FLAG_CONCURRENT: u64 = 1;
/// [`Plugin::flags`], since 1.2: its pipeline begins from pictures too ([`Draw::source`]). Without it the host gives it none.
pub const FLAG_SOURCE: u64 = 2;

/// Fields of a structure with their offsets, for the check of the C header.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The structure's name in C.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its fields' names in C with their offsets in bytes, in order.
    pub fields: &'static [(&'static str, usize)],
}

macro_rules! tables {
    ($($(#[$about:meta])* $name:ident = $c:literal { $($(#[$field_about:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$about])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy)]
            pub struct $name { $($(#[$field_about])* pub $field: $kind,)* }
        )*

        /// All structures of the ABI.
        pub const LAYOUTS: &[Layout] = &[$(Layout {
            name: $c,
            size: size_of::<$name>(),
            fields: &[$((stringify!($field), offset_of!($name, $field)),)*],
        },)*];
    };
}

/// The entry of a plugin: checks that it can work with `host` and points `plugin` to its table, which lives as long as the
/// process. Anything but [`OK`] says that it cannot, and `error` why.
pub type Entry =
    unsafe extern "C" fn(host: *const Host, plugin: *mut *const Plugin, error: *mut Error) -> i32;

tables! {
    /// UTF-8 text, not terminated.
    Text = "cg_text" {
        /// Its first byte; may be null if there are none.
        data: *const u8,
        /// Bytes.
        len: usize,
    }

    /// A picture of 8-bit red, green and blue, row by row from the top.
    Picture = "cg_picture" {
        /// The first pixel's red.
        data: *const u8,
        /// Bytes from one row to the next, 3 x `width` or more.
        stride: usize,
        /// Pixels of a row, 1 or more.
        width: u32,
        /// Rows, 1 or more.
        height: u32,
    }

    /// A box in pixels of a picture, (0, 0) its upper left corner.
    Region = "cg_box" {
        /// Left edge.
        left: f32,
        /// Upper edge.
        top: f32,
        /// Right edge.
        right: f32,
        /// Lower edge.
        bottom: f32,
    }

    /// Where a plugin says what went wrong: the host's memory, which the plugin writes into.
    Error = "cg_error" {
        /// Bytes of this structure.
        size: usize,
        /// Room for UTF-8 text.
        message: *mut u8,
        /// Bytes of room.
        capacity: usize,
        /// Bytes written, set by the plugin; 0 before.
        len: usize,
    }

    /// The host. Lives as long as the process.
    Host = "cg_host" {
        /// Bytes of this structure.
        size: usize,
        /// Major version of its tables.
        major: u32,
        /// Minor version of its tables.
        minor: u32,
        /// Passed back to `log`.
        context: *mut c_void,
        /// Writes a line to the host's log. From any thread. `plugin` is the plugin's name; levels are 1 error, 2 warning,
        /// 3 information, 4 detail.
        log: Option<unsafe extern "C" fn(context: *mut c_void, plugin: Text, level: u32, message: Text)>,
    }

    /// What an instance is made from.
    Setup = "cg_setup" {
        /// Bytes of this structure.
        size: usize,
        /// Its configuration: a JSON object.
        config: Text,
        /// The folder that relative paths of the configuration mean.
        folder: Text,
    }

    /// On what terms a function is called.
    Call = "cg_call" {
        /// Bytes of this structure.
        size: usize,
        /// Not 0 once nobody waits for the answer any more; written by another thread, so read it atomically. Whoever sees
        /// it gives up with the code `CG_CANCELLED`.
        cancelled: *const u32,
        /// How long the host waits, in milliseconds from the call's beginning. A plugin that is slower counts as broken.
        deadline_ms: u64,
    }

    /// What is to be drawn.
    Draw = "cg_draw" {
        /// Bytes of this structure.
        size: usize,
        /// What is to be seen.
        prompt: Text,
        /// What is not to be seen; empty for nothing.
        negative_prompt: Text,
        /// The sampler's name; empty for the plugin's own choice.
        sampler: Text,
        /// The same seed gives the same picture.
        seed: u64,
        /// Weight of the prompt (classifier-free guidance); NaN for the plugin's own choice.
        guidance: f64,
        /// Number of steps; 0 for the plugin's own choice.
        steps: u32,
        /// Width in pixels; 0 for the plugin's own choice.
        width: u32,
        /// Height in pixels; 0 for the plugin's own choice.
        height: u32,
        /// 0.
        reserved: u32,
        /// Statements that made earlier attempts violate a rule: words for a negative prompt.
        avoid: *const Text,
        /// How many.
        avoid_len: usize,
        /// Since 1.2. A picture to begin from, in place of noise alone, or null. Given to plugins with [`FLAG_SOURCE`] only;
        /// to `check` perhaps another one of a single pixel.
        source: *const Picture,
        /// Since 1.2. Of the size of `source`: white where to draw anew, black where it stays; null for everywhere.
        mask: *const Picture,
        /// Since 1.2. How far the result may be from `source`, over 0 and at most 1; NaN for the plugin's own choice.
        strength: f64,
    }

    /// A latent picture with the linear map that shows what it will become.
    Latent = "cg_latent" {
        /// Values, channel by channel, row by row.
        data: *const f32,
        /// For each of red, green and blue a factor per channel and then a constant: 3 x (`channels` + 1) values. Their sums
        /// are levels from 0 to 1.
        rgb: *const f32,
        /// Channels, 1 to 64.
        channels: u32,
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// 0.
        reserved: u32,
    }

    /// A finished step.
    Step = "cg_step" {
        /// Bytes of this structure.
        size: usize,
        /// Number of finished steps, from 1.
        step: u32,
        /// Number of steps.
        total: u32,
        /// What the picture will become, if that was asked for: this or `latent`; else null.
        picture: *const Picture,
        /// The same as a latent picture, or null.
        latent: *const Latent,
    }

    /// What a plugin that draws tells the host, from the thread that `generate` was called on.
    Hooks = "cg_hooks" {
        /// Bytes of this structure.
        size: usize,
        /// Passed back to each.
        context: *mut c_void,
        /// Whether a preview is wanted after this step: not 0 if so. Asked before or after the step is computed.
        wants_preview: Option<unsafe extern "C" fn(context: *mut c_void, step: u32, total: u32) -> i32>,
        /// After every step: [`CONTINUE`] or [`ABORT`].
        on_step: Option<unsafe extern "C" fn(context: *mut c_void, step: *const Step) -> i32>,
        /// Takes the finished picture, once: [`OK`], or what `generate` is to return.
        finished: Option<unsafe extern "C" fn(context: *mut c_void, picture: *const Picture) -> i32>,
    }

    /// A plugin that draws pictures.
    Pipeline = "cg_pipeline" {
        /// Bytes of this structure.
        size: usize,
        /// Draws one picture and gives it to `hooks`: [`OK`], [`ABORTED`] once a hook said so, or an error.
        generate: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            draw: *const Draw,
            call: *const Call,
            hooks: *const Hooks,
            error: *mut Error,
        ) -> i32>,
        /// Since 1.1, may be null. Refuses, with `CG_REQUEST`, what cannot be drawn, before anything is; `prompt` is empty.
        check: Option<unsafe extern "C" fn(instance: *mut c_void, draw: *const Draw, error: *mut Error) -> i32>,
    }

    /// One thing that a judge found or looked for.
    Label = "cg_label" {
        /// Bytes of this structure.
        size: usize,
        /// Its name.
        name: Text,
        /// How sure the judge is, 0 to 1.
        score: f32,
        /// Whether `region` says where it is: not 0 if so.
        has_region: i32,
        /// Where it is.
        region: Region,
    }

    /// What a judge tells the host of a picture, from the thread that it was called on.
    Findings = "cg_findings" {
        /// Bytes of this structure.
        size: usize,
        /// Passed back to each.
        context: *mut c_void,
        /// Takes one label: [`OK`], or what the judge is to return.
        label: Option<unsafe extern "C" fn(context: *mut c_void, label: *const Label) -> i32>,
        /// Takes the judge's opinion, once: not 0 if the picture is unsafe, and how sure that is, 0 to 1.
        verdict: Option<unsafe extern "C" fn(context: *mut c_void, flagged: i32, score: f32) -> i32>,
    }

    /// A plugin that looks at pictures. At least one of its functions is there.
    Judge = "cg_judge" {
        /// Bytes of this structure.
        size: usize,
        /// May be null. Gives labels, with boxes if it finds boxes, and then an opinion.
        classify: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            picture: *const Picture,
            call: *const Call,
            findings: *const Findings,
            error: *mut Error,
        ) -> i32>,
        /// May be null. How much of an answer's probability falls on Yes and on No, 0 to 1 each, to whether `statement` holds
        /// of `picture`; null for the same question without one.
        answer: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            picture: *const Picture,
            statement: Text,
            call: *const Call,
            yes: *mut f64,
            no: *mut f64,
            error: *mut Error,
        ) -> i32>,
    }

    /// A picture in which something is to be hidden or replaced.
    Edit = "cg_edit" {
        /// Bytes of this structure.
        size: usize,
        /// The picture.
        picture: *const Picture,
        /// What is to be changed; nothing outside may be.
        regions: *const Region,
        /// How many.
        regions_len: usize,
        /// What the picture was made from; empty if nobody knows.
        prompt: Text,
        /// The same seed gives the same picture.
        seed: u64,
    }

    /// A prompt that is to be written anew.
    Rewriting = "cg_rewriting" {
        /// Bytes of this structure.
        size: usize,
        /// The prompt.
        prompt: Text,
        /// Statements that made earlier attempts violate a rule.
        avoid: *const Text,
        /// How many.
        avoid_len: usize,
        /// The attempt that it is for, from 1.
        attempt: u32,
        /// 0.
        reserved: u32,
    }

    /// Takes a picture.
    PictureSink = "cg_picture_sink" {
        /// Bytes of this structure.
        size: usize,
        /// Passed back.
        context: *mut c_void,
        /// Takes it, once: [`OK`], or what the plugin is to return.
        put: Option<unsafe extern "C" fn(context: *mut c_void, picture: *const Picture) -> i32>,
    }

    /// Takes a text.
    TextSink = "cg_text_sink" {
        /// Bytes of this structure.
        size: usize,
        /// Passed back.
        context: *mut c_void,
        /// Takes it, once: [`OK`], or what the plugin is to return.
        put: Option<unsafe extern "C" fn(context: *mut c_void, text: Text) -> i32>,
    }

    /// A plugin that acts on a verdict. At least one of its functions is there.
    Action = "cg_action" {
        /// Bytes of this structure.
        size: usize,
        /// May be null. Hides what the regions show; gives a picture of the same size.
        redact: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            edit: *const Edit,
            call: *const Call,
            sink: *const PictureSink,
            error: *mut Error,
        ) -> i32>,
        /// May be null. Puts something else in the place of what the regions show; gives a picture of the same size.
        inpaint: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            edit: *const Edit,
            call: *const Call,
            sink: *const PictureSink,
            error: *mut Error,
        ) -> i32>,
        /// May be null. Gives another prompt.
        rewrite: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            rewriting: *const Rewriting,
            call: *const Call,
            sink: *const TextSink,
            error: *mut Error,
        ) -> i32>,
        /// May be null. Tells somebody of a decision: the entry of the decision log, a JSON object.
        publish: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            decision: Text,
            call: *const Call,
            error: *mut Error,
        ) -> i32>,
    }

    /// A plugin. Lives as long as the process, and so does everything that it points to.
    Plugin = "cg_plugin" {
        /// Bytes of this structure.
        size: usize,
        /// Major version of its tables.
        major: u32,
        /// Minor version of its tables.
        minor: u32,
        /// `FLAG_...`, or 0.
        flags: u64,
        /// Its name: lower-case letters, digits and hyphens.
        name: Text,
        /// Its version.
        version: Text,
        /// A sentence on what it does.
        about: Text,
        /// JSON Schema of its configuration.
        schema: Text,
        /// Makes an instance and points `instance` to it.
        create: Option<unsafe extern "C" fn(
            setup: *const Setup,
            instance: *mut *mut c_void,
            error: *mut Error,
        ) -> i32>,
        /// Frees an instance that `create` made; no other call of it is running.
        destroy: Option<unsafe extern "C" fn(instance: *mut c_void)>,
        /// May be null. Gives whatever tells its models from others: two instances of one library that give the same texts
        /// answer alike.
        fingerprint: Option<unsafe extern "C" fn(
            instance: *mut c_void,
            sink: *const TextSink,
            error: *mut Error,
        ) -> i32>,
        /// What it draws with, or null.
        pipeline: *const Pipeline,
        /// What it judges with, or null.
        judge: *const Judge,
        /// What it acts with, or null.
        action: *const Action,
    }
}

/// A structure that begins with its size, and of which a shorter, older form is known.
///
/// # Safety
/// It is `repr(C)`, begins with a `usize`, and all zero bytes are a value of it.
pub unsafe trait Growing: Copy {
    /// Bytes that it had in version 1.0: with fewer it is of no use.
    const LEAST: usize;

    /// The structure at `place`; what its maker did not know yet is null or 0. `None` if `place` is null, or what is there is
    /// shorter than version 1.0 had it.
    ///
    /// # Safety
    /// `place` is null, or points to as many readable bytes as the `usize` there says.
    unsafe fn read(place: *const Self) -> Option<Self> {
        if place.is_null() {
            return None;
        }
        // SAFETY: the caller says that a size is there.
        let size = unsafe { place.cast::<usize>().read() };
        if size < Self::LEAST {
            return None;
        }
        // SAFETY: all zero bytes are a value, says the trait's contract.
        let mut value: Self = unsafe { std::mem::zeroed() };
        // SAFETY: `size` bytes are readable there, and no more than `Self` has are written.
        unsafe {
            std::ptr::copy_nonoverlapping(
                place.cast::<u8>(),
                (&raw mut value).cast::<u8>(),
                size.min(size_of::<Self>()),
            );
        }
        Some(value)
    }
}

macro_rules! sized {
    ($($name:ident: $least:expr,)*) => {
        $(
            // SAFETY: `repr(C)`, begins with `size`, and has numbers, pointers and optional functions only.
            unsafe impl Growing for $name { const LEAST: usize = $least; }
        )*
    };
}

sized! {
    Error: size_of::<Error>(),
    Host: size_of::<Host>(),
    Setup: size_of::<Setup>(),
    Call: size_of::<Call>(),
    Draw: offset_of!(Draw, source),
    Step: size_of::<Step>(),
    Hooks: size_of::<Hooks>(),
    Pipeline: offset_of!(Pipeline, check),
    Label: size_of::<Label>(),
    Findings: size_of::<Findings>(),
    Judge: size_of::<Judge>(),
    Edit: size_of::<Edit>(),
    Rewriting: size_of::<Rewriting>(),
    PictureSink: size_of::<PictureSink>(),
    TextSink: size_of::<TextSink>(),
    Action: size_of::<Action>(),
    Plugin: size_of::<Plugin>(),
}

impl Text {
    /// A text that lives as long as what it borrows.
    pub const fn new(text: &str) -> Self {
        Self { data: text.as_ptr(), len: text.len() }
    }

    /// The bytes, which need not be UTF-8.
    ///
    /// # Safety
    /// It was passed as the ABI says: `len` bytes are readable at `data`, for `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.len == 0 || self.len > isize::MAX as usize {
            return &[];
        }
        // SAFETY: says the caller.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// The text, or `None` if it is not UTF-8.
    ///
    /// # Safety
    /// As for [`Text::bytes`].
    pub unsafe fn text<'a>(self) -> Option<&'a str> {
        // SAFETY: says the caller.
        std::str::from_utf8(unsafe { self.bytes() }).ok()
    }
}

// SAFETY: tables that never change; their pointers lead to functions and to texts and tables that never change either.
unsafe impl Sync for Plugin {}
// SAFETY: the same.
unsafe impl Sync for Pipeline {}
// SAFETY: the same.
unsafe impl Sync for Judge {}
// SAFETY: the same.
unsafe impl Sync for Action {}
