//! Builds the plugins that the tests open: the examples in Rust, and those in C against the header.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cluegate_perception::Picture;
use cluegate_plugin_host::{Plugin, Search, Spec};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Where built plugins lie; kept between runs.
fn place() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugins")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The folder of the example plugins, built once a process.
pub(crate) fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(HERE).join("../../plugins/examples/Cargo.toml");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--offline", "--manifest-path"]).arg(workspace);
        run(cargo.arg("--target-dir").arg(place()));
        place().join("release")
    })
}

/// Compiles a C file of the tests' data into a library of this name.
pub(crate) fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let data = Path::new(HERE).join("tests/data");
    let out = folder.join(format!("lib{name}.so"));
    let include = match source.rsplit_once('/') {
        Some((own, _)) => data.join(own),
        None => Path::new(HERE).join("../abi/include"),
    };
    let mut cc = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
    cc.args(["-std=c11", "-Wall", "-Wextra", "-g", "-O1", "-shared", "-fPIC"]).arg("-I").arg(include);
    run(cc.arg(data.join(source)).args(flags).arg("-o").arg(&out));
    out
}

/// A search in these folders that allows everything.
pub(crate) fn search(folder: &Path) -> Search {
    Search::new(vec![folder.to_path_buf()], []).allowing_all(true)
}

pub(crate) fn spec(library: &str, config: Value) -> Spec {
    let Value::Object(config) = config else { panic!("{config}") };
    Spec { config, deadline: Duration::from_secs(60), ..Spec::new(library, library) }
}

/// An unruly plugin that does this.
pub(crate) fn unruly(does: &str) -> Spec {
    spec("unruly", json!({ "does": does }))
}

/// An example in this process.
pub(crate) fn open(spec: Spec) -> Plugin {
    Plugin::open(spec, &search(examples())).unwrap()
}

/// A picture of one colour with a white pixel at (3, 1).
pub(crate) fn picture(colour: [u8; 3]) -> Picture {
    let mut pixels = RgbImage::from_pixel(24, 16, Rgb(colour));
    pixels.put_pixel(3, 1, Rgb([255; 3]));
    Picture::new(pixels)
}
