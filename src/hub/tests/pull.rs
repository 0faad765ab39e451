//! Pulling from a hub on loopback, with all that goes wrong on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fake_hub;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluegate_hub::{
    Digest, Event, FileState, Hub, HubError, HubErrorKind, Limits, Progress, Pulled, Quiet, RepoId, Revision,
    Settings, Token,
};
use fake_hub::{COMMIT, FakeHub, Fault, as_slices, sharded};
use tempfile::TempDir;

const REPO: &str = "org/model";
const LARGE: &str = "model-00002-of-00002.safetensors";
const SIZE: usize = 700_000;

/// A hub with one sharded model, and an empty cache.
struct World {
    hub: FakeHub,
    folder: TempDir,
    token: Option<&'static str>,
    offline: bool,
    symlinks: bool,
}

impl World {
    fn new() -> Self {
        let hub = FakeHub::start();
        hub.repo(REPO, &as_slices(&sharded(SIZE)));
        Self { hub, folder: tempfile::tempdir().unwrap(), token: None, offline: false, symlinks: true }
    }

    fn client(&self) -> Hub {
        let settings = Settings {
            cache: self.folder.path().join("hub"),
            endpoint: self.hub.endpoint().to_owned(),
            token: self.token.and_then(|token| Token::new(token, "test").unwrap()),
            offline: self.offline,
            symlinks: self.symlinks,
            progress: false,
            trust: cluegate_hub::Trust::default(),
        };
        let (backoff, stall) = (Duration::from_millis(1), Duration::from_millis(200));
        Hub::new(&settings, Limits { backoff, stall, attempts: 4, ..Limits::default() })
    }

    fn pull_told(&self, repo: &str, revision: &str, progress: &dyn Progress) -> Result<Pulled, HubError> {
        let hub = self.client();
        let plan = hub.plan(&repo.parse().unwrap(), &revision.parse().unwrap())?;
        hub.check_room(std::slice::from_ref(&plan))?;
        hub.fetch(&plan, progress)
    }

    fn pull(&self) -> Result<Pulled, HubError> {
        self.pull_told(REPO, "main", &Quiet)
    }

    #[track_caller]
    fn refused(&self, repo: &str, revision: &str, kind: HubErrorKind, needed: &[&str]) -> HubError {
        let error = self.pull_told(repo, revision, &Quiet).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(needed.iter().all(|part| error.to_string().contains(part)), "{needed:?}: {error}");
        error
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("hub/models--org--model")
    }

    fn blob_of(&self, file: &str) -> PathBuf {
        self.root().join("blobs").join(digest_of(file).to_string())
    }

    fn incomplete_of(&self, file: &str) -> PathBuf {
        self.root().join("blobs").join(format!("{}.incomplete", digest_of(file)))
    }

    /// Everything is there, byte for byte, and nothing else.
    #[track_caller]
    fn assert_whole(&self) {
        let wanted = ["README.md", "config.json", "tokenizer.json", "model.safetensors.index.json"];
        for (name, bytes) in sharded(SIZE) {
            let path = self.root().join("snapshots").join(COMMIT).join(name);
            let needed = wanted.contains(&name) || name.starts_with("model-0000");
            assert_eq!(fs::read(&path).ok(), needed.then_some(bytes), "{name}");
        }
        let incomplete = fs::read_dir(self.root().join("blobs")).unwrap();
        let names = incomplete.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.into_iter().all(|name| name.parse::<Digest>().is_ok()));
    }
}

fn digest_of(file: &str) -> Digest {
    let (_, bytes) = sharded(SIZE).into_iter().find(|(name, _)| *name == file).unwrap();
    if bytes.len() >= 1000 { Digest::sha256(&bytes) } else { Digest::git(&bytes) }
}

/// Remembers what it is told, as words.
#[derive(Default)]
struct Told(RefCell<Vec<String>>);

impl Progress for Told {
    fn on(&self, event: Event<'_>) {
        let text = match event {
            Event::Begin { .. } | Event::Bytes(_) => return,
            Event::Retrying { file, why, .. } => format!("retrying {file}: {why}"),
            other => format!("{other:?}"),
        };
        self.0.borrow_mut().push(text);
    }
}

#[test]
fn a_fresh_pull_fetches_what_is_needed_in_the_layout_of_hugging_face() {
    let world = World::new();
    let pulled = world.pull().unwrap();
    world.assert_whole();
    assert_eq!((pulled.commit.as_str(), pulled.licence.as_deref()), (COMMIT, Some("apache-2.0")));
    // The index came with the plan.
    let index =
        sharded(SIZE).into_iter().find(|(name, _)| name.ends_with("index.json")).unwrap().1.len() as u64;
    assert_eq!(pulled.fetched_bytes + index, pulled.bytes);
    assert_eq!(fs::read_to_string(world.root().join("refs/main")).unwrap(), COMMIT);
    let config = world.root().join("snapshots").join(COMMIT).join("config.json");
    let target = Path::new("../../blobs").join(digest_of("config.json").to_string());
    assert_eq!(fs::read_link(config).unwrap(), target);
    let revision: Revision = "main".parse().unwrap();
    assert_eq!(world.client().cache().snapshot(&REPO.parse().unwrap(), &revision).unwrap(), pulled.folder);
    for skipped in ["pytorch_model.bin", "model.onnx"] {
        assert_eq!(world.hub.downloads(skipped), 0, "{skipped}");
    }
}

#[test]
fn pickled_shards_come_where_there_are_no_safetensors_and_are_listed_as_such() {
    let world = World::new();
    let pickled = |repo: &str| {
        let found = world.client().cache().repo(&repo.parse().unwrap()).unwrap();
        assert!(found.revisions[0].missing.is_empty());
        found.revisions[0].pickled
    };
    world.pull().unwrap();
    assert!(!pickled(REPO));
    let index = br#"{"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}"#;
    let shard = vec![7; 3000];
    world.hub.repo(
        "org/pickled",
        &[
            ("config.json", b"{}"),
            ("pytorch_model-00001-of-00001.bin", &shard),
            ("pytorch_model.bin.index.json", index),
            ("training_args.bin", b"x"),
        ],
    );
    let pulled = world.pull_told("org/pickled", "main", &Quiet).unwrap();
    assert_eq!(fs::read(pulled.folder.join("pytorch_model-00001-of-00001.bin")).unwrap(), shard);
    assert!(!pulled.folder.join("training_args.bin").exists());
    assert!(pickled("org/pickled"));
}

#[test]
fn without_symbolic_links_the_files_are_there_and_take_no_more_room() {
    let mut world = World::new();
    world.symlinks = false;
    let pulled = world.pull().unwrap();
    world.assert_whole();
    assert_eq!(world.pull().unwrap().fetched_bytes, 0);
    let (cache, repo, commit) =
        (world.client().cache().clone(), REPO.parse::<RepoId>().unwrap(), COMMIT.parse().unwrap());
    assert!(fs::read_link(pulled.folder.join(LARGE)).is_err());
    let findings = cache.verify(&repo, &commit, &Quiet).unwrap();
    assert!(findings.iter().all(|found| found.state == FileState::Good), "{findings:?}");
    // Damaged under both names, it is fetched anew under both.
    fs::write(world.blob_of(LARGE), vec![0; SIZE]).unwrap();
    assert_eq!(world.pull().unwrap().fetched_bytes, SIZE as u64);
    world.assert_whole();
    let removed = cache.remove(&repo, None).unwrap();
    assert_eq!(removed.freed_bytes, pulled.bytes);
}

#[test]
fn a_second_pull_fetches_nothing_and_mends_what_is_damaged() {
    let world = World::new();
    world.pull().unwrap();
    assert_eq!(world.pull().unwrap().fetched_bytes, 0);
    assert_eq!(world.hub.downloads(LARGE), 1);
    let mut bytes = fs::read(world.blob_of(LARGE)).unwrap();
    bytes[SIZE / 2] ^= 1;
    fs::write(world.blob_of(LARGE), bytes).unwrap();
    let (cache, repo) = (world.client().cache().clone(), REPO.parse::<RepoId>().unwrap());
    let damaged: Vec<_> = cache
        .verify(&repo, &COMMIT.parse().unwrap(), &Quiet)
        .unwrap()
        .into_iter()
        .filter(|found| found.state != FileState::Good)
        .collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].file, LARGE);
    let told = Told::default();
    assert_eq!(world.pull_told(REPO, "main", &told).unwrap().fetched_bytes, SIZE as u64);
    assert!(told.0.borrow()[0].starts_with("Damaged"), "{:?}", told.0);
    world.assert_whole();
}

#[test]
fn a_cut_connection_is_resumed_where_it_stopped() {
    let world = World::new();
    world.hub.faults(LARGE, &[Fault::Cut(300_000), Fault::Cut(100_000)]);
    let told = Told::default();
    let pulled = world.pull_told(REPO, "main", &told).unwrap();
    world.assert_whole();
    assert_eq!(told.0.borrow().len(), 2, "{:?}", told.0);
    assert!(told.0.borrow()[0].contains("300000 of 700000"), "{:?}", told.0);
    let ranges: Vec<_> = world.hub.requests().into_iter().filter(|r| r.cdn).filter_map(|r| r.range).collect();
    assert_eq!(ranges, ["bytes=300000-", "bytes=400000-"]);
    // No byte came twice.
    assert!(pulled.fetched_bytes < pulled.bytes);
}

#[test]
fn what_a_killed_process_left_is_resumed() {
    let world = World::new();
    let part = world.incomplete_of(LARGE);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    let bytes = &sharded(SIZE)[3].1;
    fs::write(&part, &bytes[..250_000]).unwrap();
    let hub = world.client();
    let plan = hub.plan(&REPO.parse().unwrap(), &"main".parse().unwrap()).unwrap();
    let large = plan.files.last().unwrap();
    assert_eq!((large.name.as_str(), large.have), (LARGE, 250_000));
    hub.fetch(&plan, &Quiet).unwrap();
    world.assert_whole();
    let ranges: Vec<_> = world.hub.requests().into_iter().filter(|r| r.cdn).filter_map(|r| r.range).collect();
    assert_eq!(ranges, ["bytes=250000-"]);
}

#[test]
fn what_was_left_damaged_or_too_long_is_fetched_anew() {
    for left in [vec![7; 250_000], vec![7; SIZE], vec![7; SIZE + 1]] {
        let world = World::new();
        let part = world.incomplete_of(LARGE);
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(&part, &left).unwrap();
        world.pull().unwrap();
        world.assert_whole();
    }
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let world = World::new();
    world.hub.faults(LARGE, &[Fault::Cut(300_000), Fault::NoRange]);
    let told = Told::default();
    world.pull_told(REPO, "main", &told).unwrap();
    world.assert_whole();
    assert!(told.0.borrow().contains(&"Lost(300000)".to_owned()), "{:?}", told.0);
}

#[test]
fn a_server_without_ranges_that_always_cuts_is_given_up() {
    let world = World::new();
    // A server that cuts knows no ranges here: each attempt starts anew and comes no further.
    let cuts = [Fault::Cut(300_000)].into_iter().chain((0..20).map(|_| Fault::CutWithoutRange(300_000)));
    world.hub.faults(LARGE, &cuts.collect::<Vec<_>>());
    world.refused(REPO, "main", HubErrorKind::Network, &[LARGE, "300000 of 700000", "4 times"]);
}

#[test]
fn a_stalled_connection_is_given_up_and_resumed() {
    let world = World::new();
    world.hub.faults(LARGE, &[Fault::Stall(100_000, Duration::from_secs(20))]);
    let told = Told::default();
    world.pull_told(REPO, "main", &told).unwrap();
    world.assert_whole();
    assert!(told.0.borrow()[0].contains("100000 of 700000"), "{:?}", told.0);
}

#[test]
fn what_passes_is_tried_again_and_what_stays_is_an_error() {
    let world = World::new();
    let wait = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    let passing =
        [Fault::Status(503, Vec::new()), Fault::Status(429, wait("0")), Fault::Status(500, Vec::new())];
    world.hub.faults("config.json", &passing);
    world.pull().unwrap();
    world.assert_whole();

    let world = World::new();
    world.hub.faults(LARGE, &vec![Fault::Status(503, Vec::new()); 9]);
    world.refused(REPO, "main", HubErrorKind::Network, &[LARGE, "503", "4 times", "same command again"]);
    let world = World::new();
    for header in [("retry-after", "86400".to_owned()), ("ratelimit", "\"resolvers\";r=0;t=86400".to_owned())]
    {
        world.hub.faults(LARGE, &[Fault::Status(429, vec![header])]);
        world.refused(REPO, "main", HubErrorKind::Network, &[LARGE, "429", "86400 s", "HF_TOKEN"]);
    }
}

#[test]
fn other_bytes_than_announced_are_removed_and_named() {
    let world = World::new();
    world.hub.faults(LARGE, &[Fault::Corrupt]);
    let expected = digest_of(LARGE).to_string();
    world.refused(REPO, "main", HubErrorKind::Checksum, &[LARGE, &expected, "removed", "again"]);
    assert!(!world.incomplete_of(LARGE).exists() && !world.blob_of(LARGE).exists());
    world.hub.faults(LARGE, &[Fault::Longer]);
    world.refused(REPO, "main", HubErrorKind::Checksum, &[LARGE, "700000 bytes", "sends more"]);
    assert!(!world.incomplete_of(LARGE).exists() && !world.blob_of(LARGE).exists());
    world.pull().unwrap();
    world.assert_whole();
}

#[test]
fn a_body_that_stays_short_is_an_error() {
    let world = World::new();
    world.hub.faults("tokenizer.json", &vec![Fault::Cut(0); 9]);
    world.refused(REPO, "main", HubErrorKind::Network, &["tokenizer.json", "0 of 2 bytes"]);
}

#[test]
fn a_gated_repository_says_how_to_get_in() {
    let mut world = World::new();
    world.hub.change(REPO, |repo| (repo.gated, repo.token) = (true, Some("hf_good".to_owned())));
    let page = format!("{}/{REPO}", world.hub.endpoint());
    world.refused(REPO, "main", HubErrorKind::Gated, &[&page, "licence", "HF_TOKEN", "hf auth login"]);
    world.token = Some("hf_other");
    let error = world.refused(REPO, "main", HubErrorKind::Gated, &[&page, "accept its licence"]);
    assert!(!error.to_string().contains("hf_other"), "{error}");
    assert_eq!(world.hub.downloads(LARGE), 0);
    world.token = Some("hf_good");
    world.pull().unwrap();
    world.assert_whole();
    // The other host, which the hub sends to, never saw the token.
    let requests = world.hub.requests();
    assert!(requests.iter().any(|request| request.cdn));
    assert!(requests.iter().all(|request| !request.cdn || request.authorization.is_none()));
}

#[test]
fn a_private_repository_and_a_bad_token_are_told_apart() {
    let mut world = World::new();
    world.hub.change(REPO, |repo| repo.token = Some("hf_good".to_owned()));
    world.refused(REPO, "main", HubErrorKind::Gated, &[REPO, "private", "HF_TOKEN"]);
    world.token = Some("hf_bad");
    let error =
        world.refused(REPO, "main", HubErrorKind::Refused, &[REPO, "refuses access", "right to read"]);
    assert!(!error.to_string().contains("hf_bad"), "{error}");
}

#[test]
fn what_does_not_exist_is_named() {
    let mut world = World::new();
    world.refused("org/other", "main", HubErrorKind::Gated, &["org/other", "does not exist", "spelling"]);
    world.token = Some("hf_any");
    world.refused("org/other", "main", HubErrorKind::NotFound, &["no repository org/other", "spelling"]);
    world.refused(REPO, "v9", HubErrorKind::NotFound, &[REPO, "\"v9\"", "/commits"]);
    world
        .hub
        .faults("config.json", &[Fault::Status(404, vec![("x-error-code", "EntryNotFound".to_owned())])]);
    world.refused(REPO, "main", HubErrorKind::NotFound, &["config.json", REPO]);
    world.hub.repo("org/other-format", &[("config.json", b"{}"), ("model.gguf", b"x")]);
    world.refused("org/other-format", "main", HubErrorKind::Unsuitable, &["model.gguf", "--revision"]);
}

#[test]
fn a_mirror_without_sizes_is_asked_file_by_file() {
    let world = World::new();
    world.hub.change(REPO, |repo| repo.bare = true);
    world.pull().unwrap();
    world.assert_whole();
    let heads = world.hub.requests().iter().filter(|request| request.method == "HEAD").count();
    assert_eq!(heads, 6);
}

#[test]
fn a_renamed_repository_is_followed_on_the_same_host() {
    let mut world = World::new();
    world.token = Some("hf_any");
    let info = "/api/models/old/name/revision/main";
    world.hub.redirect(info, &format!("/api/models/{REPO}/revision/main"));
    for (name, _) in sharded(SIZE) {
        let to = format!("/{REPO}/resolve/{COMMIT}/{name}");
        world.hub.redirect(&format!("/old/name/resolve/{COMMIT}/{name}"), &to);
    }
    let pulled = world.pull_told("old/name", "main", &Quiet).unwrap();
    assert!(pulled.folder.ends_with(format!("models--old--name/snapshots/{COMMIT}")));
    world.hub.redirect("/api/models/round/trip/revision/main", "/api/models/round/trip/revision/main");
    world.refused("round/trip", "main", HubErrorKind::Answer, &["5 redirects"]);
}

#[test]
fn what_does_not_fit_is_refused_in_advance() {
    let world = World::new();
    let hub = world.client().with_free_space(|_| Ok(5_000));
    let plan = hub.plan(&REPO.parse().unwrap(), &"main".parse().unwrap()).unwrap();
    let error = hub.check_room(&[plan]).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Disk);
    for part in ["703 kB", "5.0 kB", "--force", "HF_HOME"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(world.hub.downloads(LARGE), 0);
    world.hub.change(REPO, |repo| repo.claimed.extend([(LARGE.to_owned(), 1 << 40)]));
    world.refused(REPO, "main", HubErrorKind::Answer, &[LARGE, "1.1 TB"]);
    world.hub.change(REPO, |repo| {
        repo.claimed.extend(repo.files.keys().map(|name| (name.clone(), u64::MAX / 2)));
    });
    world.refused(REPO, "main", HubErrorKind::Answer, &["claims"]);
}

/// The device has no room, whatever is written to it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_what_came_before_is_kept() {
    let world = World::new();
    let part = world.incomplete_of(LARGE);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let shown = part.display().to_string();
    world.refused(
        REPO,
        "main",
        HubErrorKind::Disk,
        &["disk is full", &shown, "cluegate models remove", "again"],
    );
    assert!(world.blob_of("model-00001-of-00002.safetensors").is_file());
    fs::remove_file(&part).unwrap();
    world.pull().unwrap();
    world.assert_whole();
}

#[test]
fn hostile_names_leave_no_trace() {
    let world = World::new();
    let config: (&str, &[u8]) = ("config.json", b"{}");
    for name in ["../evil.safetensors", "/etc/evil", "a/../../evil", "..\\evil"] {
        world.hub.repo("org/evil", &[config, ("model.safetensors", b"x"), (name, b"evil")]);
        world.refused("org/evil", "main", HubErrorKind::Answer, &["nothing of this repository is fetched"]);
    }
    let index = br#"{"weight_map":{"a":"../../../evil.safetensors"}}"#;
    world.hub.repo("org/evil", &[config, ("model.safetensors.index.json", index)]);
    world.refused("org/evil", "main", HubErrorKind::Answer, &["index.json", "evil"]);
    assert_eq!(world.hub.downloads("evil"), 0);
    assert!(!world.folder.path().join("evil.safetensors").exists());
}

#[test]
fn a_link_in_a_circle_is_replaced() {
    let world = World::new();
    let snapshot = world.root().join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("config.json", snapshot.join("config.json")).unwrap();
    world.pull().unwrap();
    world.assert_whole();
}

#[test]
fn without_the_network_the_cache_is_enough_or_the_error_says_what_is_missing() {
    let mut world = World::new();
    world.offline = true;
    world.refused(REPO, "main", HubErrorKind::Offline, &["HF_HUB_OFFLINE", "is not in"]);
    world.offline = false;
    world.pull().unwrap();
    let asked = world.hub.requests().len();
    world.offline = true;
    for revision in ["main", COMMIT] {
        let pulled = world.pull_told(REPO, revision, &Quiet).unwrap();
        assert_eq!((pulled.commit.as_str(), pulled.fetched_bytes), (COMMIT, 0));
    }
    fs::write(world.blob_of(LARGE), vec![0; SIZE]).unwrap();
    world.refused(REPO, "main", HubErrorKind::Offline, &[LARGE, "damaged"]);
    world.refused(REPO, "main", HubErrorKind::Offline, &[LARGE, "lacks"]);
    assert_eq!(world.hub.requests().len(), asked);
}

#[test]
fn a_revision_is_pinned_and_another_commit_refused() {
    let world = World::new();
    let pulled = world.pull_told(REPO, "refs/pr/3", &Quiet).unwrap();
    assert_eq!(pulled.commit.as_str(), COMMIT);
    assert_eq!(fs::read_to_string(world.root().join("refs/refs/pr/3")).unwrap(), COMMIT);
    let other = "1".repeat(40);
    world.refused(REPO, &other, HubErrorKind::NotFound, &[&other]);
}

#[test]
fn several_pulls_at_once_fetch_every_file_once() {
    let world = World::new();
    let results: Vec<_> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| world.pull())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    world.assert_whole();
    for (name, _) in sharded(SIZE) {
        assert!(world.hub.downloads(name) <= 1, "{name}");
    }
}

#[test]
fn nobody_there_is_an_error_of_the_network() {
    let world = World::new();
    let settings = Settings {
        cache: world.folder.path().join("hub"),
        // Nothing listens on port 1.
        endpoint: "http://127.0.0.1:1".to_owned(),
        token: None,
        offline: false,
        symlinks: true,
        progress: false,
        trust: cluegate_hub::Trust::default(),
    };
    let limits = Limits { backoff: Duration::from_millis(1), attempts: 2, ..Limits::default() };
    let error =
        Hub::new(&settings, limits).plan(&REPO.parse().unwrap(), &"main".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Network);
    assert!(
        error.to_string().contains("127.0.0.1:1") && error.to_string().contains("HF_ENDPOINT"),
        "{error}"
    );
}

/// Both ways, with the real `huggingface_hub`. Needs a Python that has it: name it in `CLUEGATE_HF_PYTHON`.
#[test]
fn huggingface_hub_reads_what_we_fetch_and_we_read_what_it_fetches() {
    let Some(python) = std::env::var_os("CLUEGATE_HF_PYTHON") else {
        eprintln!("skipped: CLUEGATE_HF_PYTHON names no Python with huggingface_hub");
        return;
    };
    let script = r#"
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
way, repo, commit, *files = sys.argv[1:]
if way == "read":
    folder = snapshot_download(repo, local_files_only=True)
    assert folder.endswith(commit), folder
    for name in files:
        for revision in ("main", commit):
            open(hf_hub_download(repo, name, revision=revision, local_files_only=True), "rb").read()
    info = scan_cache_dir()
    assert not info.warnings, info.warnings
    [found] = info.repos
    [revision] = found.revisions
    assert (found.repo_id, revision.commit_hash, revision.refs) == (repo, commit, {"main"}), revision
    assert {file.file_name for file in revision.files} == set(files), revision.files
else:
    for name in files:
        hf_hub_download(repo, name)
"#;
    let run = |world: &World, way: &str| {
        let wanted = sharded(SIZE).into_iter().map(|(name, _)| name);
        let files: Vec<_> =
            wanted.filter(|name| !name.ends_with(".bin") && !name.ends_with(".onnx")).collect();
        let mut command = std::process::Command::new(&python);
        command.args(["-c", script, way, REPO, COMMIT]).args(files);
        command.env("HF_HOME", world.folder.path()).env("HF_ENDPOINT", world.hub.endpoint());
        command.env_remove("HF_HUB_CACHE").env("NO_PROXY", "127.0.0.1").env("HF_HUB_DISABLE_XET", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let ours = World::new();
    ours.pull().unwrap();
    run(&ours, "read");

    let mut theirs = World::new();
    run(&theirs, "fetch");
    theirs.assert_whole();
    theirs.offline = true;
    assert_eq!(theirs.pull().unwrap().fetched_bytes, 0);
    let (cache, repo) = (theirs.client().cache().clone(), REPO.parse::<RepoId>().unwrap());
    let findings = cache.verify(&repo, &COMMIT.parse().unwrap(), &Quiet).unwrap();
    assert!(
        findings.len() == 6 && findings.iter().all(|found| found.state == FileState::Good),
        "{findings:?}"
    );
    assert_eq!(cache.repos().unwrap().len(), 1);
    cache.remove(&repo, None).unwrap();
}
