//! What crosses the boundary of a plugin in Rust: the entry, errors, panics, tables of other sizes.

#![allow(clippy::unwrap_used, clippy::panic, unsafe_code)]

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cluegate_abi::table::{self, Growing as _, Text};
use cluegate_abi::{
    Call, Classification, Classify, Control, Draw, Drawn, ErrorCode, Generate, Host, LatentView, PictureBuf,
    PictureView, Plugin, PluginError, Preview, Setup, Steps,
};

/// Does what its configuration says.
struct Puppet(String);

impl Plugin for Puppet {
    const NAME: &'static str = "puppet";
    const VERSION: &'static str = "0.1.0";
    const ABOUT: &'static str = "Does as it is told.";
    const SCHEMA: &'static str = "{}";

    fn create(setup: &Setup<'_>, _: Host) -> Result<Self, PluginError> {
        if setup.config.contains("refuse") {
            return Err(PluginError::config("expected something else"));
        }
        Ok(Self(setup.config.to_owned()))
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("again");
    }
}

impl Classify for Puppet {
    fn classify(&self, picture: &PictureView<'_>, call: &Call<'_>) -> Result<Classification, PluginError> {
        call.check()?;
        if self.0.contains("bomb") {
            std::panic::panic_any(Bomb);
        }
        assert!(!self.0.contains("panic"), "as told, {} pixels wide", picture.width());
        let lit = picture.pixels().filter(|pixel| pixel[0] > 0).count();
        Ok(Classification { flagged: lit > 1, score: lit as f32 / 4.0, labels: Vec::new() })
    }
}

impl Generate for Puppet {
    fn generate(&self, draw: &Draw<'_>, _: &Call<'_>, steps: &mut Steps<'_>) -> Result<Drawn, PluginError> {
        let total = draw.steps.unwrap_or(3);
        for step in 1..=total {
            let values = [f32::from(step as u8) / 10.0];
            let latent = LatentView::new(&values, &[1.0, 0.0, 0.0, 0.5, f32::NAN, 0.0], 1, (1, 1))?;
            let preview = steps.wants_preview(step, total).then_some(Preview::Latent(latent));
            if steps.step(step, total, preview) == Control::Abort {
                return Ok(Drawn::Aborted);
            }
        }
        Ok(Drawn::Finished(PictureBuf::new(vec![draw.seed as u8; 12], 2, 2)?))
    }
}

cluegate_abi::export_plugin!(Puppet: classify, generate);

unsafe extern "C" {
    fn cluegate_plugin_1(
        host: *const table::Host,
        plugin: *mut *const table::Plugin,
        error: *mut table::Error,
    ) -> i32;
}

const HOST: table::Host = table::Host {
    size: size_of::<table::Host>(),
    major: cluegate_abi::MAJOR,
    minor: cluegate_abi::MINOR,
    context: null_mut(),
    log: None,
};

/// Room for a message.
fn with_error<T>(capacity: usize, work: impl FnOnce(*mut table::Error) -> T) -> (T, String) {
    let mut room = vec![0_u8; capacity];
    let mut error =
        table::Error { size: size_of::<table::Error>(), message: room.as_mut_ptr(), capacity, len: 0 };
    let answer = work(&raw mut error);
    room.truncate(error.len);
    (answer, String::from_utf8(room).unwrap())
}

fn enter() -> &'static table::Plugin {
    let mut plugin = null();
    let (code, said) = with_error(200, |error| unsafe { cluegate_plugin_1(&HOST, &raw mut plugin, error) });
    assert_eq!((code, &*said), (table::OK, ""));
    unsafe { plugin.as_ref() }.unwrap()
}

fn create(config: &str) -> Result<*mut c_void, (i32, String)> {
    let setup = table::Setup {
        size: size_of::<table::Setup>(),
        config: Text::new(config),
        folder: Text { data: null(), len: 0 },
    };
    let mut instance = null_mut();
    let (code, said) = with_error(200, |error| unsafe {
        enter().create.unwrap()(&raw const setup, &raw mut instance, error)
    });
    if code == table::OK { Ok(instance) } else { Err((code, said)) }
}

unsafe extern "C" fn ignore_label(_: *mut c_void, _: *const table::Label) -> i32 {
    table::OK
}

unsafe extern "C" fn keep_verdict(context: *mut c_void, flagged: i32, score: f32) -> i32 {
    unsafe { context.cast::<(i32, f32)>().write((flagged, score)) };
    table::OK
}

fn classify(instance: *mut c_void, cancelled: u32, capacity: usize) -> Result<(i32, f32), (i32, String)> {
    // The third byte of each row's end belongs to nobody.
    let pixels = [9, 0, 0, 9, 0, 0, 77, 0, 0, 0, 9, 9, 9, 77];
    let picture = table::Picture { data: pixels.as_ptr(), stride: 7, width: 2, height: 2 };
    let call =
        table::Call { size: size_of::<table::Call>(), cancelled: &raw const cancelled, deadline_ms: 1000 };
    let mut verdict = (-1, -1.0_f32);
    let findings = table::Findings {
        size: size_of::<table::Findings>(),
        context: (&raw mut verdict).cast(),
        label: Some(ignore_label),
        verdict: Some(keep_verdict),
    };
    let judge = unsafe { enter().judge.as_ref() }.unwrap();
    let (code, said) = with_error(capacity, |error| unsafe {
        judge.classify.unwrap()(instance, &raw const picture, &raw const call, &raw const findings, error)
    });
    if code == table::OK { Ok(verdict) } else { Err((code, said)) }
}

#[test]
fn the_entry_gives_the_tables_of_what_was_named() {
    let plugin = enter();
    assert_eq!(unsafe { plugin.name.text() }, Some("puppet"));
    assert_eq!((plugin.major, plugin.minor, plugin.flags), (cluegate_abi::MAJOR, cluegate_abi::MINOR, 0));
    assert!(plugin.action.is_null() && !plugin.judge.is_null());
    assert!(unsafe { (*plugin.judge).answer }.is_none());
    let older = table::Host { major: 7, ..HOST };
    let short = table::Host { size: 8, ..HOST };
    for host in [&raw const older, &raw const short, null()] {
        let mut plugin = null();
        let (code, said) =
            with_error(200, |error| unsafe { cluegate_plugin_1(host, &raw mut plugin, error) });
        assert_eq!(code, ErrorCode::Contract.number());
        assert!(said.contains("major version 1") && plugin.is_null(), "{said}");
    }
}

#[test]
fn errors_panics_and_calls_called_off_are_codes_with_words() {
    assert_eq!(
        create("{\"refuse\": 1}"),
        Err((ErrorCode::Config.number(), "expected something else".to_owned()))
    );
    let plain = create("{}").unwrap();
    assert_eq!(classify(plain, 0, 200), Ok((1, 0.75)));
    let (code, said) = classify(plain, 1, 200).unwrap_err();
    assert_eq!((code, &*said), (ErrorCode::Cancelled.number(), "the call was called off"));
    let panics = create("panic").unwrap();
    let (code, said) = classify(panics, 0, 200).unwrap_err();
    assert_eq!((code, &*said), (ErrorCode::Panic.number(), "it panicked: as told, 2 pixels wide"));
    // As much as there is room for.
    assert_eq!(classify(panics, 0, 11), Err((ErrorCode::Panic.number(), "it panicked".to_owned())));
    assert_eq!(classify(panics, 0, 0), Err((ErrorCode::Panic.number(), String::new())));
    let bomb = create("bomb").unwrap();
    assert_eq!(classify(bomb, 0, 200).unwrap_err().1, "it panicked: without a word");
    assert_eq!(classify(null_mut(), 0, 200).unwrap_err().0, ErrorCode::Contract.number());
    for instance in [plain, panics, bomb, null_mut()] {
        unsafe { enter().destroy.unwrap()(instance) };
    }
}

/// What a drawing told.
#[derive(Default)]
struct Told {
    steps: Vec<(u32, Option<Vec<u8>>)>,
    abort_at: u32,
    picture: Option<Vec<u8>>,
}

unsafe extern "C" fn wants(_: *mut c_void, step: u32, _: u32) -> i32 {
    i32::from(step == 2)
}

unsafe extern "C" fn on_step(context: *mut c_void, step: *const table::Step) -> i32 {
    let (told, step) = unsafe { (&mut *context.cast::<Told>(), table::Step::read(step).unwrap()) };
    let shown = (!step.latent.is_null())
        .then(|| unsafe { LatentView::read(step.latent) }.unwrap().picture().into_pixels());
    told.steps.push((step.step, shown));
    if step.step == told.abort_at { table::ABORT } else { table::CONTINUE }
}

unsafe extern "C" fn finished(context: *mut c_void, picture: *const table::Picture) -> i32 {
    let (told, picture) = unsafe { (&mut *context.cast::<Told>(), PictureView::read(picture).unwrap()) };
    told.picture = Some(picture.to_buf().into_pixels());
    table::OK
}

fn generate(abort_at: u32) -> (i32, Told) {
    let nothing = Text { data: null(), len: 0 };
    let draw = table::Draw {
        size: size_of::<table::Draw>(),
        prompt: Text::new("a red circle"),
        negative_prompt: nothing,
        sampler: nothing,
        seed: 7,
        guidance: f64::NAN,
        steps: 0,
        width: 0,
        height: 0,
        reserved: 0,
        avoid: null(),
        avoid_len: 0,
        source: std::ptr::null(),
        mask: std::ptr::null(),
        strength: f64::NAN,
    };
    let call = table::Call { size: size_of::<table::Call>(), cancelled: null(), deadline_ms: 1000 };
    let mut told = Told { abort_at, ..Told::default() };
    let hooks = table::Hooks {
        size: size_of::<table::Hooks>(),
        context: (&raw mut told).cast(),
        wants_preview: Some(wants),
        on_step: Some(on_step),
        finished: Some(finished),
    };
    let instance = create("{}").unwrap();
    let pipeline = unsafe { enter().pipeline.as_ref() }.unwrap();
    let (code, said) = with_error(200, |error| unsafe {
        assert_eq!(pipeline.check.unwrap()(instance, &raw const draw, error), table::OK);
        pipeline.generate.unwrap()(instance, &raw const draw, &raw const call, &raw const hooks, error)
    });
    assert_eq!(said, "");
    unsafe { enter().destroy.unwrap()(instance) };
    (code, told)
}

#[test]
fn a_drawing_tells_of_its_steps_and_can_be_given_up() {
    let (code, told) = generate(0);
    assert_eq!(code, table::OK);
    // Red is the value, green a constant, and what is no number is black.
    assert_eq!(told.steps, [(1, None), (2, Some(vec![51, 128, 0])), (3, None)]);
    assert_eq!(told.picture, Some(vec![7; 12]));
    let (code, told) = generate(2);
    assert_eq!((code, told.steps.len(), told.picture), (table::ABORTED, 2, None));
}

#[test]
fn a_shorter_table_is_read_as_far_as_it_goes() {
    let whole = unsafe { enter().pipeline.as_ref() }.unwrap();
    let old = table::Pipeline { size: table::Pipeline::LEAST, ..*whole };
    let read = unsafe { table::Pipeline::read(&raw const old) }.unwrap();
    assert!(read.generate.is_some() && read.check.is_none());
    let newer = table::Pipeline { size: size_of::<table::Pipeline>() + 8, ..*whole };
    // Whoever says so has more bytes; none of them is looked at.
    let longer = [newer, newer];
    assert!(unsafe { table::Pipeline::read(longer.as_ptr()) }.unwrap().check.is_some());
    let useless = table::Pipeline { size: 8, ..*whole };
    assert!(unsafe { table::Pipeline::read(&raw const useless) }.is_none());
    assert!(unsafe { table::Pipeline::read(null()) }.is_none());
}

#[test]
fn pictures_that_are_none_are_refused() {
    assert!(PictureView::new(&[0; 11], 2, 2).is_err());
    assert!(PictureView::new(&[], 0, 2).is_err());
    let bytes = [0_u8; 12];
    let good = table::Picture { data: bytes.as_ptr(), stride: 6, width: 2, height: 2 };
    assert!(unsafe { PictureView::read(&raw const good) }.is_ok());
    for bad in [
        table::Picture { stride: 5, ..good },
        table::Picture { width: 0, ..good },
        table::Picture { height: 0, ..good },
        table::Picture { data: null(), ..good },
        table::Picture { stride: usize::MAX, height: u32::MAX, ..good },
    ] {
        assert!(unsafe { PictureView::read(&raw const bad) }.is_err(), "{bad:?}");
    }
    assert!(LatentView::new(&[0.0; 4], &[0.0; 6], 1, (2, 2)).is_ok());
    assert!(LatentView::new(&[0.0; 4], &[0.0; 6], 65, (2, 2)).is_err());
    assert!(LatentView::new(&[], &[0.0; 6], 1, (0, 2)).is_err());
}
