//! What a client asks for: `types/image_generate_params.py` and `types/image_edit_params.py`. A parameter that would be
//! ignored is refused.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::answer::Refusal;
use crate::client::subject_of;
use crate::pictures::Format;
use crate::request::{Dialect, Native, PictureRequest};

/// The parameters of both routes.
const COMMON: [&str; 14] = [
    "prompt",
    "background",
    "complexity",
    "model",
    "n",
    "output_compression",
    "output_format",
    "partial_images",
    "quality",
    "response_format",
    "safety_identifier",
    "size",
    "stream",
    "user",
];
/// What only GIF and SVG output have, and a drawing over the picture: the gate judges, and releases, pixels of one
/// picture.
const UNSUPPORTED: [&str; 4] = ["frame_count", "frame_duration_ms", "svg", "markup"];

/// Which route is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// From a prompt.
    Generation,
    /// From pictures and a prompt.
    Edit,
}

impl Task {
    /// What its stream's events are called.
    pub(super) fn event(self, what: &str) -> String {
        let task = match self {
            Self::Generation => "image_generation",
            Self::Edit => "image_edit",
        };
        format!("{task}.{what}")
    }

    /// Parameters that it alone has.
    fn own(self) -> &'static [&'static str] {
        match self {
            Self::Generation => &["moderation", "style"],
            Self::Edit => &["input_fidelity"],
        }
    }
}

/// How a picture is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// In the answer.
    Base64,
    /// As an address.
    Url,
}

/// What the answer looks like.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) task: Task,
    pub(super) format: Format,
    pub(super) delivery: Delivery,
    /// Most partial images of each picture, if the answer is a stream.
    pub(super) partial_images: Option<u32>,
    pub(super) quality: Option<String>,
    pub(super) safety_identifier: Option<String>,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: PictureRequest,
    pub(super) shape: Shape,
}

/// Reads the parameters. An upstream that speaks the same language (`same`) is also told what others have no place for:
/// who asks, how many previews, and that the picture is to be opaque, which every released picture is.
pub(super) fn read(fields: &Map<String, Value>, task: Task, same: bool) -> Result<Asked, Refusal> {
    refuse_unknown(fields, task)?;
    let prompt = text(fields, "prompt")?.unwrap_or_default();
    if prompt.is_empty() {
        return Err(Refusal::param("prompt", "expected what to draw, got nothing"));
    }
    let format = format(fields)?;
    let partial_images = partial_images(fields)?;
    let delivery = match choice(fields, "response_format", &["b64_json", "url"])? {
        Some("url") if partial_images.is_some() => {
            let message = "a stream's events hold `b64_json` only; leave it out, or do not stream";
            return Err(Refusal::param("response_format", message));
        }
        Some("url") => Delivery::Url,
        _ => Delivery::Base64,
    };
    let quality = ["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"];
    let quality = choice(fields, "quality", &quality)?.filter(|quality| *quality != "auto");
    // A non-empty `safety_identifier` takes precedence.
    let identifier = text(fields, "safety_identifier")?.filter(|identifier| !identifier.is_empty());
    let user = text(fields, "user")?;
    let mut native = Map::new();
    let mut tell = |name: &str, value: Option<Value>| {
        native.extend(value.map(|value| (name.to_owned(), value)));
    };
    tell("quality", quality.map(Value::from));
    tell("style", choice(fields, "style", &["vivid", "natural"])?.map(Value::from));
    let moderation = choice(fields, "moderation", &["auto", "low"])?.filter(|level| *level != "auto");
    tell("moderation", moderation.map(Value::from));
    tell("complexity", choice(fields, "complexity", &["low", "medium", "high"])?.map(Value::from));
    tell("input_fidelity", choice(fields, "input_fidelity", &["low", "high"])?.map(Value::from));
    let opaque = opaque(fields)?;
    if same {
        tell("background", opaque.then(|| json!("opaque")));
        tell("safety_identifier", identifier.map(Value::from));
        tell("user", user.map(Value::from));
        tell("partial_images", Some(json!(partial_images.unwrap_or(0))));
    }
    let request = PictureRequest {
        prompt: prompt.to_owned(),
        count: integer(fields, "n", 1..=10)?.unwrap_or(1),
        size: size(fields)?,
        model: text(fields, "model")?.map(str::to_owned),
        subject: subject_of(identifier.or(user)),
        native: (!native.is_empty()).then_some(Native { dialect: Dialect::OpenAi, parameters: native }),
        ..PictureRequest::default()
    };
    let shape = Shape {
        task,
        format,
        delivery,
        partial_images,
        quality: quality.map(str::to_owned),
        safety_identifier: identifier.or(user).filter(|name| !name.is_empty()).map(str::to_owned),
    };
    Ok(Asked { request, shape })
}

fn refuse_unknown(fields: &Map<String, Value>, task: Task) -> Result<(), Refusal> {
    for name in fields.keys() {
        if UNSUPPORTED.contains(&name.as_str()) {
            return Err(Refusal::param(name, "this gate releases single pictures of pixels; leave it out"));
        }
        let mut known = COMMON.iter().chain(task.own());
        if !known.any(|known| known == name) {
            let known = [&COMMON, task.own()].concat().join(", ");
            let message = format!("unknown parameter, which would be ignored; known here: {known}");
            return Err(Refusal::param(name, message));
        }
    }
    Ok(())
}

/// How pictures are written. The gate writes them itself, whatever the upstream sends.
fn format(fields: &Map<String, Value>) -> Result<Format, Refusal> {
    let compression = integer(fields, "output_compression", 0..=100)?.unwrap_or(100);
    let format = choice(fields, "output_format", &["png", "jpeg", "webp"])?.unwrap_or("png");
    match (format, u8::try_from(compression).unwrap_or(100)) {
        ("jpeg", quality) => Ok(Format::Jpeg(quality.max(1))),
        ("webp", 100) => Ok(Format::WebP),
        ("png", 100) => Ok(Format::Png),
        (format, _) => {
            let message =
                format!("{format} is written without loss here: expected 100, or `output_format` jpeg");
            Err(Refusal::param("output_compression", message))
        }
    }
}

/// Most partial images of a picture; none if the answer is no stream.
fn partial_images(fields: &Map<String, Value>) -> Result<Option<u32>, Refusal> {
    let partial = integer(fields, "partial_images", 0..=3)?.unwrap_or(0);
    let stream = match fields.get("stream") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(stream)) => *stream,
        Some(_) => return Err(Refusal::param("stream", "expected true or false")),
    };
    if partial > 0 && !stream {
        return Err(Refusal::param(
            "partial_images",
            "there are none without `stream`: expected `stream` true",
        ));
    }
    Ok(stream.then_some(partial))
}

/// Whether the client insists on an opaque picture.
fn opaque(fields: &Map<String, Value>) -> Result<bool, Refusal> {
    match choice(fields, "background", &["auto", "opaque", "transparent"])? {
        Some("transparent") => {
            let message = "how a transparent picture looks depends on what lies behind it, so it cannot be judged; \
                           expected auto or opaque";
            Err(Refusal::param("background", message))
        }
        background => Ok(background == Some("opaque")),
    }
}

fn size(fields: &Map<String, Value>) -> Result<Option<(u32, u32)>, Refusal> {
    let Some(text) = text(fields, "size")?.filter(|size| *size != "auto") else { return Ok(None) };
    let side = |side: &str| {
        let digits = !side.is_empty() && side.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| side.parse().ok()).flatten().filter(|side: &u32| *side > 0)
    };
    let size = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    size.map(Some).ok_or_else(|| {
        Refusal::param("size", "expected auto, or width and height in pixels such as 1024x1024")
    })
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::param(name, "expected a string")),
    }
}

fn integer(
    fields: &Map<String, Value>,
    name: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, Refusal> {
    let value = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_u64().and_then(|value| u32::try_from(value).ok()),
    };
    value.filter(|value| range.contains(value)).map(Some).ok_or_else(|| {
        let message = format!("expected a whole number from {} to {}", range.start(), range.end());
        Refusal::param(name, message)
    })
}

fn choice<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    words: &[&str],
) -> Result<Option<&'a str>, Refusal> {
    match text(fields, name)? {
        Some(word) if !words.contains(&word) => {
            Err(Refusal::param(name, format!("expected {}", words.join(", "))))
        }
        word => Ok(word),
    }
}
