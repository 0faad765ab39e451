//! The cache as its users see it: restarts, damage, several threads and processes, bounds, folders that cannot be used.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use cluegate_cache::{Bound, Cache, Counts, Scope, Uncomputed};

const SCOPE: Scope<'_> = Scope { kind: "test", model: "model", template: "template", width: 2 };

/// What everybody computes for a text.
fn values_of(text: &str) -> Vec<f64> {
    let length = text.len() as f64;
    vec![length.sqrt(), -length / 3.0]
}

fn compute(texts: &[&str]) -> Result<Vec<Vec<f64>>, Uncomputed> {
    Ok(texts.iter().map(|text| values_of(text)).collect())
}

fn no_computation(texts: &[&str]) -> Result<Vec<Vec<f64>>, Uncomputed> {
    panic!("{texts:?} should be known")
}

fn files(cache: &Cache) -> BTreeSet<PathBuf> {
    fs::read_dir(cache.folder().unwrap()).unwrap().map(|file| file.unwrap().path()).collect()
}

fn only_file(cache: &Cache) -> PathBuf {
    let files = files(cache);
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

#[test]
fn a_second_start_computes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["a", "a longer one", "a", ""];
    let first = Cache::open(folder.path());
    let computed = first.get_or_compute(&SCOPE, &texts, compute).unwrap();
    assert_eq!(computed.iter().map(|v| v.to_vec()).collect::<Vec<_>>(), texts.map(values_of));
    assert_eq!(first.counts(), Counts { memory: 0, disk: 0, missed: 3 });
    first.get_or_compute(&SCOPE, &texts, no_computation).unwrap();
    assert_eq!(first.counts().memory, 3);
    let second = Cache::open(folder.path());
    assert_eq!(second.get_or_compute(&SCOPE, &texts, no_computation).unwrap(), computed);
    assert_eq!(second.counts(), Counts { memory: 0, disk: 3, missed: 0 });
    // A handle is the same cache.
    second.clone().get_or_compute(&SCOPE, &texts, no_computation).unwrap();
    assert_eq!(second.counts(), Counts { memory: 3, disk: 3, missed: 0 });
    // In memory nothing outlives the cache.
    assert_eq!(Cache::in_memory().get(&SCOPE, "a"), None);
}

#[test]
fn a_text_outlives_the_process_and_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let first = Cache::open(folder.path());
    first.put_text(&SCOPE, "a", "what was written\n\u{e9}");
    assert_eq!(first.get(&SCOPE, "a"), None);
    let second = Cache::open(folder.path());
    for _ in 0..2 {
        assert_eq!(second.text(&SCOPE, "a").as_deref(), Some("what was written\n\u{e9}"));
    }
    assert_eq!((second.counts(), second.text(&SCOPE, "b")), (Counts { memory: 1, disk: 1, missed: 0 }, None));
    fs::write(only_file(&second), b"damaged").unwrap();
    assert_eq!(Cache::open(folder.path()).text(&SCOPE, "a"), None);
    let memory = Cache::in_memory();
    memory.put_text(&SCOPE, "a", "b");
    assert_eq!(memory.text(&SCOPE, "a").as_deref(), Some("b"));
}

#[test]
fn every_part_of_the_key_counts() {
    let folder = tempfile::tempdir().unwrap();
    for cache in [Cache::in_memory(), Cache::open(folder.path())] {
        cache.put(&SCOPE, "a", &[1.0, 2.0]);
        for other in [
            Scope { kind: "other", ..SCOPE },
            Scope { model: "other", ..SCOPE },
            Scope { template: "", ..SCOPE },
            Scope { width: 1, ..SCOPE },
        ] {
            assert_eq!(cache.get(&other, "a"), None, "{other:?}");
        }
        assert_eq!(cache.get(&SCOPE, "A"), None);
        assert_eq!(cache.get(&SCOPE, "a").as_deref(), Some(&[1.0, 2.0][..]));
    }
}

#[test]
fn what_is_no_number_and_what_was_not_asked_for_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path());
    for wrong in [&[f64::NAN, 0.0][..], &[0.0, f64::INFINITY], &[f64::NEG_INFINITY, 0.0], &[0.0], &[]] {
        cache.put(&SCOPE, "a", wrong);
    }
    assert_eq!((cache.get(&SCOPE, "a"), files(&cache).len()), (None, 0));
    let given =
        |rows: Vec<Vec<f64>>| cache.get_or_compute(&SCOPE, &["a", "b"], |_| Ok::<_, Uncomputed>(rows));
    for rows in [vec![], vec![vec![0.0; 2]], vec![vec![0.0; 2]; 3], vec![vec![0.0; 2], vec![0.0]]] {
        assert_eq!(given(rows).unwrap_err().expected, 2);
    }
    let failed = cache.get_or_compute(&SCOPE, &["a"], |texts| {
        Err(Uncomputed { kind: texts.concat(), expected: 7, came: 0, width: 0 })
    });
    assert_eq!(failed.unwrap_err().expected, 7);
    assert_eq!((cache.get(&SCOPE, "b"), files(&cache).len()), (None, 0));
}

#[test]
fn a_damaged_file_is_computed_again_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Cache::open(folder.path());
    open().put(&SCOPE, "a", &values_of("a"));
    let path = only_file(&open());
    let sound = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..sound.len())
        .map(|at| {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            bytes
        })
        .collect();
    damaged.extend((0..sound.len()).step_by(7).map(|length| sound[..length].to_vec()));
    damaged.push([sound.clone(), vec![0; 3 << 20]].concat());
    damaged.push(b"a file of somebody else's".to_vec());
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let cache = open();
        assert_eq!(cache.get(&SCOPE, "a"), None, "{} bytes", bytes.len());
        let again = cache.get_or_compute(&SCOPE, &["a"], compute).unwrap();
        assert_eq!(&*again[0], values_of("a"));
        assert_eq!(fs::read(&path).unwrap(), sound, "not replaced");
    }
}

#[test]
fn a_renamed_file_is_no_answer_to_another_question() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Cache::open(folder.path());
    open().put(&SCOPE, "a", &values_of("a"));
    let of_a = only_file(&open());
    open().put(&SCOPE, "another", &values_of("another"));
    let of_other = files(&open()).into_iter().find(|path| *path != of_a).unwrap();
    fs::copy(&of_a, &of_other).unwrap();
    assert_eq!(open().get(&SCOPE, "another"), None);
    assert_eq!(open().get(&SCOPE, "a").as_deref(), Some(&values_of("a")[..]));
}

#[test]
fn a_folder_in_place_of_a_file_is_endured() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Cache::open(folder.path());
    open().put(&SCOPE, "a", &values_of("a"));
    let path = only_file(&open());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let cache = open();
    assert_eq!(cache.get(&SCOPE, "a"), None);
    for text in ["a", "b"] {
        cache.put(&SCOPE, text, &values_of(text));
        assert_eq!(cache.get(&SCOPE, text).as_deref(), Some(&values_of(text)[..]), "kept in memory");
    }
    // The failed write ended all of them, and left nothing behind.
    assert_eq!(files(&cache), BTreeSet::from([path]));
}

#[test]
fn what_clears_the_folder_does_not_end_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("deep/down"));
    cache.put(&SCOPE, "a", &values_of("a"));
    fs::remove_dir_all(folder.path().join("deep")).unwrap();
    cache.put(&SCOPE, "b", &values_of("b"));
    assert_eq!(files(&cache).len(), 1);
    assert!(cache.get(&SCOPE, "a").is_some(), "still in memory");
}

#[test]
fn a_folder_that_cannot_be_used_leaves_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let cache = Cache::open(&file);
    assert_eq!(cache.folder(), None);
    cache.put(&SCOPE, "a", &values_of("a"));
    assert!(cache.get(&SCOPE, "a").is_some());
    assert_eq!(fs::read(&file).unwrap(), b"in the way");
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_can_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path());
    cache.put(&SCOPE, "a", &[1.0, 2.0]);
    let inner = cache.folder().unwrap();
    let mode = |mode| fs::set_permissions(inner, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(inner).unwrap().permissions().mode() & 0o777, 0o700);
    for (bits, used) in [(0o755, true), (0o775, false), (0o702, false), (0o700, true)] {
        mode(bits);
        let again = Cache::open(folder.path());
        assert_eq!((again.folder().is_some(), again.get(&SCOPE, "a").is_some()), (used, used), "{bits:o}");
    }
}

#[test]
fn the_oldest_files_go_when_there_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let bound = Bound { entries: 8, bytes: 1 << 20 };
    let open = || Cache::open_bounded(folder.path(), bound);
    let date = |path: &Path, age: u64| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    };
    let cache = open();
    let mut paths = Vec::new();
    for number in 0..8 {
        let before = files(&cache);
        let text = format!("text {number}");
        cache.put(&SCOPE, &text, &values_of(&text));
        paths.push(files(&cache).difference(&before).next().unwrap().clone());
        date(&paths[number], 1000 - number as u64);
    }
    assert_eq!(files(&cache).len(), 8);
    let foreign = cache.folder().unwrap().join("notes.txt");
    let [young, old] =
        ["young", "old"].map(|name| cache.folder().unwrap().join(name).with_extension("unfinished"));
    for (path, age) in [(&foreign, 100_000), (&young, 60), (&old, 100_000)] {
        fs::write(path, "x").unwrap();
        date(path, age);
    }
    // Asked for at another start, the oldest is the youngest.
    assert!(open().get(&SCOPE, "text 0").is_some());
    cache.put(&SCOPE, "one too many", &values_of("one too many"));
    let left = files(&cache);
    let entries = left.iter().filter(|path| path.extension().is_some_and(|e| e == "numbers")).count();
    assert_eq!(entries, 6, "three quarters of the bound");
    assert!(left.contains(&paths[0]) && !left.contains(&paths[1]) && !left.contains(&paths[3]));
    assert!(left.contains(&paths[4]));
    assert!(left.contains(&foreign) && left.contains(&young) && !left.contains(&old));
    let again = open();
    assert_eq!(again.get(&SCOPE, "text 1"), None);
    assert!(again.get(&SCOPE, "one too many").is_some());
}

#[test]
fn the_folder_stays_within_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bound = Bound { entries: 1000, bytes: 4096 };
    let cache = Cache::open_bounded(folder.path(), bound);
    for number in 0..200 {
        cache.put(&SCOPE, &number.to_string(), &values_of("x"));
        let bytes: u64 = files(&cache).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes <= 4096, "{bytes} bytes after {number}");
    }
    assert!(files(&cache).len() > 10);
    // Larger than everything: in memory only.
    let long = "x".repeat(5000);
    let before = files(&cache);
    cache.put(&SCOPE, &long, &values_of("x"));
    assert!(cache.get(&SCOPE, &long).is_some());
    assert_eq!(files(&cache), before);
}

/// Texts that the writers share, in an order of their own.
fn texts(writer: usize) -> Vec<String> {
    (0..120).map(|number| format!("statement {}", (number * 7 + writer * 31) % 120)).collect()
}

/// Computes half of the texts and reads all of them, over and over, through a handle of its own.
fn work(folder: &Path, writer: usize, bound: Bound) {
    for round in 0..4 {
        let cache = Cache::open_bounded(folder, bound);
        assert!(cache.folder().is_some());
        let texts = texts(writer + round);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for part in texts.chunks(10) {
            let got = cache.get_or_compute(&SCOPE, part, compute).unwrap();
            for (text, values) in part.iter().zip(got) {
                assert_eq!(&*values, values_of(text), "{text}");
            }
        }
    }
}

/// Room for everything, and for so little that files are removed while others read them.
const BOUNDS: [Bound; 2] = [Bound { entries: 1000, bytes: 1 << 20 }, Bound { entries: 40, bytes: 1 << 20 }];

#[test]
fn threads_with_handles_of_their_own_do_not_disturb_each_other() {
    for bound in BOUNDS {
        let folder = tempfile::tempdir().unwrap();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (folder, start) = (folder.path(), &start);
                scope.spawn(move || {
                    start.wait();
                    work(folder, writer, bound);
                });
            }
        });
        let left = files(&Cache::open(folder.path()));
        assert!(left.iter().all(|path| path.extension().is_some_and(|e| e == "numbers")), "{left:?}");
        assert!(left.len() == 120 || bound.entries < 120, "{}", left.len());
    }
}

const FOLDER: &str = "CACHE_TEST_FOLDER";

/// The part of another process; does nothing on its own.
#[test]
fn other_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let writer = std::process::id() as usize;
        BOUNDS.iter().for_each(|bound| work(Path::new(&folder), writer, *bound));
    }
}

#[test]
fn processes_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut others: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "other_process"])
                .env(FOLDER, folder.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    BOUNDS.iter().for_each(|bound| work(folder.path(), 0, *bound));
    assert!(others.iter_mut().all(|other| other.wait().unwrap().success()));
    let cache = Cache::open(folder.path());
    let left = files(&cache);
    assert!(!left.is_empty());
    assert!(left.iter().all(|path| path.extension().is_some_and(|e| e == "numbers")), "{left:?}");
    // Each file that is left is sound.
    let all = texts(0);
    let known = all.iter().filter(|text| cache.get(&SCOPE, text).is_some()).count();
    assert_eq!(known, left.len());
}
