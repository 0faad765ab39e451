//! The configuration of a model, as written and as used.

use std::collections::BTreeMap;

use cluegate_constitution::nearest;
use cluegate_perception::Picture;
use serde::Deserialize;
use toml::{Table, Value};

use crate::error::Result;
use crate::input;

/// Largest side of a model's input, in pixels.
const MAX_SIDE: u32 = 4096;

/// Most labels of a model.
const MAX_LABELS: usize = 100_000;

/// What a model takes and gives.
///
/// ```toml
/// model = "320n.onnx"            # relative to this file
/// sha256 = "c15d..."             # optional; of the model
///
/// [input]
/// tensor = "images"              # optional where the model has one input
/// layout = "nchw"                # or "nhwc"
/// channels = "rgb"               # or "bgr"
/// width = 320
/// height = 320
/// fit = "pad"                    # stretch, crop, stretch-crop or pad
/// edge = 256                     # for crop: the shorter edge before the crop; for stretch-crop: both
/// filter = "opencv-bilinear"     # nearest, bilinear, bicubic, lanczos (as Pillow), or opencv-bilinear
/// scale = 0.00392156862745098    # default 1/255
/// mean = [0, 0, 0]               # (level * scale - mean) / std, in the order of `channels`
/// std = [1, 1, 1]
///
/// [output]
/// tensor = "output0"             # optional where the model has one output
/// kind = "yolo"                  # scores, softmax, sigmoid or yolo
/// labels = ["CAT", "DOG"]
/// confidence = 0.25              # for yolo: the least of a box
/// overlap = 0.45                 # for yolo: of two boxes with a larger one (intersection over union) the surer stays
///
/// [unsafe]                       # the labels that make a picture unsafe, and from which score on
/// CAT = 0.5
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The model's file, relative to the configuration.
    pub model: String,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// How a picture becomes its input.
    pub input: InputConfig,
    /// What its output means.
    pub output: OutputConfig,
    /// For each label the score from which it makes a picture unsafe; none for those that do not.
    pub thresholds: Vec<Option<f32>>,
}

/// How a picture becomes a model's input.
#[derive(Debug, Clone, PartialEq)]
pub struct InputConfig {
    /// Name of the tensor.
    pub tensor: Option<String>,
    /// Order of its dimensions.
    pub layout: Layout,
    /// Whether blue comes first.
    pub bgr: bool,
    /// Width in pixels, 1 to 4096.
    pub width: u32,
    /// Height in pixels, 1 to 4096.
    pub height: u32,
    /// How a picture gets that size.
    pub fit: Fit,
    /// By what filter.
    pub filter: Resampling,
    /// Multiplies an 8-bit level.
    pub scale: f32,
    /// Is subtracted then, for each channel in the model's order.
    pub mean: [f32; 3],
    /// Divides then; positive.
    pub std: [f32; 3],
}

/// The order of a tensor's dimensions after the picture's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels, height, width.
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

/// How a picture gets a model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// To width and height, whatever its shape.
    Stretch,
    /// The shorter edge to this length, then the middle is cut out.
    Crop(u32),
    /// Both edges to this length, then the middle is cut out.
    StretchCrop(u32),
    /// Made a square with black at the right or the bottom, then stretched.
    Pad,
}

/// A filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// The pixel under the centre.
    Nearest,
    /// Triangle, widened when a picture is made smaller, as in Pillow.
    Bilinear,
    /// Cubic, widened likewise.
    Bicubic,
    /// Windowed sinc, widened likewise.
    Lanczos,
    /// Between the two nearest pixels whatever the scale, as `INTER_LINEAR` of OpenCV.
    OpencvBilinear,
}

/// What a model's output means.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// Name of the tensor.
    pub tensor: Option<String>,
    /// Its form.
    pub kind: OutputKind,
    /// Names of its classes, in order.
    pub labels: Vec<String>,
    /// Least score of a box, 0 to 1.
    pub confidence: f32,
    /// Largest intersection over union of two boxes that both stay, 0 to 1.
    pub overlap: f32,
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// A score for each label, 0 to 1.
    Scores,
    /// A logit for each label, of which one holds.
    Softmax,
    /// A logit for each label, each on its own.
    Sigmoid,
    /// Boxes as YOLOv8 gives them: `(1, 4 + labels, boxes)`, centre and size in pixels of the input, then scores.
    Yolo,
}

#[derive(Deserialize)]
struct RawInput {
    tensor: Option<String>,
    layout: Layout,
    channels: Channels,
    width: u32,
    height: u32,
    fit: RawFit,
    edge: Option<u32>,
    filter: Option<Resampling>,
    scale: Option<f32>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Channels {
    Rgb,
    Bgr,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum RawFit {
    Stretch,
    Crop,
    StretchCrop,
    Pad,
}

#[derive(Deserialize)]
struct RawOutput {
    tensor: Option<String>,
    kind: OutputKind,
    labels: Vec<String>,
    confidence: Option<f32>,
    overlap: Option<f32>,
}

const TOP: [&str; 5] = ["model", "sha256", "input", "output", "unsafe"];
const INPUT: [&str; 11] =
    ["tensor", "layout", "channels", "width", "height", "fit", "edge", "filter", "scale", "mean", "std"];
const OUTPUT: [&str; 5] = ["tensor", "kind", "labels", "confidence", "overlap"];

/// Why a configuration is refused.
type Refused<T> = std::result::Result<T, String>;

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it: no TOML, a key that is missing, unknown or has another kind of value, a number out of range, a
    /// label that is there twice or is not one of the model's.
    pub fn parse(text: &str) -> Refused<Self> {
        let mut table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
        known("", &table, &TOP)?;
        let model: String = take(&mut table, "model")?;
        if model.trim().is_empty() {
            return Err("`model` is blank, expected a file".to_owned());
        }
        let sha256 = table.remove("sha256").map(|value| checksum(&value)).transpose()?;
        let input = section(&mut table, "input", &INPUT)?;
        let output = section(&mut table, "output", &OUTPUT)?;
        let thresholds: BTreeMap<String, f32> = take(&mut table, "unsafe")?;
        let output = output_config(output)?;
        let thresholds = by_label(&output.labels, thresholds)?;
        Ok(Self { model, sha256, input: input_config(input)?, output, thresholds })
    }

    /// Shape and values of the model's input for a picture.
    ///
    /// # Errors
    /// A picture without pixels, or one more than 64 times as long as wide.
    pub fn input(&self, picture: &Picture) -> Result<(Vec<usize>, Vec<f32>)> {
        input::tensor(&self.input, picture.pixels())
    }
}

fn take<T: serde::de::DeserializeOwned>(table: &mut Table, key: &str) -> Refused<T> {
    let value = table.remove(key).ok_or_else(|| format!("no `{key}`"))?;
    value.try_into().map_err(|error| format!("`{key}`: {error}"))
}

fn section<T: serde::de::DeserializeOwned>(table: &mut Table, name: &str, keys: &[&str]) -> Refused<T> {
    if let Some(Value::Table(own)) = table.get(name) {
        known(&format!("[{name}] "), own, keys)?;
    }
    take(table, name)
}

fn known(place: &str, table: &Table, keys: &[&str]) -> Refused<()> {
    let Some(unknown) = table.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    let hint = nearest(unknown, keys.iter().copied())
        .map_or(String::new(), |key| format!("; did you mean `{key}`?"));
    Err(format!("{place}unknown key `{unknown}`{hint} (known: {})", keys.join(", ")))
}

fn checksum(value: &Value) -> Refused<String> {
    let text = value.as_str().unwrap_or_default().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(format!("`sha256` is {value}, expected 64 hexadecimal digits"))
    }
}

fn input_config(raw: RawInput) -> Refused<InputConfig> {
    for (name, side) in [("width", raw.width), ("height", raw.height), ("edge", raw.edge.unwrap_or(1))] {
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(format!("[input] `{name}` is {side}, expected 1 to {MAX_SIDE}"));
        }
    }
    let edge = || match raw.edge {
        Some(edge) if edge >= raw.width.max(raw.height) => Ok(edge),
        other => Err(format!(
            "[input] `edge` is {}, expected at least {}, of which the middle is cut out",
            other.map_or_else(|| "missing".to_owned(), |edge| edge.to_string()),
            raw.width.max(raw.height)
        )),
    };
    let fit = match raw.fit {
        RawFit::Crop => Fit::Crop(edge()?),
        RawFit::StretchCrop => Fit::StretchCrop(edge()?),
        _ if raw.edge.is_some() => return Err("[input] `edge` belongs to crop and stretch-crop".to_owned()),
        RawFit::Stretch => Fit::Stretch,
        RawFit::Pad => Fit::Pad,
    };
    let (scale, mean, std) =
        (raw.scale.unwrap_or(1.0 / 255.0), raw.mean.unwrap_or([0.0; 3]), raw.std.unwrap_or([1.0; 3]));
    let positive = |value: &f32| value.is_finite() && *value > 0.0;
    if !positive(&scale) || !std.iter().all(positive) || !mean.iter().all(|value| value.is_finite()) {
        return Err(format!(
            "[input] `scale` is {scale}, `mean` {mean:?}, `std` {std:?}; expected finite numbers, scale and std over 0"
        ));
    }
    Ok(InputConfig {
        tensor: raw.tensor,
        layout: raw.layout,
        bgr: raw.channels == Channels::Bgr,
        width: raw.width,
        height: raw.height,
        fit,
        filter: raw.filter.unwrap_or(Resampling::Bilinear),
        scale,
        mean,
        std,
    })
}

fn output_config(raw: RawOutput) -> Refused<OutputConfig> {
    if raw.labels.is_empty() || raw.labels.len() > MAX_LABELS {
        return Err(format!("[output] {} labels, expected 1 to {MAX_LABELS}", raw.labels.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) =
        raw.labels.iter().find(|label| label.trim().is_empty() || !seen.insert(label.as_str()))
    {
        return Err(format!("[output] the label {twice:?} is blank or there twice"));
    }
    if raw.kind != OutputKind::Yolo && (raw.confidence.is_some() || raw.overlap.is_some()) {
        return Err("[output] `confidence` and `overlap` belong to kind = \"yolo\"".to_owned());
    }
    let share = |name: &str, value: Option<f32>, default: f32| {
        let value = value.unwrap_or(default);
        let valid = (0.0..=1.0).contains(&value);
        if valid { Ok(value) } else { Err(format!("[output] `{name}` is {value}, expected 0 to 1")) }
    };
    Ok(OutputConfig {
        tensor: raw.tensor,
        kind: raw.kind,
        confidence: share("confidence", raw.confidence, 0.25)?,
        overlap: share("overlap", raw.overlap, 0.45)?,
        labels: raw.labels,
    })
}

fn by_label(labels: &[String], mut thresholds: BTreeMap<String, f32>) -> Refused<Vec<Option<f32>>> {
    if thresholds.is_empty() {
        return Err("[unsafe] names no label; nothing would ever be unsafe".to_owned());
    }
    if let Some((label, threshold)) = thresholds.iter().find(|(_, value)| !(0.0..=1.0).contains(*value)) {
        return Err(format!("[unsafe] `{label}` is {threshold}, expected a score of 0 to 1"));
    }
    let found = labels.iter().map(|label| thresholds.remove(label)).collect();
    match thresholds.keys().next() {
        None => Ok(found),
        Some(unknown) => {
            let hint = nearest(unknown, labels.iter().map(String::as_str));
            let hint = hint.map_or(String::new(), |label| format!("; did you mean `{label}`?"));
            Err(format!("[unsafe] `{unknown}` is no label of the model{hint}"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = r#"
        model = "m.onnx"
        [input]
        layout = "nhwc"
        channels = "bgr"
        width = 224
        height = 224
        fit = "stretch-crop"
        edge = 256
        [output]
        kind = "scores"
        labels = ["sfw", "nsfw"]
        [unsafe]
        nsfw = 0.5
    "#;

    #[test]
    fn what_is_written_is_what_is_used() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.input.fit, Fit::StretchCrop(256));
        assert_eq!(config.thresholds, [None, Some(0.5)]);
        assert!(config.input.bgr && config.input.filter == Resampling::Bilinear);
        for (name, text) in crate::SHIPPED {
            let config = Config::parse(text).unwrap();
            assert!(config.sha256.is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, says) in [
            ("channels", "chanels", "unknown key `chanels`; did you mean `channels`?"),
            ("nsfw = 0.5", "nfsw = 0.5", "`nfsw` is no label of the model; did you mean `nsfw`?"),
            ("nsfw = 0.5", "nsfw = 1.5", "`nsfw` is 1.5, expected a score of 0 to 1"),
            ("nsfw = 0.5", "", "[unsafe] names no label"),
            ("edge = 256", "edge = 200", "`edge` is 200, expected at least 224"),
            ("edge = 256", "", "`edge` is missing"),
            ("width = 224", "width = 0", "`width` is 0, expected 1 to 4096"),
            ("\"nsfw\"]", "\"sfw\"]", "the label \"sfw\" is blank or there twice"),
            ("kind = \"scores\"", "kind = \"score\"", "unknown variant `score`"),
            ("fit = \"stretch-crop\"", "fit = \"stretch\"", "`edge` belongs to crop"),
            ("model = \"m.onnx\"", "model = \"m.onnx\"\nsha256 = \"abc\"", "expected 64 hexadecimal digits"),
            ("edge = 256", "edge = 256\nstd = [1, 0, 1]", "scale and std over 0"),
        ] {
            let error = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in r#"(\[(input|output|unsafe)\]|\n|[a-z]{1,8} = |"[a-z0-9]{0,8}"|-?[0-9.e]{1,6}|\[|\]|,){0,40}"#
        ) {
            let _ = Config::parse(&text);
        }

        #[test]
        fn any_line_may_be_gone_or_doubled(at in 0usize..16, doubled in any::<bool>()) {
            let lines: Vec<&str> = GOOD.lines().collect();
            let at = at.min(lines.len() - 1);
            let changed: Vec<&str> = lines.iter().enumerate().flat_map(|(index, line)| {
                let times = if index != at { 1 } else if doubled { 2 } else { 0 };
                std::iter::repeat_n(*line, times)
            }).collect();
            let _ = Config::parse(&changed.join("\n"));
        }
    }
}
