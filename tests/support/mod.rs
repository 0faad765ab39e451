//! What the end-to-end tests share: the real binary, folders that vanish, and pictures with known truth.

// Each test binary uses its own part.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cluegate::mini::{Object, SUITE_FILES, Scene, Style, World, render};
use cluegate::perception::Picture;
use image::RgbImage;
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test, without settings that the developer's shell may carry.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluegate"));
    for variable in [
        "CLUEGATE_MODELS",
        "CLUEGATE_STORE",
        "CLUEGATE_DEVICE",
        "RUST_LOG",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    command.env("CLUEGATE_CACHE_DIR", cache_folder());
    command.stdin(Stdio::null());
    command
}

/// What the binary keeps between runs lies here and not in the developer's home.
fn cache_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Its output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its output as one JSON object a line.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}: {self:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The same run, after it has been seen to end with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// Runs the binary to its end.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    finish(command().args(arguments))
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Run {
    let output = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Run {
        code: output.status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}", output.status)),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// `cluegate judge --format jsonl` on these files, with more options before them.
pub(crate) fn judge(options: &[&str], images: &[&Path]) -> Run {
    let mut command = command();
    command.args(["judge", "--format", "jsonl"]).args(options).args(images);
    finish(&mut command)
}

/// A folder that vanishes at the end of the test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Every file below `root`, sorted.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// Writes the embedded suite to `root`, without the generator where it is not needed.
pub(crate) fn write_suite(root: &Path, with_generator: bool) {
    let wanted = |path: &str| with_generator || !path.starts_with("generator/");
    for (path, bytes) in SUITE_FILES.iter().filter(|(path, _)| wanted(path)) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        fs::write(file, bytes).expect("a file");
    }
    if !with_generator {
        let sections =
            ["relevance", "detector", "judge"].map(|part| format!("[{part}]\nfolder = \"{part}\"\n"));
        fs::write(root.join("models.toml"), sections.concat()).expect("a models file");
    }
}

/// Scenes of which the truth is known.
pub(crate) struct Scenes {
    pub(crate) world: World,
}

impl Scenes {
    pub(crate) fn new() -> Self {
        Self { world: World::load().expect("the world is sound") }
    }

    /// An object in the middle of the picture's height.
    fn object(&self, name: &str, x: f32, size: f32) -> Object {
        let class = self.world.class(name).expect("a class of the world");
        Object { class, variant: 0, x, y: 112.0, size, flipped: false, angle: 0.0 }
    }

    /// Two large objects, touching or far apart, on the grass.
    pub(crate) fn pair(&self, subject: &str, object: &str, touching: bool) -> Scene {
        let objects = if touching {
            vec![self.object(subject, 92.0, 100.0), self.object(object, 136.0, 70.0)]
        } else {
            vec![self.object(subject, 58.0, 90.0), self.object(object, 174.0, 70.0)]
        };
        let scene = Scene { objects, place: 1 };
        assert!(scene.is_unambiguous(&self.world));
        scene
    }

    /// How the scene looks, 224 by 224 pixels.
    pub(crate) fn draw(&self, scene: &Scene, style: Style) -> RgbImage {
        render(&self.world, scene, self.world.picture_size, style, 11).expect("a picture")
    }

    /// Draws the scene in the world's own style to a PNG file of this name.
    pub(crate) fn save(&self, scene: &Scene, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        self.draw(scene, Style::World).save(&path).expect("a file");
        path
    }

    /// A picture for the library.
    pub(crate) fn picture(&self, scene: &Scene) -> Picture {
        Picture::new(self.draw(scene, Style::World))
    }
}

/// A picture of nothing in particular: each pixel drawn by a small generator of random numbers.
pub(crate) fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = 0x2545_F491_u32;
    RgbImage::from_fn(width, height, |_, _| {
        image::Rgb(std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        }))
    })
}
