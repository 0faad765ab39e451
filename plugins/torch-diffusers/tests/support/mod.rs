//! What the tests share: the built library behind its tables, and altered copies of the embedded generator's folder.

#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, OnceLock};

use cluegate_abi::table::{self, Growing as _, Text};
use cluegate_abi::{ErrorCode, PictureBuf, PictureView};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// Code and words of an error.
pub type Refusal = (ErrorCode, String);

/// Lines that the library wrote to the host's log.
pub static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn log(_: *mut c_void, plugin: Text, level: u32, message: Text) {
    let (plugin, message) = unsafe { (plugin.text().unwrap(), message.text().unwrap()) };
    LOG.lock().unwrap().push(format!("{plugin} {level} {message}"));
}

struct Shared<T>(T);
// SAFETY: the table never changes, and its function may be called from any thread.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: the same.
unsafe impl<T> Send for Shared<T> {}

static HOST: Shared<table::Host> = Shared(table::Host {
    size: size_of::<table::Host>(),
    major: cluegate_abi::MAJOR,
    minor: cluegate_abi::MINOR,
    context: null_mut(),
    log: Some(log),
});

/// Room for a message, and what `work` makes of it.
fn with_error(work: impl FnOnce(*mut table::Error) -> i32) -> Result<i32, Refusal> {
    let mut room = vec![0_u8; 4096];
    let mut error = table::Error {
        size: size_of::<table::Error>(),
        message: room.as_mut_ptr(),
        capacity: room.len(),
        len: 0,
    };
    match work(&raw mut error) {
        code @ (table::OK | table::ABORTED) => Ok(code),
        code => {
            room.truncate(error.len);
            Err((ErrorCode::of(code), String::from_utf8(room).unwrap()))
        }
    }
}

/// The library that cargo built beside the tests.
pub fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libcluegate_torch_diffusers.so")
}

/// The plugin's table.
pub fn plugin() -> &'static table::Plugin {
    static PLUGIN: OnceLock<Shared<&'static table::Plugin>> = OnceLock::new();
    PLUGIN
        .get_or_init(|| {
            let library = unsafe { libloading::Library::new(library()) }.unwrap();
            let library: &'static libloading::Library = Box::leak(Box::new(library));
            let entry = unsafe { library.get::<table::Entry>(cluegate_abi::ENTRY.as_bytes()) }.unwrap();
            let mut plugin = null();
            with_error(|error| unsafe { entry(&HOST.0, &raw mut plugin, error) }).unwrap();
            Shared(unsafe { plugin.as_ref() }.unwrap())
        })
        .0
}

/// What is asked for, and how it is watched.
#[derive(Debug, Clone)]
pub struct Order {
    pub prompt: &'static str,
    pub negative: &'static str,
    pub avoid: Vec<&'static str>,
    pub sampler: &'static str,
    pub seed: u64,
    pub guidance: f64,
    pub steps: u32,
    pub width: u32,
    pub height: u32,
    /// Steps after which a preview is wanted.
    pub previews: Vec<u32>,
    /// The step after which the drawing is given up; 0 for none.
    pub abort_at: u32,
    /// The step after which nobody waits any more; `Some(0)` for before the first.
    pub cancel_at: Option<u32>,
    pub deadline_ms: u64,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            prompt: "a cat and a tree on the grass",
            negative: "",
            avoid: Vec::new(),
            sampler: "",
            seed: 7,
            guidance: 5.0,
            steps: 3,
            width: 0,
            height: 0,
            previews: Vec::new(),
            abort_at: 0,
            cancel_at: None,
            deadline_ms: 600_000,
        }
    }
}

/// What a drawing told its host.
#[derive(Debug, Default)]
pub struct Told {
    /// Numbers of the steps, with their previews.
    pub steps: Vec<(u32, Option<PictureBuf>)>,
    pub picture: Option<PictureBuf>,
    pub aborted: bool,
}

/// An order under way.
struct Watch<'a> {
    order: &'a Order,
    told: Told,
    cancelled: u32,
}

unsafe extern "C" fn wants(context: *mut c_void, step: u32, total: u32) -> i32 {
    let watch = unsafe { &*context.cast::<Watch<'_>>() };
    assert_eq!(total, watch.order.steps);
    i32::from(watch.order.previews.contains(&step))
}

unsafe extern "C" fn on_step(context: *mut c_void, step: *const table::Step) -> i32 {
    let (watch, step) = unsafe { (&mut *context.cast::<Watch<'_>>(), table::Step::read(step).unwrap()) };
    assert!(step.latent.is_null(), "previews are decoded");
    let preview =
        (!step.picture.is_null()).then(|| unsafe { PictureView::read(step.picture) }.unwrap().to_buf());
    watch.told.steps.push((step.step, preview));
    if watch.order.cancel_at == Some(step.step) {
        watch.cancelled = 1;
    }
    if step.step == watch.order.abort_at { table::ABORT } else { table::CONTINUE }
}

unsafe extern "C" fn finished(context: *mut c_void, picture: *const table::Picture) -> i32 {
    let (watch, picture) =
        unsafe { (&mut *context.cast::<Watch<'_>>(), PictureView::read(picture).unwrap()) };
    assert!(watch.told.picture.replace(picture.to_buf()).is_none(), "one picture");
    table::OK
}

unsafe extern "C" fn keep_text(context: *mut c_void, text: Text) -> i32 {
    unsafe { *context.cast::<String>() = text.text().unwrap().to_owned() };
    table::OK
}

/// An instance of the plugin.
pub struct Instance(*mut c_void);

impl Drop for Instance {
    fn drop(&mut self) {
        unsafe { plugin().destroy.unwrap()(self.0) };
    }
}

impl Instance {
    /// From a configuration whose relative paths mean `folder`.
    pub fn create(config: &serde_json::Value, folder: &Path) -> Result<Self, Refusal> {
        let (config, folder) = (config.to_string(), folder.to_str().unwrap());
        let setup = table::Setup {
            size: size_of::<table::Setup>(),
            config: Text::new(&config),
            folder: Text::new(folder),
        };
        let mut instance = null_mut();
        with_error(|error| unsafe { plugin().create.unwrap()(&raw const setup, &raw mut instance, error) })?;
        Ok(Self(instance))
    }

    /// Of a model's folder, with nothing else configured.
    pub fn of(model: &Path) -> Result<Self, Refusal> {
        Self::create(&serde_json::json!({ "model": model }), Path::new(""))
    }

    /// Of the embedded generator.
    pub fn new() -> Self {
        Self::of(&generator()).unwrap()
    }

    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        let sink = table::TextSink {
            size: size_of::<table::TextSink>(),
            context: (&raw mut text).cast(),
            put: Some(keep_text),
        };
        with_error(|error| unsafe { plugin().fingerprint.unwrap()(self.0, &raw const sink, error) }).unwrap();
        text
    }

    pub fn check(&self, order: &Order) -> Result<(), Refusal> {
        let pipeline = unsafe { plugin().pipeline.as_ref() }.unwrap();
        with_draw(order, |draw| with_error(|error| unsafe { pipeline.check.unwrap()(self.0, draw, error) }))?;
        Ok(())
    }

    pub fn draw(&self, order: &Order) -> Result<Told, Refusal> {
        let mut watch =
            Watch { order, told: Told::default(), cancelled: u32::from(order.cancel_at == Some(0)) };
        let call = table::Call {
            size: size_of::<table::Call>(),
            cancelled: &raw const watch.cancelled,
            deadline_ms: order.deadline_ms,
        };
        let hooks = table::Hooks {
            size: size_of::<table::Hooks>(),
            context: (&raw mut watch).cast(),
            wants_preview: Some(wants),
            on_step: Some(on_step),
            finished: Some(finished),
        };
        let pipeline = unsafe { plugin().pipeline.as_ref() }.unwrap();
        let code = with_draw(order, |draw| {
            with_error(|error| unsafe {
                pipeline.generate.unwrap()(self.0, draw, &raw const call, &raw const hooks, error)
            })
        });
        let code = code.inspect_err(|_| assert!(watch.told.picture.is_none(), "an error and a picture"))?;
        watch.told.aborted = code == table::ABORTED;
        Ok(watch.told)
    }

    pub fn picture(&self, order: &Order) -> PictureBuf {
        self.draw(order).unwrap().picture.unwrap()
    }
}

fn with_draw<T>(order: &Order, work: impl FnOnce(*const table::Draw) -> T) -> T {
    let avoid: Vec<Text> = order.avoid.iter().map(|words| Text::new(words)).collect();
    work(&table::Draw {
        size: size_of::<table::Draw>(),
        prompt: Text::new(order.prompt),
        negative_prompt: Text::new(order.negative),
        sampler: Text::new(order.sampler),
        seed: order.seed,
        guidance: order.guidance,
        steps: order.steps,
        width: order.width,
        height: order.height,
        reserved: 0,
        avoid: avoid.as_ptr(),
        avoid_len: avoid.len(),
        source: null(),
        mask: null(),
        strength: f64::NAN,
    })
}

/// The embedded generator's folder.
pub fn generator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/mini/suite/generator")
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, target) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the generator's folder in which `change` may do as it likes.
pub fn changed(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&generator(), folder.path());
    change(folder.path());
    folder
}

/// A copy with other text in one file.
pub fn edited(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    changed(|folder| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(from), "{file} has {from}");
        std::fs::write(folder.join(file), text.replace(from, to)).unwrap();
    })
}

/// Type, shape and bytes.
pub type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// A copy in which `change` may alter the tensors of one file.
pub fn altered(file: &str, change: impl FnOnce(&mut BTreeMap<String, Raw>)) -> tempfile::TempDir {
    changed(|folder| {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: BTreeMap<String, Raw> = read
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
            .collect();
        change(&mut tensors);
        let views: Vec<(&String, TensorView<'_>)> = tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()))
            .collect();
        safetensors::serialize_to_file(views, &None, &path).unwrap();
    })
}

/// Fills a tensor of 16-bit floats with one value, given by its bits.
pub fn fill(tensors: &mut BTreeMap<String, Raw>, name: &str, bits: u16) {
    let (dtype, _, data) = tensors.get_mut(name).unwrap_or_else(|| panic!("there is a tensor {name}"));
    assert_eq!(*dtype, Dtype::F16);
    data.chunks_exact_mut(2).for_each(|value| value.copy_from_slice(&bits.to_le_bytes()));
}

/// A picture of `goldens/data`.
pub fn golden(name: &str) -> PictureBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/data").join(name);
    read_png(std::io::BufReader::new(std::fs::File::open(path).unwrap()))
}

/// Reads a PNG of 8-bit red, green and blue.
pub fn read_png(file: impl std::io::BufRead + std::io::Seek) -> PictureBuf {
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    PictureBuf::new(pixels, info.width, info.height).unwrap()
}

/// Largest and mean difference of two pictures' levels.
pub fn difference(a: &PictureBuf, b: &PictureBuf) -> (u8, f64) {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let levels = a.view().pixels().flatten().zip(b.view().pixels().flatten()).map(|(a, b)| a.abs_diff(*b));
    let levels: Vec<u8> = levels.collect();
    let mean = levels.iter().map(|&level| f64::from(level)).sum::<f64>() / levels.len() as f64;
    (levels.into_iter().max().unwrap(), mean)
}
