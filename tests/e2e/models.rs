//! `cluegate models`: pulled from a hub on loopback by the real binary, listed, checked, used, removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cluegate::mini::SUITE_FILES;
use serde_json::Value;

use crate::fake_hub::{COMMIT, FakeHub, Fault, as_slices, sharded};
use crate::support::{Run, Scenes, command, finish, folder};

const REPO: &str = "org/model";
const LARGE: &str = "model-00002-of-00002.safetensors";
const SIZE: usize = 2_000_000;

/// A hub with one checkpoint, and a home that is empty.
struct World {
    hub: FakeHub,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let hub = FakeHub::start();
        hub.repo(REPO, &as_slices(&sharded(SIZE)));
        Self { hub, home: folder() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("HF_") || name.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", self.hub.endpoint());
        command.current_dir(self.home.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        finish(&mut self.command(arguments))
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("hub/models--org--model")
    }

    fn snapshot(&self) -> PathBuf {
        self.root().join("snapshots").join(COMMIT)
    }

    fn large(&self) -> PathBuf {
        self.snapshot().join(LARGE)
    }

    #[track_caller]
    fn assert_whole(&self) {
        for (name, bytes) in sharded(SIZE).into_iter().filter(|(name, _)| name.starts_with("model")) {
            assert!(fs::read(self.snapshot().join(name)).ok() == Some(bytes), "{name}");
        }
    }

    /// The embedded suite as three checkpoints of the hub, and a models file that names them.
    fn suite(&self) -> PathBuf {
        let mut text = "# by hand\n".to_owned();
        for section in ["relevance", "detector", "judge"] {
            let prefix = format!("{section}/");
            let files: Vec<(&str, &[u8])> = SUITE_FILES
                .iter()
                .filter_map(|(path, bytes)| Some((path.strip_prefix(&prefix)?, *bytes)))
                .collect();
            self.hub.repo(&format!("mini/{section}"), &files);
            text += &format!("[{section}]\nrepo = \"mini/{section}\"\n");
        }
        let file = self.home.path().join("wanted.toml");
        fs::write(&file, text).expect("a file");
        file
    }
}

#[test]
fn a_repository_is_pulled_listed_checked_and_removed() {
    let world = World::new();
    let pulled = world.run(&["models", "pull", REPO, "--format", "json"]).expect(0);
    assert_eq!(pulled.stderr, "");
    let pulled = pulled.json();
    let model = &pulled["models"][0];
    assert_eq!((&model["repo"], &model["commit"]), (&REPO.into(), &COMMIT.into()));
    assert_eq!(Path::new(model["folder"].as_str().expect("a folder")), world.snapshot());
    world.assert_whole();

    let listed = world.run(&["models", "list", "--format", "json"]).expect(0).json();
    let revision = &listed["repositories"][0]["revisions"][0];
    assert_eq!((&revision["commit"], &revision["refs"][0]), (&COMMIT.into(), &"main".into()));
    assert_eq!(
        (&revision["licence"], &revision["missing"]),
        (&"apache-2.0".into(), &Value::Array(Vec::new()))
    );
    assert_eq!(listed["bytes"], model["bytes"]);
    let text = world.run(&["models", "list"]).expect(0).stdout;
    assert!([REPO, COMMIT, "main", "2.0 MB", "apache-2.0"].iter().all(|part| text.contains(part)), "{text}");

    assert_eq!(world.run(&["models", "verify", "--format", "json"]).expect(0).json()["ok"], true);
    let mut bytes = fs::read(world.large()).expect("a file");
    bytes[SIZE / 2] ^= 1;
    fs::write(world.large(), bytes).expect("written");
    fs::remove_file(world.snapshot().join("model-00001-of-00002.safetensors")).expect("removed");
    let verified = world.run(&["models", "verify", REPO]).expect(2).stdout;
    let fix = format!("fix: cluegate models pull {REPO} --revision {COMMIT}");
    for part in [LARGE, "DAMAGED", "model-00001-of-00002.safetensors: MISSING", &fix] {
        assert!(verified.contains(part), "{part}: {verified}");
    }
    let mended = world.run(&["models", "pull", REPO, "--revision", COMMIT]).expect(0);
    assert!(mended.stderr.contains(LARGE) && mended.stderr.contains("damaged"), "{mended:?}");
    world.run(&["models", "verify", REPO]).expect(0);

    let removed = world.run(&["models", "remove", REPO, "--format", "json"]).expect(0).json();
    assert_eq!(removed[0]["freed_bytes"], model["bytes"]);
    assert!(!world.root().exists());
    let again = world.run(&["models", "remove", REPO]).expect(2);
    assert!(again.stderr.contains("is not in") && again.stderr.contains("models list"), "{}", again.stderr);
    assert!(world.run(&["models", "list"]).expect(0).stdout.contains("cluegate models pull laptop"));
}

#[test]
fn a_models_file_is_pulled_pinned_and_judged_with() {
    let world = World::new();
    let wanted = world.suite();
    let wanted = wanted.to_str().expect("a name");
    let (scenes, pictures) = (Scenes::new(), folder());
    let armed = scenes.save(&scenes.pair("man", "knife", true), pictures.path(), "armed.png");
    let judge = |models: &str| {
        let mut command = world.command(&["judge", "--format", "jsonl", "--models", models]);
        finish(command.arg(&armed))
    };
    let early = judge(wanted).expect(2);
    for part in ["[relevance]", "mini/relevance at main", "cluegate models pull mini/relevance"] {
        assert!(early.stderr.contains(part), "{part}: {}", early.stderr);
    }
    // A file that was written by hand is not replaced.
    let refused = world.run(&["models", "pull", wanted, "--out", wanted]).expect(2);
    assert!(refused.stderr.contains("--force") && world.hub.requests().is_empty(), "{}", refused.stderr);
    let pull = world.run(&["models", "pull", wanted, "--out", "pinned.toml"]).expect(0);
    assert!(pull.stdout.contains("wrote pinned.toml"), "{}", pull.stdout);
    let pinned = fs::read_to_string(world.home.path().join("pinned.toml")).expect("a file");
    assert_eq!(pinned.matches(&format!("revision = \"{COMMIT}\"")).count(), 3, "{pinned}");
    world.run(&["models", "pull", wanted, "--out", "pinned.toml"]).expect(0);

    let doctor = world.run(&["doctor", "--models", "pinned.toml", "--format", "json"]).json();
    let row =
        |what: &str| doctor.as_array().and_then(|rows| rows.iter().find(|row| row["what"] == what).cloned());
    for (what, part) in
        [("cache", "3 checkpoints"), ("models", "pinned.toml loaded"), ("generator", "none in this set")]
    {
        let row = row(what).unwrap_or_else(|| panic!("no {what}: {doctor}"));
        assert!(
            row["ok"] == true && row["found"].as_str().is_some_and(|found| found.contains(part)),
            "{row}"
        );
    }

    let verdict = judge("pinned.toml").expect(1);
    let own = finish(command().args(["judge", "--format", "jsonl", "--force"]).arg(&armed)).expect(1);
    let [verdict, own] = [verdict, own].map(|run| run.lines().remove(0));
    assert_eq!((&verdict["verdict"], &verdict["violated"]), (&own["verdict"], &own["violated"]));

    // What a models file names is not removed, and other files are.
    let kept = ["models", "remove", "mini/judge", "--models", "pinned.toml"];
    let refused = world.run(&kept).expect(2);
    assert!(refused.stderr.contains("[judge]") && refused.stderr.contains("--force"), "{}", refused.stderr);
    judge("pinned.toml").expect(1);
    world.run(&[&kept[..], &["--force"]].concat()).expect(0);
    let gone = judge("pinned.toml").expect(2);
    assert!(
        gone.stderr.contains(&format!("cluegate models pull mini/judge --revision {COMMIT}")),
        "{}",
        gone.stderr
    );
}

#[test]
fn a_killed_pull_goes_on_where_it_stopped() {
    let world = World::new();
    world.hub.faults(LARGE, &[Fault::Stall(1_200_000, Duration::from_secs(600))]);
    let mut child = world
        .command(&["models", "pull", REPO])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let incomplete = || {
        let blobs = fs::read_dir(world.root().join("blobs")).ok()?;
        let found = blobs
            .map(|entry| entry.expect("an entry"))
            .find(|entry| entry.file_name().to_string_lossy().ends_with(".incomplete"));
        Some(found?.metadata().ok()?.len())
    };
    while incomplete() != Some(1_200_000) {
        assert!(child.try_wait().expect("a state").is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("killed");
    child.wait().expect("an end");
    let listed = world.run(&["models", "list"]).expect(0).stdout;
    assert!(listed.contains("INCOMPLETE") && listed.contains("unfinished downloads: 1.2 MB"), "{listed}");
    world.run(&["models", "pull", REPO]).expect(0);
    world.assert_whole();
    let ranges: Vec<_> = world.hub.requests().into_iter().filter_map(|request| request.range).collect();
    assert!(ranges.iter().all(|range| range == "bytes=1200000-") && !ranges.is_empty(), "{ranges:?}");
}

#[test]
fn two_processes_at_once_fetch_every_file_once() {
    let world = World::new();
    let children: Vec<_> = (0..2)
        .map(|_| {
            let mut command = world.command(&["models", "pull", REPO]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    world.assert_whole();
    for (name, _) in sharded(SIZE) {
        assert!(world.hub.downloads(name) <= 1, "{name} came {} times", world.hub.downloads(name));
    }
}

#[test]
fn refusals_say_what_to_do_and_no_secret() {
    let world = World::new();
    world.hub.change(REPO, |repo| (repo.gated, repo.token) = (true, Some("hf_good".to_owned())));
    let pull = ["models", "pull", REPO];
    let gated = world.run(&pull).expect(2);
    for part in ["gated", &format!("{}/{REPO}", world.hub.endpoint()), "HF_TOKEN"] {
        assert!(gated.stderr.contains(part), "{part}: {}", gated.stderr);
    }
    let other = finish(world.command(&pull).env("HF_TOKEN", "hf_secret").env("RUST_LOG", "trace")).expect(2);
    assert!(other.stderr.contains("gated") && !other.stderr.contains("hf_secret"), "{}", other.stderr);
    // The token of the file that `hf auth login` writes.
    fs::write(world.home.path().join("token"), "hf_good\n").expect("a file");
    let logged =
        finish(world.command(&pull).env("RUST_LOG", "trace,ureq::run=trace,ureq_proto=trace")).expect(0);

    assert!(!["hf_good", "Signature", "_good", "earer"].iter().any(|part| logged.stderr.contains(part)));
    world.assert_whole();

    for (arguments, parts) in [
        (vec!["models", "pull", "laptpo"], vec!["laptpo", "laptop"]),
        (vec!["models", "pull", "a/b/c"], vec!["a/b/c", "no repository"]),
        (vec!["models", "pull", REPO, "--revision", "v9"], vec!["\"v9\"", REPO]),
        (vec!["models", "pull", "laptop", "--revision", "v9"], vec!["--revision belongs to a repository"]),
        (vec!["models", "pull", "org/none"], vec!["no repository org/none"]),
        (vec!["models", "verify", "org/none"], vec!["cluegate models pull org/none"]),
        (vec!["models", "remove", "laptop"], vec!["nothing of laptop"]),
        (vec!["judge", "--models", "laptop", "a.png"], vec!["the preset", "cluegate models pull laptop"]),
    ] {
        let run = world.run(&arguments).expect(2);
        assert!(parts.iter().all(|part| run.stderr.contains(part)), "{parts:?}: {}", run.stderr);
    }
}

#[test]
fn what_does_not_fit_is_refused_unless_forced() {
    let world = World::new();
    // More than any disk has, in a file that the limits still allow.
    world.hub.change(REPO, |repo| {
        for file in 0..2000 {
            let name = format!("model-{file}-of-2000.safetensors");
            repo.claimed.insert(name.clone(), 499_000_000_000);
            repo.files.insert(name, vec![0; 1000]);
        }
        let map: serde_json::Map<_, _> = (0..2000)
            .map(|file| (file.to_string(), format!("model-{file}-of-2000.safetensors").into()))
            .collect();
        let index = serde_json::json!({"weight_map": map});
        repo.files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    });
    let refused = world.run(&["models", "pull", REPO]).expect(2);
    for part in ["998 TB", "found", "--force", "cluegate models remove"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(world.hub.downloads("config.json"), 0);
    // A preset for several GPUs, on a machine that has less memory than they need.
    if cluegate::hub::total_memory().is_some_and(|total| total < 150_000_000_000) {
        let refused = world.run(&["models", "pull", "paper-internvl2-76b"]).expect(2);
        for part in ["paper-internvl2-76b", "191 GB of memory in bf16", "this machine has", "--force"] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
        let forced = world.run(&["models", "pull", "paper-internvl2-76b", "--force"]).expect(2);
        assert!(forced.stderr.contains("openai/clip-vit-base-patch16"), "{}", forced.stderr);
    }
}

/// The system refuses to write more than half of the large file.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_what_came_is_kept() {
    let world = World::new();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" models pull \"$1\""]);
    let binary = world.command(&[]);
    shell.arg(binary.get_program()).arg(REPO).current_dir(world.home.path());
    shell.env("HF_HOME", world.home.path()).env("HF_ENDPOINT", world.hub.endpoint()).env("NO_PROXY", "*");
    let full = finish(&mut shell).expect(2);
    for part in ["disk is full", ".incomplete", "HF_HOME", "goes on where it stopped"] {
        assert!(full.stderr.contains(part), "{part}: {}", full.stderr);
    }
    world.run(&["models", "pull", REPO]).expect(0);
    world.assert_whole();
    let ranges =
        world.hub.requests().into_iter().filter(|request| request.cdn).filter_map(|request| request.range);
    assert_eq!(ranges.collect::<Vec<_>>(), ["bytes=1024000-"]);
}

#[test]
fn without_the_network_only_the_cache_is_used() {
    let world = World::new();
    for value in ["1", "true", "YES", "on"] {
        let offline = finish(world.command(&["models", "pull", REPO]).env("HF_HUB_OFFLINE", value)).expect(2);
        assert!(offline.stderr.contains("HF_HUB_OFFLINE is set"), "{}", offline.stderr);
    }
    assert!(world.hub.requests().is_empty());
    world.run(&["models", "pull", REPO]).expect(0);
    let asked = world.hub.requests().len();
    finish(world.command(&["models", "pull", REPO]).env("HF_HUB_OFFLINE", "1")).expect(0);
    assert_eq!(world.hub.requests().len(), asked);
}

#[test]
fn presets_are_data_for_people_and_scripts() {
    let world = World::new();
    let presets = world.run(&["models", "list", "--presets", "--format", "json"]).expect(0).json();
    let presets = presets.as_array().expect("a list");
    let text = world.run(&["models", "list", "--presets"]).expect(0).stdout;
    for name in [
        "mini",
        "laptop",
        "paper-qwen2-vl-7b",
        "paper-internvl2-8b",
        "paper-llava-v1.6-34b",
        "paper-internvl2-76b",
    ] {
        let preset =
            presets.iter().find(|preset| preset["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        assert!(text.contains(&format!("{name}: ")), "{text}");
        let parts = preset["parts"].as_array().expect("a list");
        assert_eq!(parts.len(), if name == "mini" { 0 } else { 3 });
        let download: u64 = parts.iter().filter_map(|part| part["download_bytes"].as_u64()).sum();
        assert_eq!(preset["download_bytes"], download);
        assert!(name == "mini" || preset["memory_bytes"].as_u64() > Some(download), "{preset}");
        for part in parts {
            for key in ["section", "repo", "revision", "licence", "parameters", "stored", "pulled"] {
                assert!(!part[key].is_null(), "{key}: {part}");
            }
        }
    }
    assert!(world.run(&["models", "pull", "mini"]).expect(0).stdout.contains("compiled in"));
    // `mini` is what there is without a name.
    let doctor = world.run(&["doctor", "--models", "mini", "--format", "json"]).json();
    let models =
        doctor.as_array().expect("a list").iter().find(|row| row["what"] == "models").expect("models");
    assert_eq!(models["ok"], true, "{models}");
}

#[test]
fn a_terminal_gets_a_bar_and_a_pipe_does_not() {
    let world = World::new();
    let run = world.run(&["models", "pull", REPO]).expect(0);
    assert_eq!(run.stderr, "");
    assert!(!run.stdout.contains('\r') && !run.stdout.contains('\x1b'), "{run:?}");
}
