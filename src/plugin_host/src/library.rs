//! Opening a library: the entry, the handshake, and what its tables say. All that is unsafe about somebody else's memory is
//! here and in `instance`.

use std::ffi::c_void;
use std::path::Path;
use std::ptr::null;
use std::sync::{Mutex, PoisonError};

use cluegate_abi::table::{self, Growing, Text};
use cluegate_abi::{ENTRY, ErrorCode, MAJOR, MINOR, PluginError};

use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

use crate::error::{HostError, Result};
use crate::message::Description;

/// Longest message of an error that is kept, in bytes.
const MESSAGE: usize = 4096;
/// Longest name, version or sentence of a plugin, in bytes.
const MAX_WORDS: usize = 4096;
/// Longest schema of a configuration, in bytes.
const MAX_SCHEMA: usize = 1 << 20;

/// A library that was opened. It is never closed.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) description: Description,
    pub(crate) plugin: table::Plugin,
    pub(crate) pipeline: Option<table::Pipeline>,
    pub(crate) judge: Option<table::Judge>,
    pub(crate) action: Option<table::Action>,
}

// SAFETY: the tables lead to functions and texts that live as long as the process; the ABI says from where they may be
// called, and `local` keeps to it.
unsafe impl Send for Library {}
// SAFETY: the same.
unsafe impl Sync for Library {}

/// All that was opened, so that nothing of it counts as lost.
static KEPT: Mutex<Vec<&'static Library>> = Mutex::new(Vec::new());

static HOST: SharedHost = SharedHost(table::Host {
    size: size_of::<table::Host>(),
    major: MAJOR,
    minor: MINOR,
    context: std::ptr::null_mut(),
    log: Some(log),
});

struct SharedHost(table::Host);

// SAFETY: never written, and its function may be called from any thread.
unsafe impl Sync for SharedHost {}

/// A plugin's line for the log.
unsafe extern "C" fn log(_: *mut c_void, plugin: Text, level: u32, message: Text) {
    // A writer that panics must not end the process.
    let _ = std::panic::catch_unwind(|| {
        // SAFETY: the plugin keeps to the ABI; both are copied.
        let (plugin, message) = unsafe { (lossy(plugin, 256), lossy(message, MESSAGE)) };
        match level {
            1 => tracing::error!(plugin, "{message}"),
            2 => tracing::warn!(plugin, "{message}"),
            3 => tracing::info!(plugin, "{message}"),
            _ => tracing::debug!(plugin, "{message}"),
        }
    });
}

/// At most `most` bytes of a text, whatever they are.
///
/// # Safety
/// As for [`Text::bytes`].
unsafe fn lossy(text: Text, most: usize) -> String {
    // SAFETY: says the caller.
    let bytes = unsafe { text.bytes() };
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}

/// Room for what a plugin says of an error.
pub(crate) struct ErrorRoom {
    room: Vec<u8>,
    table: table::Error,
}

impl ErrorRoom {
    pub(crate) fn new() -> Self {
        let mut room = vec![0; MESSAGE];
        let message = room.as_mut_ptr();
        Self {
            room,
            table: table::Error { size: size_of::<table::Error>(), message, capacity: MESSAGE, len: 0 },
        }
    }

    pub(crate) fn table(&mut self) -> *mut table::Error {
        &raw mut self.table
    }

    /// What `code` and the message say.
    pub(crate) fn error(&self, code: i32) -> PluginError {
        let said = &self.room[..self.table.len.min(MESSAGE)];
        let message = match String::from_utf8_lossy(said).trim() {
            "" => format!("it failed with code {code} and no word"),
            said => said.to_owned(),
        };
        PluginError::new(ErrorCode::of(code), message)
    }
}

impl Library {
    /// Loads the library at `path` and reads its tables. What the loader runs then is the library's own code.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let refused = |error: libloading::Error| not_loaded(path, &said(&error));
        // At once, and not when it is first called: a function that is not there would end the process then.
        let flags = RTLD_NOW | RTLD_LOCAL;
        // SAFETY: whoever allowed the library trusts it: its initialisers run now.
        let library = unsafe { libloading::os::unix::Library::open(Some(path), flags) }.map_err(refused)?;
        // SAFETY: the name holds the version of the ABI and stands for a function of this type.
        let entry = unsafe { library.get::<table::Entry>(ENTRY.as_bytes()) }.map(|entry| *entry);
        // Never closed: its functions, texts and threads live on.
        std::mem::forget(library);
        let entry = entry.map_err(|_| HostError::NoEntry { path: path.to_path_buf(), symbol: ENTRY })?;
        Self::enter(path, entry)
    }

    /// The handshake.
    pub(crate) fn enter(path: &Path, entry: table::Entry) -> Result<Self> {
        let wrong = |problem: String| HostError::Table { path: path.to_path_buf(), problem };
        let (mut plugin, mut room) = (null(), ErrorRoom::new());
        // SAFETY: the entry's contract; all three live through the call, and the host's table for ever.
        let code = unsafe { entry(&raw const HOST.0, &raw mut plugin, room.table()) };
        if code != table::OK {
            return Err(wrong(format!(
                "it refuses this host of version {MAJOR}.{MINOR}: {}",
                room.error(code)
            )));
        }
        // SAFETY: a plugin points to its table, says the ABI.
        let table = unsafe { table::Plugin::read(plugin) };
        let Some(table) = table else {
            return Err(wrong(short::<table::Plugin>("cg_plugin", plugin.cast())));
        };
        if table.major != MAJOR {
            return Err(wrong(format!(
                "its tables are of version {}.{}, expected {MAJOR}.x: build it against the header of this program",
                table.major, table.minor
            )));
        }
        // SAFETY: the table's pointers are null or lead to tables that live as long as the process.
        let (pipeline, judge, action) = unsafe {
            (
                part("cg_pipeline", table.pipeline).map_err(wrong)?,
                part("cg_judge", table.judge).map_err(wrong)?,
                part("cg_action", table.action).map_err(wrong)?,
            )
        };
        let mut library =
            Self { description: describe(&table).map_err(wrong)?, plugin: table, pipeline, judge, action };
        library.description.abilities = library.abilities().map(str::to_owned).collect();
        if library.description.abilities.is_empty() {
            return Err(wrong("its tables name no function that draws, judges or acts".to_owned()));
        }
        if table.create.is_none() || table.destroy.is_none() {
            return Err(wrong("its table lacks `create` or `destroy`".to_owned()));
        }
        Ok(library)
    }

    /// Keeps its tables for as long as the process, like the library itself.
    pub(crate) fn keep(self) -> &'static Self {
        let kept: &'static Self = Box::leak(Box::new(self));
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        kept
    }

    fn abilities(&self) -> impl Iterator<Item = &'static str> {
        let (pipeline, judge, action) = (self.pipeline.as_ref(), self.judge.as_ref(), self.action.as_ref());
        let named = [
            ("generate", pipeline.is_some_and(|table| table.generate.is_some())),
            ("classify", judge.is_some_and(|table| table.classify.is_some())),
            ("answer", judge.is_some_and(|table| table.answer.is_some())),
            ("redact", action.is_some_and(|table| table.redact.is_some())),
            ("inpaint", action.is_some_and(|table| table.inpaint.is_some())),
            ("rewrite", action.is_some_and(|table| table.rewrite.is_some())),
            ("publish", action.is_some_and(|table| table.publish.is_some())),
        ];
        named.into_iter().filter_map(|(name, there)| there.then_some(name))
    }

    pub(crate) fn is_concurrent(&self) -> bool {
        self.plugin.flags & table::FLAG_CONCURRENT != 0
    }
}

/// A table that may be missing.
///
/// # Safety
/// `place` is null or as the ABI says.
unsafe fn part<T: Growing>(name: &str, place: *const T) -> std::result::Result<Option<T>, String> {
    if place.is_null() {
        return Ok(None);
    }
    // SAFETY: says the caller.
    match unsafe { T::read(place) } {
        Some(table) => Ok(Some(table)),
        None => Err(short::<T>(name, place.cast())),
    }
}

fn short<T: Growing>(name: &str, place: *const usize) -> String {
    // SAFETY: a table that is not null begins with its size.
    let size = unsafe { place.as_ref() };
    match size {
        None => format!("it gave no table {name}"),
        Some(size) => format!(
            "its table {name} says that it has {size} bytes, expected at least the {} of version {MAJOR}.0: was `size` set?",
            T::LEAST
        ),
    }
}

fn describe(table: &table::Plugin) -> std::result::Result<Description, String> {
    let words = |text: Text, what: &str, most: usize| {
        // SAFETY: the table's texts live as long as the process, says the ABI.
        match unsafe { text.text() } {
            Some(words) if words.len() <= most => Ok(words.to_owned()),
            Some(words) => Err(format!("its {what} has {} bytes, expected at most {most}", words.len())),
            None => Err(format!("its {what} is not UTF-8")),
        }
    };
    let name = words(table.name, "name", 64)?;
    if name.is_empty() || !name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
        return Err(format!("its name is {name:?}, expected lower-case letters, digits and hyphens"));
    }
    let schema = words(table.schema, "schema", MAX_SCHEMA)?;
    let schema = serde_json::from_str(&schema).map_err(|error| format!("its schema is no JSON: {error}"))?;
    Ok(Description {
        name,
        version: words(table.version, "version", MAX_WORDS)?,
        about: words(table.about, "sentence on itself", MAX_WORDS)?,
        abi: format!("{}.{}", table.major, table.minor),
        abilities: Vec::new(),
        concurrent: table.flags & table::FLAG_CONCURRENT != 0,
        from_pictures: table.flags & table::FLAG_SOURCE != 0,
        schema,
    })
}

/// The loader's own words, which `libloading` keeps as the error's source.
fn said(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// What the loader says, for whoever has to mend it. It names what it does not find: the plugin itself, or what that needs.
fn not_loaded(path: &Path, said: &str) -> HostError {
    // "libtorch_cpu.so: cannot open shared object file: No such file or directory" (glibc),
    // "Error loading shared library libtorch_cpu.so: No such file or directory (needed by ./plugin.so)" (musl),
    // "dlopen(...): Library not loaded: @rpath/libtorch_cpu.dylib ..." (macOS)
    let glibc = said.split_once(": cannot open shared object file").map(|(name, _)| name);
    let musl = said.split_once("Error loading shared library ").filter(|_| said.contains("(needed by"));
    let musl = musl.and_then(|(_, rest)| rest.split_once(':')).map(|(name, _)| name);
    let macos = said.split_once("Library not loaded: ").map(|(_, rest)| rest);
    let macos = macos.and_then(|rest| rest.split_whitespace().next());
    let missing = glibc.or(musl).or(macos).map(str::trim).filter(|name| Path::new(name) != path);
    match missing {
        Some(library) => {
            // The loader names the first that it misses; the files say the others.
            let mut libraries = crate::needs::lacking(path);
            if !libraries.iter().any(|known| known == library) {
                libraries.insert(0, library.to_owned());
            }
            HostError::MissingLibrary { path: path.to_path_buf(), libraries }
        }
        None => HostError::Load { path: path.to_path_buf(), problem: said.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_library_that_is_missing_is_named_whatever_the_loader() {
        let path = Path::new("/plugins/libtorch-plugin.so");
        for said in [
            "libtorch_cpu.so: cannot open shared object file: No such file or directory",
            "Error loading shared library libtorch_cpu.so: No such file or directory (needed by /plugins/libtorch-plugin.so)",
            "dlopen(/plugins/x.dylib, 0x0005): Library not loaded: libtorch_cpu.so\n  Referenced from: <1> /plugins/x.dylib",
        ] {
            let error = not_loaded(path, said);
            let HostError::MissingLibrary { libraries, .. } = &error else { panic!("{said}") };
            assert_eq!(*libraries, ["libtorch_cpu.so"]);
            assert!(error.to_string().contains("run `plugins/torch-diffusers/setup`"), "{error}");
        }
        let itself = "/plugins/libtorch-plugin.so: cannot open shared object file: No such file or directory";
        for said in
            [itself, "/plugins/libtorch-plugin.so: undefined symbol: at_tensor_of", "invalid ELF header"]
        {
            assert!(matches!(not_loaded(path, said), HostError::Load { .. }), "{said}");
        }
    }
}
