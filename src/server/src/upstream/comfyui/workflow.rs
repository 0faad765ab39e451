//! Workflows with placeholders, for requests that come without one. A placeholder is a word such as `%seed%`; an input
//! that is nothing else gets the value itself, a text around it gets it as text.

use std::io::Cursor;
use std::path::Path;

use image::ImageReader;
use serde_json::{Map, Value, json};

use super::MAX_NODES;
use crate::comfyui::graph::{Graph, Output};
use crate::config::{ConfigError, UpstreamConfig};
use crate::request::PictureRequest;
use crate::upstream::{Order, UpstreamError, UpstreamErrorKind as Kind};

const TEXT_TO_IMAGE: &str = include_str!("workflows/txt2img.json");
const IMAGE_TO_IMAGE: &str = include_str!("workflows/img2img.json");
const INPAINT: &str = include_str!("workflows/inpaint.json");
/// Longest workflow file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The placeholders, and what each stands for.
const HOLES: [&str; 13] = [
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "guidance",
    "sampler",
    "scheduler",
    "model",
    "width",
    "height",
    "image",
    "mask",
    "strength",
];

/// What stands in where a request says nothing: the defaults of ComfyUI's own `KSampler` and `EmptyLatentImage`
/// (`nodes.py`), and A1111's of the strength.
const STEPS: u32 = 20;
const GUIDANCE: f64 = 8.0;
const SAMPLER: &str = "euler";
const SCHEDULER: &str = "normal";
const SIDE: u32 = 512;
const STRENGTH: f64 = 0.75;
/// Latents have an eighth of the picture's size.
const GRID: u32 = 8;

/// Samplers by the names that A1111 (`modules/sd_samplers_kdiffusion.py`) and stable-diffusion.cpp give them, with
/// ComfyUI's names (`comfy/samplers.py`).
const SAMPLERS: [(&str, &str); 18] = [
    ("euler a", "euler_ancestral"),
    ("euler_a", "euler_ancestral"),
    ("dpm++ 2m", "dpmpp_2m"),
    ("dpm++2m", "dpmpp_2m"),
    ("dpm++ sde", "dpmpp_sde"),
    ("dpm++ 2m sde", "dpmpp_2m_sde"),
    ("dpm++ 3m sde", "dpmpp_3m_sde"),
    ("dpm++ 2s a", "dpmpp_2s_ancestral"),
    ("dpm++2s_a", "dpmpp_2s_ancestral"),
    ("dpm2 a", "dpm_2_ancestral"),
    ("dpm2", "dpm_2"),
    ("dpm fast", "dpm_fast"),
    ("dpm adaptive", "dpm_adaptive"),
    ("lms", "lms"),
    ("heun", "heun"),
    ("unipc", "uni_pc"),
    ("ddim", "ddim"),
    ("lcm", "lcm"),
];
/// Schedules, likewise.
const SCHEDULERS: [(&str, &str); 4] = [
    ("automatic", SCHEDULER),
    ("sgm uniform", "sgm_uniform"),
    ("ddim", "ddim_uniform"),
    ("default", SCHEDULER),
];

/// A workflow with placeholders, of one picture.
#[derive(Debug, Clone)]
pub(super) struct Workflow {
    graph: Graph,
    holes: Vec<&'static str>,
    output: Output,
}

/// The workflows of an upstream.
#[derive(Debug, Clone)]
pub(super) enum Workflows {
    /// The operator's, for all requests.
    Own(Box<Workflow>),
    /// The shipped ones: from text, from a picture, from a picture and a mask.
    Shipped(Box<[Workflow; 3]>),
}

impl Workflows {
    /// Reads the configured workflow, or takes the shipped ones.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub(super) fn open(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        if let Some(path) = &config.workflow {
            let text = read(path)?;
            return Ok(Self::Own(Box::new(Workflow::parse(&text, &path.display().to_string())?)));
        }
        let shipped = |text| Workflow::parse(text, "the shipped workflow");
        Ok(Self::Shipped(Box::new([shipped(TEXT_TO_IMAGE)?, shipped(IMAGE_TO_IMAGE)?, shipped(INPAINT)?])))
    }

    /// The workflow for a request.
    pub(super) fn of(&self, request: &PictureRequest) -> &Workflow {
        match self {
            Self::Own(own) => own,
            Self::Shipped(shipped) => {
                let [text, image, inpaint] = &**shipped;
                match &request.source {
                    None => text,
                    Some(source) if source.mask.is_none() => image,
                    Some(_) => inpaint,
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |problem: String| ConfigError::Read { path: path.to_path_buf(), problem };
    let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(fail(format!("it has {size} bytes, more than {MAX_FILE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))
}

/// Names of the files on the server that hold a request's pictures.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    pub(super) image: Option<String>,
    pub(super) mask: Option<String>,
}

impl Workflow {
    /// Reads a workflow; `origin` says in errors where it came from.
    ///
    /// # Errors
    /// If it is no workflow of one picture with places for the prompt and the seed.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let refuse = |path: String, expected: &str, found: String| ConfigError::Value {
            origin: origin.to_owned(),
            path,
            expected: expected.to_owned(),
            found,
        };
        let json: Value = serde_json::from_str(text)
            .map_err(|e| refuse("the workflow".to_owned(), "JSON in ComfyUI's API form", e.to_string()))?;
        let graph = Graph::parse(&json, MAX_NODES).map_err(|faults| {
            let fault = faults
                .into_iter()
                .next()
                .map_or_else(String::new, |f| format!("{}: {}", f.message, f.details));
            refuse("the workflow".to_owned(), "in ComfyUI's API form", fault)
        })?;
        let mut holes = Vec::new();
        for node in graph.nodes() {
            for (name, value) in &node.inputs {
                for word in value.as_str().into_iter().flat_map(words) {
                    let Some(hole) = HOLES.iter().find(|hole| **hole == word) else {
                        let expected = format!("one of the placeholders {}", HOLES.join(", "));
                        return Err(refuse(format!("{}.{name}", node.id), &expected, format!("%{word}%")));
                    };
                    holes.push(*hole);
                }
            }
        }
        for needed in ["prompt", "seed"] {
            if !holes.contains(&needed) {
                let found = "absent".to_owned();
                return Err(refuse(
                    format!("%{needed}%"),
                    "an input of the workflow, or every picture is the same",
                    found,
                ));
            }
        }
        let outputs =
            graph.outputs().map_err(|f| refuse("the workflow".to_owned(), "one with pictures", f.details))?;
        match <[Output; 1]>::try_from(outputs) {
            Ok([output]) if output.count == 1 => Ok(Self { graph, holes, output }),
            Ok([output]) => {
                let found = format!("{} pictures", output.count);
                Err(refuse(output.node, "an output of one picture (`batch_size` 1)", found))
            }
            Err(outputs) => {
                let found = format!("{} nodes", outputs.len());
                Err(refuse(
                    "the workflow".to_owned(),
                    "one with a single SaveImage or PreviewImage node",
                    found,
                ))
            }
        }
    }

    /// Its node that gives the picture out.
    pub(super) fn output(&self) -> &str {
        &self.output.node
    }

    /// Refuses a request of which the workflow has no place for a part, or that the server would change.
    ///
    /// # Errors
    /// `Inexpressible`.
    pub(super) fn check(&self, request: &PictureRequest, model: Option<&str>) -> Result<(), UpstreamError> {
        let refuse = |message: String| Err(UpstreamError::new(Kind::Inexpressible, message));
        let source = request.source.as_ref();
        let has = [
            ("negative_prompt", request.negative_prompt.as_ref().is_some_and(|text| !text.is_empty())),
            ("steps", request.steps.is_some()),
            ("guidance", request.guidance.is_some()),
            ("sampler", request.sampler.is_some()),
            ("scheduler", request.scheduler.is_some()),
            ("model", request.model.is_some()),
            ("width", request.size.is_some()),
            ("height", request.size.is_some()),
            ("image", source.is_some()),
            ("mask", source.is_some_and(|source| source.mask.is_some())),
            ("strength", source.is_some_and(|source| source.strength.is_some())),
        ];
        if let Some((name, _)) = has.iter().find(|(name, has)| *has && !self.holes.contains(name)) {
            return refuse(format!("the ComfyUI workflow has no place `%{name}%` for what the request says"));
        }
        let needs = |hole: &str| self.holes.contains(&hole);
        if needs("model") && request.model.is_none() && model.is_none() {
            return refuse(
                "expected the name of a checkpoint: the request names no model and the configuration no `upstream.model`"
                    .to_owned(),
            );
        }
        if (needs("image") && source.is_none())
            || (needs("mask") && source.is_none_or(|source| source.mask.is_none()))
        {
            return refuse(
                "the ComfyUI workflow needs a picture to start from, and its mask if it has a place for one"
                    .to_owned(),
            );
        }
        if let Some(source) = source
            && source.pictures.len() != 1
        {
            return refuse(format!("expected one picture to start from, got {}", source.pictures.len()));
        }
        if let Some((width, height)) = request.size
            && (width % GRID != 0 || height % GRID != 0)
        {
            return refuse(format!("expected a size in multiples of {GRID} pixels, got {width}x{height}"));
        }
        let numbers = [request.guidance, source.and_then(|source| source.strength)];
        if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
            return refuse("expected finite numbers".to_owned());
        }
        Ok(())
    }

    /// The workflow of the picture with `seed` of an order.
    pub(super) fn fill(&self, order: &Order, seed: u64, model: Option<&str>, files: &Uploaded) -> Graph {
        let request = &order.request;
        let (width, height) = request.size.or_else(|| source_size(request)).unwrap_or((SIDE, SIDE));
        let strength = request.source.as_ref().and_then(|source| source.strength).unwrap_or(STRENGTH);
        let values = json!({
            "prompt": request.prompt,
            "negative_prompt": order.negative_prompt().unwrap_or_default(),
            "seed": seed,
            "steps": request.steps.unwrap_or(STEPS),
            "guidance": request.guidance.unwrap_or(GUIDANCE),
            "sampler": name(request.sampler.as_deref(), &SAMPLERS, SAMPLER),
            "scheduler": name(request.scheduler.as_deref(), &SCHEDULERS, SCHEDULER),
            "model": request.model.as_deref().or(model).unwrap_or_default(),
            "width": width,
            "height": height,
            "image": files.image,
            "mask": files.mask,
            "strength": strength,
        });
        let empty = Map::new();
        let values = values.as_object().unwrap_or(&empty);
        let mut graph = self.graph.clone();
        for node in graph.nodes_mut() {
            for value in node.inputs.values_mut() {
                if let Some(text) = value.as_str() {
                    *value = filled(text, values);
                }
            }
        }
        graph
    }
}

/// Width and height of the picture that a request starts from, on the grid.
fn source_size(request: &PictureRequest) -> Option<(u32, u32)> {
    let picture = request.source.as_ref()?.pictures.first()?;
    let reader = ImageReader::new(Cursor::new(picture)).with_guessed_format().ok()?;
    let (width, height) = reader.into_dimensions().ok()?;
    let on_grid = |side: u32| (side / GRID * GRID).max(GRID);
    Some((on_grid(width), on_grid(height)))
}

/// ComfyUI's name for `asked`; a name that is not in the table is taken to be ComfyUI's own.
fn name(asked: Option<&str>, table: &[(&str, &str)], default: &str) -> String {
    let Some(asked) = asked else { return default.to_owned() };
    let lower = asked.to_ascii_lowercase();
    let known = table.iter().find(|(theirs, _)| *theirs == lower);
    known.map_or(lower, |(_, ours)| (*ours).to_owned())
}

/// The words between percent signs in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(Result::err)
}

/// A text cut at its placeholders: text is `Ok`, the word of a placeholder `Err`.
fn pieces(text: &str) -> impl Iterator<Item = Result<&str, &str>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((word, after)) = rest.strip_prefix('%').and_then(|inner| inner.split_once('%'))
            && !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            rest = after;
            return Some(Err(word));
        }
        let skip = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[skip..].find('%').map_or(rest.len(), |at| at + skip);
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Ok(text))
    })
}

/// A template's text with its placeholders replaced. What a client wrote is not searched for placeholders again.
fn filled(text: &str, values: &Map<String, Value>) -> Value {
    let parts: Vec<Result<&str, &str>> = pieces(text).collect();
    if let [Err(word)] = parts.as_slice() {
        return values.get(*word).cloned().unwrap_or_default();
    }
    let mut whole = String::new();
    for part in parts {
        match part {
            Ok(text) => whole.push_str(text),
            Err(word) => match values.get(word) {
                Some(Value::String(text)) => whole.push_str(text),
                Some(other) => whole.push_str(&other.to_string()),
                None => {}
            },
        }
    }
    Value::String(whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_shipped_workflows_can_be_used() {
        for text in [TEXT_TO_IMAGE, IMAGE_TO_IMAGE, INPAINT] {
            assert_eq!(Workflow::parse(text, "shipped").unwrap().output(), "picture");
        }
    }

    #[test]
    fn placeholders_are_replaced_once() {
        let values = json!({ "prompt": "a %seed% cat", "seed": 7 });
        let values = values.as_object().unwrap();
        assert_eq!(filled("%seed%", values), json!(7));
        assert_eq!(filled("%prompt%", values), json!("a %seed% cat"));
        assert_eq!(filled("best, %prompt%, 50% %seed%", values), json!("best, a %seed% cat, 50% 7"));
        assert_eq!(filled("100 %", values), json!("100 %"));
        assert_eq!(words("%a%%b% % c%").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_workflow_that_cannot_work_is_refused_by_name() {
        let problem = |from: &str, to: &str| {
            let text = TEXT_TO_IMAGE.replace(from, to);
            assert_ne!(text, TEXT_TO_IMAGE);
            Workflow::parse(&text, "mine.json").unwrap_err().to_string()
        };
        assert!(problem("%seed%", "1").contains("`%seed%`"));
        assert!(problem("%steps%", "%stepps%").contains("not %stepps%"));
        assert!(problem("\"batch_size\": 1", "\"batch_size\": 2").contains("2 pictures"));
        assert!(problem("PreviewImage", "SaveVideo").contains("SaveImage"));
        assert!(problem("{", "").contains("JSON"));
    }

    #[test]
    fn other_servers_names_of_samplers_are_known() {
        assert_eq!(name(Some("Euler a"), &SAMPLERS, SAMPLER), "euler_ancestral");
        assert_eq!(name(Some("dpmpp_2m"), &SAMPLERS, SAMPLER), "dpmpp_2m");
        assert_eq!(name(None, &SAMPLERS, SAMPLER), "euler");
        assert_eq!(name(Some("Automatic"), &SCHEDULERS, SCHEDULER), "normal");
        assert_eq!(name(Some("Karras"), &SCHEDULERS, SCHEDULER), "karras");
    }
}
