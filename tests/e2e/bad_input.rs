//! Bad input: each kind has its own clear message and exit code 2, and the other pictures of the call are judged.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use cluegate::mini::Style;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Frame, ImageEncoder, ImageFormat, Rgba, RgbaImage};
use serde_json::Value;

use crate::support::{Run, Scenes, command, finish, folder, judge, run};

const CMYK: &[u8] = include_bytes!("../../src/perception/tests/cmyk.jpg");

/// A safe scene in every bad form.
struct BadFiles {
    folder: tempfile::TempDir,
    good: PathBuf,
}

impl BadFiles {
    fn new() -> Self {
        let (scenes, folder) = (Scenes::new(), folder());
        let scene = scenes.pair("cat", "tree", false);
        let pixels = scenes.draw(&scene, Style::World);
        let files = Self { good: scenes.save(&scene, folder.path(), "good.png"), folder };
        let png = fs::read(&files.good).expect("a file");
        files.write("text.png", b"this is no picture");
        files.write("truncated.png", &png[..png.len() / 2]);
        files.write("empty.png", b"");
        files.write("cmyk.jpg", CMYK);
        files.write("bomb.png", &claiming(&png, 60_000));
        files.write("animated.gif", &animation());
        files.write("rotated.jpg", &rotated(&pixels));
        let deep = DynamicImage::from(pixels.clone()).to_rgb16();
        files.write("deep.png", &encoded(deep.into()));
        let mut glass = DynamicImage::from(pixels).to_rgba8();
        glass.put_pixel(3, 3, Rgba([255, 255, 255, 120]));
        files.write("glass.png", &encoded(glass.into()));
        fs::create_dir(files.path("folder")).expect("a folder");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a file");
    }

    fn judge(&self, options: &[&str], names: &[&str]) -> Run {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        judge(options, &paths.iter().map(AsRef::as_ref).collect::<Vec<&Path>>())
    }
}

fn encoded(picture: DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("a PNG");
    bytes
}

/// The same PNG with a header that claims another size; its checksum is right, its data are too few.
fn claiming(png: &[u8], edge: u32) -> Vec<u8> {
    let mut bomb = png.to_vec();
    bomb[16..20].copy_from_slice(&edge.to_be_bytes());
    bomb[20..24].copy_from_slice(&edge.to_be_bytes());
    let checksum = !bomb[12..29].iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
    });
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    bomb
}

fn animation() -> Vec<u8> {
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new(&mut gif);
    for shade in [0, 200] {
        encoder
            .encode_frame(Frame::new(RgbaImage::from_pixel(16, 16, Rgba([shade, 0, 0, 255]))))
            .expect("a frame");
    }
    drop(encoder);
    gif
}

/// A JPEG whose EXIF data say that it stands on its head.
fn rotated(pixels: &image::RgbImage) -> Vec<u8> {
    let tag = [0x01, 0x12, 0x00, 0x03, 0, 0, 0, 1, 0, 3, 0, 0];
    let exif = [&b"MM\0*\0\0\0\x08\0\x01"[..], &tag, &[0, 0, 0, 0]].concat();
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 92);
    encoder.set_exif_metadata(exif).expect("metadata");
    encoder.encode_image(pixels).expect("a JPEG");
    jpeg
}

#[track_caller]
fn assert_bad(line: &Value, needed: &str) {
    assert_eq!(line["verdict"], "error", "{line}");
    assert_eq!(line["reason"], "bad-input", "{line}");
    assert_eq!(
        (&line["violated"], &line["rules"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{line}"
    );
    let (message, image) =
        (line["message"].as_str().expect("a message"), line["image"].as_str().expect("a name"));
    assert!(message.contains(needed), "expected {needed:?}: {message}");
    assert!(!image.is_empty() && !message.contains(image), "the line names the file once: {line}");
}

#[test]
fn each_bad_file_has_its_own_message_and_the_others_are_judged() {
    let files = BadFiles::new();
    let cases = [
        ("text.png", "not an image: expected a PNG, JPEG, WebP, GIF or BMP file"),
        ("truncated.png", "the PNG file is truncated"),
        ("empty.png", "the file is empty"),
        ("animated.gif", "the GIF file is animated"),
        ("good.png", ""),
        ("deep.png", "16 bits a channel; expected 8"),
        ("cmyk.jpg", "CMYK colours"),
        ("rotated.jpg", "an EXIF orientation tag (3)"),
        ("glass.png", "transparent pixels"),
        ("bomb.png", "60000 x 60000 pixels, more than the 40000000 allowed"),
        ("folder", "is a folder; expected a picture file"),
        ("missing.png", "No such file"),
        ("good.png/inner.png", "Not a directory"),
        ("good.png", ""),
    ];
    let lines = files.judge(&[], &cases.map(|(name, _)| name)).expect(2).lines();
    assert_eq!(lines.len(), cases.len());
    for (line, (_, needed)) in lines.iter().zip(cases) {
        if needed.is_empty() {
            assert_eq!(line["verdict"], "safe", "{line}");
        } else {
            assert_bad(line, needed);
        }
    }
    let text =
        finish(command().arg("judge").args([files.path("empty.png"), files.path("good.png")])).expect(2);
    assert!(text.stdout.contains("empty.png: error (bad-input)"), "{}", text.stdout);
    assert!(text.stdout.contains("good.png: safe"), "{}", text.stdout);
}

#[test]
fn an_errors_line_has_every_key_of_the_contract() {
    let files = BadFiles::new();
    let lines = files.judge(&[], &["good.png", "empty.png"]).expect(2).lines();
    for key in ["image", "verdict", "violated", "rules", "revision", "timings_ms", "passes"] {
        assert!(lines.iter().all(|line| line.get(key).is_some()), "no {key}: {}", lines[1]);
    }
    assert_eq!(lines[0]["revision"], lines[1]["revision"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_no_text_is_a_name_all_the_same() {
    use std::os::unix::ffi::OsStrExt as _;
    let files = BadFiles::new();
    let odd = files.folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.png"));
    fs::rename(files.path("good.png"), &odd).expect("a new name");
    assert_eq!(judge(&[], &[&odd]).expect(0).lines()[0]["verdict"], "safe");
}

#[test]
fn an_error_stands_above_a_violation_in_the_exit_code() {
    let (files, scenes) = (BadFiles::new(), Scenes::new());
    scenes.save(&scenes.pair("man", "knife", true), files.folder.path(), "armed.png");
    let lines = files.judge(&[], &["armed.png", "empty.png"]).expect(2).lines();
    assert_eq!(lines[0]["violated"], serde_json::json!(["armed"]));
    assert_bad(&lines[1], "empty");
}

#[test]
fn byte_and_pixel_limits_are_the_callers() {
    let files = BadFiles::new();
    let [line] =
        files.judge(&["--max-bytes", "100"], &["good.png"]).expect(2).lines().try_into().expect("one");
    assert_bad(&line, "more than the 100 allowed");
    let [line] =
        files.judge(&["--max-pixels", "50175"], &["good.png"]).expect(2).lines().try_into().expect("one");
    assert_bad(&line, "224 x 224 pixels, more than the 50175 allowed");
    files.judge(&["--max-pixels", "50176"], &["good.png"]).expect(0);
}

#[test]
fn what_depends_on_the_viewer_is_converted_on_request() {
    let files = BadFiles::new();
    let converted = files.judge(&["--convert"], &["deep.png", "glass.png", "animated.gif"]).expect(2).lines();
    assert_eq!(converted[0]["verdict"], "safe", "{}", converted[0]);
    assert_eq!(converted[1]["verdict"], "safe", "{}", converted[1]);
    assert_bad(&converted[2], "animated");
    // A cat on its head and a patch of colour are no scenes, but they are pictures.
    let forced = files.judge(&["--convert", "--force"], &["rotated.jpg", "cmyk.jpg"]);
    assert!(forced.code < 2, "{forced:#?}");
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = BadFiles::new();
    let secret = files.path("good.png");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("permissions");
    if fs::File::open(&secret).is_ok() {
        eprintln!("skipped: this user may read every file; good.png/inner.png above stands for it");
        return;
    }
    let lines = files.judge(&[], &["good.png"]).expect(2).lines();
    assert_bad(&lines[0], "Permission denied");
}

#[test]
fn a_faulty_constitution_is_refused_with_its_line() {
    let files = BadFiles::new();
    let rule = "name = \"mine\"\n[[rule]]\nid = \"armed\"\ntext = \"No weapons.\"\nobjectiveness = 10\nseverity = \"low\"\n";
    let chain = "[[rule.precondition]]\nany = [{ statement = \"a weapon is visible\" }]\n";
    let cases = [
        (
            format!("{rule}severty = \"high\"\n{chain}"),
            ["mine.toml:7", "`severty`", "did you mean `severity`?"],
        ),
        (rule.to_owned(), ["mine.toml", "[[rule.precondition]]", "`armed`"]),
        (
            format!("{rule}[[rule.precondition]]\nany = []\n"),
            ["mine.toml", "at least one statement", "`armed`"],
        ),
        (format!("{rule}[[rule.precondition]\n"), ["mine.toml:7", "TOML", "column"]),
        ("name = \"mine\"\n".to_owned(), ["mine.toml", "[[rule]]", "every picture safe"]),
    ];
    for (text, needed) in cases {
        files.write("mine.toml", text.as_bytes());
        let file = files.path("mine.toml");
        let file = file.to_str().expect("a name");
        let judged = files.judge(&["--constitution", file], &["good.png"]).expect(2);
        let checked = run(["constitution", "check", file]).expect(2);
        for run in [judged, checked] {
            assert_eq!(run.stdout, "");
            assert!(needed.iter().all(|word| run.stderr.contains(word)), "{needed:?}: {}", run.stderr);
        }
    }
    let unknown = files.judge(&["--constitution", "scnee"], &["good.png"]).expect(2);
    assert!(
        unknown.stderr.contains("scnee") && unknown.stderr.contains("scene, general"),
        "{}",
        unknown.stderr
    );
}
