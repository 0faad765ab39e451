//! Which shared libraries a library needs, and which of them the system's loader does not find. Files are read, and nothing
//! is loaded or run: so all that is missing is told at once, where the loader gives up at the first.
//!
//! Read are the tables of ELF for 64 bits, little-endian (System V ABI, chapter 5, "Dynamic Section"), searched the folders
//! of ld.so(8). Of any other file nothing is known, and nothing is said to be missing.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Most libraries that are followed from one plugin.
const MAX_LIBRARIES: usize = 1000;
/// Most segments of a file.
const MAX_SEGMENTS: u64 = 1000;
/// Most bytes of a dynamic section: 16 for an entry.
const MAX_DYNAMIC: u64 = 1 << 20;
/// Longest name of a library or list of folders, in bytes.
const MAX_NAME: u64 = 1 << 14;
/// Most bytes of a file that lists the system's folders.
const MAX_CONF: u64 = 1 << 20;

/// What a library's file says of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Needs {
    /// Names of the libraries that it needs.
    libraries: Vec<String>,
    /// Folders in which they are looked for first, as `DT_RUNPATH` has them.
    run_path: Vec<String>,
    /// The same as `DT_RPATH`, which holds for all that they need in turn; without effect beside a `DT_RUNPATH`.
    path: Vec<String>,
}

/// The shared libraries that the library at `path` needs, itself or through others, and that are nowhere; sorted.
pub fn lacking(path: &Path) -> Vec<String> {
    lacking_in(path, &system_folders())
}

/// What to do about libraries that are missing.
pub fn remedy(lacking: &[String]) -> &'static str {
    let torch = |name: &String| ["libtorch", "libc10."].iter().any(|start| name.starts_with(start));
    if lacking.iter().any(torch) {
        "run `plugins/torch-diffusers/setup` in cluegate's source, which fetches libtorch 2.0.0 and builds the plugin against it, \
         or name the folder of libtorch in LD_LIBRARY_PATH"
    } else {
        "install them, or name their folders in LD_LIBRARY_PATH"
    }
}

fn lacking_in(path: &Path, system: &[PathBuf]) -> Vec<String> {
    let (mut seen, mut lacking) = (BTreeSet::new(), BTreeSet::new());
    let mut queue = VecDeque::from([(path.to_path_buf(), Vec::new())]);
    while let Some((path, inherited)) = queue.pop_front() {
        let Some(needs) = File::open(&path).ok().and_then(|mut file| needs(&mut file)) else { continue };
        let origin = path.parent().unwrap_or(Path::new("."));
        let expand = |folders: &[String]| -> Vec<PathBuf> {
            let origin = origin.to_string_lossy();
            let expanded =
                folders.iter().map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
            expanded.map(PathBuf::from).collect()
        };
        let (own, run_path) = (expand(&needs.path), expand(&needs.run_path));
        let passed_on: Vec<PathBuf> =
            if run_path.is_empty() { own.into_iter().chain(inherited).collect() } else { inherited };
        let first = if run_path.is_empty() { &passed_on } else { &run_path };
        for name in needs.libraries {
            if seen.len() >= MAX_LIBRARIES || !seen.insert(name.clone()) {
                continue;
            }
            let place = if name.contains('/') {
                Some(PathBuf::from(&name)).filter(|place| place.is_file())
            } else {
                first.iter().chain(system).map(|folder| folder.join(&name)).find(|place| place.is_file())
            };
            match place {
                Some(place) => queue.push_back((place, passed_on.clone())),
                None => {
                    lacking.insert(name);
                }
            }
        }
    }
    lacking.into_iter().collect()
}

/// The folders of every library: those of LD_LIBRARY_PATH, of the loader's configuration, and its own.
fn system_folders() -> Vec<PathBuf> {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&named).filter(|folder| !folder.as_os_str().is_empty()).collect();
    let listed =
        Path::new("/etc/ld.so.conf.d").read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    for file in [PathBuf::from("/etc/ld.so.conf")].into_iter().chain(listed.take(MAX_LIBRARIES)) {
        let mut text = String::new();
        // What cannot be read names no folder.
        let _ = File::open(file).and_then(|file| file.take(MAX_CONF).read_to_string(&mut text));
        folders.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from));
    }
    folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    folders
}

/// A file as a sequence of little-endian numbers and texts at places.
struct Elf<'a, F>(&'a mut F);

impl<F: Read + Seek> Elf<'_, F> {
    fn bytes(&mut self, at: u64, len: u64) -> Option<Vec<u8>> {
        self.0.seek(SeekFrom::Start(at)).ok()?;
        let mut bytes = Vec::new();
        self.0.by_ref().take(len).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The text at a place, up to its 0.
    fn text(&mut self, at: u64) -> Option<String> {
        let bytes = self.bytes(at, MAX_NAME)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes[..end].to_vec()).ok()
    }
}

/// The number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(N)?)?;
    Some(part.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// A segment of a file: where it is in memory, and where in the file.
struct Segment {
    dynamic: bool,
    loaded: bool,
    offset: u64,
    address: u64,
    size: u64,
}

fn segment(header: &[u8]) -> Option<Segment> {
    let kind = number::<4>(header, 0)?;
    Some(Segment {
        loaded: kind == 1,
        dynamic: kind == 2,
        offset: number::<8>(header, 8)?,
        address: number::<8>(header, 16)?,
        size: number::<8>(header, 32)?,
    })
}

/// What the file says, or `None` if it is no ELF of 64 bits, little-endian, or has no dynamic section.
fn needs<F: Read + Seek>(file: &mut F) -> Option<Needs> {
    let mut elf = Elf(file);
    let header = elf.bytes(0, 64)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (at, size, count) = (number::<8>(&header, 32)?, number::<2>(&header, 54)?, number::<2>(&header, 56)?);
    let headers = elf.bytes(at, size * count.min(MAX_SEGMENTS))?;
    let segments: Vec<Segment> = headers.chunks_exact((size as usize).max(1)).map_while(segment).collect();
    let dynamic = segments.iter().find(|segment| segment.dynamic)?;
    let entries = elf.bytes(dynamic.offset, dynamic.size.min(MAX_DYNAMIC))?;
    let entries: Vec<(u64, u64)> = entries
        .chunks_exact(16)
        .map_while(|entry| Some((number::<8>(entry, 0)?, number::<8>(entry, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    // Texts are named by their place in a table, the table by its address in memory.
    let table = entries.iter().find(|(tag, _)| *tag == 5)?.1;
    let segment = segments.iter().find(|segment| {
        segment.loaded && table.checked_sub(segment.address).is_some_and(|within| within < segment.size)
    })?;
    let table = segment.offset.checked_add(table - segment.address)?;
    let mut needs = Needs::default();
    for (tag, value) in entries {
        let (list, folders) = match tag {
            1 => (&mut needs.libraries, false),
            15 => (&mut needs.path, true),
            29 => (&mut needs.run_path, true),
            _ => continue,
        };
        let text = elf.text(table.checked_add(value)?)?;
        if folders {
            list.extend(text.split(':').filter(|folder| !folder.is_empty()).map(str::to_owned));
        } else if list.len() < MAX_LIBRARIES {
            list.push(text);
        }
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A library of `name` in `folder`, linked with what stands in `arguments`.
    fn build(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
        let (source, library) = (folder.join("empty.c"), folder.join(format!("lib{name}.so")));
        std::fs::write(&source, format!("int {name}_is_here(void) {{ return 1; }}\n")).unwrap();
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-L")
            .arg(folder);
        let output = cc.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    }

    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn what_is_missing_anywhere_on_the_way_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["deep", "wide"] {
            build(folder.path(), name, &[]);
        }
        build(folder.path(), "middle", &["-ldeep"]);
        let origin = "-Wl,--disable-new-dtags,-rpath,$ORIGIN";
        let plugin = build(folder.path(), "plugin", &["-lmiddle", "-lwide", origin]);
        assert_eq!(lacking(&plugin), Vec::<String>::new());
        for name in ["deep", "wide"] {
            std::fs::remove_file(folder.path().join(format!("lib{name}.so"))).unwrap();
        }
        assert_eq!(lacking(&plugin), ["libdeep.so", "libwide.so"]);
        // A run path holds for the library itself and not for what its libraries need.
        let plugin = build(folder.path(), "other", &["-lmiddle", "-Wl,--enable-new-dtags,-rpath,${ORIGIN}"]);
        build(folder.path(), "deep", &[]);
        assert_eq!(lacking(&plugin), ["libdeep.so"]);
        assert_eq!(
            lacking_in(&plugin, &[system_folders(), vec![folder.path().to_path_buf()]].concat()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn of_other_files_nothing_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("libtext.so");
        std::fs::write(&text, "INPUT(-lm)").unwrap();
        assert_eq!(lacking(&text), Vec::<String>::new());
        assert_eq!(lacking(&folder.path().join("none.so")), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
            start in any::<bool>(),
        ) {
            if start {
                let magic = b"\x7fELF\x02\x01";
                let len = magic.len().min(bytes.len());
                bytes[..len].copy_from_slice(&magic[..len]);
            }
            let _ = needs(&mut Cursor::new(bytes));
        }

        #[test]
        fn a_real_library_with_bytes_changed_is_read_to_an_end(
            changes in proptest::collection::vec((0_usize..1024, any::<u8>()), 1..20),
        ) {
            // The tables that lead to all others are at the beginning.
            let mut bytes = Vec::new();
            File::open(std::env::current_exe().unwrap()).unwrap().take(1 << 16).read_to_end(&mut bytes).unwrap();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _ = needs(&mut Cursor::new(bytes));
        }
    }
}
